"""The conversion of a native image into an encrypted, attested one: the list of its steps.

No code of the native image is executed, no layer is held in memory, and nothing is published before everything is made:
the session is uploaded and the image gets its name only at the end, so a failure leaves neither behind.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sconify.assemble import assemble
from sconify.build_resources import build_resources, dockerfile_text
from sconify.cas.authority import find_authority
from sconify.destinations import destinations_of, resource_directory
from sconify.image.publication import WrittenImage
from sconify.image.reference import ImageReference
from sconify.image.sink import require_absent, write_image
from sconify.image.source import Image, open_image
from sconify.policy.template import session_text, shown_text
from sconify.policy_files import PolicyFiles, converted_service
from sconify.program.launch import LaunchManifest, embedding_binary, measurement, runtime_path, sconified_binary
from sconify.propose import completed
from sconify.replacement import with_sconifiable_program
from sconify.request import Request
from sconify.shield.cache import compression_cache
from sconify.shield.choose import Choice, choose
from sconify.shield.embed import PUBLIC_KEY, EmbeddedFileSystem, embed
from sconify.shield.key import file_system_key
from sconify.shield.protect import ProtectedFileSystem, protect


class Progress(Protocol):
    """Somebody who wants to see how far a conversion is."""

    def step(self, name: str, total: int) -> None:
        """A step begins; ``total`` is its size in bytes, 0 when it has none."""

    def advance(self, done: int) -> None:
        """``done`` bytes of the present step are done."""

    def note(self, text: str) -> None:
        """Something that was decided for the user."""

    def warn(self, text: str) -> None:
        """Something that the user should know, but that stops nothing."""

    def artifact(self, name: str, text: str) -> None:
        """A text that was made, for those who want to see it; without secrets."""


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
    session_hash: str | None
    """None if the session was not uploaded."""
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
            resource_place = resource_directory(request)
            policy = PolicyFiles.read(request)
            key = PUBLIC_KEY if request.binary_fs_plain else file_system_key(request.key_file)
            destinations = destinations_of(request)
            for destination in destinations:
                require_absent(destination, overwrite=request.overwrite, registry=request.registry)
            request, native, base = _open_images(request, work, stack, note=progress.note, warn=progress.warn)
        with clock.step("plan"):
            choice = choose(request, native, base)
            for warning in choice.plan.warnings:
                progress.warn(warning)
        with clock.step("attest the CAS" if request.upload else "find the key of the CAS"):
            authority = find_authority(request, progress.warn)
            manifest = LaunchManifest.for_runtime(
                runtime_path(), program=choice.program.path, cas_key=authority.key, variables=request.variables
            )
            # A template or a section that is wrong is refused now, before the long work.
            service = converted_service(request, choice, authority, policy, measurement(manifest))
            session_text(service, template=policy.template)
        with clock.step("protect", total=choice.plan.content_size):
            protected, manifest, binary = _protect(request, choice, manifest, key=key, work=work, progress=progress)
        with clock.step("write the image"):
            config, layers = assemble(
                request=request, native=native, base=base, choice=choice, authority=authority, protected=protected,
                binary=binary, work=work,
            )  # fmt: skip
            staged = [
                stack.enter_context(
                    write_image(
                        destination, config=config, layers=layers, workdir=work, overwrite=request.overwrite,
                        registry=request.registry,
                    )
                )
                for destination in destinations
            ]  # fmt: skip
            service = dataclasses.replace(
                service, fspf_key=key.hex(), fspf_tag=protected.tag.hex(), measurement=measurement(manifest)
            )
            text = session_text(service, template=policy.template)
            own_layers = layers[len(base.layers) if base is not None else 0 :]
            dockerfile = dockerfile_text(config, base=request.base, layers=len(own_layers))
            resources = stack.enter_context(build_resources(resource_place, request.session_file))
            resources.write_session(text)
            resources.write_context(dockerfile, own_layers)
        with clock.step("upload the policy" if request.upload else "check the policy"):
            session_hash = authority.upload(text)
        with clock.step("publish the image"):
            written = [image.commit() for image in staged]
            resources.commit()
    progress.artifact("Dockerfile", dockerfile)
    progress.artifact("session, without its secrets", shown_text(service, template=policy.template))
    return Conversion(
        session=authority.session,
        session_hash=session_hash,
        config_id=authority.config_id(request.service),
        measurement=measurement(manifest),
        image=written[0],
        native_size=native.size,
        chosen_size=choice.plan.content_size,
        cas=authority.cas_address,
        las=authority.las_address,
        steps=tuple(clock.steps),
    )


def _protect(
    request: Request, choice: Choice, manifest: LaunchManifest, *, key: bytes, work: Path, progress: Progress
) -> tuple[ProtectedFileSystem | EmbeddedFileSystem, LaunchManifest, bytes]:
    """Encrypt the files; return them, the manifest that names them if they are embedded, and the sconified binary."""
    if not request.binary_fs:
        protected = protect(choice.plan, key=key, work=work, progress=progress.advance)
        return protected, manifest, sconified_binary(runtime_path(), manifest)
    cache = compression_cache() if request.use_cache else None
    embedded = embed(
        choice.plan, key=key, program=choice.program.path, work=work, cache=cache, progress=progress.advance
    )
    if cache is not None:
        cache.trim()
    return embedded, *embedding_binary(runtime_path(), manifest, embedded.files)


def explain(request: Request, *, note: Callable[[str], None]) -> Choice:
    """Plan a conversion and make nothing; ``note`` is told what was decided for the user.

    Raises:
        SconifyError: As ``convert`` does for the same request.
    """
    with ExitStack() as stack:
        work = stack.enter_context(_workspace())
        destinations_of(request)
        resource_directory(request)
        PolicyFiles.read(request)
        warnings: list[str] = []
        request, native, base = _open_images(request, work, stack, note=note, warn=warnings.append)
        return choose(request, native, base, warnings=warnings)


def _open_images(
    request: Request, work: Path, stack: ExitStack, *, note: Callable[[str], None], warn: Callable[[str], None]
) -> tuple[Request, Image, Image | None]:
    """Open the native image and, if one was asked for, the base image, until ``stack`` unwinds.

    Returns:
        The request, completed by what ``--auto`` finds, and the images.
    """

    def opened(reference: ImageReference) -> Image:
        return stack.enter_context(open_image(reference, workdir=work, registry=request.registry))

    native = opened(request.native)
    request = completed(request, native, note=note, warn=warn)
    native = with_sconifiable_program(request, native, opened, warn)
    return request, native, None if request.base is None else opened(request.base)


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
