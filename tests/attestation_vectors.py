"""Real evidence that platforms made: quotes, reports and certificates that public projects publish.

They are not part of this project. Tests that need them look for a vectors directory where SCONIFY_VECTORS says, or
beside the project, and are skipped when there is none.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sconify.attestation.collateral import AmdCollateral, IntelCollateral, parse_certificate

_PROJECT = Path(__file__).resolve().parent.parent


def _find() -> Path | None:
    named = os.environ.get("SCONIFY_VECTORS")
    places = [Path(named)] if named else [parent / "shared/vectors" for parent in _PROJECT.parents]
    return next((place for place in places if (place / "intel/expected.json").is_file()), None)


VECTORS = _find()
needs_vectors = pytest.mark.skipif(VECTORS is None, reason="the directory with attestation vectors is not here")


@dataclass(frozen=True)
class IntelVector:
    """A quote with collateral and what to expect of it."""

    expected: dict[str, Any]
    raw: bytes
    collateral: IntelCollateral

    @property
    def at(self) -> int:
        return int(self.expected["verify_at"])


@dataclass(frozen=True)
class SnpVector:
    """A report with certificates and what to expect of it."""

    expected: dict[str, Any]
    raw: bytes
    certificate: bytes
    collateral: AmdCollateral

    @property
    def at(self) -> int:
        """A time at which the certificate of the key is valid: the day after its first."""
        return int(datetime.fromisoformat(self.expected["vek_not_before"]).timestamp()) + 86400

    @property
    def expired(self) -> int:
        return int(datetime.fromisoformat(self.expected["vek_not_after"]).timestamp()) + 1


def names(folder: str) -> list[str]:
    """The names of a folder's vectors; none without vectors."""
    if VECTORS is None:
        return []
    return [str(entry["name"]) for entry in json.loads((VECTORS / folder / "expected.json").read_text())]


def intel(name: str) -> IntelVector:
    assert VECTORS is not None
    folder = VECTORS / "intel"
    (expected,) = [one for one in json.loads((folder / "expected.json").read_text()) if one["name"] == name]
    collateral = IntelCollateral.parse((folder / expected["collateral"]).read_bytes())
    return IntelVector(expected, (folder / expected["quote"]).read_bytes(), collateral)


def snp(name: str) -> SnpVector:
    assert VECTORS is not None
    folder = VECTORS / "snp"
    (expected,) = [one for one in json.loads((folder / "expected.json").read_text()) if one["name"] == name]
    certificate = (folder / expected["vek"]).read_bytes()
    parse_certificate(certificate, name)
    collateral = AmdCollateral.parse((folder / expected["chain"]).read_bytes(), crl=None)
    return SnpVector(expected, (folder / expected["report"]).read_bytes(), certificate, collateral)


def ratls(name: str) -> bytes:
    assert VECTORS is not None
    return (VECTORS / "ratls" / f"{name}.pem").read_bytes()
