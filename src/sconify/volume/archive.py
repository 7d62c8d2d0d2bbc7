"""Volumes to and from tar archives: everything that a volume keeps of a file, in the PAX format."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from decimal import Decimal
from typing import IO, Any, cast

from sconify._shield import Volume
from sconify.errors import UserError

_BLOCK = 1 << 20
_XATTR = "SCHILY.xattr."
_TYPES = {
    "-": tarfile.REGTYPE,
    "d": tarfile.DIRTYPE,
    "l": tarfile.SYMTYPE,
    "p": tarfile.FIFOTYPE,
    "c": tarfile.CHRTYPE,
    "b": tarfile.BLKTYPE,
}
_LETTERS = {kind: letter for letter, kind in _TYPES.items()} | {tarfile.AREGTYPE: "-", tarfile.CONTTYPE: "-"}


def export_archive(volume: Volume, out: IO[bytes]) -> int:
    """Write all files of a volume, decrypted, as a tar archive.

    Sockets are left out, as tar does. Names that are no UTF-8 are kept as they are.

    Returns:
        How many entries were written.

    Raises:
        VolumeError: If a part of the volume does not authenticate.
        OSError: If the archive can't be written.
    """
    first_names: dict[int, str] = {}
    count = 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for name, inode in _walk(volume):
            attributes = volume.attributes(inode)
            kind = _TYPES.get(cast(str, attributes["type"]))
            if kind is None:
                continue
            member = _member(volume, name, inode, attributes)
            member.type = kind
            if inode in first_names:
                member.type, member.linkname = tarfile.LNKTYPE, first_names[inode]
            elif kind == tarfile.SYMTYPE:
                member.linkname = _text(volume.target(inode))
            elif kind == tarfile.REGTYPE:
                member.size = cast(int, attributes["size"])
            if kind != tarfile.DIRTYPE:
                first_names.setdefault(inode, name)
            content = io.BufferedReader(_Content(volume, inode, member.size), _BLOCK) if member.isreg() else None
            archive.addfile(member, content)
            count += 1
    return count


def import_archive(volume: Volume, archive: IO[bytes]) -> int:
    """Add all entries of a tar archive to a volume; nothing is committed.

    Returns:
        How many entries were added.

    Raises:
        UserError: If it is no tar archive, or an entry leaves the volume, has no place in it, or is of an unknown type.
        OSError: If the archive can't be read, or the volume can't be written.
    """
    directories: list[tuple[int, tarfile.TarInfo]] = []
    count = 0
    try:
        with tarfile.open(fileobj=archive, mode="r|*", encoding="utf-8") as members:
            for member in members:
                inode = _add(volume, member, members)
                count += 1
                if member.isdir():
                    directories.append((inode, member))
    except tarfile.TarError as error:
        raise UserError(f"the archive can't be read: {error}", remedy="give a tar archive") from None
    # What was added to a directory has changed its time.
    for inode, member in directories:
        _set_attributes(volume, inode, member)
    return count


def _walk(volume: Volume) -> Iterator[tuple[str, int]]:
    """Yield the name and inode of everything in a volume, directories before what is in them."""
    left = [(".", Volume.ROOT)]
    while left:
        path, directory = left.pop()
        yield path, directory
        for name, inode, kind in sorted(volume.entries(directory)):
            child = f"{path}/{_text(name)}"
            if kind == "d":
                left.append((child, inode))
            else:
                yield child, inode


def _member(volume: Volume, name: str, inode: int, attributes: dict[str, Any]) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.uid, member.gid = attributes["mode"], attributes["uid"], attributes["gid"]
    member.devmajor, member.devminor = attributes["device"]
    member.mtime = attributes["mtime"]
    headers = {_XATTR + _text(key): _text(value) for key, value in volume.xattrs(inode).items()}
    if attributes["mtime_nsec"]:
        time = Decimal(attributes["mtime"]) + Decimal(attributes["mtime_nsec"]) / 10**9
        headers["mtime"] = f"{time:f}"
    member.pax_headers = headers
    return member


def _add(volume: Volume, member: tarfile.TarInfo, archive: tarfile.TarFile) -> int:
    components = [part for part in _bytes(member.name).split(b"/") if part not in (b"", b".")]
    if b".." in components:
        raise UserError(f"the archive's entry {member.name!r} leaves the volume", remedy="make the archive without ..")
    if not components:
        if not member.isdir():
            raise UserError(f"the archive's entry {member.name!r} stands in place of the volume's top directory")
        return Volume.ROOT
    directory = _directory(volume, components[:-1])
    name = components[-1]
    try:
        if member.islnk():
            target = [part for part in _bytes(member.linkname).split(b"/") if part not in (b"", b".")]
            inode = volume.lookup(_directory(volume, target[:-1]), target[-1])
            volume.link(inode, directory, name)
            return inode
        letter = _LETTERS.get(member.type)
        if letter is None:
            raise UserError(f"the archive's entry {member.name!r} is of the unknown type {member.type!r}")
        if letter == "d":
            return _subdirectory(volume, directory, name)
        target_of_link = _bytes(member.linkname) if letter == "l" else None
        device = (member.devmajor, member.devminor) if letter in "cb" else (0, 0)
        inode = volume.add(directory, name, kind=letter, target=target_of_link, device=device)
    except (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"the archive's entry {member.name!r} can't be added: {error.strerror}") from None
    if letter == "-":
        _copy_content(volume, inode, member, archive)
    _set_attributes(volume, inode, member)
    return inode


def _copy_content(volume: Volume, inode: int, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    content = archive.extractfile(member)
    assert content is not None, "the member is a file"
    offset = 0
    while block := content.read(_BLOCK):
        # Zeros become holes: they are not stored.
        volume.write(inode, offset, block)
        offset += len(block)


def _directory(volume: Volume, components: list[bytes]) -> int:
    """Return a directory of the volume; what is missing of it is made."""
    directory = Volume.ROOT
    for name in components:
        directory = _subdirectory(volume, directory, name)
    return directory


def _subdirectory(volume: Volume, directory: int, name: bytes) -> int:
    try:
        found = volume.lookup(directory, name)
    except FileNotFoundError:
        return volume.add(directory, name, kind="d")
    except NotADirectoryError:
        raise UserError(f"the archive has entries beneath {_text(name)!r}, which is no directory") from None
    return found


def _set_attributes(volume: Volume, inode: int, member: tarfile.TarInfo) -> None:
    mtime = Decimal(member.pax_headers.get("mtime", str(member.mtime)))
    seconds = int(mtime // 1)
    nanoseconds = int((mtime - seconds) * 10**9)
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            volume.set_xattr(inode, _bytes(key.removeprefix(_XATTR)), _bytes(value))
    mode = 0o777 if member.issym() else member.mode & 0o7777
    volume.set_attributes(inode, mode=mode, uid=member.uid, gid=member.gid, mtime=seconds, mtime_nsec=nanoseconds)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


class _Content(io.RawIOBase):
    """The content of a file of a volume."""

    def __init__(self, volume: Volume, inode: int, size: int) -> None:
        self._volume, self._inode, self._left, self._offset = volume, inode, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._left)
        content = self._volume.read(self._inode, self._offset, length)
        buffer[: len(content)] = content
        self._offset += len(content)
        self._left -= len(content)
        return len(content)
