"""The conversion of a native image into an encrypted, attested one: the list of its steps.

No code of the native image is executed, no layer is held in memory, and nothing is published before everything is made:
the session is uploaded and the image gets its name only at the end, so a failure leaves neither behind.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sconify.assemble import assemble
from sconify.cas.authority import find_authority
from sconify.image.publication import WrittenImage
from sconify.image.sink import require_absent, write_image
from sconify.image.source import Image, open_image
from sconify.policy.template import ConvertedService, session_text
from sconify.program.launch import LaunchManifest, measurement, runtime_path, sconified_binary
from sconify.request import Request
from sconify.shield.choose import Choice, choose
from sconify.shield.key import file_system_key
from sconify.shield.protect import INDEX, protect


class Progress(Protocol):
    """Somebody who wants to see how far a conversion is."""

    def step(self, name: str, total: int) -> None:
        """A step begins; ``total`` is its size in bytes, 0 when it has none."""

    def advance(self, done: int) -> None:
        """``done`` bytes of the present step are done."""

    def warn(self, text: str) -> None:
        """Something that the user should know, but that stops nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was done, and how long it took."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion made."""

    session: str
    """``NAMESPACE/SESSION``."""
    session_hash: str
    config_id: str
    """``NAMESPACE/SESSION/SERVICE``: what the image presents to the CAS."""
    measurement: str
    image: WrittenImage
    native_size: int
    """Bytes of the native image, uncompressed."""
    chosen_size: int
    """Bytes of the files that were chosen from it."""
    cas: str
    las: str
    steps: tuple[Step, ...]


def convert(request: Request, *, progress: Progress) -> Conversion:
    """Convert an image.

    Raises:
        SconifyError: Of the family that says whose fault it is. Nothing is left behind.
    """
    clock = _Clock(progress)
    with ExitStack() as stack:
        work = stack.enter_context(_workspace())
        with clock.step("read the native image"):
            key = file_system_key(request.key_file)
            require_absent(request.target, overwrite=request.overwrite)
            native, base = _open_images(request, work, stack)
        with clock.step("plan"):
            choice = choose(request, native, base)
            for warning in choice.plan.warnings:
                progress.warn(warning)
        with clock.step("attest the CAS"):
            authority = find_authority(request, progress.warn)
        with clock.step("protect", total=choice.plan.content_size):
            protected = protect(choice.plan, key=key, work=work, progress=progress.advance)
        with clock.step("measure"):
            manifest = LaunchManifest.for_runtime(
                runtime_path(), program=choice.program.path, cas_key=authority.key, variables=request.variables
            )
        with clock.step("write the image"):
            config, layers = assemble(
                request=request, native=native, base=base, choice=choice, authority=authority, protected=protected,
                binary=sconified_binary(runtime_path(), manifest), work=work,
            )  # fmt: skip
            staged = stack.enter_context(
                write_image(request.target, config=config, layers=layers, workdir=work, overwrite=request.overwrite)
            )
        with clock.step("upload the policy"):
            service = ConvertedService(
                name=authority.session,
                service=request.service,
                measurement=measurement(manifest),
                command=choice.command,
                environment=choice.environment,
                pwd=choice.working_directory,
                fspf_path=INDEX,
                fspf_key=key.hex(),
                fspf_tag=protected.tag.hex(),
                tolerate=authority.tolerate,
            )
            session_hash = authority.upload(session_text(service))
        with clock.step("publish the image"):
            written = staged.commit()
    return Conversion(
        session=authority.session,
        session_hash=session_hash,
        config_id=authority.config_id(request.service),
        measurement=measurement(manifest),
        image=written,
        native_size=native.size,
        chosen_size=choice.plan.content_size,
        cas=authority.cas_address,
        las=authority.las_address,
        steps=tuple(clock.steps),
    )


def explain(request: Request) -> Choice:
    """Plan a conversion and make nothing.

    Raises:
        SconifyError: As ``convert`` does for the same request.
    """
    with ExitStack() as stack:
        work = stack.enter_context(_workspace())
        native, base = _open_images(request, work, stack)
        return choose(request, native, base)


def _open_images(request: Request, work: Path, stack: ExitStack) -> tuple[Image, Image | None]:
    """Open the native image and, if one was asked for, the base image, until ``stack`` unwinds."""
    native = stack.enter_context(open_image(request.native, workdir=work))
    if request.base is None:
        return native, None
    return native, stack.enter_context(open_image(request.base, workdir=work))


@contextmanager
def _workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sconify-") as directory:
        yield Path(directory)


class _Clock:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.steps: list[Step] = []

    @contextmanager
    def step(self, name: str, total: int = 0) -> Iterator[None]:
        self._progress.step(name, total)
        begin = time.monotonic()
        yield
        self.steps.append(Step(name, time.monotonic() - begin))
