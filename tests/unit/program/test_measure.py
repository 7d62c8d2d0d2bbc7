"""Binaries are measured as the runtime measures itself; the vectors of launch manifests hold both together."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import SconifyError, UntrustedDataError
from sconify.program.measure import measure_binary

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "launch").glob("*.json"))
EMBEDDED = next(path for path in VECTORS if path.stem == "embedded")


def load(path: Path) -> tuple[dict[str, Any], bytes]:
    """A vector and its whole binary, packs of zeros included."""
    vector: dict[str, Any] = json.loads(path.read_bytes())
    packs = bytes(vector.get("embedded", {}).get("packs_size", 0))
    return vector, base64.b64decode(vector["binary"]) + packs


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vectors(path: Path) -> None:
    vector, binary = load(path)
    measured = measure_binary(io.BytesIO(binary), environment=vector["environment"])
    assert measured.measurement == vector["measurement"]
    assert measured.is_genuine
    embedded = vector.get("embedded")
    if embedded is None:
        assert (measured.index, measured.digests, len(measured.packs)) == (b"", (), 0)
    else:
        assert measured.index == embedded["index"].encode()
        assert b"".join(measured.digests).hex() == embedded["digests"]
        assert measured.packs.stop == len(binary)
        assert len(measured.packs) == embedded["packs_size"]


def test_each_changed_byte_before_the_packs_changes_the_measurement_or_is_refused() -> None:
    vector, binary = load(EMBEDDED)
    for at in range(len(binary) - vector["embedded"]["packs_size"]):
        changed = bytearray(binary)
        changed[at] ^= 1
        try:
            measured = measure_binary(io.BytesIO(changed), environment=vector["environment"])
        except SconifyError:
            continue
        assert measured.measurement != vector["measurement"], at


@pytest.mark.parametrize("change", [lambda binary: binary[:-1], lambda binary: binary + b"x"])
def test_a_binary_that_ends_elsewhere_is_refused(change: Any) -> None:
    _, binary = load(EMBEDDED)
    with pytest.raises(UntrustedDataError, match="end"):
        measure_binary(io.BytesIO(change(binary)), environment={})


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(60), b"\x7fELF\x02\x01\x01" + b"\xff" * 100]
)
def test_what_is_no_sconified_binary_is_refused(content: bytes) -> None:
    with pytest.raises(UntrustedDataError):
        measure_binary(io.BytesIO(content), environment={})


@given(st.integers(0, 1 << 12), st.binary(min_size=1, max_size=8))
def test_damage_is_told_as_such(at: int, damage: bytes) -> None:
    _, binary = load(EMBEDDED)
    changed = bytearray(binary)
    changed[at : at + len(damage)] = damage
    with contextlib.suppress(SconifyError):
        measure_binary(io.BytesIO(changed), environment={})
