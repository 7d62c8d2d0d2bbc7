"""``sconify cas provision``: become the owner of a new CAS."""

from __future__ import annotations

from pathlib import Path

import click

from sconify.cas.attest import connect, parse_key
from sconify.cas.attested import CasAddress
from sconify.cas.client_config import ClientConfig
from sconify.cas.identity import load_identity
from sconify.cli.errors import warn
from sconify.errors import UserError
from sconify.policy.session import parse_session


@click.command()
@click.argument("address")
@click.option("-c", "--cas-key-hash", required=True, metavar="HASH", help="The key hash that the CAS printed.")
@click.option(
    "--token", required=True, metavar="HEX", envvar="SCONIFY_PROVISIONING_TOKEN", help="The token that it printed."
)
@click.option("--root-session", type=click.Path(dir_okay=False, path_type=Path), help="Session of the root namespace.")
@click.option("--identity", type=click.Path(path_type=Path), help="Who becomes the owner, as for `session create`.")
@click.argument(
    "how", default="with-attestation", type=click.Choice(["with-attestation", "only_for_testing-without-attestation"])
)
def provision(
    *, address: str, cas_key_hash: str, token: str, root_session: Path | None, identity: Path | None, how: str
) -> None:
    """Attest the new CAS at ADDRESS and become its owner; print the owner's key hash.

    The CAS was started with --require-provisioning, and has printed its key hash and the token.
    """
    text = None
    if root_session is not None:
        try:
            text = root_session.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{root_session} can't be read as text", remedy="name a session file") from None
        if parse_session(text).name != "/":
            raise UserError(f"{root_session} is not the session of the root namespace", remedy='name it "/"')
    config = ClientConfig.default()
    client = connect(
        CasAddress.parse(address),
        config=config,
        identity=load_identity(identity, warn=warn) if identity else None,
        allow_debug=how != "with-attestation",
        expected_key=parse_key(cas_key_hash),
    )
    click.echo(client.provision(token, root_session=text))
