"""Write tar archives that are the same for the same input: ustar, with pax records only where ustar has no room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sconify.image.compression import iterate
from sconify.image.model import NO_XATTRS, Extent
from sconify.image.tar_header import BLOCK

END = bytes(2 * BLOCK)
"""What ends an archive."""
_ZEROS = bytes(BLOCK)
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberHeader:
    """What stands in front of a member's content."""

    name: bytes
    type: bytes = b"0"
    """The type flag of ustar, one byte."""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS)

    def encode(self) -> bytes:
        """Return the member's header blocks, its pax header included if it needs one."""
        records = {f"SCHILY.xattr.{name}": value for name, value in self.xattrs.items()}
        if len(self.name) > 100:
            records["path"] = self.name
        if len(self.target) > 100:
            records["linkpath"] = self.target
        for key, value, limit in (
            ("uid", self.uid, _MAX_ID),
            ("gid", self.gid, _MAX_ID),
            ("size", self.size, _MAX_SIZE),
            ("mtime", self.mtime, _MAX_SIZE),
        ):
            if not 0 <= value <= limit:
                records[key] = str(value).encode()
        own = self._block(self.name, self.type, self.size)
        if not records:
            return own
        body = b"".join(_pax_record(key, records[key]) for key in sorted(records))
        pax = MemberHeader(name=b"PaxHeaders.0", mtime=0)
        return pax._block(pax.name, b"x", len(body)) + body + padding(len(body)) + own

    def _block(self, name: bytes, kind: bytes, size: int) -> bytes:
        block = bytearray(BLOCK)
        block[0 : len(name[:100])] = name[:100]
        block[100:108] = _octal(self.mode, 8)
        block[108:116] = _octal(self.uid if self.uid <= _MAX_ID else 0, 8)
        block[116:124] = _octal(self.gid if self.gid <= _MAX_ID else 0, 8)
        block[124:136] = _octal(size if size <= _MAX_SIZE else 0, 12)
        block[136:148] = _octal(self.mtime if 0 <= self.mtime <= _MAX_SIZE else 0, 12)
        block[148:156] = b" " * 8
        block[156:157] = kind
        block[157 : 157 + len(self.target[:100])] = self.target[:100]
        block[257:265] = b"ustar\x0000"
        block[329:337] = _octal(self.device[0], 8)
        block[337:345] = _octal(self.device[1], 8)
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of ``size`` bytes."""
    return _ZEROS[: -size % BLOCK]


def member_chunks(header: MemberHeader, content: Extent | bytes) -> Iterator[bytes]:
    """Yield a whole member: header, content in chunks of at most 1 MiB, padding.

    Raises:
        UserError: The content can't be read.
        UntrustedDataError: It became shorter.
    """
    yield header.encode()
    if isinstance(content, bytes):
        yield content
    else:
        yield from iterate(content)
    yield padding(header.size)


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _pax_record(key: str, value: bytes) -> bytes:
    rest = b" " + key.encode(errors="surrogateescape") + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest
