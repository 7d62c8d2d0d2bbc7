"""Docker's credential store, which skopeo does not know.

``docker login`` leaves credentials in ``~/.docker/config.json`` itself, with a helper for one registry
(``credHelpers``), or with a helper for all of them (``credsStore``, the default of Docker Desktop). skopeo reads the
first two. For the third it is given a file that names the same helper for the one registry that is asked; no secret is
in it.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def helper_authfile(host: str, authfile: Path | None) -> Path | None:
    """Return an authfile with the credential store's helper for a registry; None if skopeo finds what there is itself.

    Args:
        host: ``HOST[:PORT]`` of the registry.
        authfile: The file that the user gave; None for those that ``docker login`` and ``skopeo login`` write.
    """
    if authfile is None and any(_has(_document(path), host) for path in _containers_authfiles()):
        return None
    document = _document(authfile or _docker_config())
    store = document.get("credsStore")
    if not isinstance(store, str) or not store or "/" in store or _has(document, host):
        return None
    return _file_with_helper(host, store)


def _docker_config() -> Path:
    directory = os.environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def _containers_authfiles() -> list[Path]:
    """Return where ``skopeo login`` and ``podman login`` write (containers-auth.json(5))."""
    runtime, config = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("XDG_CONFIG_HOME")
    named = os.environ.get("REGISTRY_AUTH_FILE")
    directories = [Path(runtime)] if runtime else []
    directories.append(Path(config) if config else Path.home() / ".config")
    return [*([Path(named)] if named else []), *(path / "containers/auth.json" for path in directories)]


def _document(path: Path) -> Mapping[str, Any]:
    """Return a file's JSON object; an empty one if it is none: skopeo says what is wrong with it."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _has(document: Mapping[str, Any], host: str) -> bool:
    """Tell whether skopeo finds credentials of a registry in a file."""
    helpers, auths = document.get("credHelpers"), document.get("auths")
    if isinstance(helpers, dict) and host in helpers:
        return True
    # Docker leaves an empty entry for what it has put into the store.
    entry = auths.get(host) if isinstance(auths, dict) else None
    return isinstance(entry, dict) and bool(entry.get("auth"))


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """Return a directory that is removed when this process ends."""
    return tempfile.TemporaryDirectory(prefix="sconify-")


@functools.cache
def _file_with_helper(host: str, store: str) -> Path:
    path = Path(_directory().name) / f"{host.replace('/', '-')}.json"
    path.write_text(json.dumps({"credHelpers": {host: store}}))
    return path
