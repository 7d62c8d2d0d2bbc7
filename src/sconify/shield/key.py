"""The file system key: made fresh for each conversion, or read from a file that the user keeps."""

from __future__ import annotations

import secrets
from pathlib import Path

from sconify.errors import UserError

KEY_SIZE = 32
"""Bytes of a file system key (AES-256)."""


def file_system_key(key_file: Path | None, *, flag: str = "--key-file") -> bytes:
    """Return the file system key, 32 bytes.

    Args:
        key_file: A file with 64 hex digits, or None for a fresh random key.
        flag: The option that names the file.

    Raises:
        UserError: If the file can't be read, is open to others, or holds no key.
    """
    if key_file is None:
        return secrets.token_bytes(KEY_SIZE)
    remedy = f"make one with (umask 077; openssl rand -hex {KEY_SIZE} > {key_file})"
    try:
        mode = key_file.stat().st_mode
        text = key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{flag}={key_file} can't be read: {reason}", remedy=remedy) from None
    if mode & 0o077:
        raise UserError(
            f"{flag}={key_file} is open to other users: got mode {mode & 0o777:04o}, expected 0600",
            remedy=f"chmod 600 {key_file}",
        )
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise UserError(f"{flag}={key_file} holds no key: expected {2 * KEY_SIZE} hex digits", remedy=remedy)
    return key
