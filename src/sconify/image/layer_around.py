"""Write a layer around a large content that is on the disk already, so that it is not written a second time."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from sconify.image.compression import Compression, sha256, write_all
from sconify.image.layer import Layer
from sconify.image.layer_writer import member_header
from sconify.image.model import Entry, EntryType, Extent
from sconify.image.storage import writing
from sconify.image.tar_writer import END, MemberHeader, padding
from sconify.image.tree import ROOT


def room_around(path: str, *, size: int) -> int:
    """Return the bytes that the headers of a layer take before its one file, which has at most ``size`` bytes.

    With so many before the content, ``layer_around`` makes a layer whose blob is the whole file: only a file of less
    than 8 GiB where more could have been has shorter headers.
    """
    headers = _headers(path, Extent(Path(os.devnull), 0, size), mode=0, epoch=0)
    return sum(len(header.encode()) for header in headers)


def layer_around(content: Extent, *, path: str, mode: int, epoch: int, head: bytes = b"") -> Layer | None:
    """Make an uncompressed layer with one file, bit by bit what ``LayerWriter`` would make.

    Args:
        content: The end of a file of this machine: what the layer's file ends with. The archive is completed in that
            file, so before the content there must be room for ``head`` and the headers, a hole for instance. Where
            they fit exactly, the blob of the layer is the whole file.
        path: Of the layer's file.
        mode: Its permission bits; it is owned by root.
        epoch: Seconds since 1970, the time of everything.
        head: What the layer's file begins with.

    Returns:
        The layer; None if the room does not suffice, and nothing was changed.

    Raises:
        ServiceError: The disk is full.
    """
    *directories, own = _headers(path, content, mode=mode, epoch=epoch)
    headers = [*directories, dataclasses.replace(own, size=len(head) + content.size)]
    before = b"".join(header.encode() for header in headers) + head
    start = content.offset - len(before)
    if start < 0:
        return None
    after = padding(len(head) + content.size) + END
    with writing(content.source):
        descriptor = os.open(content.source, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for offset, data in ((start, before), (content.offset + content.size, after)):
                os.lseek(descriptor, offset, os.SEEK_SET)
                write_all(descriptor, data)
        finally:
            os.close(descriptor)
    blob = Extent(content.source, start, len(before) + content.size + len(after))
    digest = sha256(blob)
    return Layer(blob=blob, compression=Compression.NONE, digest=digest, diff_id=digest)


def _headers(path: str, content: Extent, *, mode: int, epoch: int) -> list[MemberHeader]:
    """Return the headers of the directories above a file, and its own."""
    above = path.split("/")[1:-1]
    directories = ["/" + "/".join(above[: count + 1]) for count in range(len(above))]
    own = Entry(path=path, type=EntryType.FILE, mode=mode, mtime=epoch, content=content)
    return [
        *(member_header(dataclasses.replace(ROOT, path=directory, mtime=epoch)) for directory in directories),
        member_header(own),
    ]
