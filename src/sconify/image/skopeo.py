"""The transports that need more than files and the Docker engine: registries and podman's store, through skopeo."""

from __future__ import annotations

import shutil
import subprocess

from sconify.errors import ServiceError

_INSPECT_TIMEOUT = "30s"
# What registries (distribution-spec, "Error Codes") and podman's store say of an image that is not there.
_MISSING = ("manifest unknown", "name unknown", "does not resolve to an image ID", "image not known")


def available() -> bool:
    """Tell whether skopeo is installed."""
    return shutil.which("skopeo") is not None


def copy(source: str, destination: str) -> None:
    """Copy one image, for linux/amd64.

    Args:
        source: In skopeo's syntax.
        destination: In skopeo's syntax.

    Raises:
        ServiceError: skopeo is missing or fails.
    """
    _run(
        "--override-os=linux",
        "--override-arch=amd64",
        "copy",
        "--quiet",
        "--dest-oci-accept-uncompressed-layers",
        source,
        destination,
        what=f"{source} can't be copied to {destination}",
    )


def exists(reference: str) -> bool:
    """Tell whether an image is there.

    Raises:
        ServiceError: skopeo is missing, or whether it is there can't be found out.
    """
    try:
        _run(f"--command-timeout={_INSPECT_TIMEOUT}", "inspect", "--raw", reference, what=f"{reference} can't be read")
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
    process = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise ServiceError(f"{what}: {_message(process.stderr)}", remedy="run skopeo login if the registry asks for it")


def _message(stderr: str) -> str:
    """Return the last line of skopeo's log, without its time stamp and level."""
    last = (stderr.strip().splitlines() or ["no reason given"])[-1]
    _, found, message = last.partition('msg="')
    return message.removesuffix('"') if found else last
