"""What a conversion would do, and the measurement that it would give, without making anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sconify.cas.authority import expected_key
from sconify.inputs import opened_inputs
from sconify.program.launch import LaunchManifest, measurement, runtime_path
from sconify.request import Request
from sconify.shield.choose import Choice, choose


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The plan of a conversion, and what the policy would expect of the image."""

    choice: Choice
    measurement: str | None
    """64 hex digits; None if it can't be known beforehand."""
    measurement_depends_on: str
    """What is still to be known for it, and how it gets known; empty if it is known."""


def explain(request: Request, *, note: Callable[[str], None]) -> Explanation:
    """Plan a conversion and make nothing; no CAS is contacted. ``note`` is told what was decided for the user.

    Raises:
        SconifyError: As ``convert`` does for the same request.
    """
    warnings: list[str] = []
    with opened_inputs(request, note=note, warn=warnings.append, to_publish=False) as inputs:
        choice = choose(inputs.request, inputs.native, inputs.base, warnings=warnings)
    key = expected_key(request)
    missing = ""
    if request.binary_fs:
        missing = "every embedded file, so it is known when they are embedded: convert, or run `sconify measure IMAGE`"
    elif key is None:
        missing = (
            "the key of the CAS, which is not known yet: run `sconify cas attest HOST:PORT` once, or give --cas-key"
            if request.cas is not None
            else "the key of the embedded CAS, which the first conversion makes"
        )
    if missing:
        return Explanation(choice=choice, measurement=None, measurement_depends_on=missing)
    manifest = LaunchManifest.for_runtime(
        runtime_path(), program=choice.program.path, cas_key=key, variables=request.variables
    )
    return Explanation(choice=choice, measurement=measurement(manifest), measurement_depends_on="")
