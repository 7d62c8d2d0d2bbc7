"""Write layers that are bit-identical for the same input."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from pathlib import Path

from sconify.errors import BugError
from sconify.image.compression import Compression, write_all
from sconify.image.compressor import compressor
from sconify.image.layer import Layer
from sconify.image.model import Entry, EntryType, Extent
from sconify.image.storage import reading, writing
from sconify.image.tar_writer import END, MemberHeader, member_chunks
from sconify.image.tree import ROOT

_BUFFER = 256 << 10
_FLAGS = {
    EntryType.FILE: b"0",
    EntryType.SYMLINK: b"2",
    EntryType.CHARACTER: b"3",
    EntryType.BLOCK: b"4",
    EntryType.DIRECTORY: b"5",
    EntryType.FIFO: b"6",
}


class LayerWriter:
    """Collects entries and writes them, sorted, as one layer.

    The order of calls does not matter. Directories that nobody adds are made: 0755, owned by root. Only contents given
    as bytes are kept in memory. Nothing is on the disk before ``finish``, and nothing stays if that fails.
    """

    def __init__(self, path: Path, *, compression: Compression = Compression.NONE, epoch: int | None = None) -> None:
        """Prepare a layer; the file is made by ``finish``.

        Args:
            path: The file to make.
            compression: How to store the archive.
            epoch: Seconds since 1970, the time of everything that does not come from an image (SOURCE_DATE_EPOCH);
                None means now.
        """
        self._path = path
        self._compression = compression
        self._epoch = int(time.time()) if epoch is None else epoch
        self._entries: dict[str, Entry] = {}
        self._bytes: dict[str, bytes] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry as it stands, content included; times are cut to seconds. The root is left out.

        Entries of one ``link_group`` with the same content become hard links.

        Raises:
            BugError: Another entry has its path.
        """
        if entry.path in self._entries:
            raise BugError(f"{entry.path} was added twice to a layer")
        if entry.path != "/":
            self._entries[entry.path] = entry

    def add_bytes(self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Add a small file.

        Raises:
            BugError: Another entry has its path.
        """
        self.add(
            Entry(
                path=path,
                type=EntryType.FILE,
                mode=mode,
                uid=uid,
                gid=gid,
                mtime=self._epoch,
                content=Extent(Path(os.devnull), 0, len(data)),
            )
        )
        self._bytes[path] = data

    def add_file(self, path: str, source: Path, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Add the content of a file of this machine, which must not change before ``finish``.

        Raises:
            UserError: ``source`` can't be read.
            BugError: Another entry has its path.
        """
        with reading(source):
            size = source.stat().st_size
        self.add(
            Entry(
                path=path,
                type=EntryType.FILE,
                mode=mode,
                uid=uid,
                gid=gid,
                mtime=self._epoch,
                content=Extent(source, 0, size),
            )
        )

    def add_directory(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Add a directory.

        Raises:
            BugError: Another entry has its path.
        """
        self.add(Entry(path=path, type=EntryType.DIRECTORY, mode=mode, uid=uid, gid=gid, mtime=self._epoch))

    def add_symlink(self, path: str, target: str) -> None:
        """Add a symbolic link.

        Raises:
            BugError: Another entry has its path.
        """
        self.add(Entry(path=path, type=EntryType.SYMLINK, mode=0o777, mtime=self._epoch, target=target))

    def finish(self) -> Layer:
        """Write the layer.

        Returns:
            The layer, its blob being the whole file.

        Raises:
            BugError: Something was added below an entry that is no directory.
            UserError: A content can't be read.
            UntrustedDataError: A content became shorter.
            ServiceError: The disk is full.
        """
        self._add_missing_parents()
        with writing(self._path):
            output = _Output(self._path, self._compression)
        try:
            self._write(output)
            layer = output.finish()
        except BaseException:
            output.discard()
            raise
        return layer

    def _add_missing_parents(self) -> None:
        for path in list(self._entries):
            parent = path.rpartition("/")[0]
            while parent and parent not in self._entries:
                self._entries[parent] = dataclasses.replace(ROOT, path=parent, mtime=self._epoch)
                parent = parent.rpartition("/")[0]
            if parent and self._entries[parent].type is not EntryType.DIRECTORY:
                raise BugError(f"{path} was added below {parent}, which is no directory")

    def _write(self, output: _Output) -> None:
        linked: dict[tuple[int, Extent | None], str] = {}
        for path in sorted(self._entries, key=os.fsencode):
            entry = self._entries[path]
            first = None
            if entry.link_group:
                first = linked.setdefault((entry.link_group, entry.content), path)
            if first not in {None, path}:
                output.feed(member_header(entry, link=first).encode())
            elif entry.content is None:
                output.feed(member_header(entry).encode())
            else:
                for chunk in member_chunks(member_header(entry), self._bytes.get(path, entry.content)):
                    output.feed(chunk)
        output.feed(END)


def member_header(entry: Entry, *, link: str | None = None) -> MemberHeader:
    """Return the header of an entry, or, with ``link``, of a hard link to that path."""
    name = os.fsencode(entry.path.removeprefix("/"))
    target = entry.target if link is None else link.removeprefix("/")
    return MemberHeader(
        name=name + b"/" if entry.type is EntryType.DIRECTORY else name,
        type=_FLAGS[entry.type] if link is None else b"1",
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        size=entry.content.size if entry.content is not None and link is None else 0,
        target=os.fsencode(target),
        device=entry.device,
        xattrs=entry.xattrs if link is None else {},
    )


class _Output:
    """The file: hashed before and after compression."""

    def __init__(self, path: Path, compression: Compression) -> None:
        self._path = path
        self._compression = compression
        self._plain = hashlib.sha256()
        self._stored = self._plain if compression is Compression.NONE else hashlib.sha256()
        self._buffer = bytearray()
        self._size = 0
        self._compressor = compressor(compression)
        # A file of that name may have been published under others too, by links: it stays as it is.
        path.unlink(missing_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def feed(self, data: bytes) -> None:
        """Add a piece; small ones are collected, for speed."""
        if len(self._buffer) + len(data) < _BUFFER:
            self._buffer += data
        else:
            self._drain()
            self._append(data)

    def _drain(self) -> None:
        self._append(bytes(self._buffer))
        self._buffer.clear()

    def _append(self, data: bytes) -> None:
        self._plain.update(data)
        self._store(self._compressor.compress(data))

    def _store(self, data: bytes) -> None:
        if self._stored is not self._plain:
            self._stored.update(data)
        self._size += len(data)
        with writing(self._path):
            write_all(self._descriptor, data)

    def finish(self) -> Layer:
        self._drain()
        self._store(self._compressor.flush())
        os.close(self._descriptor)
        self._descriptor = -1
        return Layer(
            blob=Extent(self._path, 0, self._size),
            compression=self._compression,
            digest=f"sha256:{self._stored.hexdigest()}",
            diff_id=f"sha256:{self._plain.hexdigest()}",
        )

    def discard(self) -> None:
        self._compressor.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._path.unlink(missing_ok=True)
