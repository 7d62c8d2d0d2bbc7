"""Where a machine remembers how contents compress, so that the next conversion of unchanged files is quick.

The entries are encrypted under a key of this machine and this user, which is kept apart from them: in
``$XDG_DATA_HOME/sconify/cache.key``. They are in ``$XDG_CACHE_HOME/sconify/compressed`` and may be removed at any time.
"""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

LIMIT = 4 << 30
"""Bytes that the entries may have after a conversion: what was used least lately is removed."""

_KEY_SIZE = 32
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompressionCache:
    """A directory with entries and the key that they are encrypted under, 32 bytes."""

    directory: Path
    key: bytes

    def __repr__(self) -> str:
        """Show no key."""
        return f"CompressionCache({self.directory})"

    def trim(self, limit: int = LIMIT) -> None:
        """Remove entries, those used least lately first, until all together have at most ``limit`` bytes."""
        found = []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed by another conversion
                found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def compression_cache() -> CompressionCache | None:
    """Return the cache of this user, made if need be; None where there can't be one, such as in a read-only home."""
    directory = _base("XDG_CACHE_HOME", ".cache") / "sconify" / "compressed"
    key_file = _base("XDG_DATA_HOME", ".local/share") / "sconify" / "cache.key"
    try:
        for needed in (directory, key_file.parent):
            needed.mkdir(parents=True, exist_ok=True, mode=0o700)
        return CompressionCache(directory, _key(key_file))
    except OSError as error:
        _logger.debug("no compression cache: %s", error)
        return None


def _key(file: Path) -> bytes:
    """Return the key, made at the first time. Two conversions that make it at once agree on one."""
    try:
        key = file.read_bytes()
        if len(key) == _KEY_SIZE:
            return key
        file.unlink()
    except FileNotFoundError:
        pass
    draft = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(_KEY_SIZE))
        try:
            os.link(draft, file)
        except FileExistsError:
            _logger.debug("another conversion made %s", file)
    finally:
        draft.unlink()
    return file.read_bytes()


def _base(variable: str, default: str) -> Path:
    named = os.environ.get(variable)
    # The XDG specification says to pass over a relative path.
    return Path(named) if named and Path(named).is_absolute() else Path.home() / default
