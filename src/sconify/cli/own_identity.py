"""``sconify self`` and ``sconify cert``: who you are for a CAS, and how a certificate's key is named in policies."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.cas.client_config import ClientConfig
from sconify.errors import UserError
from sconify.policy.keyhash import certificate_key_hash


@click.group("self")
def own() -> None:
    """Your identity in ~/.cas/config.json; it is made when there is none."""


@own.command()
def show() -> None:
    """Show key hash and certificate."""
    identity = ClientConfig.default().identity()
    click.echo(f"Key hash: {identity.key_hash}")
    click.echo(identity.certificate.public_bytes(Encoding.PEM).decode(), nl=False)


@own.command("show-key-hash")
def show_key_hash() -> None:
    """Print the key hash alone: how access policies name you."""
    click.echo(ClientConfig.default().identity().key_hash)


@own.command("show-certificate")
def show_certificate() -> None:
    """Print the certificate alone, as PEM."""
    click.echo(ClientConfig.default().identity().certificate.public_bytes(Encoding.PEM).decode(), nl=False)


@click.group("cert")
def certificate() -> None:
    """Certificates of others."""


@certificate.command("show-key-hash")
@click.argument("file", type=click.Path(path_type=Path))
def show_certificate_key_hash(file: Path) -> None:
    """Print the key hash of the PEM certificate in FILE: how access policies name whoever has its key."""
    try:
        pem = file.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{file} can't be read as PEM text", remedy="name a PEM certificate") from None
    click.echo(certificate_key_hash(pem))
