"""``sconify volume``: what the owner of a volume does with it while no program uses it."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar, cast

import click

from sconify._shield import Volume, VolumeError
from sconify.errors import UntrustedDataError, UserError
from sconify.shield.key import file_system_key
from sconify.volume.archive import export_archive, import_archive
from sconify.volume.state import VolumeState

_Command = TypeVar("_Command", bound=Callable[..., object])
_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))
_REMEDY = "put the newest copy of the volume, or a backup, in its place"


@click.group()
def volume() -> None:
    """Volumes: look at, check, copy and re-key them. No program may use a volume meanwhile.

    DIRECTORY is where a volume stands. Its key is that of the session that owns it (`fspf_key`), as 64 hex digits in a
    file that only you can read.
    """


def _key_option(command: _Command) -> _Command:
    return click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        required=True,
        metavar="FILE",
        help="File with the volume's key: 64 hex digits, mode 0600.",
    )(command)


def _expect_option(command: _Command) -> _Command:
    return click.option(
        "--expect",
        metavar="COUNTER:ROOT",
        help="Refuse the volume unless it is in this state or a later one.  [default: every state is taken]",
    )(command)


@volume.command()
@_key_option
@_expect_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@_DIRECTORY
def inspect(directory: Path, key_file: Path, expect: str | None, as_json: bool) -> None:
    """Print the state and the sizes of the volume in DIRECTORY."""
    with _opened(directory, key_file, expect) as opened:
        facts = opened.facts()
    state = VolumeState(cast(int, facts.pop("counter")), cast(bytes, facts.pop("root")))
    if as_json:
        click.echo(json.dumps({"state": str(state), **facts}))
        return
    click.echo(f"state           {state}")
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' '):15} {value}")


@volume.command()
@_key_option
@_expect_option
@_DIRECTORY
def check(directory: Path, key_file: Path, expect: str | None) -> None:
    """Read and authenticate everything in the volume in DIRECTORY."""
    with _opened(directory, key_file, expect) as opened:
        report = opened.check()
    problems = cast(list[str], report["problems"])
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise UntrustedDataError(f"the volume in {directory} has {len(problems)} problems", remedy="restore a backup")
    click.echo(
        f"sound: {report['inodes']} inodes, {report['directories']} of them directories; "
        f"{report['bytes']} bytes in files, {report['chunks']} chunks"
    )


@volume.command("export")
@_key_option
@_expect_option
@_DIRECTORY
@click.argument("archive", type=click.Path(path_type=Path))
def export_command(directory: Path, archive: Path, key_file: Path, expect: str | None) -> None:
    """Write the files of the volume in DIRECTORY, decrypted, to the tar file ARCHIVE, or to stdout for `-`."""
    with _opened(directory, key_file, expect) as opened, _output(archive) as out:
        count = export_archive(opened, out)
    click.echo(f"{count} entries", err=True)


@volume.command("import")
@_key_option
@click.argument("archive", type=click.Path(path_type=Path))
@_DIRECTORY
def import_command(archive: Path, directory: Path, key_file: Path) -> None:
    """Make a volume in DIRECTORY from the tar file ARCHIVE, or from stdin for `-`; print its state.

    Name the root in the session (`fspf_tag`), so that no other state is taken.
    """
    key = file_system_key(key_file)
    with _input(archive) as source, _new_directory(directory), _named(directory):
        made = Volume.create(str(directory), key)
        try:
            count = import_archive(made, source)
            state = VolumeState(*made.commit())
        finally:
            made.close()
    click.echo(f"{count} entries", err=True)
    click.echo(state)


@volume.command()
@_key_option
@_expect_option
@_DIRECTORY
@click.argument("copy", type=click.Path(path_type=Path))
def backup(directory: Path, copy: Path, key_file: Path, expect: str | None) -> None:
    """Copy the volume in DIRECTORY, encrypted as it is, to the directory COPY; print its state."""
    with _opened(directory, key_file, expect) as opened, _new_directory(copy), _named(copy):
        click.echo(VolumeState(*opened.backup(str(copy))))


@volume.command()
@_key_option
@click.option(
    "--new-key-file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="File with the key that shall open the volume from now on.",
)
@_expect_option
@_DIRECTORY
def rotate(directory: Path, key_file: Path, new_key_file: Path, expect: str | None) -> None:
    """Change the key of the volume in DIRECTORY; print its new state. Content is not encrypted anew.

    Keep both keys until the volume was opened with the new one.
    """
    key, new_key = file_system_key(key_file), file_system_key(new_key_file, flag="--new-key-file")
    if secrets.compare_digest(key, new_key):
        raise UserError("--new-key-file has the key that the volume has already", remedy="make a new one")
    with _opened(directory, key_file, expect, writable=True) as opened:
        click.echo(VolumeState(*opened.rotate(key, new_key)))


@contextmanager
def _opened(directory: Path, key_file: Path, expect: str | None, *, writable: bool = False) -> Iterator[Volume]:
    expected = VolumeState.parse(expect, flag="--expect") if expect is not None else None
    key = file_system_key(key_file)
    with _named(directory):
        opened = Volume.open(
            str(directory), key, expected=(expected.counter, expected.root) if expected else None, writable=writable
        )
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def _named(directory: Path) -> Iterator[None]:
    """Turn what a volume refuses into our errors."""
    try:
        yield
    except VolumeError as error:
        raise UntrustedDataError(str(error), remedy=_REMEDY) from None
    except OSError as error:
        match error.errno:
            case errno.EBUSY:
                raise UserError(str(error.strerror), remedy="stop the program that uses it") from None
            case errno.ENOENT | errno.EEXIST if str(directory) in str(error.strerror):
                raise UserError(str(error.strerror), remedy="name another directory") from None
            case _:
                raise


@contextmanager
def _new_directory(directory: Path) -> Iterator[None]:
    """Have a directory without a volume; what was made in it is removed on failure."""
    existed = directory.exists()
    if existed and any(path.name.startswith(("volume.sqlite", "volume.contents")) for path in directory.iterdir()):
        raise UserError(f"{directory} holds a volume already", remedy="name another directory")
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if existed:
            for path in directory.glob("volume.*"):
                path.unlink()
        else:
            shutil.rmtree(directory)
        raise


@contextmanager
def _input(archive: Path) -> Iterator[IO[bytes]]:
    if str(archive) == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = archive.open("rb")
    except OSError as error:
        raise UserError(f"{archive} can't be read: {error.strerror}", remedy="name a tar file") from None
    with opened:
        yield opened


@contextmanager
def _output(archive: Path) -> Iterator[IO[bytes]]:
    """Have a file that is there as a whole or not at all, and that only its owner can read."""
    if str(archive) == "-":
        yield sys.stdout.buffer
        return
    if archive.exists():
        raise UserError(f"{archive} exists", remedy="name another file")
    partial = archive.with_name(f".{archive.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            yield out
        partial.rename(archive)
    finally:
        partial.unlink(missing_ok=True)
