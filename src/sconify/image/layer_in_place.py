"""Makes a layer of a big file without copying it: whoever writes the file leaves a gap, and the headers go there.

The bytes are those that ``LayerWriter`` writes for the same two entries.
"""

from __future__ import annotations

from sconify.image.compression import Compression, sha256
from sconify.image.layer import Layer
from sconify.image.layer_writer import member_header
from sconify.image.model import Entry, Extent
from sconify.image.storage import writing
from sconify.image.tar_header import BLOCK
from sconify.image.tar_writer import END, padding

LAYER_GAP = 2 * BLOCK
"""Bytes of the headers of a directory and a file in it, if neither needs a pax header."""


def layer_in_place(directory: Entry, file: Entry) -> Layer | None:
    """Turn the file that holds an entry's content, behind a gap of ``LAYER_GAP`` bytes, into an uncompressed layer.

    Args:
        directory: The directory of the file, which is the only one in the layer.
        file: Its content is all that its source has behind the gap.

    Returns:
        The layer, whose blob is the whole source; None if the headers do not fit into the gap, and nothing was changed.

    Raises:
        ServiceError: The disk is full.
    """
    assert file.content is not None
    source = file.content.source
    headers = member_header(directory).encode() + member_header(file).encode()
    if not file.content.offset == LAYER_GAP == len(headers):
        return None
    with writing(source), source.open("r+b") as stream:
        stream.write(headers)
        stream.seek(0, 2)
        stream.write(padding(file.content.size) + END)
        size = stream.tell()
    blob = Extent(source, 0, size)
    digest = sha256(blob)
    return Layer(blob=blob, compression=Compression.NONE, digest=digest, diff_id=digest)
