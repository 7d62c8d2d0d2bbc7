"""What a client knows about a CAS once it is attested: its address and its key, with the evidence that was accepted."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cryptography import x509

from sconify.attestation.judge import Mode
from sconify.errors import UserError
from sconify.policy.keyhash import encode_key_hash, spki_der

DEFAULT_CLIENT_PORT = 8081
DEFAULT_ENCLAVE_PORT = 18765


@dataclass(frozen=True)
class CasAddress:
    """Where an API of a CAS listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int = DEFAULT_CLIENT_PORT) -> CasAddress:
        """Read ``host`` or ``host:port``; an IPv6 address with a port is written ``[address]:port``.

        Raises:
            UserError: The text has no host, or a port out of 1..65535.
        """
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?", text)
        if match is None and re.fullmatch(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", text):
            return cls(text, default_port)
        port = int(match[3]) if match and match[3] else default_port
        if match is None or not 1 <= port <= 65535:
            raise UserError(
                f"{text!r} is no address of a CAS", remedy="give HOST or HOST:PORT, for example --cas=cas.example:8081"
            )
        return cls(match[1] or match[2], port)

    @property
    def bracketed_host(self) -> str:
        """The host as it stands before a port: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.bracketed_host}:{self.port}"


@dataclass(frozen=True)
class AttestedCas:
    """A CAS whose key was attested: made by `attest_cas`, or read back from the client's own records."""

    address: CasAddress
    certificate: x509.Certificate
    """The server certificate that was shown. Only its key counts."""
    mode: Mode
    evidence_kind: str
    """The kind of the accepted evidence: ``simulated``, ``sgx``, ..."""
    measurement: str
    """What the evidence says that the CAS runs, 64 hex digits."""
    attested_at: str
    """When, in ISO 8601 with time zone."""

    @property
    def key_sha256(self) -> bytes:
        """SHA-256 of the CAS key's SubjectPublicKeyInfo, 32 bytes: what images pin."""
        return hashlib.sha256(spki_der(self.certificate.public_key())).digest()

    @property
    def key_hash(self) -> str:
        """The CAS key hash in Base58Check."""
        return encode_key_hash(self.key_sha256)
