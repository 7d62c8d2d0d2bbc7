"""Merge layers into one root file system (OCI image-spec, "Image Layer Filesystem Changeset").

Where the specification leaves room we do what an overlay file system under Docker and containerd shows:

- Names are cleaned like Go's ``path.Clean``; leading slashes are dropped. A name that still climbs above the root is
  refused. An entry for the root itself is ignored: the root is always 0755, owned by root.
- Within one layer a later entry replaces an earlier one at its path, and a symbolic link that an earlier entry of *the
  same layer* made is followed (inside the root) in the directory part of a name. Links of lower layers are not: the
  layer's own directory takes the link's place.
- A directory that no entry describes keeps what lower layers say of it, or else is 0755, owned by root, of time 0.
- Whiteouts and opaque markers act on lower layers only, wherever they stand in theirs. The other ``.wh..wh.`` names are
  remains of AUFS and ignored.
- A hard link shares its target's metadata. The target is looked for in the layer and then in the lower ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from sconify.errors import UntrustedDataError
from sconify.image.model import NO_XATTRS, Entry, EntryType, Extent
from sconify.image.sparse import materialise
from sconify.image.storage import writing
from sconify.image.tar_reader import Member, read_members
from sconify.image.tree import ROOT, Tree

_WHITEOUT = ".wh."
_META = ".wh..wh."
_OPAQUE = ".wh..wh..opq"
_MAX_NAME = 255  # NAME_MAX of Linux
_MAX_PATH = 4096  # PATH_MAX of Linux
_MAX_LINKS = 40  # MAXSYMLINKS of Linux
_TYPES = {
    b"0": EntryType.FILE,
    b"2": EntryType.SYMLINK,
    b"3": EntryType.CHARACTER,
    b"4": EntryType.BLOCK,
    b"5": EntryType.DIRECTORY,
    b"6": EntryType.FIFO,
}


class UnsafeNameError(ValueError):
    """A name in a layer that no root file system can have."""


def merge_layers(layers: Sequence[tuple[str, Extent]], *, workdir: Path) -> Tree:
    """Merge layers, the lowest first.

    Args:
        layers: For each its label for messages and its uncompressed tar archive.
        workdir: Where sparse files are written out.

    Raises:
        UntrustedDataError: A layer breaks the tar format or can't be a root file system's.
        ServiceError: ``workdir`` can't be written.
    """
    union = Tree()
    groups = itertools.count(1)
    for number, (label, archive) in enumerate(layers):
        layer = _Layer(label, archive, union, groups, workdir / f"sparse-{number}")
        layer.read()
        union = layer.merge_over(union)
    return union


def clean_name(raw: bytes) -> str:
    """Return a member's name as an absolute, normal path.

    Raises:
        UnsafeNameError: It climbs above the root, is too long, or has a NUL.
    """
    if len(raw) > _MAX_PATH or b"\0" in raw:
        raise UnsafeNameError(f"has {len(raw)} bytes or a NUL, at most {_MAX_PATH} are allowed")
    parts: list[str] = []
    for part in raw.decode(errors="surrogateescape").split("/"):
        if part == "..":
            if not parts:
                raise UnsafeNameError("climbs above the root")
            parts.pop()
        elif part and part != ".":
            if len(part) * 4 > _MAX_NAME and len(os.fsencode(part)) > _MAX_NAME:
                raise UnsafeNameError(f"has a component of more than {_MAX_NAME} bytes")
            parts.append(part)
    return "/" + "/".join(parts)


class _Layer:
    """One layer's own tree, and what it hides of the lower ones."""

    def __init__(
        self, label: str, archive: Extent, lower: Tree, groups: itertools.count[int], sparse_file: Path
    ) -> None:
        self._label = label
        self._archive = archive
        self._lower = lower
        self._groups = groups
        self._sparse_file = sparse_file
        self._tree = Tree()
        self._implied: set[str] = set()
        self._whiteouts: set[str] = set()
        self._opaque: set[str] = set()

    def read(self) -> None:
        for member in read_members(self._archive, label=self._label):
            try:
                self._add(member)
            except UnsafeNameError as error:
                name = member.name[:200].decode(errors="backslashreplace")
                raise UntrustedDataError(f"{self._label}: the entry {name!r} {error}") from None

    def merge_over(self, union: Tree) -> Tree:
        """Return the union with this layer on top; the given one is used up."""
        if len(union.entries) == 1:
            return self._tree  # nothing but the root is below
        for path in self._opaque:
            union.clear(path)
        for path in self._whiteouts:
            union.remove(path)
        # Parents come before their children: the table is sorted by path.
        for path in sorted(self._tree.entries):
            if path != "/" and not (path in self._implied and path in union.names):
                union.put(self._tree.entries[path])
        return union

    def _add(self, member: Member) -> None:
        path = clean_name(member.name)
        parent, _, name = path.rpartition("/")
        if not name:
            return
        if (parent or "/") not in self._tree.names:
            parent = self._real_directory(parent).rstrip("/")
            path = f"{parent}/{name}"
            if len(path) > _MAX_PATH:
                raise UnsafeNameError(f"stands at a path of more than {_MAX_PATH} bytes")
        if name.startswith(_WHITEOUT):
            self._hide(parent or "/", name)
            return
        self._make_directory(parent or "/")
        self._tree.put(self._link(member, path) if member.type == b"1" else self._entry(member, path))
        self._implied.discard(path)

    def _hide(self, parent: str, name: str) -> None:
        if name == _OPAQUE:
            self._opaque.add(parent)
        elif not name.startswith(_META):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in {"", ".", ".."}:
                raise UnsafeNameError("is a whiteout of no name")
            self._whiteouts.add(f"{parent.rstrip('/')}/{hidden}")

    def _real_directory(self, path: str) -> str:
        """Follow the links of this layer in a directory's path; what does not exist yet is taken literally."""
        pending = [part for part in reversed(path.split("/")) if part]
        real: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == ".":
                continue
            if part == "..":
                del real[-1:]
                continue
            entry = self._tree.entries.get("/" + "/".join([*real, part]))
            if entry is None or entry.type is EntryType.DIRECTORY:
                real.append(part)
            elif entry.type is EntryType.SYMLINK:
                links += 1
                if links > _MAX_LINKS:
                    raise UnsafeNameError(f"stands below more than {_MAX_LINKS} symbolic links")
                if entry.target.startswith("/"):
                    real.clear()
                pending.extend(part for part in reversed(entry.target.split("/")) if part)
            else:
                raise UnsafeNameError(f"stands below {entry.path}, which is no directory")
        return "/" + "/".join(real)

    def _make_directory(self, path: str) -> None:
        missing = []
        while path not in self._tree.names:
            missing.append(path)
            path = path.rpartition("/")[0] or "/"
        for directory in reversed(missing):
            self._tree.put(dataclasses.replace(ROOT, path=directory))
            self._implied.add(directory)

    def _link(self, member: Member, path: str) -> Entry:
        target_path = clean_name(member.target)
        parent, _, name = target_path.rpartition("/")
        if (parent or "/") not in self._tree.names:
            target_path = f"{self._real_directory(parent).rstrip('/')}/{name}"
        tree = self._tree if target_path in self._tree.entries else self._lower
        target = tree.entries.get(target_path)
        if target is None or target.type is EntryType.DIRECTORY:
            kind = "does not exist" if target is None else "is a directory"
            raise UnsafeNameError(f"is a hard link to {target_path}, which {kind}")
        if target.link_group == 0:
            target = dataclasses.replace(target, link_group=next(self._groups))
            tree.entries[target_path] = target
        return dataclasses.replace(target, path=path)

    def _entry(self, member: Member, path: str) -> Entry:
        kind = _TYPES[member.type]
        content = None
        target = ""
        if kind is EntryType.FILE:
            content = Extent(self._archive.source, member.offset, member.size)
            if member.sparse is not None:
                with writing(self._sparse_file):
                    descriptor = os.open(self._sparse_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    try:
                        start = materialise(content, member.sparse, descriptor)
                    finally:
                        os.close(descriptor)
                content = Extent(self._sparse_file, start, member.sparse.size)
        elif kind is EntryType.SYMLINK:
            if not 0 < len(member.target) < _MAX_PATH or b"\0" in member.target:
                raise UnsafeNameError(
                    f"is a symbolic link with a target of {len(member.target)} bytes, expected 1..{_MAX_PATH - 1}"
                )
            target = member.target.decode(errors="surrogateescape")
        return Entry(
            path=path,
            type=kind,
            mode=0o777 if kind is EntryType.SYMLINK else member.mode,
            uid=member.uid,
            gid=member.gid,
            mtime=member.mtime,
            mtime_nsec=member.mtime_nsec,
            content=content,
            target=target,
            device=member.device if kind in {EntryType.CHARACTER, EntryType.BLOCK} else (0, 0),
            xattrs=member.xattrs or NO_XATTRS,
        )
