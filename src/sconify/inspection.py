"""What an encrypted image says about itself: measurement, launch manifest, root tag, and the session that it asks for.

All of it can be read without any key; none of it is secret.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass

from sconify.errors import UntrustedDataError, UserError
from sconify.image.model import Entry, EntryType
from sconify.image.source import Image
from sconify.program.launch import LaunchManifest
from sconify.program.measure import MeasuredBinary, measure_binary
from sconify.shield.protect import DIRECTORY, INDEX

MAX_BINARY = 256 << 20
"""Bytes of a sconified binary: the runtime has some megabytes, an embedded file system more."""

MAX_INDEX = 1 << 30
"""Bytes of an index (``docs/limits.md``)."""

TAG_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class EncryptedImage:
    """What was read of an encrypted image."""

    digest: str | None
    image_id: str
    manifest: LaunchManifest
    measurement: str
    """With the environment that the image sets."""
    config_id: str
    """``NAMESPACE/SESSION/SERVICE``."""
    cas: str
    las: str
    root_tag: str
    """Of the index, 32 hex digits: the policy's ``fspf_tag``."""
    files: Mapping[str, int]
    """Sizes of index and packs, by path."""
    digests: Mapping[str, str]
    """SHA-256 of index and packs, by path, 64 hex digits."""

    @property
    def session(self) -> str:
        """``NAMESPACE/SESSION``."""
        return self.config_id.rpartition("/")[0]

    @property
    def service(self) -> str:
        """Name of the service in the session."""
        return self.config_id.rpartition("/")[2]


def inspect_image(image: Image) -> EncryptedImage:
    """Read what an encrypted image says about itself.

    Raises:
        UserError: It is no image that ``sconify_image`` made.
        UntrustedDataError: It is one, and malformed.
    """
    environment = image.config.env
    config_id = environment.get("SCONE_CONFIG_ID", "")
    program = image.root.lookup(image.config.entrypoint[0]) if image.config.entrypoint else None
    if not config_id or program is None or program.content is None:
        raise UserError(
            f"{image.reference} is no image that sconify_image made: it has no program, or no SCONE_CONFIG_ID",
            remedy="give the name of an encrypted image",
        )
    measured = measure_binary(io.BytesIO(image.root.read(program, MAX_BINARY)), environment=environment)
    tag = _index(image, measured)[-TAG_SIZE:]
    files = [entry for entry in image.root.walk(DIRECTORY) if entry.type is EntryType.FILE]
    return EncryptedImage(
        digest=image.digest,
        image_id=image.id,
        manifest=measured.manifest,
        measurement=measured.measurement,
        config_id=config_id,
        cas=environment.get("SCONE_CAS_ADDR", ""),
        las=environment.get("SCONE_LAS_ADDR", ""),
        root_tag=tag.hex(),
        files={entry.path: entry.content.size for entry in files if entry.content is not None},
        digests={entry.path: _digest(image, entry) for entry in files},
    )


def _digest(image: Image, entry: Entry) -> str:
    digest = hashlib.sha256()
    with image.root.open(entry) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _index(image: Image, measured: MeasuredBinary) -> bytes:
    """The index of the protected file system: embedded in the binary, or beside it."""
    if measured.index:
        return measured.index
    entry = image.root.lookup(INDEX)
    if entry is None or entry.content is None:
        raise UserError(
            f"{image.reference} is no image that sconify_image made: it has no {INDEX}",
            remedy="give the name of an encrypted image",
        )
    if not TAG_SIZE <= entry.content.size <= MAX_INDEX:
        raise UntrustedDataError(f"{INDEX} of {image.reference} has {entry.content.size} bytes, which is no index")
    return image.root.read(entry, MAX_INDEX)
