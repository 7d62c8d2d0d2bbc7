"""Version managers: pyenv, rbenv, nodenv and their kin put scripts into ``shims`` that start a program of a version.

The program is that of the version in ``ROOT/version``, or of the only one that is installed. A version in a
``.python-version`` of some directory, or in a variable, is the user's to name with ``--binary``.
"""

from __future__ import annotations

import posixpath

from sconify.image.model import EntryType
from sconify.program.ldconf import read_text
from sconify.program.view import RootView, Trail, find

_SHIMS, _VERSIONS = "shims", "versions"


def behind_shim(view: RootView, trail: Trail) -> Trail | None:
    """Return the program that a version manager's shim starts; None if ``trail`` leads to no shim."""
    directory, name = posixpath.split(trail.entry.path)
    root = posixpath.dirname(directory)
    if posixpath.basename(directory) != _SHIMS or find(view, posixpath.join(root, _VERSIONS)) is None:
        return None
    for version in _chosen(view, root):
        found = find(view, posixpath.join(root, _VERSIONS, version, "bin", name))
        if found is not None and found.entry.type is EntryType.FILE and found.entry.mode & 0o111:
            return found
    return None


def _chosen(view: RootView, root: str) -> list[str]:
    file = find(view, posixpath.join(root, "version"))
    if file is not None and file.entry.type is EntryType.FILE:
        return [name for name in read_text(view, file.entry).split() if "/" not in name]
    versions = find(view, posixpath.join(root, _VERSIONS))
    installed = [] if versions is None else view.children(versions.entry.path)
    return installed if len(installed) == 1 else []
