"""Read the members of a tar archive that lies, uncompressed, in a file: headers only, contents are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sconify.errors import UntrustedDataError
from sconify.image.model import NO_XATTRS, Extent
from sconify.image.sparse import SparseMap, old_gnu_map, pax_map
from sconify.image.storage import reading
from sconify.image.tar_header import (
    BLOCK,
    Header,
    TarError,
    parse_header,
    parse_pax,
    parse_pax_number,
    parse_pax_time,
)

_WINDOW = 16 * 1024  # headers of small files lie close together: one read serves several
_MAX_EXTENDED = 1 << 20  # of a pax header or a GNU long name, as in Go's archive/tar
_XATTR = "SCHILY.xattr."
_CONTENT_TYPES = frozenset({b"0", b"7", b"S"})
_TYPES = frozenset({b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S"})
_MAX_ID = (1 << 32) - 1


@dataclass(slots=True)
class Member:
    """One member of an archive. Names are as stored: neither normalised nor trusted."""

    name: bytes
    type: bytes
    """One of the flags ``0`` to ``6`` of ustar."""
    mode: int
    uid: int
    gid: int
    mtime: int
    mtime_nsec: int
    target: bytes
    device: tuple[int, int]
    xattrs: Mapping[str, bytes]
    offset: int
    """Of the content in the file."""
    size: int
    """Bytes of content in the archive."""
    sparse: SparseMap | None = None
    """Present if the content is the pieces of a sparse file."""


@dataclass(slots=True)
class _Extended:
    """What the headers in front of a member's own say about it."""

    records: list[tuple[str, bytes]] = field(default_factory=list)
    name: bytes = b""
    target: bytes = b""


class _Archive:
    """Positioned reads of an extent through a small window."""

    def __init__(self, descriptor: int, extent: Extent) -> None:
        self._descriptor = descriptor
        self._source = extent.source
        self._end = extent.offset + extent.size
        self._window = b""
        self._start = extent.offset

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at the file's ``offset``: fewer only at the archive's end."""
        first = offset - self._start
        if not 0 <= first <= first + size <= len(self._window):
            wanted = min(max(size, _WINDOW), max(self._end - offset, 0))
            with reading(self._source):
                self._window = os.pread(self._descriptor, wanted, offset)
            self._start, first = offset, 0
        return self._window[first : first + size]

    def exact(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of extended header at ``offset``."""
        if size > _MAX_EXTENDED:
            raise TarError(f"an extended header has {size} bytes, at most {_MAX_EXTENDED} are allowed")
        data = self.read(offset, size)
        if len(data) != size:
            raise TarError("the archive ends inside an extended header")
        return data


def read_members(archive: Extent, *, label: str) -> Iterator[Member]:
    """Go through a tar archive's members in order.

    The archive ends at a block of zeros or at the end of the extent. Global pax headers are ignored, as Docker does.

    Args:
        archive: The uncompressed archive.
        label: What it is, for messages: ``"layer sha256:…"``.

    Raises:
        UserError: The file can't be read.
        UntrustedDataError: It breaks the format; the message names ``label`` and the header's offset.
    """
    with reading(archive.source):
        descriptor = os.open(archive.source, os.O_RDONLY | os.O_CLOEXEC)
    offset = archive.offset
    end = archive.offset + archive.size
    window = _Archive(descriptor, archive)
    try:
        while offset < end:
            member = _next_member(window, offset)
            if member is None:
                return
            offset = member.offset + member.size
            if offset > end:
                raise TarError(f"{_show(member.name)} has {member.size} bytes, the archive ends {offset - end} earlier")
            offset += -(offset - archive.offset) % BLOCK
            yield member
    except TarError as error:
        raise UntrustedDataError(
            f"{label} is not a valid tar archive: at byte {offset - archive.offset}: {error}"
        ) from None
    finally:
        os.close(descriptor)


def _next_member(window: _Archive, offset: int) -> Member | None:
    extended: _Extended | None = None
    while True:
        block = window.read(offset, BLOCK)
        header = parse_header(block) if block else None
        if header is None:
            if extended is not None:
                raise TarError("the archive ends after an extended header")
            return None
        offset += BLOCK
        if header.size < 0:
            raise TarError(f"the size of {_show(header.name)} is negative")
        if header.type in {b"x", b"L", b"K"}:
            data = window.exact(offset, header.size)
            extended = extended or _Extended()
            if header.type == b"x":
                extended.records = parse_pax(data)
            elif header.type == b"L":
                extended.name = data.partition(b"\0")[0]
            else:
                extended.target = data.partition(b"\0")[0]
        elif header.type != b"g":
            return _member(window, header, block, offset, extended or _Extended())
        offset += header.size + -header.size % BLOCK


def _member(window: _Archive, header: Header, block: bytes, offset: int, extended: _Extended) -> Member:
    if header.type not in _TYPES:
        raise TarError(f"{_show(header.name)} has the type {header.type!r}, which layers don't have")
    member = Member(
        header.name,
        header.type,
        header.mode & 0o7777,
        header.uid,
        header.gid,
        header.mtime,
        0,
        header.target,
        (header.major, header.minor),
        NO_XATTRS,
        offset,
        header.size if header.type in _CONTENT_TYPES else 0,
    )
    if extended.records:
        _apply_pax(member, extended.records)
    member.name = extended.name or member.name
    member.target = extended.target or member.target
    if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
        raise TarError(f"the owner of {_show(member.name)} is {member.uid}:{member.gid}, expected 0..{_MAX_ID}")
    if member.type == b"S":
        member.sparse = old_gnu_map(block, lambda: window.exact(_advance(member), BLOCK))
    elif extended.records and member.type in _CONTENT_TYPES:
        member.sparse = pax_map(extended.records, lambda: window.exact(_advance(member, content=True), BLOCK))
    if member.sparse is not None:
        member.sparse.verify(member.size)
    if member.type in _CONTENT_TYPES:
        member.type = b"0"
    return member


def _advance(member: Member, *, content: bool = False) -> int:
    """Move the content's start past one block of sparse map, which pax counts as content; return the block's offset."""
    offset = member.offset
    member.offset += BLOCK
    if content:
        member.size -= BLOCK
        if member.size < 0:
            raise TarError(f"the sparse map of {_show(member.name)} is longer than its content")
    return offset


def _apply_pax(member: Member, records: list[tuple[str, bytes]]) -> None:
    for key, value in records:
        if key.startswith(_XATTR):
            member.xattrs = {**member.xattrs, key.removeprefix(_XATTR): value}
        elif not value:
            continue  # pax: an empty value means the header's
        elif key in {"path", "GNU.sparse.name"}:
            member.name = value
        elif key == "linkpath":
            member.target = value
        elif key == "size" and member.type in _CONTENT_TYPES:
            member.size = parse_pax_number(value, key=key)
        elif key == "uid":
            member.uid = parse_pax_number(value, key=key)
        elif key == "gid":
            member.gid = parse_pax_number(value, key=key)
        elif key == "mtime":
            member.mtime, member.mtime_nsec = parse_pax_time(value)
    if any(key == "GNU.sparse.name" for key, _ in records):
        # "path" of such a member is a made-up name for readers without sparse files, wherever it stands.
        member.name = next(value for key, value in records if key == "GNU.sparse.name" and value)


def _show(name: bytes) -> str:
    return repr(name[:200].decode(errors="backslashreplace"))
