"""``--volume=NAME:PATH[:[FROM_SESSION][:TO_SESSION...]]`` and what it says in a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sconify.errors import UserError
from sconify.program.view import absolute
from sconify.request import check_name

_FORM = "NAME:PATH[:[FROM_SESSION][:TO_SESSION...]]"


@dataclass(frozen=True, kw_only=True)
class VolumeOption:
    """A volume that a converted image uses.

    Attributes:
        name: Its name in the session, and in the one that it is imported from.
        path: Where the program finds it: absolute and normal.
        imported_from: The session that owns it; None: this one does.
        exported_to: The sessions that may import it.
    """

    name: str
    path: str
    imported_from: str | None = None
    exported_to: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the option's value; a slash at the end of the path is dropped.

        Raises:
            UserError: If it has another form, a name or path can't be one, or it is imported and exported at once.
        """
        fields = text.split(":")
        if len(fields) < 2:
            raise UserError(f"--volume={text} has no path", remedy=f"give --volume={_FORM}")
        name, path, *sessions = fields
        check_name(name, flag="--volume", nested=False)
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise UserError(
                f"--volume={text}: got the path {path!r}, expected an absolute one without ..",
                remedy=f"give --volume={_FORM}",
            )
        path = absolute(path, working_dir="/")
        if path == "/":
            raise UserError(f"--volume={text} would replace the whole file system", remedy="give a directory's path")
        imported_from = sessions[0] if sessions and sessions[0] else None
        exported_to = tuple(dict.fromkeys(session for session in sessions[1:] if session))
        for session in ([imported_from] if imported_from else []) + list(exported_to):
            check_name(session, flag="--volume", nested=True)
        if imported_from and exported_to:
            raise UserError(
                f"--volume={text} is imported from {imported_from} and exported to {exported_to[0]}",
                remedy=f"let {imported_from} export it to both",
            )
        return cls(name=name, path=path, imported_from=imported_from, exported_to=exported_to)

    def volume_entry(self) -> dict[str, object]:
        """Return the entry of the ``volumes`` section; without a key, so that the CAS makes one."""
        if self.imported_from:
            return {"name": self.name, "import": {"session": self.imported_from, "volume": self.name}}
        if self.exported_to:
            return {"name": self.name, "export": [{"session": session} for session in self.exported_to]}
        return {"name": self.name}

    def image_entry(self) -> dict[str, object]:
        """Return the entry of ``volumes`` of the image: where it is mounted."""
        return {"name": self.name, "path": self.path}


def parse_volumes(texts: tuple[str, ...]) -> tuple[VolumeOption, ...]:
    """Read all values of the option.

    Raises:
        UserError: If one is malformed, or two share a name or a path, or one is in another.
    """
    volumes = tuple(map(VolumeOption.parse, texts))
    for index, one in enumerate(volumes):
        for other in volumes[:index]:
            if one.name == other.name:
                raise UserError(f"--volume={one.name} is given twice", remedy="give each volume once")
            if f"{one.path}/".startswith(f"{other.path}/") or f"{other.path}/".startswith(f"{one.path}/"):
                raise UserError(
                    f"--volume={one.name}:{one.path} and --volume={other.name}:{other.path} overlap",
                    remedy="give each volume a directory of its own",
                )
    return volumes
