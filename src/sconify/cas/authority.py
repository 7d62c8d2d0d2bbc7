"""The CAS that a conversion trusts: the one that the user names, or an embedded one on this machine."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sconify.attestation.judge import Mode
from sconify.cas.attest import connect, parse_key, trust_cas
from sconify.cas.attested import DEFAULT_ENCLAVE_PORT, CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import ClientConfig
from sconify.cas.connection import CasRefusedError
from sconify.cas.embedded import embedded_key, ensure_embedded
from sconify.cas.identity import load_identity
from sconify.errors import UserError
from sconify.request import Request

SIMULATED_PLATFORM = "simulated-platform"
"""What a policy tolerates so that machines without a TEE may run the service."""

TCB_VULNERABILITIES = (
    "hyperthreading", "insecure-igpu", "outdated-tcb", "software-hardening-needed", "insecure-configuration"
)  # fmt: skip
"""What a policy tolerates with ``--allow-tcb-vulnerabilities``."""

_CONFLICT = 409


@dataclass(frozen=True)
class Authority:
    """A CAS whose key is known, the session that will be kept there, and the addresses that the image gets."""

    client: CasClient | None
    """None if nothing is uploaded."""
    key: str
    """SHA-256 of the CAS key's SubjectPublicKeyInfo, 64 hex digits."""
    namespace: str
    create_namespace: bool
    update_session: bool
    session: str
    """``NAMESPACE/SESSION``."""
    cas_address: str
    """For ``SCONE_CAS_ADDR``."""
    las_address: str
    """For ``SCONE_LAS_ADDR``."""
    tolerate: tuple[str, ...]
    """What the policy must tolerate for the service to run with this CAS, and what the user allows."""

    def config_id(self, service: str) -> str:
        """Return what the image presents to the CAS: ``NAMESPACE/SESSION/SERVICE``."""
        return f"{self.session}/{service}"

    def upload(self, text: str) -> str | None:
        """Store the session, with its namespace if it is to be created; return the session's hash, 64 hex digits.

        Without a client nothing is stored, and the hash is not known: who will create it is part of it.

        Raises:
            UserError: If the CAS refuses the session.
            ServiceError: If the CAS can't be reached, or failed.
        """
        if self.client is None:
            return None
        if self.create_namespace:
            self.client.ensure_namespace(self.namespace)
        try:
            return self.client.upload_session(text, update=self.update_session)
        except CasRefusedError as refused:
            if refused.status != _CONFLICT or self.update_session:
                raise
            raise UserError(
                refused.what, remedy="give another --name, or leave --disable-update-session-if-exists out"
            ) from None


def find_authority(request: Request, warn: Callable[[str], None]) -> Authority:
    """Attest the CAS of a request; without one, start an embedded CAS and LAS on this machine.

    Raises:
        UserError: If the identity can't be read, or nothing is uploaded and the CAS's key is not known.
        UntrustedDataError: If the CAS is not trustworthy, or has another key than before.
        ServiceError: If it can't be reached or started.
    """
    config = ClientConfig.default()
    embedded = ensure_embedded() if request.cas is None else None
    expected_key = None if request.cas_key is None else parse_key(request.cas_key)
    if embedded is not None:
        warn(
            "no --cas is given: an embedded CAS and LAS in debug mode on this machine are used. They are for tests: "
            "evidence is simulated, and whoever owns this machine can read every secret"
        )
        address = CasAddress(embedded.cas_host, embedded.client_port)
        cas_address, las_address = embedded.cas_address, embedded.las_address
        expected_key = embedded.key
    else:
        address = CasAddress.parse(request.cas or "")
        cas_address, las_address = enclave_address(address, request.cas_enclave), request.las
    client = _connect(request, address, config, expected_key, warn) if request.upload else None
    if client is not None:
        key, debug = client.cas.key_sha256, client.cas.mode is Mode.DEBUG
    else:
        key, debug = _known(request, address, config, expected_key, embedded=embedded is not None)
    namespace = request.namespace or f"sconify-{secrets.token_hex(6)}"
    return Authority(
        client=client,
        key=key.hex(),
        namespace=namespace,
        create_namespace=request.create_namespace or request.namespace is None,
        update_session=request.update_session,
        session=f"{namespace}/{request.session_name}",
        cas_address=cas_address,
        las_address=las_address,
        tolerate=(
            *((SIMULATED_PLATFORM,) if debug else ()),
            *(("debug-mode",) if request.allow_debug_mode else ()),
            *(TCB_VULNERABILITIES if request.allow_tcb_vulnerabilities else ()),
        ),
    )


def enclave_address(client: CasAddress, given: str | None) -> str:
    """Return ``SCONE_CAS_ADDR``: where containers reach a CAS.

    Args:
        client: Its client API.
        given: The value of ``--cas-enclave``, ``[HOST][:PORT]``; what it leaves out is the client API's host and the
            default port.

    Raises:
        UserError: ``given`` has another form.
    """
    text = given or client.bracketed_host
    if text.startswith(":"):
        text = client.bracketed_host + text
    try:
        address = CasAddress.parse(text, default_port=DEFAULT_ENCLAVE_PORT)
    except UserError:
        raise UserError(
            f"--cas-enclave={given} is no address", remedy="give --cas-enclave HOST, HOST:PORT or :PORT"
        ) from None
    return address.bracketed_host if address.port == DEFAULT_ENCLAVE_PORT else str(address)


def expected_key(request: Request) -> str | None:
    """Return the key that ``find_authority`` would find, 64 hex digits, as far as it is known here; nobody is asked.

    Raises:
        UserError: ``--cas-key`` is no key, or the client's records are damaged.
    """
    if request.cas_key is not None:
        return parse_key(request.cas_key).hex()
    if request.cas is None:
        key = embedded_key()
        return None if key is None else key.hex()
    recorded = ClientConfig.default().attested(CasAddress.parse(request.cas))
    return None if recorded is None else recorded.key_sha256.hex()


def _connect(
    request: Request,
    address: CasAddress,
    config: ClientConfig,
    expected_key: bytes | None,
    warn: Callable[[str], None],
) -> CasClient:
    identity = config.identity() if request.identity is None else load_identity(request.identity, warn=warn)
    if request.attest_cas or request.cas is None:
        return connect(
            address,
            config=config,
            identity=identity,
            allow_debug=request.cas_debug or request.cas is None,
            expected_key=expected_key,
        )
    warn(
        f"--disable-attestation: the CAS at {address} is not attested. Whoever answers at that address gets the key of "
        "the image and every secret of the session"
    )
    return CasClient(trust_cas(address, expected_key=expected_key), identity=identity)


def _known(
    request: Request, address: CasAddress, config: ClientConfig, expected_key: bytes | None, *, embedded: bool
) -> tuple[bytes, bool]:
    """Return the key of a CAS that is not contacted, and whether it is in debug mode."""
    recorded = None if embedded else config.attested(address)
    if expected_key is not None:
        return expected_key, embedded or request.cas_debug
    if recorded is None:
        raise UserError(
            f"--disable-session-upload: the key of the CAS at {address} is not known, so the image could not trust it",
            remedy=f"run `sconify cas attest {address}` once, or give --cas-key=KEY_HASH",
        )
    return recorded.key_sha256, recorded.mode is Mode.DEBUG
