from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sconify.attestation.evidence import VerifiedEvidence, cas_report_data, service_report_data
from sconify.attestation.proof import PROOF
from sconify.attestation.simulated import SimulatedEvidence, issue
from sconify.attestation.verify import verify_evidence
from sconify.errors import BugError, UntrustedDataError

MEASUREMENT, REPORT_DATA = bytes(range(32)), bytes(range(64))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64), st.integers(0, 2**53))
def test_what_was_issued_verifies(measurement: bytes, report_data: bytes, issued_at: int) -> None:
    evidence = issue(measurement=measurement, report_data=report_data, issued_at=issued_at)
    verified = verify_evidence(evidence, expected_report_data=report_data)
    assert (verified.kind, verified.measurement, verified.debug) == ("simulated", measurement, True)


def test_the_bytes_that_are_signed_are_those_of_the_protocol() -> None:
    """Written from docs/protocol.md, section 7, without the code under test."""
    seed = hashlib.sha256(b"sconify simulated platform: anybody can forge this").digest()
    message = (
        b"sconify simulated evidence v1\0"
        b'{"debug":true,"issued_at":7,"kind":"simulated","measurement":"' + MEASUREMENT.hex().encode() + b'",'
        b'"report_data":"' + REPORT_DATA.hex().encode() + b'","version":1}'
    )
    signature = base64.urlsafe_b64encode(Ed25519PrivateKey.from_private_bytes(seed).sign(message)).rstrip(b"=")
    evidence = issue(measurement=MEASUREMENT, report_data=REPORT_DATA, issued_at=7)
    assert evidence["signature"] == signature.decode()


@given(st.one_of(st.none(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(max_size=12), st.text())))
def test_anything_else_is_untrusted(data: Any) -> None:
    with pytest.raises(UntrustedDataError):
        verify_evidence(data, expected_report_data=REPORT_DATA)
    with pytest.raises(UntrustedDataError):
        SimulatedEvidence.parse(data)


@given(st.integers(0, 85), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
def test_a_signature_has_one_spelling(place: int, digit: str) -> None:
    evidence = issue(measurement=MEASUREMENT, report_data=REPORT_DATA, issued_at=7)
    text = str(evidence["signature"])
    changed = text[:place] + digit + text[place + 1 :]
    if changed != text:
        with pytest.raises(UntrustedDataError):
            verify_evidence({**evidence, "signature": changed}, expected_report_data=REPORT_DATA)


def test_other_report_data_is_refused_with_both_values() -> None:
    evidence = issue(measurement=MEASUREMENT, report_data=REPORT_DATA, issued_at=7)
    with pytest.raises(
        UntrustedDataError, match="check report data: got 0001020304050607…, expected 0000000000000000…"
    ):
        verify_evidence(evidence, expected_report_data=bytes(64))


def test_verified_evidence_can_not_be_made_without_verification() -> None:
    with pytest.raises(BugError):
        VerifiedEvidence(kind="simulated", measurement=MEASUREMENT, debug=True, proof=object())
    assert "proof" not in repr(VerifiedEvidence(kind="simulated", measurement=MEASUREMENT, debug=True, proof=PROOF))


def test_report_data_binds_each_part_and_where_it_ends() -> None:
    """Written from docs/protocol.md, section 4, without the code under test."""
    nonce, key = bytes(32), b"\x04" + bytes(64)
    message = b"\0\0\0\x16sconify attestation v1" + b"\0\0\0\x20" + nonce + b"\0\0\0\x41" + key + b"\0\0\0\x03a/b"
    assert service_report_data(nonce=nonce, public_key=key, config_id="a/b") == hashlib.sha512(message).digest()
    values = {
        service_report_data(nonce=nonce, public_key=key, config_id="a/b"),
        service_report_data(nonce=nonce[1:], public_key=b"\0" + key, config_id="a/b"),
        service_report_data(nonce=nonce, public_key=key + b"a", config_id="/b"),
        cas_report_data(nonce=nonce, spki=key, mode="a/b"),
    }
    assert len(values) == 4
