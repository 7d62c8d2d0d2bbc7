"""The session of an encrypted image, for commands that need it: at its CAS, or in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sconify.cas.attested import AttestedCas, CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import ClientConfig
from sconify.cas.identity import load_identity
from sconify.cli.errors import warn
from sconify.cli.option_groups import Command
from sconify.errors import UserError
from sconify.inspection import EncryptedImage
from sconify.policy.model import Session
from sconify.policy.session import parse_session
from sconify.request import read_policy_file

_PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class ImageSession:
    """A session, and the key of the CAS that keeps it: SHA-256 of the SubjectPublicKeyInfo, 64 hex digits."""

    session: Session
    cas_key: str | None
    """None if the session was read from a file."""


def session_options(command: Command) -> Command:
    """Give a command the options that say where the session is."""
    for option in (
        click.option("--session", "session_file", type=_PATH, metavar="FILE",
                     help="Take the session from this file instead."),
        click.option("--identity", type=_PATH, metavar="FILE",
                     help="Who reads the session: PEM or config.json.  [default: ~/.cas/config.json]"),
        click.option("-c", "--cas", metavar="HOST[:PORT]",
                     help="CAS with the session, attested before.  [default: the attested one with the image's key]"),
    ):  # fmt: skip
        command = option(command)
    return command


def session_of(found: EncryptedImage, options: dict[str, Any]) -> ImageSession:
    """Return the session that an image asks for, with the values of ``session_options``.

    Raises:
        UserError: The file can't be read or is no session, no attested CAS is known, or reading is not allowed.
        ServiceError: The CAS can't be reached.
        UntrustedDataError: It is not the one that was attested.
    """
    file: Path | None = options["session_file"]
    if file is not None:
        return ImageSession(parse_session(read_policy_file(file, flag="--session")), None)
    config = ClientConfig.default()
    attested = _cas_of(found, config, options["cas"])
    identity = config.identity() if options["identity"] is None else load_identity(options["identity"], warn=warn)
    text = CasClient(attested, identity=identity).read_session(found.session).text
    return ImageSession(parse_session(text), attested.key_sha256.hex())


def _cas_of(found: EncryptedImage, config: ClientConfig, named: str | None) -> AttestedCas:
    """Return the CAS that is named; else the one whose key the image has; else the one that was attested first."""
    if named is not None:
        address = CasAddress.parse(named)
        attested = config.attested(address)
        if attested is None:
            raise UserError(
                f"the CAS at {address} was not attested from here",
                remedy=f"run `sconify cas attest {address}` first, or give --session=FILE",
            )
        return attested
    known = config.all_attested()
    for one in known:
        if one.key_sha256.hex() == found.manifest.cas_key:
            return one
    default = config.default_cas()
    attested = None if default is None else config.attested(default)
    if attested is None:
        raise UserError(
            "no attested CAS is known", remedy="run `sconify cas attest HOST:PORT` first, or give --session=FILE"
        )
    return attested
