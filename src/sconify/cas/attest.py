"""Attest a CAS: make sure what it is before anything is entrusted to it.

1. Take the server's key from the TLS handshake, whatever it is.
2. Ask, with a fresh nonce, for evidence, which must bind the nonce, that very key and the mode.
3. Verify the evidence and judge it: simulated evidence and debug mode prove nothing, so they need the caller's consent.
4. Compare the key with what the caller expects, and with what the client recorded when it attested this CAS before.

From then on only the key counts: each later connection is made to a server that holds it, or not at all.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime

from sconify.attestation import sgx, simulated, vm
from sconify.attestation.evidence import VerifiedEvidence, cas_report_data
from sconify.attestation.judge import Mode
from sconify.attestation.verify import verify_evidence
from sconify.cas.attested import AttestedCas, CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import ClientConfig
from sconify.cas.connection import DEFAULT_TIMEOUT, Answer, CasConnection
from sconify.cas.demands import PlatformDemands
from sconify.cas.identity import Identity
from sconify.errors import UntrustedDataError
from sconify.policy.keyhash import decode_key_hash, encode_key_hash, spki_der

_HARDWARE = (sgx.KIND, vm.TDX, vm.SNP)


def attest_cas(
    address: CasAddress,
    *,
    allow_debug: bool,
    expected_key: bytes | None = None,
    expected_measurements: Collection[str] = (),
    demands: PlatformDemands | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    retries: int | None = None,
) -> AttestedCas:
    """Attest the CAS at an address; nothing is recorded.

    Args:
        address: Its client API.
        allow_debug: Accept a CAS in debug mode and evidence that anybody can forge.
        expected_key: SHA-256 of the CAS key's SubjectPublicKeyInfo; None accepts any key that is attested.
        expected_measurements: What the CAS may run, 64 hex digits each; empty accepts any.
        demands: What evidence of hardware is verified against and must say; None refuses it.
        timeout: Seconds that it may take.
        retries: How often a CAS that can't be reached is tried again; None takes SCONE_CLI_RETRIES, or 3.

    Raises:
        UntrustedDataError: The evidence is forged or for something else, the CAS is a debug one, or its key or its
            measurement is not the expected one.
        ServiceError: The CAS can't be reached, or is none.
    """
    nonce = secrets.token_bytes(32)
    connection = CasConnection(address, identity=None, key_sha256=expected_key, timeout=timeout, retries=retries)
    answer = connection.request("GET", f"/v1/attest?nonce={nonce.hex()}")
    spki = spki_der(answer.certificate.public_key())
    try:
        mode = Mode(str(answer.document.get("mode")))
    except ValueError:
        raise _untrusted(address, "it names no mode, expected debug or production") from None
    _check_key_is_the_peers(address, answer, spki)
    try:
        evidence = verify_evidence(
            answer.document.get("evidence"),
            expected_report_data=cas_report_data(nonce=nonce, spki=spki, mode=mode),
            authorities=None if demands is None else demands.authorities,
        )
    except UntrustedDataError as error:
        raise _untrusted(address, "its evidence is not valid") from error
    weak = _weaknesses(mode, evidence)
    if weak and not allow_debug:
        raise UntrustedDataError(
            f"the CAS at {address} is not trustworthy: {'; '.join(weak)}",
            remedy="use a CAS in production mode, or, only for tests, allow a debug CAS "
            "(`sconify cas attest --only_for_testing-debug`, `sconify_image --cas-debug`)",
        )
    if evidence.platform is not None and demands is not None:
        try:
            demands.require(evidence, key_is_known=expected_key is not None, allow_debug=allow_debug)
        except UntrustedDataError as error:
            raise _untrusted(address, "its platform is not accepted", remedy=error.remedy) from error
    measurement = evidence.measurement.hex()
    if expected_measurements and measurement not in {expected.lower() for expected in expected_measurements}:
        expected = " or ".join(expected.lower() for expected in expected_measurements)
        raise UntrustedDataError(
            f"Error during attestation of CAS {address}",
            remedy="check the address, and ask the owner of the CAS",
        ) from UntrustedDataError(
            f"Enclave hash does not match expectation: it runs {measurement}, expected {expected}"
        )
    return AttestedCas(
        address, answer.certificate, mode, evidence.kind, measurement, datetime.now(UTC).isoformat(timespec="seconds")
    )


def trust_cas(
    address: CasAddress,
    *,
    expected_key: bytes | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    retries: int | None = None,
) -> AttestedCas:
    """Take the CAS at an address for what it says it is, without evidence; nothing is recorded.

    Insecure without an expected key: whoever answers at that address gets the secrets that are entrusted to it.

    Raises:
        ServiceError: The CAS can't be reached, or is none.
        UntrustedDataError: It names no mode.
    """
    nonce = secrets.token_bytes(32)
    connection = CasConnection(address, identity=None, key_sha256=expected_key, timeout=timeout, retries=retries)
    answer = connection.request("GET", f"/v1/attest?nonce={nonce.hex()}")
    try:
        mode = Mode(str(answer.document.get("mode")))
    except ValueError:
        raise _untrusted(address, "it names no mode, expected debug or production") from None
    return AttestedCas(address, answer.certificate, mode, "none", "", datetime.now(UTC).isoformat(timespec="seconds"))


def connect(
    address: CasAddress,
    *,
    config: ClientConfig,
    identity: Identity | None = None,
    allow_debug: bool = False,
    expected_key: bytes | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    retries: int | None = None,
) -> CasClient:
    """Attest a CAS, compare it with what is recorded, record it, and return a client of it.

    Args:
        address: Its client API.
        config: The client's records; a CAS whose key changed since is refused.
        identity: Who asks; None takes the one of the records.
        allow_debug: Accept a CAS in debug mode and evidence that anybody can forge.
        expected_key: SHA-256 of the CAS key's SubjectPublicKeyInfo, which counts more than the records; None accepts
            the recorded key, or any key that is attested when there is no record.
        timeout: Seconds that one request may take.
        retries: How often a CAS that can't be reached is tried again; None takes SCONE_CLI_RETRIES, or 3.

    Raises:
        UntrustedDataError: The CAS is not trustworthy, or has another key than before.
        ServiceError: The CAS can't be reached, or is none; the records can't be written.
        UserError: The records are damaged.
    """
    identity = identity or config.identity()
    known = config.attested(address)
    if known is not None and known.evidence_kind in _HARDWARE and expected_key in (None, known.key_sha256):
        # It was judged when it was recorded, by demands that only `sconify cas attest` takes; its key still counts.
        return CasClient(known, identity=identity, timeout=timeout, retries=retries)
    cas = attest_cas(address, allow_debug=allow_debug, expected_key=expected_key, timeout=timeout, retries=retries)
    config.record(cas, replace=expected_key is not None)
    return CasClient(cas, identity=identity, timeout=timeout, retries=retries)


def parse_key(text: str) -> bytes:
    """Return the SHA-256 of a CAS key from its key hash, or from 64 hex digits.

    Raises:
        UserError: The text is neither.
    """
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else decode_key_hash(text)


def _weaknesses(mode: Mode, evidence: VerifiedEvidence) -> list[str]:
    found = []
    if mode is Mode.DEBUG:
        found.append("it is in debug mode, so its owner can read every secret")
    if evidence.kind == simulated.KIND:
        found.append("its evidence is simulated, so anybody can forge it")
    elif evidence.simulated:
        found.append("its evidence is of a test's root, so whoever made that root can forge it")
    if evidence.debug and evidence.kind != simulated.KIND:
        found.append("its platform is in debug mode, so its owner can read every secret")
    return found


def _check_key_is_the_peers(address: CasAddress, answer: Answer, spki: bytes) -> None:
    text = answer.document.get("key")
    try:
        claimed = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        claimed = b""
    if not hmac.compare_digest(claimed, spki):
        raise _untrusted(
            address,
            f"it claims the key {encode_key_hash(hashlib.sha256(claimed).digest())}, "
            f"but the server has {encode_key_hash(hashlib.sha256(spki).digest())}",
        )


def _untrusted(address: CasAddress, why: str, *, remedy: str | None = None) -> UntrustedDataError:
    return UntrustedDataError(
        f"the CAS at {address} is not trustworthy: {why}",
        remedy=remedy or "check the address, and ask the owner of the CAS",
    )
