"""``sconify inspect``: what an encrypted image says about itself, and whether it fits its session at the CAS."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from sconify.cas.attested import CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import ClientConfig
from sconify.cas.identity import load_identity
from sconify.errors import UntrustedDataError, UserError
from sconify.image.reference import ImageReference
from sconify.image.registry import RegistryAccess
from sconify.image.source import open_image
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
@click.option("--authfile", type=click.Path(path_type=Path), metavar="FILE", help="Credentials for registries.")
@click.option("--registry-cert-dir", type=click.Path(path_type=Path), metavar="DIR",
              help="Certificates of registries' authorities.")  # fmt: skip
@click.option("--insecure-registry", multiple=True, metavar="HOST[:PORT]", help="Registry without TLS.")
def inspect(
    *,
    image: str,
    verify: bool,
    cas: str | None,
    identity: Path | None,
    session_file: Path | None,
    authfile: Path | None,
    registry_cert_dir: Path | None,
    insecure_registry: tuple[str, ...],
) -> None:
    """Print what an encrypted IMAGE says about itself as JSON; with --verify, fail if its session does not fit."""
    access = RegistryAccess(authfile=authfile, cert_dir=registry_cert_dir, insecure=insecure_registry)
    with (
        tempfile.TemporaryDirectory(prefix="sconify-") as work,
        open_image(ImageReference.parse(image), workdir=Path(work), registry=access) as opened,
    ):
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
