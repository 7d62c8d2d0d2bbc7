"""``sconify session``: create, update, read, list, compare, sign and check sessions (policies)."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sconify.cas.attested import CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import ClientConfig
from sconify.cas.identity import Identity, load_identity, read_private_file
from sconify.cli.errors import warn
from sconify.cli.session_file import file_options, read_session_file
from sconify.errors import UserError
from sconify.policy.encrypted import encrypt_session
from sconify.policy.session import session_hash
from sconify.policy.signed import sign_session

_Command = TypeVar("_Command", bound=Callable[..., object])


@click.group()
def session() -> None:
    """Sessions (policies): what services get from a CAS, and what they must prove for it."""


def _cas_options(command: _Command) -> _Command:
    for option in (
        click.option(
            "-c",
            "--cas",
            metavar="HOST[:PORT]",
            help="CAS to use, attested before.  [default: the one that was attested first]",
        ),
        click.option(
            "--identity",
            type=click.Path(path_type=Path),
            help="PEM file (PKCS#8 key, then certificate) or config.json.  [default: the one in ~/.cas/config.json]",
        ),
        click.option(
            "--retries",
            type=click.IntRange(min=0),
            help="How often a CAS that can't be reached is tried again.  [default: SCONE_CLI_RETRIES, or 3]",
        ),
    ):
        command = option(command)
    return command


@session.command()
@_cas_options
@click.option("--sign", "signing_keys", type=click.Path(path_type=Path), multiple=True, help="As for `session sign`.")
@file_options
def create(
    *, cas: str | None, identity: Path | None, retries: int | None, signing_keys: tuple[Path, ...], **file: Any
) -> None:
    """Store the session in FILE at a CAS; print its hash.

    With `predecessor` in the session, it replaces that version.
    """
    text = read_session_file(file.pop("file"), **file).text
    client = _client(cas, identity, retries)
    if signing_keys:
        click.echo(client.create_wrapped_session(_signed(text, signing_keys)))
    else:
        click.echo(client.create_session(text))


@session.command()
@_cas_options
@file_options
def update(*, cas: str | None, identity: Path | None, retries: int | None, **file: Any) -> None:
    """Replace the newest version of the session in FILE, filling `predecessor` in; print the new hash."""
    text = read_session_file(file.pop("file"), **file).text
    click.echo(_client(cas, identity, retries).update_session(text))


@session.command()
@_cas_options
@click.option("--hash", "wanted_hash", metavar="HASH", help="Read this version.  [default: the newest one]")
@click.argument("name")
def read(name: str, wanted_hash: str | None, cas: str | None, identity: Path | None, retries: int | None) -> None:
    """Print the session NAME as YAML."""
    _print(_client(cas, identity, retries).read_session(name, session_hash=wanted_hash).text)


@session.command()
@file_options
def verify(**file: Any) -> None:
    """Check the session in FILE without a CAS; print its hash."""
    click.echo(session_hash(read_session_file(file.pop("file"), **file).session))


@session.command()
@file_options
def check(**file: Any) -> None:
    """Check the session in FILE without a CAS; print it with its variables filled in."""
    _print(read_session_file(file.pop("file"), **file).text)


@session.command("hash")
@click.option(
    "--with-self-as-creator",
    "creator",
    is_flag=True,
    help="As if uploaded with the identity in ~/.cas/config.json.",
)
@file_options
def calculate_hash(creator: bool, **file: Any) -> None:
    """Print the hash of the session in FILE, as the CAS gives it."""
    parsed = read_session_file(file.pop("file"), **file).session
    if creator and parsed.creator is None:
        parsed = parsed.model_copy(update={"creator": ClientConfig.default().identity().key_hash})
    click.echo(session_hash(parsed))


session.add_command(calculate_hash, "calculate-hash")


@session.command("list")
@_cas_options
@click.argument("namespace", required=False)
def list_sessions(namespace: str | None, cas: str | None, identity: Path | None, retries: int | None) -> None:
    """Print the names of the sessions that you may list, those below NAMESPACE or all."""
    for name in _client(cas, identity, retries).list_sessions(namespace):
        click.echo(name)


@session.command()
@_cas_options
@click.argument("name")
def history(name: str, cas: str | None, identity: Path | None, retries: int | None) -> None:
    """Print number, time and hash of each version of the session NAME, the first one first."""
    for version in _client(cas, identity, retries).session_history(name):
        time = datetime.datetime.fromtimestamp(version.created_at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"{version.version} {time} {version.hash}")


@session.command()
@_cas_options
@click.argument("name")
@click.argument("old", required=False)
@click.argument("new", required=False)
def diff(
    *, name: str, old: str | None, new: str | None, cas: str | None, identity: Path | None, retries: int | None
) -> None:
    """Print what changed in the session NAME between the versions OLD and NEW (hashes or numbers).

    By default: between the newest version and the one before it. The exit code is 1 when they differ.
    """
    client = _client(cas, identity, retries)
    versions = client.session_history(name)
    by_number = {str(version.version): version.hash for version in versions}
    newest = versions[-1].version
    old = by_number.get(old or str(max(1, newest - 1)), old)
    new = by_number.get(new or str(newest), new)
    before, after = (
        client.read_session(name, session_hash=wanted).text.splitlines(keepends=True) for wanted in (old, new)
    )
    changes = list(difflib.unified_diff(before, after, fromfile=f"{name} {old}", tofile=f"{name} {new}"))
    for line in changes:
        click.echo(line, nl=not line.endswith("\n"))
    if changes:
        click.get_current_context().exit(1)


@session.command()
@click.option(
    "-k",
    "--key",
    "signing_keys",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="PEM file of an Ed25519 or P-384 key; repeatable: each signs.",
)
@file_options
def sign(*, signing_keys: tuple[Path, ...], **file: Any) -> None:
    """Print the session in FILE with signatures, to be uploaded by `session upload` or curl."""
    click.echo(_signed(read_session_file(file.pop("file"), **file).text, signing_keys), nl=False)


@session.command()
@_cas_options
@click.option("--sign", "signing_keys", type=click.Path(path_type=Path), multiple=True, help="As for `session sign`.")
@file_options
def encrypt(
    *, cas: str | None, identity: Path | None, retries: int | None, signing_keys: tuple[Path, ...], **file: Any
) -> None:
    """Print the session in FILE so that only one CAS can read it, to be uploaded by anybody.

    With --sign it is signed first, so that who uploads it is not its creator.
    """
    text = read_session_file(file.pop("file"), **file).text
    if signing_keys:
        text = _signed(text, signing_keys)
    click.echo(encrypt_session(text, _client(cas, identity, retries).encryption_key()), nl=False)


@session.command()
@_cas_options
@click.argument("file", type=click.File("r", encoding="utf-8"))
def upload(file: Any, cas: str | None, identity: Path | None, retries: int | None) -> None:
    """Store the signed or encrypted session in FILE at a CAS; print its hash."""
    click.echo(_client(cas, identity, retries).create_wrapped_session(file.read()))


def _print(text: str) -> None:
    click.echo(text, nl=not text.endswith("\n"))


def _signed(text: str, keys: tuple[Path, ...]) -> str:
    return sign_session(text, [read_private_file(key, warn=warn).decode("ascii", "replace") for key in keys])


def _client(cas: str | None, identity: Path | None, retries: int | None) -> CasClient:
    config = ClientConfig.default()
    address = CasAddress.parse(cas) if cas else config.default_cas()
    if address is None:
        raise UserError("no CAS is named, and none was attested yet", remedy="run `sconify cas attest HOST` first")
    attested = config.attested(address)
    if attested is None:
        raise UserError(
            f"the CAS at {address} was not attested yet", remedy=f"run `sconify cas attest {address}` first"
        )
    who: Identity = load_identity(identity, warn=warn) if identity else config.identity()
    return CasClient(attested, identity=who, retries=retries)
