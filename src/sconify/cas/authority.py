"""The CAS that a conversion trusts: the one that the user names, or an embedded one on this machine."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sconify.cas.attest import connect
from sconify.cas.attested import CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import ClientConfig
from sconify.cas.embedded import ensure_embedded
from sconify.request import Request

SIMULATED_PLATFORM = "simulated-platform"
"""What a policy tolerates so that machines without a TEE may run the service."""


@dataclass(frozen=True)
class Authority:
    """An attested CAS, the session that will be kept there, and the addresses that the image gets."""

    client: CasClient
    namespace: str
    create_namespace: bool
    session: str
    """``NAMESPACE/SESSION``."""
    cas_address: str
    """For ``SCONE_CAS_ADDR``."""
    las_address: str
    """For ``SCONE_LAS_ADDR``."""
    tolerate: tuple[str, ...]
    """What the policy must tolerate for the service to run with this CAS."""

    @property
    def key(self) -> str:
        """SHA-256 of the CAS key's SubjectPublicKeyInfo, 64 hex digits."""
        return self.client.cas.key_sha256.hex()

    def config_id(self, service: str) -> str:
        """Return what the image presents to the CAS: ``NAMESPACE/SESSION/SERVICE``."""
        return f"{self.session}/{service}"

    def upload(self, text: str) -> str:
        """Store the session, with its namespace if it is to be created; return the session's hash, 64 hex digits.

        Raises:
            UserError: If the CAS refuses the session.
            ServiceError: If the CAS can't be reached, or failed.
        """
        if self.create_namespace:
            self.client.ensure_namespace(self.namespace)
        return self.client.upload_session(text, update=True)


def find_authority(request: Request, warn: Callable[[str], None]) -> Authority:
    """Attest the CAS of a request; without one, start an embedded CAS and LAS on this machine.

    Raises:
        UntrustedDataError: If the CAS is not trustworthy, or has another key than before.
        ServiceError: If it can't be reached or started.
    """
    config = ClientConfig.default()
    embedded = ensure_embedded() if request.cas is None else None
    if embedded is not None:
        warn(
            "no --cas is given: an embedded CAS and LAS in debug mode on this machine are used. They are for tests: "
            "evidence is simulated, and whoever owns this machine can read every secret"
        )
        address = CasAddress(embedded.cas_host, embedded.client_port)
        cas_address, las_address = embedded.cas_address, embedded.las_address
    else:
        address = CasAddress.parse(request.cas or "")
        cas_address, las_address = address.host, request.las
    client = connect(
        address,
        config=config,
        allow_debug=request.cas_debug or request.cas is None,
        expected_key=None if embedded is None else embedded.key,
    )
    namespace = request.namespace or f"sconify-{secrets.token_hex(6)}"
    return Authority(
        client=client,
        namespace=namespace,
        create_namespace=request.create_namespace or request.namespace is None,
        session=f"{namespace}/{request.session_name}",
        cas_address=cas_address,
        las_address=las_address,
        tolerate=(SIMULATED_PLATFORM,) if client.cas.mode == "debug" else (),
    )
