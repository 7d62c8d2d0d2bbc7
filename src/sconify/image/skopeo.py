"""The transports that need more than files and the Docker engine: registries and podman's store, through skopeo."""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from sconify.errors import ServiceError
from sconify.image.storage import StorageError

log = logging.getLogger(__name__)

_INSPECT_TIMEOUT = "30s"
# What registries (distribution-spec, "Error Codes") and podman's store say of an image that is not there.
_MISSING = ("manifest unknown", "name unknown", "does not resolve to an image ID", "image not known")


def available() -> bool:
    """Tell whether skopeo is installed."""
    return shutil.which("skopeo") is not None


def copy(source: str, destination: str, *, options: Sequence[str] = ()) -> None:
    """Copy one image, for linux/amd64.

    Args:
        source: In skopeo's syntax.
        destination: In skopeo's syntax.
        options: More of skopeo's options, such as those of ``RegistryAccess.flags``.

    Raises:
        ServiceError: skopeo is missing or fails.
    """
    _run(
        "--override-os=linux",
        "--override-arch=amd64",
        "copy",
        "--quiet",
        "--dest-oci-accept-uncompressed-layers",
        *options,
        source,
        destination,
        what=f"{source} can't be copied to {destination}",
    )


def exists(reference: str, *, options: Sequence[str] = ()) -> bool:
    """Tell whether an image is there.

    Args:
        reference: In skopeo's syntax.
        options: As for ``copy``.

    Raises:
        ServiceError: skopeo is missing, or whether it is there can't be found out.
    """
    try:
        _run(
            f"--command-timeout={_INSPECT_TIMEOUT}",
            *("inspect", "--raw", *options, reference),
            what=f"{reference} can't be read",
        )
    except ServiceError as error:
        if any(sign in error.what for sign in _MISSING):
            return False
        raise
    return True


def delete(reference: str) -> None:
    """Remove an image's name.

    Raises:
        ServiceError: skopeo is missing or fails.
    """
    _run("delete", reference, what=f"{reference} can't be removed")


def _run(*arguments: str, what: str) -> None:
    if not available():
        raise ServiceError(f"{what}: skopeo is not installed", remedy="install skopeo (apt install skopeo)")
    log.debug("+ skopeo %s", shlex.join(arguments))
    process = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    if process.returncode != 0:
        message = _message(process.stderr)
        kind = StorageError if "no space left" in message.lower() else ServiceError
        raise kind(f"{what}: {message}", remedy=_remedy(message))


def _remedy(message: str) -> str:
    """Return what mends a failure, by what skopeo says of it."""
    lower = message.lower()
    if "gave http response to https" in lower:
        return "give --insecure-registry=HOST:PORT if the registry has no TLS"
    if "x509" in lower or "certificate" in lower or "tls:" in lower:
        return "give --registry-cert-dir=DIR with the certificate of the registry's authority (*.crt)"
    if any(sign in lower for sign in ("unauthorized", "denied", "authentication required", "403", "401")):
        return "log in (docker login or skopeo login), or give --authfile=FILE"
    if "no space left" in lower:
        return "free space, or set TMPDIR to a directory on a larger disk"
    return "check the name, and that the registry can be reached from here"


def _message(stderr: str) -> str:
    """Return the last line of skopeo's log, without its time stamp and level."""
    last = (stderr.strip().splitlines() or ["no reason given"])[-1]
    _, found, message = last.partition('msg="')
    return message.removesuffix('"') if found else last
