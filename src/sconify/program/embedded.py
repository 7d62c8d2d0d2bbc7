"""Reads the file system that is embedded in a sconified binary, for those who have its key or whom it is open to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sconify import _shield
from sconify.errors import UntrustedDataError, UserError
from sconify.program.measure import MeasuredBinary


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedEntry:
    """One path of an embedded file system. ``type`` is a letter as in ``ls -l``."""

    path: str
    type: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    """Of a symbolic link."""
    sha256: str
    """Of a file's content, 64 hex digits; empty for everything else."""


def embedded_entries(
    binary: Path, measured: MeasuredBinary, *, key: bytes | None, offset: int = 0
) -> Iterator[EmbeddedEntry]:
    """Yield every path of an embedded file system, sorted; each content is decrypted and verified.

    Args:
        binary: The file that holds the sconified binary.
        measured: What ``measure_binary`` found in it.
        key: The file system key, 32 bytes; None if the binary itself tells it.
        offset: Where the binary begins in that file.

    Raises:
        UserError: Nothing is embedded, or the key is missing or another one.
        UntrustedDataError: A byte of the binary is not the one that was converted.
    """
    index = open_embedded(binary, measured, key=key, offset=offset)
    try:
        for path in index.paths():
            fields = index.entry(path)
            # A file that is in no pack is a mount point of a host path: what stands there is not the binary's.
            content = index.read(path, "/") if "pack" in fields else None
            yield EmbeddedEntry(
                path=os.fsdecode(path),
                type=cast("str", fields["type"]),
                mode=cast("int", fields["mode"]),
                uid=cast("int", fields["uid"]),
                gid=cast("int", fields["gid"]),
                size=cast("int", fields["size"]),
                target=os.fsdecode(cast("bytes", fields.get("target", b""))),
                sha256="" if content is None else hashlib.sha256(content).hexdigest(),
            )
    except _shield.ShieldError as error:
        raise _changed(error) from None


def open_embedded(binary: Path, measured: MeasuredBinary, *, key: bytes | None, offset: int = 0) -> _shield.Index:
    """Return the index of an embedded file system, from which every content can be read and verified.

    Args and errors are those of ``embedded_entries``.
    """
    root = measured.manifest.file_system
    if root is None:
        raise UserError("the binary has no embedded file system", remedy="convert with --binary-fs")
    if not measured.is_genuine:
        raise UntrustedDataError("the binary is not the one that was converted: its digests differ")
    if key is None:
        if root.key is None:
            raise UserError("the embedded file system is encrypted", remedy="give its key with --key-file")
        key = bytes.fromhex(root.key)
    if _shield.key_commitment(key).hex() != root.commitment:
        raise UserError("the embedded file system has another key", remedy="give the file that --key-file had")
    try:
        return _shield.Index.embedded(
            measured.index,
            key,
            file=str(binary),
            offset=offset + measured.packs.start,
            digests=b"".join(measured.digests),
        )
    except _shield.ShieldError as error:
        raise _changed(error) from None


def _changed(error: _shield.ShieldError) -> UntrustedDataError:
    return UntrustedDataError(f"the embedded file system is not the one that was converted: {error}")
