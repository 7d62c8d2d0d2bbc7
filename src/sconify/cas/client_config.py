"""The client's own records in ``~/.cas/config.json``: its identity, and each CAS that it has attested.

The file is JSON, mode 0600::

    {
      "identity": "<PEM: PKCS#8 private key, then certificate>",
      "default_cas": "HOST:PORT",
      "cas_db": {"HOST:PORT": {"key_hash", "key_sha256", "certificate", "mode", "evidence_kind", "measurement",
                               "attested_at"}}
    }

Members that are not listed here belong to other tools and are kept. Every change happens under a lock and replaces the
file as a whole, so that several processes may use it at once and a crash leaves either the old or the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sconify.attestation.judge import Mode
from sconify.cas.attested import AttestedCas, CasAddress
from sconify.cas.identity import Identity, read_private_file
from sconify.errors import ServiceError, UntrustedDataError, UserError
from sconify.policy.keyhash import encode_key_hash

PATH_VARIABLE = "SCONE_CLI_CONFIG"


class ClientConfig:
    """The records in one ``config.json``; nothing is read before it is asked for.

    Args:
        path: The file. It and its directory are made on first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls) -> ClientConfig:
        """Return the records at ``$SCONE_CLI_CONFIG``, or else at ``~/.cas/config.json``."""
        named = os.environ.get(PATH_VARIABLE)
        return cls(Path(named) if named else Path.home() / ".cas" / "config.json")

    def identity(self) -> Identity:
        """Return the identity; a fresh one is made and recorded when there is none.

        Raises:
            UserError: The file is no valid config.json, or open to other users.
            ServiceError: It can't be written.
        """
        document = self._read()
        if "identity" not in document:
            with self._changing() as document:
                if "identity" not in document:
                    document["identity"] = Identity.generate().private_pem().decode()
        pem = document["identity"]
        if not isinstance(pem, str):
            raise self._damaged('"identity" is no text')
        return Identity.from_pem(pem.encode(), source=f'"identity" in {self.path}')

    def attested(self, address: CasAddress) -> AttestedCas | None:
        """Return what is recorded about the CAS at an address, or None.

        Raises:
            UserError: The file or the record is damaged.
        """
        record = self._cas_db(self._read()).get(str(address))
        return None if record is None else self._parse_record(address, record)

    def all_attested(self) -> list[AttestedCas]:
        """Return every recorded CAS, in the order of their addresses.

        Raises:
            UserError: The file or a record is damaged.
        """
        records = self._cas_db(self._read())
        return [self._parse_record(CasAddress.parse(key), record) for key, record in sorted(records.items())]

    def default_cas(self) -> CasAddress | None:
        """Return the address of the default CAS, the first one that was attested, or None.

        Raises:
            UserError: The file is damaged.
        """
        text = self._read().get("default_cas")
        if text is None:
            return None
        if not isinstance(text, str):
            raise self._damaged('"default_cas" is no text')
        return CasAddress.parse(text)

    def set_default(self, address: CasAddress) -> None:
        """Make an attested CAS the default.

        Raises:
            UserError: The file is damaged.
            ServiceError: It can't be written.
        """
        with self._changing() as document:
            document["default_cas"] = str(address)

    def record(self, cas: AttestedCas, *, replace: bool = False) -> None:
        """Record an attested CAS; the first one becomes the default.

        Args:
            cas: The attested CAS.
            replace: It was attested against a key that the caller knows, so another one on record does not count.

        Raises:
            UntrustedDataError: The CAS at this address had another key when it was attested before.
            UserError: The file is damaged.
            ServiceError: It can't be written.
        """
        with self._changing() as document:
            records = self._cas_db(document)
            known = records.get(str(cas.address))
            if known is not None and not replace:
                self._check_same_key(self._parse_record(cas.address, known), cas)
            records[str(cas.address)] = {
                "key_hash": cas.key_hash,
                "key_sha256": cas.key_sha256.hex(),
                "certificate": cas.certificate.public_bytes(serialization.Encoding.PEM).decode(),
                "mode": cas.mode,
                "evidence_kind": cas.evidence_kind,
                "measurement": cas.measurement,
                "attested_at": cas.attested_at,
            }
            document["cas_db"] = records
            document.setdefault("default_cas", str(cas.address))

    def forget(self, address: CasAddress) -> bool:
        """Remove what is recorded about the CAS at an address.

        Returns:
            Whether there was a record.

        Raises:
            UserError: The file is damaged.
            ServiceError: It can't be written.
        """
        if str(address) not in self._cas_db(self._read()):
            return False
        with self._changing() as document:
            self._cas_db(document).pop(str(address), None)
            if document.get("default_cas") == str(address):
                del document["default_cas"]
        return True

    def _check_same_key(self, known: AttestedCas, now: AttestedCas) -> None:
        if known.key_sha256 != now.key_sha256:
            raise UntrustedDataError(
                f"the CAS at {now.address} has another key than when it was attested at {known.attested_at}: "
                f"got {now.key_hash}, expected {known.key_hash}",
                remedy="somebody may be in between: ask its owner; if the CAS was set up anew, "
                f"run `sconify cas forget {now.address}` and attest it again",
            )

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        try:
            document = json.loads(read_private_file(self.path))
        except (ValueError, RecursionError):
            raise self._damaged("it is no valid JSON") from None
        if not isinstance(document, dict):
            raise self._damaged("it is no JSON object")
        return document

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Give the document for change, under the lock; it is written back when the block ends without an error."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with Path(f"{self.path}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                document = self._read()
                yield document
                _replace(self.path, json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise ServiceError(
                f"{self.path} can't be written: {error.strerror}",
                remedy=f"set {PATH_VARIABLE} to a file in a directory that you may write to",
            ) from error

    def _cas_db(self, document: Mapping[str, Any]) -> dict[str, Any]:
        records = document.get("cas_db", {})
        if not isinstance(records, dict):
            raise self._damaged('"cas_db" is no object')
        return records

    def _parse_record(self, address: CasAddress, record: object) -> AttestedCas:
        try:
            if not isinstance(record, dict):
                raise ValueError("it is no object")
            mode, kind, measurement, time = (
                record[member] for member in ("mode", "evidence_kind", "measurement", "attested_at")
            )
            if not all(isinstance(value, str) for value in (mode, kind, measurement, time)):
                raise ValueError("a member is no text")
            certificate = x509.load_pem_x509_certificate(record["certificate"].encode())
            cas = AttestedCas(address, certificate, Mode(mode), kind, measurement, time)
            if record["key_sha256"] != cas.key_sha256.hex() or record["key_hash"] != encode_key_hash(cas.key_sha256):
                raise ValueError("its key hash is not that of its certificate")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(f"the record of the CAS {address}: {error}") from None
        return cas

    def _damaged(self, why: str) -> UserError:
        return UserError(
            f"{self.path} is damaged: {why}",
            remedy=f"restore it, or move it away to start with a new identity (then sessions of the old one are lost "
            f"to you); {PATH_VARIABLE} names another file",
        )


def _replace(path: Path, text: str) -> None:
    """Write a file of mode 0600 as a whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".config-", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise
