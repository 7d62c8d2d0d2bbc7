"""``sconify self`` and ``sconify cert``: who you are for a CAS, and how a certificate's key is named in policies."""

from __future__ import annotations

import os
from pathlib import Path

import click
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.cas.client_config import ClientConfig
from sconify.cas.identity import read_private_file
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


@own.command()
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="File whose first line is the passphrase of the new file.  [default: asked for]",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def export(file: Path, passphrase_file: Path | None) -> None:
    """Write your identity to FILE (PKCS #12), for a browser to import: it then shows you the console of a CAS."""
    if passphrase_file is not None:
        passphrase = read_private_file(passphrase_file).partition(b"\n")[0].rstrip(b"\r")
    else:
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True).encode()
    if not passphrase:
        raise UserError("the passphrase is empty", remedy="give one: the browser asks for it when it imports the file")
    content = ClientConfig.default().identity().pkcs12(passphrase)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UserError(f"{file} exists", remedy="give another name, or remove it first") from None
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)


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
