from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sconify.comparison import Comparison, compare_images, explained_measurement
from sconify.inspection import EncryptedImage
from sconify.program.launch import EmbeddedRoot, LaunchManifest, measurement

RUNTIME, OTHER_RUNTIME = "aa" * 32, "bb" * 32
KEY, OTHER_KEY = "cc" * 32, "dd" * 32
MANIFEST = LaunchManifest(
    program="/usr/bin/probe",
    runtime=RUNTIME,
    cas_key=KEY,
    variables={"SCONE_ALLOW_DLOPEN": "1", "SCONE_HEAP": str(1 << 30), "SCONE_STACK": str(1 << 20)},
)


def image(manifest: LaunchManifest = MANIFEST) -> EncryptedImage:
    return EncryptedImage(
        digest=None, image_id="sha256:0", manifest=manifest, measurement=measurement(manifest), config_id="a/b/c",
        cas="cas", las="las", root_tag="00" * 16, files={}, digests={"/.sconify/index": "11" * 32},
    )  # fmt: skip


def differing(compared: list[Comparison]) -> dict[str, tuple[str, str]]:
    return {one.field: (one.image, one.other) for one in compared if not one.fits}


def test_equal_images_have_no_difference() -> None:
    assert differing(compare_images(image(), image())) == {}


def test_each_measured_field_is_named() -> None:
    embedded = EmbeddedRoot(commitment="ee" * 32, digest="ff" * 32)
    for changed, name in (
        (replace(MANIFEST, runtime=OTHER_RUNTIME), "runtime"),
        (replace(MANIFEST, cas_key=OTHER_KEY), "cas_key"),
        (replace(MANIFEST, program="/x"), "program"),
        (replace(MANIFEST, variables={**MANIFEST.variables, "SCONE_HEAP": "1"}), "SCONE_HEAP"),
        (replace(MANIFEST, file_system=embedded), "file_system.digest"),
    ):
        found = differing(compare_images(image(), image(changed)))
        assert {"measurement", name} <= set(found)
        assert all(one.meaning for one in compare_images(image(), image(changed)) if not one.fits)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([RUNTIME, OTHER_RUNTIME]),
    st.sampled_from([KEY, OTHER_KEY]),
    st.sampled_from(["0", "1", "2"]),
    st.sampled_from([64 << 20, 1 << 30, 4 << 30]),
    st.sampled_from([None, "0", "1"]),
)
def test_a_usual_difference_is_found_by_the_hash_alone(
    runtime: str, cas_key: str, dlopen: str, heap: int, fork: str | None
) -> None:
    variables = {**MANIFEST.variables, "SCONE_ALLOW_DLOPEN": dlopen, "SCONE_HEAP": str(heap)}
    if fork is not None:
        variables["SCONE_FORK"] = fork
    expected = replace(MANIFEST, runtime=runtime, cas_key=cas_key, variables=variables)
    found = explained_measurement(MANIFEST, {measurement(expected)}, runtimes=[OTHER_RUNTIME], cas_keys=[OTHER_KEY])
    assert found is not None
    changes = {
        "runtime": runtime if runtime != RUNTIME else None,
        "cas_key": cas_key if cas_key != KEY else None,
        "SCONE_ALLOW_DLOPEN": dlopen if dlopen != "1" else None,
        "SCONE_HEAP": str(heap) if heap != 1 << 30 else None,
        "SCONE_FORK": fork,
    }
    assert {one.field: one.other for one in found} == {name: value for name, value in changes.items() if value}


def test_what_is_not_usual_is_not_explained() -> None:
    expected = replace(MANIFEST, variables={**MANIFEST.variables, "SCONE_HEAP": "12345"})
    assert explained_measurement(MANIFEST, {measurement(expected)}, runtimes=[], cas_keys=[]) is None
