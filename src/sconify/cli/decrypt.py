"""``sconify decrypt``: the files of an encrypted image, for the owner of its session."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from sconify.cli.errors import warn
from sconify.cli.image_session import session_of, session_options
from sconify.cli.registry_options import opened_image, registry_options
from sconify.comparison import compare_with_session
from sconify.decryption import DecryptedFiles, decrypted_files
from sconify.errors import UntrustedDataError, UserError
from sconify.image.reference import ImageReference
from sconify.image.storage import scratch_directory
from sconify.inspection import EncryptedImage, inspect_image
from sconify.shield.key import KEY_SIZE, file_system_key

_KEY = re.compile(rf"[0-9a-f]{{{2 * KEY_SIZE}}}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.argument("destination", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--file", "path", metavar="PATH", help="Write this one file of the image only; to standard output if "
              "DESTINATION is -.")  # fmt: skip
@click.option("--key-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Take the key that sconify_image was given instead of the session's; no CAS is asked, so nobody "
              "tells whether the image is the newest.")  # fmt: skip
@session_options
@registry_options
def decrypt(*, image: str, destination: Path, path: str | None, key_file: Path | None, **options: Any) -> None:
    """Write the decrypted, verified files of an encrypted IMAGE into the new directory DESTINATION.

    The key comes from the session at the CAS, read by the right of the caller's identity.
    """
    if str(destination) == "-" and path is None:
        raise UserError("DESTINATION is -, but a tree can't go to standard output", remedy="give --file=PATH")
    with (
        scratch_directory(Path(tempfile.gettempdir()), prefix="sconify-") as work,
        opened_image(ImageReference.parse(image), options) as opened,
    ):
        found = inspect_image(opened)
        if key_file is not None:
            key, tag = file_system_key(key_file), bytes.fromhex(found.root_tag)
        else:
            key, tag = _of_session(image, found, options)
        with decrypted_files(opened, found, key=key, tag=tag, work=work) as files:
            _write(files, path, destination, work)


def _of_session(image: str, found: EncryptedImage, options: dict[str, Any]) -> tuple[bytes, bytes]:
    stored = session_of(found, options)
    unfit = [one for one in compare_with_session(found, stored.session, cas_key=stored.cas_key) if not one.fits]
    if unfit:
        raise UntrustedDataError(
            f"{image} does not fit the session {found.session}: {', '.join(one.field for one in unfit)}",
            remedy="run `sconify verify` to see how they differ; take the image that was made with this session",
        )
    service = stored.session.service(found.service)
    assert service is not None
    key = str(service.fspf_key)
    if not _KEY.fullmatch(key):
        raise UserError(
            f"the key of the image is not written in the session {found.session} but given by a variable",
            remedy="give it with --key-file",
        )
    return bytes.fromhex(key), bytes.fromhex(str(service.fspf_tag))


def _write(files: DecryptedFiles, path: str | None, destination: Path, work: Path) -> None:
    if path is None:
        count = files.write_tree(destination, warn=warn)
        click.echo(f"sconify decrypt: {count} files were written into {destination}", err=True)
    elif str(destination) == "-":
        files.write_file(path, work / "file")
        with (work / "file").open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    else:
        files.write_file(path, destination)
