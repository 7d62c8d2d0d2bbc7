"""Other places for a master key than a file of its own: a passphrase, and a key management service behind HTTP."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import requests
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sconify.cas.master_key import KEY_SIZE, read_owned_file, write_new_file
from sconify.errors import ServiceError, UserError

TOKEN_VARIABLE = "SCONIFY_KMS_TOKEN"  # noqa: S105 - the name of a variable
_SALT_SIZE = 16
# OWASP's choice for scrypt: 128 MiB, about half a second.
_COST, _BLOCK_SIZE, _PARALLEL = 2**17, 8, 1
_MIN_PASSPHRASE = 12
_KMS_SECONDS = 10
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class PassphraseMasterKey:
    """A master key made of a passphrase by scrypt (RFC 7914).

    Args:
        passphrase: The file that holds it, mode 0600; a newline at its end does not count.
        salt: The file of the salt; made at first start, and needed with the passphrase. It is no secret.
    """

    def __init__(self, passphrase: Path, *, salt: Path) -> None:
        self._passphrase = passphrase
        self._salt = salt

    def master_key(self, *, create: bool) -> bytes:
        """Return the key of the passphrase.

        Raises:
            UserError: The passphrase is missing, short, or others can read it; the salt is missing.
            ServiceError: A file can't be read or written.
        """
        passphrase = read_owned_file(self._passphrase, what="passphrase file").rstrip(b"\r\n")
        if len(passphrase) < _MIN_PASSPHRASE:
            raise UserError(
                f"the passphrase in {self._passphrase} has {len(passphrase)} characters, expected {_MIN_PASSPHRASE}",
                remedy="use several words",
            )
        if create and not self._salt.exists():
            write_new_file(self._salt, secrets.token_bytes(_SALT_SIZE).hex().encode() + b"\n")
        try:
            salt = bytes.fromhex(read_owned_file(self._salt, what="salt file").decode("ascii", "replace").strip())
        except ValueError:
            raise UserError(f"the salt file {self._salt} is damaged", remedy="restore it from a backup") from None
        return Scrypt(salt=salt, length=KEY_SIZE, n=_COST, r=_BLOCK_SIZE, p=_PARALLEL).derive(passphrase)


class KmsMasterKey:
    """A master key that a key management service has encrypted, and decrypts when the CAS starts.

    The service answers ``POST URL/encrypt {"plaintext": base64}`` by ``{"ciphertext": text}``, and ``POST URL/decrypt
    {"ciphertext": text}`` by ``{"plaintext": base64}``; a bearer token is taken from ``SCONIFY_KMS_TOKEN``.

    Args:
        url: The service; https, or http on this machine.
        wrapped: The file with the ciphertext; made at first start, and needed by each replica. It is no secret.
    """

    def __init__(self, url: str, *, wrapped: Path) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise UserError(f"got the key management service {url[:200]!r}, expected https://...")
        self._url = url.rstrip("/")
        self._wrapped = wrapped

    def master_key(self, *, create: bool) -> bytes:
        """Return the key, decrypted by the service.

        Raises:
            UserError: The file with the ciphertext is missing, or the service refuses.
            ServiceError: The service can't be reached, or answers something else.
        """
        if create and not self._wrapped.exists():
            new = secrets.token_bytes(KEY_SIZE)
            wrapped = self._ask("encrypt", {"plaintext": base64.b64encode(new).decode()}, "ciphertext")
            write_new_file(self._wrapped, wrapped.encode() + b"\n")
        ciphertext = read_owned_file(self._wrapped, what="wrapped master key").decode("utf-8", "replace").strip()
        try:
            key = base64.b64decode(self._ask("decrypt", {"ciphertext": ciphertext}, "plaintext"), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_SIZE:
            raise ServiceError(f"the key management service {self._url} gives no key of {KEY_SIZE} bytes")
        return key

    def _ask(self, operation: str, body: dict[str, str], member: str) -> str:
        token = os.environ.get(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = requests.post(
                f"{self._url}/{operation}", json=body, headers=headers, timeout=_KMS_SECONDS, allow_redirects=False
            )
            document = answer.json() if answer.ok else {}
        except (requests.RequestException, ValueError) as error:
            raise ServiceError(
                f"the key management service {self._url} can't be used: {type(error).__name__}",
                remedy="check --master-key-url",
            ) from None
        if answer.status_code in (401, 403):
            raise UserError(
                f"the key management service {self._url} refuses to {operation}: HTTP status {answer.status_code}",
                remedy=f"set {TOKEN_VARIABLE} to a token that may use the key",
            )
        value = document.get(member) if isinstance(document, dict) else None
        if not isinstance(value, str):
            raise ServiceError(f"the key management service {self._url} answered {operation} without {member}")
        return value
