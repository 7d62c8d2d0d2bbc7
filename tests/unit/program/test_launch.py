"""Launch manifests: the sconified binary and its measurement, against the vectors that the runtime checks too."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import BugError, ServiceError, UntrustedDataError, UserError
from sconify.program.launch import (
    SECTION,
    EmbeddedRoot,
    LaunchManifest,
    embedding_binary,
    measurement,
    normal_variable,
    runtime_digest,
    runtime_path,
    sconified_binary,
)
from tests.vectors.make_launch import embedded_files

VECTORS = Path(__file__).parents[2] / "vectors" / "launch"
RUNTIME = VECTORS / "runtime.elf"
KEY = "ab" * 32


def manifest_of(vector: dict[str, Any]) -> LaunchManifest:
    return LaunchManifest.for_runtime(
        RUNTIME, program=vector["program"], cas_key=vector["cas_key"], variables=vector["variables"]
    )


def sample(**changes: Any) -> LaunchManifest:
    return LaunchManifest(**{"program": "/app", "runtime": KEY, "cas_key": KEY, **changes})


@pytest.fixture(params=sorted(VECTORS.glob("*.json")), ids=lambda path: path.stem)
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(request.param.read_bytes())
    return loaded


def test_vectors(vector: dict[str, Any]) -> None:
    manifest = manifest_of(vector)
    assert manifest.runtime == vector["runtime"]
    if "embedded" in vector:
        manifest, binary = embedding_binary(RUNTIME, manifest, embedded_files(vector["embedded"], RUNTIME, manifest))
    else:
        binary = sconified_binary(RUNTIME, manifest)
    assert binary == base64.b64decode(vector["binary"])
    assert manifest.canonical_json().decode() == vector["manifest"]
    assert LaunchManifest.parse(manifest.canonical_json()) == manifest
    assert measurement(manifest, environment=vector["environment"]) == vector["measurement"]


def test_runtime_stays_in_place(tmp_path: Path) -> None:
    """The bytes of the runtime don't move, and ELF tools read all sections."""
    manifest = LaunchManifest.for_runtime(RUNTIME, program="/app", cas_key=KEY, variables={})
    original, made = RUNTIME.read_bytes(), sconified_binary(RUNTIME, manifest)
    assert made[:0x28] + made[0x30:0x3C] + made[0x40 : len(original)] == (
        original[:0x28] + original[0x30:0x3C] + original[0x40:]
    )
    path = tmp_path / "made"
    path.write_bytes(made)
    with path.open("rb") as file:
        sections = {section.name: section for section in ELFFile(file).iter_sections()}
        assert list(sections) == ["", ".text", ".shstrtab", SECTION]
        assert sections[SECTION].data() == manifest.canonical_json()
        assert sections[SECTION]["sh_offset"] % 8 == 0
        assert sections[".text"].data() == b"\x90\x0f\x05"


def test_second_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "made"
    path.write_bytes(
        sconified_binary(RUNTIME, LaunchManifest.for_runtime(RUNTIME, program="/a", cas_key=None, variables={}))
    )
    with pytest.raises(UntrustedDataError, match="already"):
        sconified_binary(path, LaunchManifest.for_runtime(path, program="/a", cas_key=None, variables={}))


def test_manifest_of_another_runtime_is_refused() -> None:
    with pytest.raises(BugError, match="not for"):
        sconified_binary(RUNTIME, sample())


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01\x01" + bytes(60), b"\x7fELF\x02\x01\x01" + bytes(57)]
)
def test_what_is_no_runtime_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UntrustedDataError):
        sconified_binary(path, sample(runtime=runtime_digest(path.read_bytes())))


def test_digest_leaves_out_the_section_table_only() -> None:
    original = RUNTIME.read_bytes()
    free = {*range(0x28, 0x30), *range(0x3C, 0x40)}
    for at in range(len(original)):
        changed = bytearray(original)
        changed[at] ^= 0xFF
        assert (runtime_digest(bytes(changed)) == runtime_digest(original)) == (at in free)


@pytest.mark.parametrize(
    "changes",
    [
        {"program": "app"},
        {"program": "/a\0"},
        {"program": "/\udcff"},
        {"runtime": "AB" * 32},
        {"runtime": ""},
        {"cas_key": "ab"},
        {"variables": {"SCONE_HEAP": "1G"}},
        {"variables": {"SCONE_MODE": "sim"}},
    ],
)
def test_values_that_the_runtime_refuses_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        sample(**changes)


@pytest.mark.parametrize("changes", [{"commitment": "zz"}, {"digest": ""}, {"key": "AB" * 32}])
def test_values_of_an_embedded_file_system_that_the_runtime_refuses_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(UserError):
        EmbeddedRoot(**{"commitment": KEY, **changes})


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"mode":"binary-fs"', '"mode":"file-protection"'),
        lambda text: text.replace('"mode"', '"moda"'),
        lambda text: text.replace("launch/1", "launch/2"),
        lambda text: text + " ",
        lambda text: text.replace('"file_system":{', '"file_system":{"more":"x",'),
        lambda text: "[]",
        lambda text: "{",
        lambda text: "[" * 100_000,
    ],
)
def test_other_manifests_are_not_read(change: Callable[[str], str]) -> None:
    text = sample(file_system=EmbeddedRoot(commitment=KEY)).canonical_json().decode()
    with pytest.raises(UntrustedDataError):
        LaunchManifest.parse(change(text).encode())


def test_everything_is_measured() -> None:
    manifests = [
        sample(),
        sample(program="/other"),
        sample(runtime="cd" * 32),
        sample(cas_key="cd" * 32),
        sample(cas_key=None),
        sample(variables={"SCONE_FORK": "0"}),
        sample(variables={"SCONE_FORK": "1"}),
        sample(file_system=EmbeddedRoot(commitment=KEY)),
        sample(file_system=EmbeddedRoot(commitment="cd" * 32)),
        sample(file_system=EmbeddedRoot(commitment=KEY, digest="cd" * 32)),
        sample(file_system=EmbeddedRoot(commitment=KEY, key="cd" * 32)),
    ]
    assert len({measurement(manifest) for manifest in manifests}) == len(manifests)


def test_environment_that_is_no_value_is_refused() -> None:
    manifest = sample(variables={"SCONE_FORK": "0"})
    with pytest.raises(UserError, match="SCONE_FORK"):
        measurement(manifest, environment={"SCONE_FORK": "no"})


@pytest.mark.parametrize(
    ("name", "value", "normal"),
    [
        ("SCONE_HEAP", "1G", "1073741824"),
        ("SCONE_HEAP", "256m", "268435456"),
        ("SCONE_STACK", "4k", "4096"),
        ("SCONE_STACK", "0" * 40 + "7", "7"),
        ("SCONE_HEAP", "18446744073709551615", "18446744073709551615"),
        ("SCONE_ALLOW_DLOPEN", "2", "2"),
        ("SCONE_FORK", "1", "1"),
    ],
)
def test_normal_forms(name: str, value: str, normal: str) -> None:
    assert normal_variable(name, value) == normal
    assert normal_variable(name, normal) == normal


@pytest.mark.parametrize(
    "size", ["", "M", "0", "0G", "-1", "+1", "1.5G", "1 G", "1T", "1GB", "18446744073709551616", "1\n", "\uff11"]
)
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(UserError, match="SCONE_HEAP"):
        normal_variable("SCONE_HEAP", size)


@pytest.mark.parametrize(("name", "value"), [("SCONE_FORK", "2"), ("SCONE_ALLOW_DLOPEN", ""), ("SCONE_LOG", "7")])
def test_what_is_no_variable_is_refused(name: str, value: str) -> None:
    with pytest.raises(UserError, match=name):
        normal_variable(name, value)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda text: "\0" not in text))
def test_canonical_json_is_canonical(text: str) -> None:
    content = sample(program="/" + text).canonical_json()
    assert json.loads(content)["program"] == "/" + text
    assert (
        json.dumps(json.loads(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == content
    )


class TestRealRuntime:
    """The runtime of this installation prints the measurement that Python computes."""

    @pytest.fixture
    def manifest(self) -> LaunchManifest:
        try:
            runtime = runtime_path()
        except ServiceError:
            pytest.skip("the runtime is not built")
        return LaunchManifest.for_runtime(
            runtime, program="/usr/bin/pyth\u00f6n", cas_key=KEY, variables={"SCONE_HEAP": "64M", "SCONE_FORK": "1"}
        )

    @pytest.fixture
    def binary(self, manifest: LaunchManifest, tmp_path: Path) -> Path:
        path = tmp_path / "sconified"
        path.write_bytes(sconified_binary(runtime_path(), manifest))
        path.chmod(0o755)
        return path

    @pytest.mark.parametrize("environment", [{}, {"SCONE_HEAP": "2G"}, {"SCONE_FORK": "0", "SCONE_STACK": "1M"}])
    def test_it_prints_its_measurement(
        self, manifest: LaunchManifest, binary: Path, environment: dict[str, str]
    ) -> None:
        done = subprocess.run([binary], env={"SCONE_HASH": "1", **environment}, capture_output=True, check=True)
        assert done.stdout.decode() == measurement(manifest, environment=environment) + "\n"
        assert done.stderr == b""

    def test_a_changed_byte_is_another_measurement(self, manifest: LaunchManifest, binary: Path) -> None:
        content = bytearray(binary.read_bytes())
        at = content.index(b"SCONE_CONFIG_ID is not set")
        content[at] ^= 1
        binary.write_bytes(content)
        done = subprocess.run([binary], env={"SCONE_HASH": "1"}, capture_output=True, check=True)
        assert len(done.stdout) == 65
        assert done.stdout.decode() != measurement(manifest) + "\n"

    def test_elf_tools_accept_it(self, binary: Path) -> None:
        done = subprocess.run(
            ["readelf", "-SW", binary], env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=True
        )
        assert SECTION in done.stdout
        assert "Error" not in done.stderr
        assert "Warning" not in done.stderr

    def test_a_bare_runtime_says_what_to_do(self) -> None:
        try:
            runtime = runtime_path()
        except ServiceError:
            pytest.skip("the runtime is not built")
        done = subprocess.run([runtime], env={}, capture_output=True, text=True, check=False)
        assert done.returncode == 111
        assert done.stdout == ""
        assert done.stderr.startswith("[SCONE|FATAL] Could not read the launch manifest\n  Caused by: ")
        assert "To mend it: " in done.stderr
