"""Evidence as JSON: of enclaves, and of programs in confidential VMs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from sconify.attestation import sgx, simulated, vm
from sconify.attestation.authorities import Authorities
from sconify.attestation.evidence import VerifiedEvidence, las_report_data
from sconify.attestation.members import base64url
from sconify.attestation.snp_report import Product
from sconify.attestation.verify import KINDS, verify_evidence
from sconify.cas.collateral import Collateral
from sconify.cas.collateral_memory import MemoryDocuments
from sconify.errors import ServiceError, UntrustedDataError
from tests.amd_pki import AmdPki
from tests.intel_pki import NOW, IntelPki, sgx_body, td_body

INTEL, AMD = IntelPki(), AmdPki()
LAS_KEY = Ed25519PrivateKey.generate()
DATA, MEASUREMENT = b"d" * 64, b"m" * 32
MEMBERS = ["quote", "certificate", "las_key", "measurement", "report_data", "signature", "kind", "version"]


def authorities() -> Authorities:
    roots = [INTEL.root, AMD.ark]
    collateral = Collateral(MemoryDocuments(), test_roots=roots)
    for tee in ("sgx", "tdx"):
        collateral.add_intel(json.dumps(INTEL.collateral_document(tee)).encode())
    collateral.add_amd_chain(AMD.chain_pem(), Product.MILAN)
    collateral.add_amd_crl(AMD.crl(), Product.MILAN)
    return Authorities(collateral, test_roots=roots)


AUTHORITIES = authorities()


def hardware(kind: str, bound: bytes) -> bytes:
    return INTEL.quote(td_body(report_data=bound)) if kind == "tdx" else AMD.report(report_data=bound)


def evidence(
    kind: str, *, key: Ed25519PrivateKey = LAS_KEY, data: bytes = DATA, measurement: bytes = MEASUREMENT, **changes: Any
) -> dict[str, Any]:
    """Evidence of a program in a VM, or of an enclave; ``bound`` is what the hardware binds if not what it must."""
    if kind == "sgx":
        return {**sgx.encode(INTEL.quote(sgx_body(report_data=data, mrenclave=measurement))), **changes}
    bound = changes.pop("bound", None)
    if bound is None:
        bound = las_report_data(kind=kind, las_key=key.public_key().public_bytes_raw(), report_data=data)
    return {
        **vm.issue(
            kind=kind,
            quote=hardware(kind, bound),
            certificate=AMD.vek().public_bytes(Encoding.DER) if kind == "snp" else b"",
            las_key=key,
            measurement=measurement,
            report_data=data,
        ),
        **changes,
    }


def verified(data: object, *, expected: bytes = DATA, at: int = NOW) -> VerifiedEvidence:
    return verify_evidence(data, expected_report_data=expected, authorities=AUTHORITIES, at=at)


@pytest.mark.parametrize("kind", ["sgx", "tdx", "snp"])
def test_genuine_evidence(kind: str) -> None:
    found = verified(json.loads(json.dumps(evidence(kind))))
    assert (found.kind, found.measurement, found.debug) == (kind, MEASUREMENT, False)
    assert found.platform is not None
    assert found.simulated  # for its root is a test's


@pytest.mark.parametrize("kind", ["sgx", "tdx", "snp"])
def test_evidence_for_another_request(kind: str) -> None:
    with pytest.raises(UntrustedDataError, match="check report data: the evidence was made for another nonce, key"):
        verified(evidence(kind), expected=b"e" * 64)


@pytest.mark.parametrize("kind", ["tdx", "snp"])
def test_the_hardware_must_vouch_for_the_las_and_the_request(kind: str) -> None:
    other = Ed25519PrivateKey.generate()
    theirs = las_report_data(kind=kind, las_key=other.public_key().public_bytes_raw(), report_data=DATA)
    older = las_report_data(kind=kind, las_key=LAS_KEY.public_key().public_bytes_raw(), report_data=b"o" * 64)
    for bound in (theirs, older, bytes(64), DATA):
        with pytest.raises(UntrustedDataError, match="check LAS key"):
            verified(evidence(kind, bound=bound))


@pytest.mark.parametrize("kind", ["tdx", "snp"])
def test_what_a_las_says_of_a_program_is_signed(kind: str) -> None:
    other = Ed25519PrivateKey.generate()
    for changes in (
        {"measurement": (b"n" * 32).hex()},
        {"signature": base64url(bytes(64))},
        {"signature": evidence(kind, key=other)["signature"]},
        {"signature": evidence(kind, measurement=b"n" * 32)["signature"]},
    ):
        with pytest.raises(UntrustedDataError, match="check LAS signature"):
            verified({**evidence(kind), **changes})
    with pytest.raises(UntrustedDataError, match="check LAS key"):
        verified(evidence(kind, las_key=base64url(other.public_key().public_bytes_raw())))


def test_evidence_of_one_kind_is_none_of_another() -> None:
    for kind in ("sgx", "tdx", "snp"):
        for other in KINDS:
            if other != kind:
                with pytest.raises(UntrustedDataError):
                    verified({**evidence(kind), "kind": other})
    tdx_as_sgx = {"kind": "sgx", "version": 1, "quote": evidence("tdx")["quote"]}
    with pytest.raises(UntrustedDataError, match="got a tdx quote"):
        verified(tdx_as_sgx)
    with pytest.raises(UntrustedDataError, match="got a quote of sgx"):
        verified({**evidence("tdx"), "quote": evidence("sgx")["quote"]})


def test_simulated_evidence_never_parses_as_hardware() -> None:
    data = simulated.issue(measurement=MEASUREMENT, report_data=DATA, issued_at=NOW)
    assert verified(data).platform is None
    for kind in ("sgx", "tdx", "snp"):
        with pytest.raises(UntrustedDataError, match=f"{kind} evidence: "):
            verified({**data, "kind": kind})
        with pytest.raises(UntrustedDataError):
            verified({**evidence(kind), "kind": "simulated"})
        with pytest.raises(UntrustedDataError):
            verified({**data, **evidence(kind)})


def test_without_authorities_hardware_is_refused() -> None:
    for kind in ("sgx", "tdx", "snp"):
        with pytest.raises(UntrustedDataError, match="there is no collateral here"):
            verify_evidence(evidence(kind), expected_report_data=DATA)


def test_without_collateral_there_is_no_verdict() -> None:
    bare = Authorities(Collateral(MemoryDocuments()), test_roots=[INTEL.root, AMD.ark])
    for kind in ("sgx", "tdx", "snp"):
        with pytest.raises(ServiceError, match=r"there is no collateral (intel|amd)/"):
            verify_evidence(evidence(kind), expected_report_data=DATA, authorities=bare, at=NOW)


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        *((kind, member) for kind in ("tdx", "snp") for member in MEMBERS),
        *(("sgx", member) for member in ("kind", "version", "quote")),
    ],
)
def test_each_member_counts(kind: str, member: str) -> None:
    genuine = evidence(kind)
    without = {name: value for name, value in genuine.items() if name != member}
    with pytest.raises(UntrustedDataError):
        verified(without)
    values: list[Any] = [None, 1, "", "A", "é", [], {}, True, "=" * 8]
    for value in values:
        if value == genuine[member] and type(value) is type(genuine[member]):
            continue
        if member == "certificate" and value == "":
            continue  # a host need not give it: then the certificate must come from elsewhere
        with pytest.raises(UntrustedDataError):
            verified({**genuine, member: value})
    with pytest.raises(UntrustedDataError, match="does not know"):
        verified({**genuine, "extra": 1})


@pytest.mark.parametrize("kind", ["tdx", "snp"])
@given(st.data())
def test_one_changed_character_is_refused(kind: str, data: st.DataObject) -> None:
    genuine = GENUINE[kind]
    member = data.draw(st.sampled_from(["quote", "las_key", "measurement", "report_data", "signature"]))
    text = str(genuine[member])
    # What stands behind a quote's certificates, and in them white space, is no part of it.
    place = data.draw(st.integers(0, min(len(text), 1000) - 1))
    digit = data.draw(st.sampled_from("0123456789abcdefABCDEFGHXYZ_-"))
    changed = text[:place] + digit + text[place + 1 :]
    if changed != text:
        with pytest.raises(UntrustedDataError):
            verified({**genuine, member: changed})


GENUINE = {kind: evidence(kind) for kind in ("tdx", "snp")}


@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(MEMBERS), st.one_of(st.none(), st.text(max_size=90), st.integers(), st.booleans())),
)
def test_any_object_gives_evidence_or_a_refusal(kind: str, data: dict[str, Any]) -> None:
    with pytest.raises(UntrustedDataError):
        verified({**data, "kind": kind})
