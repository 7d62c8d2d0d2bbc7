"""The user that an image names: its home, and its numbers for images in which engines can't look names up."""

from __future__ import annotations

from dataclasses import dataclass

from sconify.errors import UserError
from sconify.image.model import EntryType
from sconify.program.view import RootView

MAX_DATABASE = 1 << 20
"""Bytes of ``/etc/passwd`` and of ``/etc/group`` that are looked at."""


@dataclass(frozen=True, slots=True)
class NumberedUser:
    """A user as the kernel knows it."""

    text: str
    """What an image's configuration says: ``UID:GID``, or nothing for root."""
    further_groups: tuple[str, ...] = ()
    """Names of groups that an engine would add, but that a configuration can't express."""


def numbered_user(root: RootView, user: str) -> NumberedUser:
    """Look up a configured user, ``[USER][:GROUP]`` by names or numbers, as engines do.

    Args:
        root: The root file system of the image.
        user: From the image's configuration.

    Raises:
        UserError: The image does not have the user or the group.
    """
    name, colon, group = user.partition(":")
    if not name and not group:
        return NumberedUser("")
    found = next((fields for fields in _database(root, "/etc/passwd", 7) if name in (fields[0], fields[2])), None)
    uid = name or "0"
    if not uid.isdecimal():
        if found is None:
            raise UserError(f"USER {user}: the native image has no user {name}", remedy="mend the image's USER")
        uid = found[2]
    groups = list(_database(root, "/etc/group", 4))
    if colon and group:
        gid = next((fields[2] for fields in groups if group in (fields[0], fields[2])), group)
        if not gid.isdecimal():
            raise UserError(f"USER {user}: the native image has no group {group}", remedy="mend the image's USER")
        return NumberedUser(f"{uid}:{gid}")
    gid = found[3] if found is not None else "0"
    further = () if found is None else (
        fields[0] for fields in groups if found[0] in fields[3].split(",") and fields[2] != gid
    )  # fmt: skip
    return NumberedUser(f"{uid}:{gid}", tuple(further))


def home_directory(root: RootView, user: str) -> str:
    """Return the home directory that an engine would set for a configured user, ``/`` if none is known.

    Args:
        root: The root file system of the image.
        user: From the image's configuration.
    """
    name = user.partition(":")[0] or "0"
    for fields in _database(root, "/etc/passwd", 7):
        if name in (fields[0], fields[2]):
            return fields[5] or "/"
    return "/"


def _database(root: RootView, path: str, fields: int) -> list[list[str]]:
    """Return the records of a file of names; none if the image does not have it."""
    entry = root.lookup(path)
    if entry is None or entry.type is not EntryType.FILE:
        return []
    with root.open(entry) as file:
        text = file.read(MAX_DATABASE).decode(errors="surrogateescape")
    records = (line.split(":") for line in text.splitlines())
    return [record for record in records if len(record) == fields]
