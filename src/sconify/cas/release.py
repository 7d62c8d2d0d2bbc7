"""Release of configurations: challenge ▸ evidence ▸ judgement ▸ configuration, sealed to the runtime's ephemeral key.

The rules, in this order; the first that does not hold ends it:

1. The nonce is one of this CAS for this config id, has not expired, and is used for the first time.
2. The public key is a point of P-256.
3. The session and the service exist.
4. The evidence is genuine and bound to nonce, public key and config id.
5. The policy accepts it (``sconify.attestation.judge``).
6. The audit log has it.
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwe, jws
from joserfc.jwk import ECKey
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sconify.attestation.authorities import Authorities
from sconify.attestation.evidence import VerifiedEvidence, service_report_data
from sconify.attestation.judge import Mode, judge
from sconify.attestation.verify import verify_evidence
from sconify.cas.audit import AuditLog
from sconify.cas.catalog import Catalog, LoadedSession
from sconify.cas.errors import NotFoundError, UnauthenticatedError
from sconify.cas.keys import CasKey
from sconify.cas.nonces import Nonces
from sconify.cas.sealing import Sealer
from sconify.cas.store import Store
from sconify.errors import SconifyError, ServiceError, UntrustedDataError
from sconify.policy.fields import MAX_NAME, MAX_SESSION_NAME

_TOKEN_PLACE = ("session token",)
ConfigId = Annotated[str, Field(min_length=3, max_length=MAX_SESSION_NAME + 1 + MAX_NAME, pattern=r"^[^\x00-\x20]+$")]


def _bytes32(value: object) -> bytes:
    if isinstance(value, str) and len(value) == 43:
        try:
            raw = base64.b64decode(value + "=", altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        if _base64url(raw) == value:
            return raw
    raise ValueError("expected 32 bytes in base64url without padding")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


Bytes32 = Annotated[bytes, BeforeValidator(_bytes32)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class ChallengeRequest(_Message):
    """Body of ``POST /v1/challenge``."""

    config_id: ConfigId


class PublicKey(_Message):
    """The runtime's ephemeral key as JWK."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: Bytes32
    y: Bytes32

    @property
    def point(self) -> bytes:
        """The key as an uncompressed point, 65 bytes."""
        return b"\x04" + self.x + self.y


class AttestRequest(_Message):
    """Body of ``POST /v1/attest``; ``evidence`` is parsed by its kind's own parser."""

    config_id: ConfigId
    nonce: Bytes32
    public_key: PublicKey
    evidence: dict[str, object]


class ExitRequest(_Message):
    """Body of ``POST /v1/exit``: how the program ended."""

    status: Annotated[int, Field(ge=0, le=255)] | None
    signal: Annotated[int, Field(ge=1, le=64)] | None


class Release:
    """The operations of the enclave API.

    Args:
        store: Holds the master key and the used nonces.
        catalog: The sessions.
        key: The CAS key, which signs configurations.
        mode: Whether this CAS takes evidence that proves nothing.
        audit: Where it is written who got what, and why others did not.
        authorities: What evidence of hardware is verified against; None refuses it.
    """

    def __init__(
        self,
        store: Store,
        *,
        catalog: Catalog,
        key: CasKey,
        mode: Mode,
        audit: AuditLog,
        authorities: Authorities | None = None,
    ) -> None:
        self._nonces = Nonces(store)
        self._catalog = catalog
        self._key = key
        self._mode = mode
        self._audit = audit
        self._authorities = authorities
        self._tokens = Sealer(store.master_key, purpose="session token")

    def challenge(self, request: ChallengeRequest) -> bytes:
        """Return a nonce for a config id, whether it exists or not."""
        return self._nonces.issue(config_id=request.config_id)

    def attest(self, request: AttestRequest) -> tuple[str, str]:
        """Release the configuration of a service to who proves to be it.

        Returns:
            The sealed configuration (a JWE), and the token of the session that begins.

        Raises:
            UntrustedDataError: The nonce, the key or the evidence failed a check.
            NotFoundError: There is no such service.
            ServiceError: The store or the audit log failed.
        """
        try:
            self._nonces.accept(request.nonce, config_id=request.config_id)
            recipient = _public_key(request.public_key)
        except UntrustedDataError as error:
            raise self._refusal(request, error) from None
        session_name, _, service_name = request.config_id.rpartition("/")
        session = self._catalog.latest(session_name)
        configuration = session.configuration(service_name) if session is not None else None
        if session is None or configuration is None:
            raise NotFoundError(
                f"there is no service {request.config_id}",
                remedy="set SCONE_CONFIG_ID to SESSION/SERVICE of a session of this CAS",
            )
        try:
            evidence, tolerated = self._check(request, session, service_name)
        except SconifyError as error:
            raise self._refusal(request, error) from None
        run = secrets.token_hex(8)
        self._audit.record(
            "service attested",
            config_id=request.config_id,
            session_version=session.stored.version,
            evidence=evidence.kind if evidence else "none",
            measurement=evidence.measurement.hex() if evidence else None,
            tolerated=", ".join(tolerated) or None,
            run=run,
        )
        payload = configuration.payload(config_id=request.config_id, nonce=_base64url(request.nonce))
        token = json.dumps({"config_id": request.config_id, "run": run}).encode()
        return self._seal(payload, recipient), _base64url(self._tokens.seal(token, place=_TOKEN_PLACE))

    def exit(self, request: ExitRequest, *, token: str) -> None:
        """Record how a program ended.

        Args:
            request: Its exit status or the signal that killed it.
            token: The token that came with its configuration.

        Raises:
            UnauthenticatedError: The token is none of this CAS.
        """
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            session = json.loads(self._tokens.open(sealed, place=_TOKEN_PLACE))
        except (ValueError, UntrustedDataError):
            raise UnauthenticatedError("the session token is not one of this CAS") from None
        self._audit.record("service exited", **session, status=request.status, signal=request.signal)

    def _refusal(self, request: AttestRequest, error: SconifyError) -> SconifyError:
        """Record why somebody gets nothing, and return what he is told.

        In production mode all refusals are one: a host that tries what it can must not learn which check it failed.
        """
        kind = request.evidence.get("kind")
        self._audit.record(
            "service refused",
            config_id=request.config_id,
            evidence=kind[:20] if isinstance(kind, str) else None,
            reason=error.what,
        )
        remedy = "ask its operator: the reason is in its audit log"
        if self._mode is Mode.PRODUCTION and isinstance(error, UntrustedDataError):
            return UntrustedDataError("this CAS does not accept the attestation", remedy=remedy)
        if self._mode is Mode.PRODUCTION and isinstance(error, ServiceError):
            return ServiceError("this CAS can't verify the attestation at present", remedy=remedy)
        return error

    def _check(
        self, request: AttestRequest, session: LoadedSession, service_name: str
    ) -> tuple[VerifiedEvidence | None, tuple[str, ...]]:
        """Verify and judge; without evidence the policy asks for none. Returns also what is tolerated."""
        security = session.model.security
        service = session.model.service(service_name)
        if service is None:
            raise NotFoundError(f"there is no service {request.config_id}")
        if security.attestation.mode == "none":
            if self._mode is Mode.PRODUCTION:
                raise UntrustedDataError(
                    "check attestation mode: got none, expected hardware: this CAS is in production mode",
                    remedy="set security.attestation.mode of the policy to hardware, or use a CAS in debug mode",
                )
            return None, ("attestation mode none",)
        expected = service_report_data(
            nonce=request.nonce, public_key=request.public_key.point, config_id=request.config_id
        )
        evidence = verify_evidence(request.evidence, expected_report_data=expected, authorities=self._authorities)
        judgement = judge(evidence, service=service, security=security, mode=self._mode)
        return evidence, judgement.tolerated

    def _seal(self, payload: bytes, recipient: ECKey) -> str:
        signed = jws.serialize_compact({"alg": "ES256", "jwk": self._key.jwk}, payload, self._key.signing)
        header = {"alg": "ECDH-ES", "enc": "A256GCM", "typ": "sconify-config"}
        return jwe.encrypt_compact(header, signed, recipient)


def _public_key(key: PublicKey) -> ECKey:
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(key.x), int.from_bytes(key.y), ec.SECP256R1())
    try:
        numbers.public_key()
    except ValueError:
        raise UntrustedDataError("check public key: it is no point of the curve P-256") from None
    return ECKey.import_key({"kty": "EC", "crv": "P-256", "x": _base64url(key.x), "y": _base64url(key.y)})
