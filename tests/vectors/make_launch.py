"""Makes the vectors of launch manifests that Python and Rust both check: ``python tests/vectors/make_launch.py``."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from sconify.program.launch import (
    EmbeddedFiles,
    EmbeddedRoot,
    LaunchManifest,
    embedding_binary,
    measurement,
    packs_offset,
    runtime_digest,
    sconified_binary,
)

DIRECTORY = Path(__file__).parent / "launch"
CAS_KEY = hashlib.sha256(b"the SubjectPublicKeyInfo of a CAS").hexdigest()
CASES: dict[str, tuple[dict[str, str], str | None, str, dict[str, str]]] = {
    "plain": ({"SCONE_ALLOW_DLOPEN": "1", "SCONE_HEAP": "1G", "SCONE_STACK": "4m"}, CAS_KEY, "/usr/bin/python3.11", {}),
    "overridden": (
        {"SCONE_ALLOW_DLOPEN": "1", "SCONE_FORK": "1", "SCONE_HEAP": "64M"},
        CAS_KEY,
        "/usr/bin/python3.11",
        {"SCONE_ALLOW_DLOPEN": "2", "SCONE_FORK": "0", "SCONE_HEAP": "0002G", "SCONE_STACK": "1M", "PATH": "/bin"},
    ),
    "no-variables": ({}, CAS_KEY, "/app", {"SCONE_HEAP": "not measured, so it does not matter"}),
    "no-cas-key": ({"SCONE_FORK": "0"}, None, "/app", {}),
    "odd-path": ({}, CAS_KEY, '/b\u00ef\u0146/\u65e5\u672c/\U0001f980/a"b\\c\n\t\x01\x7f', {}),
}
EMBEDDED: dict[str, dict[str, Any]] = {
    "embedded": {
        "index": "an index", "digests": "0123456789abcdef" * 8, "packs_size": 100, "commitment": "cd" * 32, "key": None
    },
    "embedded-plain": {
        "index": "odd", "digests": "", "packs_size": 0, "commitment": "cd" * 32, "key": "00" * 32
    },
}  # fmt: skip
CASES.update(dict.fromkeys(EMBEDDED, ({"SCONE_HEAP": "1G"}, CAS_KEY, "/usr/bin/python3.11", {"SCONE_HEAP": "2G"})))
"""Cases with a file system in the binary; what they embed need not be one. Their binaries end where the packs begin."""


def small_runtime() -> bytes:
    """Return an ELF file with two sections, its length no multiple of 8: the least that can stand for the runtime."""
    names = b"\0.text\0.shstrtab\0"
    code = b"\x90\x0f\x05"
    header = bytearray(64)
    header[:7] = b"\x7fELF\x02\x01\x01"
    struct.pack_into("<HHI", header, 16, 3, 62, 1)
    struct.pack_into("<Q", header, 0x28, 64 + len(code) + len(names))
    struct.pack_into("<HHHHHH", header, 0x34, 64, 56, 0, 64, 3, 2)
    sections = [
        (0,) * 10,
        (1, 1, 6, 0, 64, len(code), 0, 0, 1, 0),
        (7, 3, 0, 0, 64 + len(code), len(names), 0, 0, 1, 0),
    ]
    return bytes(header) + code + names + b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections) + b"!"


def main() -> None:
    """Write one file for each case."""
    DIRECTORY.mkdir(exist_ok=True)
    runtime = DIRECTORY / "runtime.elf"
    runtime.write_bytes(small_runtime())
    for name, (variables, cas_key, program, environment) in CASES.items():
        manifest = LaunchManifest.for_runtime(runtime, program=program, cas_key=cas_key, variables=variables)
        vector: dict[str, object] = {
            "runtime": runtime_digest(runtime.read_bytes()),
            "program": program,
            "cas_key": cas_key,
            "variables": variables,
            "environment": environment,
        }
        if name in EMBEDDED:
            vector["embedded"] = EMBEDDED[name]
            files = embedded_files(EMBEDDED[name], runtime, manifest)
            manifest, binary = embedding_binary(runtime, manifest, files)
        else:
            binary = sconified_binary(runtime, manifest)
        vector["manifest"] = manifest.canonical_json().decode()
        vector["binary"] = base64.b64encode(binary).decode()
        vector["measurement"] = measurement(manifest, environment=environment)
        (DIRECTORY / f"{name}.json").write_text(json.dumps(vector, indent=1) + "\n", encoding="ascii")


def embedded_files(vector: dict[str, Any], runtime: Path, manifest: LaunchManifest) -> EmbeddedFiles:
    """Return what a vector embeds in the binary of this manifest."""
    index, digests = vector["index"].encode(), bytes.fromhex(vector["digests"])
    root = EmbeddedRoot(commitment=vector["commitment"], key=vector["key"])
    offset = packs_offset(
        runtime, dataclasses.replace(manifest, file_system=root), index_size=len(index), digests_size=len(digests)
    )
    return EmbeddedFiles(
        index=index,
        digests=digests,
        packs_offset=offset,
        packs_size=vector["packs_size"],
        commitment=vector["commitment"],
        key=vector["key"],
    )


if __name__ == "__main__":
    main()
