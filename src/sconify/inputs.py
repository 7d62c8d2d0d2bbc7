"""What a conversion reads before it decides anything: the images, and the files that the user names."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sconify.destinations import destinations_of, resource_directory
from sconify.errors import SconifyError
from sconify.image.reference import ImageReference
from sconify.image.sink import require_absent
from sconify.image.source import Image, open_image
from sconify.image.storage import scratch_directory
from sconify.image.verification import Verification
from sconify.policy_files import PolicyFiles
from sconify.propose import completed
from sconify.replacement import with_sconifiable_program
from sconify.request import Request


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that is read; the images can be read from as long as the conversion lasts."""

    request: Request
    """Completed by what ``--auto`` finds."""
    work: Path
    """A directory for what is made on the way."""
    native: Image
    base: Image | None
    policy: PolicyFiles
    destinations: tuple[ImageReference, ...]
    """Where the image goes; the first one is what the result names."""
    resources: Path | None
    """Where build resources go, if anywhere."""
    verification: Verification
    """Verifies the images' layers meanwhile. Whoever publishes anything confirms it before."""


@contextmanager
def opened_inputs(
    request: Request, *, note: Callable[[str], None], warn: Callable[[str], None], to_publish: bool
) -> Iterator[Inputs]:
    """Read what a request names, for a block; after it, the digests of all layers are right.

    Args:
        request: What the user asks for.
        note: Is told what was decided for the user.
        warn: Is told what the user should know.
        to_publish: Whether the names of the destinations must be free, which is found out before an image is read.

    Raises:
        SconifyError: Of the family that says whose fault it is.
    """
    with ExitStack() as stack:
        work = stack.enter_context(scratch_directory(Path(tempfile.gettempdir()), prefix="sconify-"))
        verification = stack.enter_context(Verification())

        def opened(reference: ImageReference) -> Image:
            return stack.enter_context(
                open_image(
                    reference, workdir=work, registry=request.registry, max_size=request.max_image_size,
                    verification=verification,
                )
            )  # fmt: skip

        resources = resource_directory(request)
        policy = PolicyFiles.read(request)
        destinations = tuple(destinations_of(request))
        for destination in destinations if to_publish else ():
            require_absent(destination, overwrite=request.overwrite, registry=request.registry)
        try:
            native = opened(request.native)
            request = completed(request, native, note=note, warn=warn)
            native = with_sconifiable_program(request, native, opened, warn)
            yield Inputs(
                request=request,
                work=work,
                native=native,
                base=None if request.base is None else opened(request.base),
                policy=policy,
                destinations=destinations,
                resources=resources,
                verification=verification,
            )
        except SconifyError:
            verification.raise_mismatch()
            raise
        verification.confirm()
