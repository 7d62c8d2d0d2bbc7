"""Records what a native image's program opens: runs the image in the Docker engine under strace.

The image needs nothing for that: strace and its libraries are copied from this machine into the container, beside the
image's own files, and started by their own loader. Nothing is mounted, so the engine may be another machine's.
"""

from __future__ import annotations

import io
import posixpath
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sconify.errors import ServiceError, UserError
from sconify.image.engine import Engine
from sconify.program.trace import traced_paths

PLACE = "/.sconify-trace"
"""Where the tracer stands in the container."""

MAX_RECORD = 1 << 30
"""Bytes of strace's output that are read."""

_RECORD = "record"
_LIBRARY = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.M)
_UNREAL = ("/dev", "/proc", "/sys", PLACE)
"""What is never a file of the image."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a run opened."""

    paths: tuple[str, ...]
    """Absolute and normal, sorted; links are not followed."""
    exit_code: int | None
    """Of the program; None if it was stopped because its time was over."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the image is run."""

    image: str
    """A name that the engine knows."""
    arguments: tuple[str, ...] = ()
    """In place of the image's Cmd, as with ``docker run``."""
    environment: Mapping[str, str] | None = None
    network: str | None = None
    ports: tuple[str, ...] = ()
    """``HOST:CONTAINER`` or ``CONTAINER``, as with ``docker run --publish``."""
    seconds: float | None = None
    """After which the program is stopped."""


def record(run: Run, *, show: Callable[[bytes], None], note: Callable[[str], None]) -> Recording:
    """Run an image and record which files its program opens or executes with success.

    Args:
        run: What to run, and how long.
        show: Gets what the program prints.
        note: Is told what happens.

    Raises:
        UserError: The engine has no such image, it names no program, none that can be run, or one that opens nothing.
        ServiceError: strace is missing here, or the engine fails.
    """
    tracer = _Tracer.of_this_machine()
    engine = Engine()
    try:
        details = engine.inspect(run.image)
        if details is None:
            raise UserError(f"the Docker engine has no image {run.image}", remedy=f"docker pull {run.image}")
        config = details.get("Config") or {}
        entrypoint, command = config.get("Entrypoint") or [], list(run.arguments) or config.get("Cmd") or []
        if not [*entrypoint, *command]:
            raise UserError(
                f"{run.image} has neither Entrypoint nor Cmd", remedy="name the program and its arguments after --"
            )
        working_dir = config.get("WorkingDir") or "/"
        with engine.container(
            run.image, entrypoint=[*tracer.command, *entrypoint], command=command, environment=run.environment or {},
            network=run.network, ports=run.ports,
        ) as container:  # fmt: skip
            container.put(tracer.archive())
            exit_code = container.run(seconds=run.seconds, show=show, note=note)
            text = container.read(f"{PLACE}/{_RECORD}", MAX_RECORD).decode(errors="surrogateescape")
    finally:
        engine.close()
    if not text.strip():
        raise UserError(
            f"nothing was recorded: the container ended with {exit_code} before a program ran",
            remedy="look at what it printed; name a program of the image after --; the engine must allow ptrace",
        )
    paths = traced_paths(text, working_dir=working_dir, source=f"the record of {run.image}")
    real = tuple(path for path in paths if not path.startswith(_UNREAL))
    if not real:
        raise UserError(
            f"{run.image} opened no file before it ended with {exit_code}",
            remedy="look at what it printed; give its arguments after --",
        )
    return Recording(paths=real, exit_code=exit_code)


@dataclass(frozen=True)
class _Tracer:
    """strace of this machine: its program, loader and libraries."""

    program: Path
    loader: Path
    libraries: Mapping[str, Path]

    @classmethod
    def of_this_machine(cls) -> _Tracer:
        found = shutil.which("strace")
        if found is None:
            raise ServiceError("strace is not installed", remedy="install strace (apt install strace)")
        listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        libraries, loader = {}, None
        for match in _LIBRARY.finditer(listed):
            path = Path(match["path"])
            if match["name"] is None or posixpath.basename(match["name"]).startswith("ld-"):
                loader = path
            else:
                libraries[match["name"]] = path
        if loader is None:
            raise ServiceError(f"{found} has no dynamic loader: got {listed!r}", remedy="install strace of Debian")
        return cls(Path(found), loader, libraries)

    @property
    def command(self) -> Sequence[str]:
        """What stands before the program: filenames are recorded in full, all other texts are cut (``-s 0``)."""
        return (
            f"{PLACE}/loader", "--library-path", PLACE, f"{PLACE}/strace", "-f", "-qq", "-y", "-I", "2", "-s", "0",
            "-e", "trace=file,fchdir", "-e", "signal=none", "-o", f"{PLACE}/{_RECORD}", "--",
        )  # fmt: skip

    def archive(self) -> bytes:
        """Return the tar archive that is unpacked at the container's root."""
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w") as tar:
            place = tarfile.TarInfo(PLACE[1:])
            # The container may run as any user.
            place.type, place.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(place)
            for name, source in {"strace": self.program, "loader": self.loader, **self.libraries}.items():
                content = source.read_bytes()
                member = tarfile.TarInfo(f"{PLACE[1:]}/{name}")
                member.size, member.mode = len(content), 0o755
                tar.addfile(member, io.BytesIO(content))
        return output.getvalue()
