"""What a user asks of a conversion: one field for each option of ``sconify_image``, checked on its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sconify.errors import UserError
from sconify.image.compression import Compression
from sconify.image.layer import DEFAULT_MAX_SIZE
from sconify.image.reference import ImageReference
from sconify.image.registry import DEFAULT_ACCESS, RegistryAccess
from sconify.program.launch import normal_variable

if TYPE_CHECKING:
    from sconify.volume.option import VolumeOption

DEFAULT_LAS = "localhost:18766"
"""The LAS of the host on which the container runs (the seed document's default)."""

BUILD_RESOURCES = Path("/build-resources")
"""Where build resources go if it is there, as in a container with a volume at that path (the seed document's place)."""

MAX_POLICY_FILE = 1 << 20
"""Bytes of a file with a policy, a template or a part of one."""

NAME_ELEMENT = re.compile(r"[A-Za-z0-9_.~-]{1,128}")
"""One element of a session or service name (session language 0.3, names)."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One conversion. Paths are of the native image unless they are ``Path`` objects."""

    native: ImageReference
    target: ImageReference
    binary: str
    """Empty if ``auto`` is to find it."""
    auto: bool = False
    """Whether the binary and the directories are proposed from the image where the user names none."""
    directories: tuple[str, ...] = ()
    plain_directories: tuple[str, ...] = ()
    plain_files: tuple[str, ...] = ()
    host_paths: tuple[str, ...] = ()
    volumes: tuple[VolumeOption, ...] = ()
    base: ImageReference | None = None
    command: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    session: str | None = None
    namespace: str | None = None
    create_namespace: bool = False
    service: str = "service"
    cas: str | None = None
    cas_enclave: str | None = None
    """Where the container reaches the CAS, ``[HOST][:PORT]``."""
    cas_debug: bool = False
    las: str = DEFAULT_LAS
    variables: dict[str, str] = field(default_factory=dict)
    """The measured start-up variables, normalised."""
    key_file: Path | None = None
    overwrite: bool = False
    binary_fs: bool = False
    """Whether the file system is embedded in the binary."""
    binary_fs_plain: bool = False
    """Whether everybody may read the embedded file system: its key is public."""
    binary_fs_defaults: bool = True
    """Whether shared objects and service libraries are embedded without being named."""
    fs_directories: tuple[str, ...] = ()
    fs_files: tuple[str, ...] = ()
    use_cache: bool = True
    """Whether it is remembered how embedded contents compress."""
    trace: Path | None = None
    """A record of what the program opens: those files are encrypted."""
    binary_symlinks: bool = True
    """Whether links to the binary, and the usual names of an interpreter, are made."""
    replacement_images: tuple[ImageReference, ...] = ()
    """Images with builds of programs that can't run as they are."""
    replace_unsconifiable: bool = True
    shared_objects: bool = True
    """Whether the binary's shared objects are taken along."""
    service_libraries: bool = True
    native_environment: bool = True
    """Whether the native image's variables get into the session."""
    library_path: bool = True
    """Whether a native LD_LIBRARY_PATH gets into the session."""
    template: Path | None = None
    secrets: Path | None = None
    injected_files: Path | None = None
    session_file: Path | None = None
    """Where the session is written, beside the build resources."""
    build_resources: Path | None = None
    identity: Path | None = None
    cas_key: str | None = None
    """Key hash, or 64 hex digits, of the CAS's key; None trusts the CAS that is attested."""
    upload: bool = True
    update_session: bool = True
    attest_cas: bool = True
    attest_service: bool = True
    allow_debug_mode: bool = False
    allow_tcb_vulnerabilities: bool = False
    push: bool = False
    compression: Compression | None = None
    """Of the layers; None lets the place where the image goes decide."""
    registry: RegistryAccess = DEFAULT_ACCESS
    max_image_size: int = DEFAULT_MAX_SIZE
    """Bytes of all layers of an image, uncompressed."""

    @property
    def key_is_fresh(self) -> bool:
        """Whether the file system key is made at random, for this conversion alone."""
        return self.key_file is None and not self.binary_fs_plain

    @property
    def session_name(self) -> str:
        """The session's own name: ``--name``, or the target's without ``/``; what can't stand in it becomes ``-``."""
        if self.session is not None:
            return self.session
        target = self.target
        name = target.name.replace("/", "") if target.path is None else target.path.name
        tag = "" if target.tag in (None, "latest") else f"-{target.tag}"
        return re.sub(r"[^A-Za-z0-9_.~-]", "-", name + tag)


def read_policy_file(path: Path, *, flag: str) -> str:
    """Return the text of a file that an option names.

    Raises:
        UserError: If it can't be read, is larger than ``MAX_POLICY_FILE``, or is no UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_FILE + 1)
    except OSError as error:
        raise UserError(
            f"{flag}={path} can't be read: {error.strerror}",
            remedy=f"give {flag} a file; in a container it must be mounted (docker run -v)",
        ) from None
    if len(data) > MAX_POLICY_FILE:
        raise UserError(f"{flag}={path} is larger than {MAX_POLICY_FILE} bytes", remedy=f"give {flag} another file")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UserError(f"{flag}={path} is no UTF-8 text", remedy=f"give {flag} another file") from None


def start_up_variable(name: str, text: str, *, flag: str) -> str:
    """Return the normal form of a measured start-up variable that an option gave.

    Raises:
        UserError: If it has another form.
    """
    try:
        return normal_variable(name, text)
    except UserError as error:
        raise UserError(f"{flag}={text}: {error.what}", remedy=f"give {flag} another value") from None


def parse_size(text: str, *, flag: str) -> int:
    """Return a number of bytes, which may end in K, M or G.

    Raises:
        UserError: It has another form.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,12})([kKmMgG]?)", text, re.ASCII)
    if match is None:
        raise UserError(
            f"{flag}={text}: expected a number of bytes, or one with K, M or G behind it",
            remedy=f"give {flag} another value",
        )
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]


def parse_variable(text: str) -> tuple[str, str]:
    """Split ``KEY=VALUE``.

    Raises:
        UserError: If there is no ``=`` or no name, or the text has a NUL.
    """
    name, separator, value = text.partition("=")
    if not separator or not name or "\0" in text:
        raise UserError(f"--env={text} is no KEY=VALUE", remedy="give --env=KEY=VALUE")
    return name, value


def check_name(text: str, *, flag: str, nested: bool) -> str:
    """Return a session, namespace or service name.

    Args:
        text: The name.
        flag: The option that gave it.
        nested: Whether it may have several elements, separated by ``/``.

    Raises:
        UserError: If an element is empty, too long or has other characters.
    """
    elements = text.split("/") if nested else [text]
    if not all(NAME_ELEMENT.fullmatch(element) for element in elements):
        raise UserError(
            f"{flag}={text} is no name: got characters other than A-Z a-z 0-9 _ . ~ -, or an empty or too long element",
            remedy=f"give {flag} other characters, at most 128",
        )
    return text
