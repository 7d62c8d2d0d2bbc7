"""The conversion of a native image into an encrypted, attested one: the list of its steps.

No code of the native image is executed, no layer is held in memory, and nothing is published before everything is made:
the session is uploaded and the image gets its name only at the end, so a failure leaves neither behind.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from sconify.assemble import PackLayers, assemble
from sconify.cas.authority import find_authority
from sconify.image.publication import WrittenImage
from sconify.image.reference import Transport
from sconify.image.storage import WriteBack
from sconify.inputs import Inputs, opened_inputs
from sconify.policy.template import session_text, shown_text
from sconify.policy_files import converted_service
from sconify.program.launch import LaunchManifest, embedding_binary, measurement, runtime_path, sconified_binary
from sconify.request import Request
from sconify.shield.cache import compression_cache
from sconify.shield.choose import Choice, choose
from sconify.shield.embed import PUBLIC_KEY, EmbeddedFileSystem, embed
from sconify.shield.key import file_system_key
from sconify.shield.protect import PACKS, ProtectedFileSystem, protect
from sconify.staging import staged_results


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
        with clock.step("read the native image"):
            inputs = stack.enter_context(
                opened_inputs(request, note=progress.note, warn=progress.warn, to_publish=True)
            )
            request = inputs.request
            key = PUBLIC_KEY if request.binary_fs_plain else file_system_key(request.key_file)
        with clock.step("plan"):
            choice = choose(request, inputs.native, inputs.base)
            for warning in choice.plan.warnings:
                progress.warn(warning)
        with clock.step("attest the CAS" if request.upload else "find the key of the CAS"):
            authority = find_authority(request, progress.warn)
            manifest = LaunchManifest.for_runtime(
                runtime_path(), program=choice.program.path, cas_key=authority.key, variables=request.variables
            )
            policy = converted_service(request, choice, authority, inputs.policy, measurement(manifest))
            # A template or a section that is wrong is refused now, before the long work.
            session_text(policy, template=inputs.policy.template)
        to_layout = any(place.transport is Transport.OCI for place in inputs.destinations)
        write_back = stack.enter_context(WriteBack(inputs.work, PACKS)) if to_layout else None
        pack_layers = stack.enter_context(PackLayers(inputs.work))
        with (
            clock.step("protect", total=choice.plan.content_size),
            # Digests of the output can't be computed by more than one processor.
            inputs.verification.leaving(choice.plan.content_size),
        ):
            protected, manifest, binary = _protect(
                inputs, choice, manifest, key=key, pack_layers=pack_layers, progress=progress
            )
            policy = dataclasses.replace(
                policy, fspf_key=key.hex(), fspf_tag=protected.tag.hex(), measurement=measurement(manifest)
            )
            session = session_text(policy, template=inputs.policy.template)
        with clock.step("write the image"):
            config, layers = assemble(
                inputs, choice, authority, protected=protected, binary=binary, pack_layers=pack_layers
            )
            results = stack.enter_context(staged_results(inputs, config=config, layers=layers, session=session))
            if write_back is not None:
                write_back.confirm()
        with clock.step("upload the policy" if request.upload else "check the policy"):
            session_hash = authority.upload(session)
        with clock.step("publish the image"):
            image = results.publish()
    progress.artifact("Dockerfile", results.dockerfile)
    progress.artifact("session, without its secrets", shown_text(policy, template=inputs.policy.template))
    return Conversion(
        session=authority.session,
        session_hash=session_hash,
        config_id=authority.config_id(request.service),
        measurement=measurement(manifest),
        image=image,
        native_size=inputs.native.size,
        chosen_size=choice.plan.content_size,
        cas=authority.cas_address,
        las=authority.las_address,
        steps=tuple(clock.steps),
    )


def _protect(
    inputs: Inputs,
    choice: Choice,
    manifest: LaunchManifest,
    *,
    key: bytes,
    pack_layers: PackLayers,
    progress: Progress,
) -> tuple[ProtectedFileSystem | EmbeddedFileSystem, LaunchManifest, bytes]:
    """Encrypt the files; return them, the manifest that names them if they are embedded, and the sconified binary."""
    request, work = inputs.request, inputs.work
    if not request.binary_fs:
        protected = protect(
            choice.plan,
            key=key,
            key_is_fresh=request.key_is_fresh,
            work=work,
            progress=progress.advance,
            complete=pack_layers.make,
        )
        return protected, manifest, sconified_binary(runtime_path(), manifest)
    cache = compression_cache() if request.use_cache else None
    embedded = embed(
        choice.plan, key=key, key_is_fresh=request.key_is_fresh, runtime=runtime_path(), manifest=manifest, work=work,
        cache=cache, progress=progress.advance,
    )  # fmt: skip
    if cache is not None:
        cache.trim()
    return embedded, *embedding_binary(runtime_path(), manifest, embedded.files)


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
