"""``sconify session``: create, update, read and check sessions (policies)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from sconify.cas.attested import CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import ClientConfig
from sconify.cas.identity import Identity, load_identity
from sconify.cli.session_template import fill_in, parse_variables
from sconify.errors import UserError
from sconify.policy.document import MAX_BYTES
from sconify.policy.session import parse_session, session_hash

_Command = TypeVar("_Command", bound=Callable[..., object])


@click.group()
def session() -> None:
    """Sessions (policies): what services get from a CAS, and what they must prove for it."""


def _file_options(command: _Command) -> _Command:
    command = click.argument("file", type=click.Path(path_type=Path))(command)
    return click.option(
        "-e",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        help="Value for $NAME and ${NAME} in the file; repeatable.",
    )(command)


def _cas_options(command: _Command) -> _Command:
    command = click.option(
        "-c",
        "--cas",
        metavar="HOST[:PORT]",
        help="CAS to use, attested before.  [default: the one that was attested first]",
    )(command)
    return click.option(
        "--identity",
        type=click.Path(path_type=Path),
        help="PEM file (PKCS#8 key, then certificate) or config.json.  [default: the one in ~/.cas/config.json]",
    )(command)


@session.command()
@_cas_options
@_file_options
def create(file: Path, variables: tuple[str, ...], cas: str | None, identity: Path | None) -> None:
    """Store the session in FILE at a CAS; print its hash.

    With `predecessor` in the session, it replaces that version.
    """
    click.echo(_client(cas, identity).create_session(_checked_text(file, variables)))


@session.command()
@_cas_options
@_file_options
def update(file: Path, variables: tuple[str, ...], cas: str | None, identity: Path | None) -> None:
    """Replace the newest version of the session in FILE; print the new hash."""
    click.echo(_client(cas, identity).update_session(_checked_text(file, variables)))


@session.command()
@_cas_options
@click.option("--hash", "wanted_hash", metavar="HASH", help="Read this version.  [default: the newest one]")
@click.argument("name")
def read(name: str, wanted_hash: str | None, cas: str | None, identity: Path | None) -> None:
    """Print the session NAME as YAML."""
    text = _client(cas, identity).read_session(name, session_hash=wanted_hash).text
    click.echo(text, nl=not text.endswith("\n"))


@session.command()
@_file_options
def verify(file: Path, variables: tuple[str, ...]) -> None:
    """Check the session in FILE without a CAS; print its hash."""
    click.echo(session_hash(parse_session(_checked_text(file, variables))))


@session.command()
@_file_options
def check(file: Path, variables: tuple[str, ...]) -> None:
    """Check the session in FILE without a CAS; print it with its variables filled in."""
    text = _checked_text(file, variables)
    click.echo(text, nl=not text.endswith("\n"))


@session.command("hash")
@click.option(
    "--with-self-as-creator", "creator", is_flag=True, help="As if uploaded with the identity in ~/.cas/config.json."
)
@_file_options
def calculate_hash(file: Path, variables: tuple[str, ...], creator: bool) -> None:
    """Print the hash of the session in FILE, as the CAS gives it."""
    parsed = parse_session(_checked_text(file, variables))
    if creator and parsed.creator is None:
        parsed = parsed.model_copy(update={"creator": ClientConfig.default().identity().key_hash})
    click.echo(session_hash(parsed))


def _checked_text(file: Path, variables: tuple[str, ...]) -> str:
    """Return the text of a session file with its variables filled in, after it was parsed without an error."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}", remedy="name a session file") from error
    if len(raw) > MAX_BYTES:
        raise UserError(f"{file} is larger than {MAX_BYTES} bytes", remedy="name a session file")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UserError(f"{file} is no UTF-8 text", remedy="name a session file") from None
    text = fill_in(text, parse_variables(variables), source=str(file))
    try:
        parse_session(text)
    except UserError as error:
        raise UserError(f"{file} is no valid session", remedy=error.remedy) from error
    return text


def _client(cas: str | None, identity: Path | None) -> CasClient:
    config = ClientConfig.default()
    address = CasAddress.parse(cas) if cas else config.default_cas()
    if address is None:
        raise UserError("no CAS is named, and none was attested yet", remedy="run `sconify cas attest HOST` first")
    attested = config.attested(address)
    if attested is None:
        raise UserError(
            f"the CAS at {address} was not attested yet", remedy=f"run `sconify cas attest {address}` first"
        )
    who: Identity = load_identity(identity) if identity else config.identity()
    return CasClient(attested, identity=who)
