"""Decrypts the files of an encrypted image, for those who have its key: the owner of its session.

Every byte that is written was authenticated: by the index, whose root tag is the session's, or by the measurement that
the session accepts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sconify import _shield
from sconify.errors import UntrustedDataError, UserError
from sconify.image.model import Entry, EntryType
from sconify.image.source import Image
from sconify.image.storage import scratch_directory, writing
from sconify.inspection import EncryptedImage
from sconify.program.embedded import open_embedded
from sconify.program.measure import measure_binary
from sconify.shield.protect import DIRECTORY, INDEX

_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class DecryptedFiles:
    """The files of an encrypted image."""

    image: Image
    index: _shield.Index
    root: Path
    """Where the packs stand on this machine."""

    def write_file(self, path: str, output: Path) -> None:
        """Write the verified content of a file into a new one, of mode 0600.

        Raises:
            UserError: The image has no such file, or ``output`` exists or can't be written.
            UntrustedDataError: The content is not the one that was converted.
            ServiceError: The disk is full.
        """
        try:
            fields = self.index.entry(os.fsencode(path))
        except KeyError:
            raise UserError(f"the image has no {path}", remedy="name a file of it by its whole path") from None
        if fields["type"] != "-":
            raise UserError(f"{path} is no file", remedy="name a file, or leave --file out to get the whole tree")
        with writing(output):
            self._write(path, fields, output)

    def write_tree(self, directory: Path, *, warn: Callable[[str], None]) -> int:
        """Write all that the program sees below a new directory, and return how many files there were.

        Owners, set-id bits and devices need root, as with tar; without it they are left out. What the host gives to
        the program is not the image's, so its mount points are empty.

        Raises:
            UserError: The directory exists or can't be written.
            UntrustedDataError: A content is not the one that was converted. Nothing is left behind.
            ServiceError: The disk is full. Nothing is left behind.
        """
        with writing(directory):
            directory.mkdir(mode=0o700)
        try:
            return self._write_below(directory, warn)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def _write_below(self, directory: Path, warn: Callable[[str], None]) -> int:
        files, left_out = 0, 0
        directories: list[tuple[Path, dict[str, Any]]] = []
        linked: dict[object, Path] = {}
        for raw in self.index.paths():
            path, fields = os.fsdecode(raw), self.index.entry(raw)
            output = directory / path[1:]
            kind = fields["type"]
            with writing(output):
                if kind == "d":
                    output.mkdir(mode=0o700, exist_ok=path == "/")
                    directories.append((output, fields))
                    continue
                if kind == "l":
                    output.symlink_to(os.fsdecode(_bytes(fields["target"])))
                elif kind == "-" and (first := linked.get(fields["inode"])) is not None:
                    output.hardlink_to(first)
                elif kind == "-":
                    self._write(path, fields, output)
                    linked[fields["inode"]] = output
                    files += 1
                elif kind == "p":
                    os.mkfifo(output, 0o600)
                else:
                    left_out += 1
                    continue
                _set_attributes(output, fields)
        for output, fields in reversed(directories):
            with writing(output):
                _set_attributes(output, fields)
        if left_out:
            warn(f"{left_out} device nodes are left out")
        return files

    def _write(self, path: str, fields: dict[str, object], output: Path) -> None:
        if "pack" in fields:
            try:
                self.index.extract(os.fsencode(path), str(self.root), str(output))
            except _shield.ShieldError as error:
                raise UntrustedDataError(f"{path} is not the one that was converted: {error}") from None
            return
        with output.open("xb") as file:
            output.chmod(0o600)
            if fields["region"] == "host":
                return
            entry = self.image.root.lookup(path)
            if entry is None or entry.type is not EntryType.FILE:
                raise UntrustedDataError(f"{path} is missing from {self.image.reference}")
            digest = hashlib.sha256()
            with self.image.root.open(entry) as source:
                while chunk := source.read(_BUFFER):
                    digest.update(chunk)
                    file.write(chunk)
        if digest.digest() != fields["sha256"]:
            output.unlink()
            raise UntrustedDataError(f"{path} of {self.image.reference} is not the one that was converted")


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def _set_attributes(output: Path, fields: dict[str, Any]) -> None:
    if os.geteuid() == 0:
        os.chown(output, fields["uid"], fields["gid"], follow_symlinks=False)
    if fields["type"] != "l":
        output.chmod(fields["mode"] & (0o7777 if os.geteuid() == 0 else 0o777))
    nanoseconds = fields["mtime"] * 10**9 + fields["mtime_nsec"]
    os.utime(output, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


@contextmanager
def decrypted_files(
    image: Image, found: EncryptedImage, *, key: bytes, tag: bytes, work: Path
) -> Iterator[DecryptedFiles]:
    """Open the files of an encrypted image for a block.

    Args:
        image: The image.
        found: What it says about itself.
        key: The file system key, 32 bytes.
        tag: The root tag that the index must have, 16 bytes.
        work: A directory with room for the packs or the binary.

    Raises:
        UserError: The key is another one.
        UntrustedDataError: The index is not the one with this tag.
        ServiceError: The disk is full.
    """
    with scratch_directory(work, prefix="decrypt-") as root:
        if found.manifest.file_system is not None:
            index = _embedded_index(image, key=key, root=root)
        else:
            for entry in image.root.walk(DIRECTORY):
                if entry.type is EntryType.FILE:
                    _copy(image, entry, root)
            try:
                index = _shield.Index.open(str(root / INDEX[1:]), key, tag)
            except _shield.ShieldError as error:
                raise UntrustedDataError(
                    f"the index of {image.reference} does not belong to this key and root tag: {error}",
                    remedy="take the session that was made with this image (`sconify verify` compares them)",
                ) from None
        yield DecryptedFiles(image, index, root)


def _embedded_index(image: Image, *, key: bytes, root: Path) -> _shield.Index:
    entry = image.root.lookup(image.config.entrypoint[0])
    assert entry is not None
    binary = _copy(image, entry, root)
    with binary.open("rb") as file:
        measured = measure_binary(file, environment={})
    return open_embedded(binary, measured, key=key)


def _copy(image: Image, entry: Entry, root: Path) -> Path:
    """Copy a file of an image to its path below a directory of this machine."""
    output = root / entry.path[1:]
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with image.root.open(entry) as source, writing(output), output.open("xb") as file:
        shutil.copyfileobj(source, file, _BUFFER)
    return output
