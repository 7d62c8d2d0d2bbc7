"""What an encrypted image says about itself: measurement, launch manifest, root tag, and the session that it asks for.

All of it can be read without any key; none of it is secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sconify.errors import UntrustedDataError, UserError
from sconify.image.model import EntryType
from sconify.image.source import Image
from sconify.policy.model import Session
from sconify.program.launch import LaunchManifest, measurement, read_manifest
from sconify.shield.protect import DIRECTORY, INDEX

MAX_BINARY = 256 << 20
"""Bytes of a sconified binary: the runtime has some megabytes, an embedded file system more."""

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
    index = image.root.lookup(INDEX)
    program = image.root.lookup(image.config.entrypoint[0]) if image.config.entrypoint else None
    if not config_id or index is None or index.content is None or program is None or program.content is None:
        raise UserError(
            f"{image.reference} is no image that sconify_image made: it has no {INDEX}, or no SCONE_CONFIG_ID",
            remedy="give the name of an encrypted image",
        )
    manifest = read_manifest(image.root.read(program, MAX_BINARY), label=program.path)
    if index.content.size < TAG_SIZE:
        raise UntrustedDataError(f"{INDEX} of {image.reference} has {index.content.size} bytes, which is no index")
    with image.root.open(index) as stream:
        stream.seek(-TAG_SIZE, 2)
        tag = stream.read()
    files = [entry for entry in image.root.walk(DIRECTORY) if entry.type is EntryType.FILE]
    return EncryptedImage(
        digest=image.digest,
        image_id=image.id,
        manifest=manifest,
        measurement=measurement(manifest, environment=environment),
        config_id=config_id,
        cas=environment.get("SCONE_CAS_ADDR", ""),
        las=environment.get("SCONE_LAS_ADDR", ""),
        root_tag=tag.hex(),
        files={entry.path: entry.content.size for entry in files if entry.content is not None},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A field in which an image and its session do not fit."""

    field: str
    image: str
    session: str
    meaning: str


def differences(image: EncryptedImage, session: Session) -> list[Difference]:
    """Compare an image with a session, field by field; none means that the image gets its configuration."""
    service = session.service(image.service)
    if service is None:
        names = ", ".join(one.name for one in session.services) or "none"
        return [
            Difference(field="service", image=image.service, session=names, meaning="the session has no such service")
        ]
    found = []
    accepted = [one for factor in service.factors for one in getattr(factor, "mrenclave", ())]
    if session.security.attestation.mode != "none" and image.measurement not in accepted:
        found.append(
            Difference(
                field="measurement",
                image=image.measurement,
                session=", ".join(accepted) or "none",
                meaning="program, runtime, CAS key or start-up variables are others than when the session was made",
            )
        )
    for field, mine, theirs, meaning in (
        ("fspf_path", INDEX, service.fspf_path, "the index stands elsewhere"),
        ("fspf_tag", image.root_tag, service.fspf_tag, "the protected files are others than when it was made"),
    ):
        if mine != theirs:
            found.append(Difference(field=field, image=mine, session=str(theirs), meaning=meaning))
    return found
