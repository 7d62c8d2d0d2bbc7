"""Release of configurations: challenge ▸ evidence ▸ judgement ▸ configuration, sealed to the runtime's ephemeral key.

The rules, in this order; the first that does not hold ends it:

1. The nonce is one of this CAS for this config id, has not expired, and is used for the first time.
2. The public key is a point of P-256.
3. The session and the service exist.
4. The evidence is genuine and bound to nonce, public key and config id.
5. The policy accepts it (``sconify.attestation.judge``).
6. What the policy asks for besides holds: service access token, one-time password, running once at a time.
7. The audit log has it.

A CAS in production mode answers all refusals alike; the reason is in its audit log.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwe, jws
from joserfc.jwk import ECKey

from sconify.attestation.authorities import Authorities
from sconify.attestation.evidence import VerifiedEvidence, service_report_data
from sconify.attestation.judge import Mode, judge
from sconify.attestation.verify import verify_evidence
from sconify.cas import metrics
from sconify.cas.audit import AuditLog
from sconify.cas.catalog import Catalog, LoadedSession
from sconify.cas.configuration import ServiceConfiguration, build_configuration, volume_members
from sconify.cas.errors import NotFoundError
from sconify.cas.keys import CasKey
from sconify.cas.leases import Leases
from sconify.cas.messages import AttestRequest, ChallengeRequest, PublicKey, base64url
from sconify.cas.mounts import Mounts
from sconify.cas.nonces import Nonces
from sconify.cas.resolution import Resolver
from sconify.cas.runs import Run, RunTokens
from sconify.cas.second_factors import OneTimePasswords, cas_access_proof, check_access_proof
from sconify.cas.store import Store
from sconify.cas.tokens import sign_token
from sconify.errors import SconifyError, ServiceError, UntrustedDataError
from sconify.policy.model import Security, Service
from sconify.policy.secret import JwtSecret

_KINDS = ("sgx", "tdx", "snp", "simulated")


@dataclass(frozen=True)
class _Claim:
    """Who attests says that it is this service.

    Attributes:
        session: The latest version of the session.
        service: The service, without variables.
        security: The session's security section, without variables.
        password: The one-time password that it shows.
    """

    session: LoadedSession
    service: Service
    security: Security
    password: str | None

    @property
    def name(self) -> str:
        """``SESSION/SERVICE``."""
        return f"{self.session.model.name}/{self.service.name}"


class Release:
    """Gives configurations to who proves to be their service.

    Args:
        store: Holds the root key, the used nonces and the leases.
        catalog: The sessions.
        resolver: Finds the values of secrets.
        mounts: Finds the volumes.
        tokens: Seals what a run may do later.
        leases: The services that run once at a time.
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
        resolver: Resolver,
        mounts: Mounts,
        tokens: RunTokens,
        leases: Leases,
        key: CasKey,
        mode: Mode,
        audit: AuditLog,
        authorities: Authorities | None = None,
    ) -> None:
        self._nonces = Nonces(store)
        self._passwords = OneTimePasswords(store)
        self._catalog = catalog
        self._resolver = resolver
        self._mounts = mounts
        self._tokens = tokens
        self._leases = leases
        self._key = key
        self._mode = mode
        self._audit = audit
        self._authorities = authorities

    def challenge(self, request: ChallengeRequest) -> bytes:
        """Return a nonce for a config id, whether it exists or not."""
        return self._nonces.issue(config_id=request.config_id)

    def attest(self, request: AttestRequest) -> tuple[str, str]:
        """Release the configuration of a service to who proves to be it.

        Returns:
            The sealed configuration (a JWE), and the token of the session that begins.

        Raises:
            UntrustedDataError: The nonce, the key or the evidence failed a check.
            NotFoundError: There is no such service, or something that it imports is not there.
            ServiceError: The store or the audit log failed.
        """
        try:
            self._nonces.accept(request.nonce, config_id=request.config_id)
            return self._attest(request, _public_key(request.public_key))
        except SconifyError as error:
            raise self._refusal(request, error) from None

    def _refusal(self, request: AttestRequest, error: SconifyError) -> SconifyError:
        """Record why somebody gets nothing, and return what he is told.

        In production mode all refusals are one: a host that tries what it can must not learn which check it failed.
        """
        kind = request.evidence.get("kind")
        metrics.attestations.labels("refused", kind if kind in _KINDS else "other").inc()
        service, _, _ = request.config_id.partition("@")
        self._audit.record(
            "service refused",
            config_id=service,
            evidence=kind[:20] if isinstance(kind, str) else None,
            reason=error.what,
        )
        if self._mode is not Mode.PRODUCTION:
            return error
        remedy = "ask its operator: the reason is in its audit log"
        if isinstance(error, ServiceError):
            return ServiceError("this CAS can't verify the attestation at present", remedy=remedy)
        return UntrustedDataError("this CAS does not accept the attestation", remedy=remedy)

    def _attest(self, request: AttestRequest, recipient: ECKey) -> tuple[str, str]:
        claim = self._claim(request.config_id)
        report_data = service_report_data(
            nonce=request.nonce, public_key=request.public_key.point, config_id=request.config_id
        )
        evidence, tolerated = self._check(request, claim, report_data)
        configuration = self._configuration(claim, evidence)
        mounts = self._mounts.of(claim.session, claim.service.image_name)
        extra = volume_members(mounts)
        token = claim.security.service_access_token
        if token is not None:
            check_access_proof(request.access_proof, token=token, report_data=report_data)
            extra["access_proof"] = cas_access_proof(token=token, report_data=report_data)
        shared = (
            claim.service.one_time_password_shared_secret or claim.security.attestation.one_time_password_shared_secret
        )
        if shared is not None:
            self._passwords.check(claim.password, secret=shared, service=claim.name)
        run = Run.begin(claim.name, mounts=mounts, singleton=claim.security.singleton_enclaves)
        if run.singleton:
            self._leases.take(claim.name, run=run.id)
            extra["lease_seconds"] = self._leases.renew(claim.name, run=run.id)
        # Where nothing is proven the host could look inside anyway; yet the policy has the last word.
        if (evidence is None or evidence.debug) and "debug-mode" in claim.security.attestation.tolerate:
            extra["debug"] = True
        metrics.attestations.labels("accepted", evidence.kind if evidence else "none").inc()
        self._audit.record(
            "service attested",
            config_id=claim.name,
            session_version=claim.session.stored.version,
            evidence=evidence.kind if evidence else "none",
            measurement=evidence.measurement.hex() if evidence else None,
            quote=evidence.platform.identity.hex() if evidence and evidence.platform else None,
            tolerated=", ".join(tolerated) or None,
            run=run.id,
            volumes=[mount.name for mount in mounts] or None,
        )
        payload = configuration.payload(config_id=request.config_id, nonce=base64url(request.nonce), extra=extra)
        return self._seal(payload, recipient), self._tokens.seal(run)

    def _claim(self, config_id: str) -> _Claim:
        session_name, _, rest = config_id.rpartition("/")
        service_name, separator, password = rest.partition("@")
        session = self._catalog.latest(session_name)
        service = session.model.service(service_name) if session is not None else None
        if session is None or service is None:
            raise NotFoundError(
                f"there is no service {session_name}/{service_name}",
                remedy="set SCONE_CONFIG_ID to SESSION/SERVICE of a session of this CAS",
            )
        return _Claim(
            session,
            self._resolver.part(service, session),
            self._resolver.security(session),
            password if separator else None,
        )

    def _check(
        self, request: AttestRequest, claim: _Claim, report_data: bytes
    ) -> tuple[VerifiedEvidence | None, tuple[str, ...]]:
        """Verify and judge; without evidence the policy asks for none. Returns also what is tolerated."""
        attestation = claim.security.attestation
        if attestation.mode == "none":
            if self._mode is Mode.PRODUCTION:
                raise UntrustedDataError(
                    "check attestation mode: got none, expected hardware: this CAS is in production mode",
                    remedy="set security.attestation.mode of the policy to hardware, or use a CAS in debug mode",
                )
            return None, ("attestation mode none",)
        if attestation.must_be_sgx_local:  # a variable: what is written out was refused when it was stored
            raise UntrustedDataError(
                "check platform: the policy has must_be_sgx_local, which no evidence can prove",
                remedy="leave must_be_sgx_local out of the policy",
            )
        evidence = verify_evidence(request.evidence, expected_report_data=report_data, authorities=self._authorities)
        judgement = judge(evidence, service=claim.service, security=claim.security, mode=self._mode)
        return evidence, judgement.tolerated

    def _configuration(self, claim: _Claim, evidence: VerifiedEvidence | None) -> ServiceConfiguration:
        """Return what the service gets; it is kept as long as the secrets are the same and no token is in it."""
        session = claim.session
        resolved = self._resolver.secrets(session)
        values = dict(resolved.values)
        tokens = [secret for secret in session.model.secrets if isinstance(secret, JwtSecret)]
        kept = session.kept.get(f"configuration of {claim.service.name}")
        if isinstance(kept, tuple) and kept[0] is resolved and not tokens:
            configuration: ServiceConfiguration = kept[1]
            return configuration
        if tokens:
            measurement = evidence.measurement.hex() if evidence is not None else None
            now = int(time.time())
            for token in tokens:
                values[token.name] = sign_token(token, secrets=resolved.values, measurement=measurement, now=now)
        configuration = build_configuration(
            claim.service, session.model.image(claim.service.image_name), secrets=values
        )
        if not tokens:
            session.kept[f"configuration of {claim.service.name}"] = (resolved, configuration)
        return configuration

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
    return ECKey.import_key({"kty": "EC", "crv": "P-256", "x": base64url(key.x), "y": base64url(key.y)})
