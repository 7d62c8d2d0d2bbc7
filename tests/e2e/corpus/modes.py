"""The two modes of conversion, in both of which every program of the corpus runs."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDING = {"--dir": "--fs-dir", "--plain": "--fs-dir", "--plain-file": "--fs-file"}
"""Which option embeds what another one protects or leaves plain."""

ENGINE_FILES = tuple(f"--host-path=/etc/{name}" for name in ("hostname", "hosts", "resolv.conf"))
"""What file protection leaves to the engine by itself."""


@dataclass(frozen=True)
class Mode:
    """How an image is converted."""

    name: str
    tag: str
    """Of the encrypted images."""

    @property
    def embeds(self) -> bool:
        return self.name == "binary-fs"

    def options(self, given: tuple[str, ...]) -> tuple[str, ...]:
        """Return the options of a conversion in this mode, made of those for file protection."""
        if not self.embeds:
            return given
        split = (option.partition("=") for option in given)
        return (
            "--binary-fs",
            *ENGINE_FILES,
            *(f"{EMBEDDING.get(name, name)}{equals}{value}" for name, equals, value in split),
        )


FILE_PROTECTION = Mode("file-protection", "encrypted")
"""Protected directories are read-only."""

BINARY_FS = Mode("binary-fs", "embedded")
"""Everything may be changed, until the end."""
