"""A client's identity: a private key, and the certificate that shows its public key to a CAS.

A CAS knows a client by its public key alone; names and validity of the certificate do not count, so it is self-signed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from sconify.errors import UserError
from sconify.policy.keyhash import key_hash, spki_der

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_MAX_FILE = 16 * 1024 * 1024  # a config.json with some thousand CASes in it
_COMMON_NAME = "sconify client"
# A client is known by its key, so its certificate is valid at any time a clock may show.
_NOT_BEFORE = datetime(1975, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(4096, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Identity:
    """A private key and the certificate for it; make one with `generate` or `from_pem`."""

    certificate: x509.Certificate
    _key: PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """Return a fresh identity: an EC P-256 key and a self-signed certificate."""
        return cls._self_signed(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes, *, source: str) -> Identity:
        """Read an identity from PEM text.

        Args:
            pem: A private key (PKCS#8 or traditional, unencrypted), then its certificate. Without a certificate a
                self-signed one is made.
            source: Where the text is from, for messages.

        Raises:
            UserError: No usable private key, or a certificate for another key.
        """
        remedy = "give a PEM file with an unencrypted PKCS#8 private key followed by its certificate"
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise UserError(f"the private key in {source} is encrypted with a passphrase", remedy=remedy) from None
        except (ValueError, UnsupportedAlgorithm):
            # The parser's own text is left out: it may quote the input.
            raise UserError(f"{source} has no readable PEM private key", remedy=remedy) from None
        if not isinstance(key, PrivateKey):
            raise UserError(
                f"the private key in {source} is of a kind that TLS can't use: {type(key).__name__}",
                remedy="give an EC, RSA or Ed25519 key",
            )
        if b"-----BEGIN CERTIFICATE-----" not in pem:
            return cls._self_signed(key)
        try:
            certificate = x509.load_pem_x509_certificates(pem)[0]
            same_key = spki_der(certificate.public_key()) == spki_der(key.public_key())
        except (ValueError, UnsupportedAlgorithm):
            raise UserError(f"the certificate in {source} can't be read", remedy=remedy) from None
        if not same_key:
            raise UserError(f"the certificate in {source} is for another key than the private key in it", remedy=remedy)
        return cls(certificate, key)

    @classmethod
    def _self_signed(cls, key: PrivateKey) -> Identity:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _COMMON_NAME)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(_NOT_AFTER)
        )
        digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        return cls(builder.sign(key, digest), key)

    @property
    def spki(self) -> bytes:
        """The public key as a SubjectPublicKeyInfo in DER."""
        return spki_der(self._key.public_key())

    @property
    def key_hash(self) -> str:
        """The public key's key hash: how policies name this client."""
        return key_hash(self.spki)

    def private_pem(self) -> bytes:
        """Return the PKCS#8 private key followed by the certificate, as PEM. Secret: never log or print it."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key + self.certificate.public_bytes(serialization.Encoding.PEM)

    def pkcs12(self, passphrase: bytes) -> bytes:
        """Return private key and certificate as browsers import them (RFC 7292).

        Args:
            passphrase: Protects it; not empty.
        """
        encryption = serialization.BestAvailableEncryption(passphrase)
        return pkcs12.serialize_key_and_certificates(
            _COMMON_NAME.encode(), self._key, self.certificate, None, encryption
        )


def load_identity(path: Path, *, warn: Callable[[str], None]) -> Identity:
    """Read the identity that ``--identity=FILE`` names.

    Args:
        path: A PEM file (private key, then certificate; or the key alone), or a ``config.json`` with an ``identity``.
        warn: Is told if other users may read the file.

    Raises:
        UserError: The file is missing, other users may change it, or it holds no identity.
    """
    content = read_private_file(path, warn=warn)
    if not content.lstrip().startswith(b"{"):
        return Identity.from_pem(content, source=str(path))
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is no valid JSON", remedy="give a PEM file, or a config.json that is whole") from None
    pem = document.get("identity")
    if not isinstance(pem, str):
        raise UserError(f'{path} has no "identity" of PEM text', remedy="give the PEM file of your identity")
    return Identity.from_pem(pem.encode(), source=str(path))


def read_private_file(path: Path, *, warn: Callable[[str], None] | None = None) -> bytes:
    """Return the bytes of a file that holds a secret.

    Args:
        path: The file.
        warn: Is told if other users may read it: that is what ``cat key.pem >> identity.pem`` makes, and what a volume
            of a container often has, so for files that the user made it is no error. None refuses it.

    Raises:
        UserError: The file can't be read, is too large, or other users may change it, or read it without ``warn``.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}", remedy="name a file that you may read") from error
    if mode & (stat.S_IWGRP | (stat.S_IWOTH if warn else stat.S_IRWXO)):
        raise UserError(
            f"{path} holds a secret, and its mode {mode:04o} lets other users read or change it",
            remedy=f"run `chmod 600 {path}`, and make a new one if others may have read it",
        )
    if warn is not None and mode & stat.S_IROTH:
        warn(f"{path} holds a secret, and its mode {mode:04o} lets other users read it: run `chmod 600 {path}`")
    if len(content) > _MAX_FILE:
        raise UserError(f"{path} is larger than {_MAX_FILE} bytes", remedy="name the file of an identity")
    return content
