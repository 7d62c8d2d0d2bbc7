"""Where the master key of a CAS comes from. Everything secret in the store is encrypted under it."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sconify.errors import ServiceError, UserError

KEY_SIZE = 32
_MAX_FILE = 64 << 10


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
        if create and not self._path.exists():
            self._make()
        return self._read()

    def _read(self) -> bytes:
        content = read_owned_file(self._path, what="master key file").decode("ascii", "replace").strip()
        try:
            key = bytes.fromhex(content)
        except ValueError:
            key = b""
        if len(key) != KEY_SIZE:
            raise UserError(f"the master key file {self._path} does not hold {2 * KEY_SIZE} hex digits")
        return key

    def _make(self) -> None:
        write_new_file(self._path, secrets.token_bytes(KEY_SIZE).hex().encode() + b"\n")


def read_owned_file(path: Path, *, what: str) -> bytes:
    """Return the content of a file that only its owner can read.

    Raises:
        UserError: It is missing, no regular file, too large, or others can read it.
        ServiceError: It can't be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UserError(
            f"the {what} {path} does not exist, but the store does: it can't be read without",
            remedy="give the right file, such as with --master-key-file=FILE",
        ) from None
    except OSError as error:
        raise ServiceError(f"the {what} {path}: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UserError(f"the {what} {path} is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise UserError(
                f"the {what} {path} has mode {stat.S_IMODE(status.st_mode):04o}, expected 0600",
                remedy=f"run chmod 600 {path}",
            )
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise UserError(f"the {what} {path} is larger than {_MAX_FILE} bytes")
    return content


def write_new_file(path: Path, content: bytes) -> None:
    """Make a file of mode 0600 whole or not at all; of two processes that try at once, the first one's counts.

    Raises:
        ServiceError: It can't be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    except OSError as error:
        raise ServiceError(f"{path} can't be written: {error.strerror}") from None
