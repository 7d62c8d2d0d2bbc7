"""Where the master key of a CAS comes from. Everything secret in the store is encrypted under it."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from sconify.errors import ServiceError, UserError

KEY_SIZE = 32


class MasterKeyProvider(Protocol):
    """Gives the master key."""

    def master_key(self, *, create: bool) -> bytes:
        """Return the master key, 32 bytes.

        Args:
            create: Whether a new key may be made. False when there is a store already: another key could not read it.

        Raises:
            UserError: There is no key, or it is not kept as a key must be.
        """


class FileMasterKey:
    """A master key in a file that only its owner can read.

    Args:
        path: The file: 64 hex digits and a newline, mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def master_key(self, *, create: bool) -> bytes:
        """Return the key in the file; make the file if it does not exist and ``create`` is set.

        Raises:
            UserError: The file is missing, malformed, or others can read it.
            ServiceError: The file can't be read or written.
        """
        try:
            if create and not self._path.exists():
                self._make()
            return self._read()
        except FileNotFoundError:
            raise UserError(
                f"the master key file {self._path} does not exist, but the store does: it can't be read without",
                remedy="give the right file with --master-key-file=FILE",
            ) from None
        except OSError as error:
            raise ServiceError(f"the master key file {self._path}: {error.strerror}") from error

    def _read(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"the master key file {self._path} is no regular file")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise UserError(
                    f"the master key file {self._path} has mode {stat.S_IMODE(status.st_mode):04o}, expected 0600",
                    remedy=f"run chmod 600 {self._path}",
                )
            content = file.read(2 * KEY_SIZE + 2).decode("ascii", "replace").strip()
        try:
            key = bytes.fromhex(content)
        except ValueError:
            key = b""
        if len(key) != KEY_SIZE:
            raise UserError(f"the master key file {self._path} does not hold {2 * KEY_SIZE} hex digits")
        return key

    def _make(self) -> None:
        """Make the file whole or not at all, also when two processes try at once."""
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_SIZE).hex().encode() + b"\n")
                file.flush()
                os.fsync(descriptor)
            try:
                os.link(draft, self._path)
            except FileExistsError:
                return  # another process was first: its key counts
        finally:
            draft.unlink()
