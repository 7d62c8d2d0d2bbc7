from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.image.reference import ImageReference, Transport

DIGEST = "sha256:" + "0123456789abcdef" * 4

components = st.from_regex(r"\A[a-z0-9]+(?:[._-][a-z0-9]+)*\Z")
names = st.builds(
    lambda host, parts: "/".join([*host, *parts]),
    st.sampled_from([(), ("localhost:5000",), ("registry.example.org",), ("[::1]:5000",)]),
    st.lists(components, min_size=1, max_size=3),
).filter(lambda name: len(name) <= 255)
tags = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}\Z")
paths = st.from_regex(r"\A/?[A-Za-z0-9@._-]+(?:/[A-Za-z0-9@._ -]+){0,3}\Z")
NAMED = ["", "docker-daemon:", "containers-storage:", "docker://"]
PATHED = ["docker-archive:", "oci:", "oci-archive:"]


@given(st.sampled_from(NAMED), names, st.none() | tags)
def test_a_named_image_is_read_and_shown_again(prefix: str, name: str, tag: str | None) -> None:
    reference = ImageReference.parse(f"{prefix}{name}" + (f":{tag}" if tag else ""))
    assert (reference.name, reference.tag, reference.path) == (name, tag or "latest", None)
    assert ImageReference.parse(str(reference)) == reference
    assert str(reference).startswith(prefix)


@given(st.sampled_from(PATHED), paths, st.booleans())
def test_an_image_at_a_path_is_read_and_shown_again(prefix: str, path: str, tagged: bool) -> None:
    tag = {"docker-archive:": "some/name:tag"}.get(prefix, "v1.0") if tagged else None
    reference = ImageReference.parse(f"{prefix}{path}" + (f":{tag}" if tag else ""))
    assert (reference.path, reference.tag, reference.name) == (Path(path), tag, "")
    assert ImageReference.parse(str(reference)) == reference


@given(st.text())
def test_any_text_is_either_a_reference_that_reads_back_or_an_error(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except UserError as error:
        assert "docker-archive:PATH" in (error.remedy or "")  # noqa: PT017
    else:
        assert ImageReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "transport", "where"),
    [
        ("debian", Transport.LOCAL, "debian:latest"),
        ("debian:12", Transport.LOCAL, "debian:12"),
        ("docker:24", Transport.LOCAL, "docker:24"),
        ("localhost:5000/a/b", Transport.LOCAL, "localhost:5000/a/b:latest"),
        ("docker://debian:12", Transport.REGISTRY, "debian:12"),
        (f"docker://debian@{DIGEST}", Transport.REGISTRY, f"debian@{DIGEST}"),
        (f"docker-daemon:{DIGEST}", Transport.DOCKER_DAEMON, DIGEST),
        (f"debian:12@{DIGEST}", Transport.LOCAL, f"debian:12@{DIGEST}"),
        ("docker-archive:/a/b.tar:debian", Transport.DOCKER_ARCHIVE, "/a/b.tar:debian:latest"),
        ("oci:relative/dir:v1", Transport.OCI, "relative/dir:v1"),
        (f"oci:/a@b@{DIGEST}", Transport.OCI, f"/a@b@{DIGEST}"),
    ],
)
def test_what_people_type(text: str, transport: Transport, where: str) -> None:
    reference = ImageReference.parse(text)
    assert (reference.transport, reference.where) == (transport, where)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "Debian", "debian:", "a//b", "-a", "a:b:c", "dir:/tmp/x", "docker-deamon:debian:12", "docker-daemon:",
        "oci", "docker-archive",
        "docker://", "docker:///a", "oci:", "oci-archive::tag", "oci:/a:b c", "docker-archive:/a:Not/A:Name",
        "debian@sha256:12", f"debian@{DIGEST}0", "a" * 256, "a\n", "debian:12\n", "oci:/a\0b",
    ],
)  # fmt: skip
def test_malformed_references_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not the name of an image"):
        ImageReference.parse(text)
