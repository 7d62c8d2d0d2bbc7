"""``sconify inspect``: what an encrypted image says about itself, and whether it fits its session at the CAS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sconify.cas.attested import CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import ClientConfig
from sconify.cas.identity import load_identity
from sconify.cli.registry_options import opened_image, registry_options
from sconify.errors import UntrustedDataError, UserError
from sconify.image.reference import ImageReference
from sconify.inspection import EncryptedImage, differences, inspect_image
from sconify.policy.session import parse_session


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.option("--verify", is_flag=True, help="Compare the image with its session at the CAS, field by field.")
@click.option("-c", "--cas", metavar="HOST[:PORT]",
              help="CAS with the session, attested before.  [default: the one that was attested first]")  # fmt: skip
@click.option("--identity", type=click.Path(path_type=Path), help="Who reads the session.")
@click.option("--session", "session_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Compare with the session in this file instead.")  # fmt: skip
@registry_options
def inspect(
    *,
    image: str,
    verify: bool,
    cas: str | None,
    identity: Path | None,
    session_file: Path | None,
    **registry: Any,
) -> None:
    """Print what an encrypted IMAGE says about itself as JSON; with --verify, fail if its session does not fit."""
    with opened_image(ImageReference.parse(image), registry) as opened:
        found = inspect_image(opened)
    document = _document(found)
    if not verify and session_file is None:
        click.echo(json.dumps(document, indent=2))
        return
    text = _read(session_file) if session_file is not None else _stored(found, cas, identity)
    unfit = differences(found, parse_session(text))
    document["differences"] = [
        {"field": one.field, "image": one.image, "session": one.session, "meaning": one.meaning} for one in unfit
    ]
    click.echo(json.dumps(document, indent=2))
    if unfit:
        fields = "; ".join(f"{one.field}: got {one.image}, expected {one.session} ({one.meaning})" for one in unfit)
        raise UntrustedDataError(
            f"{image} does not fit the session {found.session}: {fields}", remedy="convert it again"
        )


def _document(found: EncryptedImage) -> dict[str, object]:
    return {
        "digest": found.digest,
        "image_id": found.image_id,
        "measurement": found.measurement,
        "manifest": json.loads(found.manifest.canonical_json()),
        "config_id": found.config_id,
        "cas": found.cas,
        "las": found.las,
        "root_tag": found.root_tag,
        "files": dict(found.files),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--session={path} can't be read: {error}", remedy="give --session a file") from None


def _stored(found: EncryptedImage, cas: str | None, identity: Path | None) -> str:
    config = ClientConfig.default()
    address = CasAddress.parse(cas) if cas else config.default_cas()
    attested = config.attested(address) if address is not None else None
    if attested is None:
        raise UserError(
            f"no attested CAS is known{f' at {address}' if address else ''}",
            remedy="run `sconify cas attest HOST:PORT` first, or give --session=FILE",
        )
    client = CasClient(attested, identity=config.identity() if identity is None else load_identity(identity))
    return client.read_session(found.session).text
