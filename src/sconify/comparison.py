"""Compares an encrypted image with its session, and with another image, field by field, and says what a field means.

A measurement is a hash, so two that differ say nothing. What is hashed is small, though: the manifest of the image is
known, and what else its fields usually hold can be tried until a field explains the measurement that was expected.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sconify.errors import ServiceError
from sconify.inspection import EncryptedImage
from sconify.policy.model import Session
from sconify.program.launch import BINARY_FS, LaunchManifest, measurement, runtime_digest, runtime_path
from sconify.shield.protect import INDEX

MAX_TRIED = 20_000
"""Manifests that are hashed to explain a measurement; they take less than a second together."""

_USUAL = {
    "SCONE_HEAP": [str(megabytes << 20) for megabytes in (64, 128, 256, 512, 1024, 2048, 4096, 8192, 12288)],
    "SCONE_STACK": [str(kilobytes << 10) for kilobytes in (64, 1024, 2048, 4096, 8192)],
    "SCONE_ALLOW_DLOPEN": ["0", "1", "2"],
    "SCONE_FORK": ["0", "1"],
}
_OPTIONS = {
    "SCONE_HEAP": "--heap", "SCONE_STACK": "--stack", "SCONE_ALLOW_DLOPEN": "--dlopen", "SCONE_FORK": "--fork"
}  # fmt: skip
_ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A field of an image beside what stands against it."""

    field: str
    image: str
    other: str
    """What the session, or the other image, has."""
    fits: bool
    meaning: str
    """What it means that they differ."""


def compare_with_session(image: EncryptedImage, session: Session, *, cas_key: str | None = None) -> list[Comparison]:
    """Compare an image with a session.

    Args:
        image: The image.
        session: The session that it asks for.
        cas_key: SHA-256 of the key of the CAS that keeps the session, 64 hex digits; None if it is not known.

    Returns:
        All fields. The image gets its configuration if each of them fits.
    """
    found = []
    if cas_key is not None:
        found.append(
            _compared("CAS key", image.manifest.cas_key or _ABSENT, cas_key, "the image trusts another CAS than this")
        )
    names = [one.name for one in session.services]
    service = session.service(image.service)
    found.append(
        Comparison(
            field="service", image=image.service, other=", ".join(names) or "none", fits=service is not None,
            meaning="the session has no such service",
        )
    )  # fmt: skip
    if service is None:
        return found
    accepted = [str(one) for factor in service.factors for one in getattr(factor, "mrenclave", ())]
    if session.security.attestation.mode != "none":
        fits = image.measurement in accepted
        found.append(
            Comparison(
                field="measurement", image=image.measurement, other=", ".join(accepted) or "none", fits=fits,
                meaning="" if fits else _why(image, accepted, cas_key),
            )
        )  # fmt: skip
    found.append(_compared("fspf_path", INDEX, str(service.fspf_path), "the index stands elsewhere"))
    found.append(
        _compared(
            "fspf_tag", image.root_tag, str(service.fspf_tag), "the protected files are others than when it was made"
        )
    )
    return found


def compare_images(image: EncryptedImage, other: EncryptedImage) -> list[Comparison]:
    """Compare two images: what is measured first, then what only the policy holds."""
    mine, theirs = _measured(image.manifest), _measured(other.manifest)
    found = [_compared("measurement", image.measurement, other.measurement, "the measured fields below differ")]
    found += [
        _compared(name, mine.get(name, _ABSENT), theirs.get(name, _ABSENT), _meaning(name))
        for name in dict.fromkeys([*mine, *theirs])
    ]
    found += [
        _compared(name, one, two, meaning)
        for name, one, two, meaning in (
            ("SCONE_CONFIG_ID", image.config_id, other.config_id, "they ask for another session or service"),
            ("SCONE_CAS_ADDR", image.cas, other.cas, "they look for the CAS elsewhere"),
            ("SCONE_LAS_ADDR", image.las, other.las, "they look for the LAS elsewhere"),
            ("fspf_tag", image.root_tag, other.root_tag, "the protected files, or the key, are others"),
        )
    ]
    found += [
        _compared(path, image.digests.get(path, _ABSENT), other.digests.get(path, _ABSENT), "its bytes are others")
        for path in sorted({*image.digests, *other.digests})
    ]
    return found


def explained_measurement(
    manifest: LaunchManifest, accepted: Collection[str], *, runtimes: Sequence[str], cas_keys: Sequence[str]
) -> list[Comparison] | None:
    """Find the fewest fields that make a manifest one with an accepted measurement.

    Args:
        manifest: The manifest of an image.
        accepted: The measurements, 64 hex digits each.
        runtimes: Digests of runtimes that it may be made with.
        cas_keys: Keys of CASes that it may be made for.

    Returns:
        The fields that differ; None if no manifest of those that are tried has an accepted measurement.
    """
    choices: dict[str, list[str | None]] = {
        "runtime": [manifest.runtime, *runtimes],
        "cas_key": [manifest.cas_key, *cas_keys],
    }
    for name, usual in _USUAL.items():
        present = manifest.variables.get(name)
        # A fork that is not said is one that is allowed.
        choices[name] = [present, *usual, *([None] if name == "SCONE_FORK" else [])]
    present_values = _measured(manifest)
    candidates = sorted(itertools.islice(_candidates(choices), MAX_TRIED), key=len)
    for changed in candidates:
        if measurement(_changed(manifest, changed)) in accepted:
            return [
                _compared(name, present_values.get(name, _ABSENT), value or _ABSENT, _meaning(name))
                for name, value in changed.items()
            ]
    return None


def _candidates(choices: Mapping[str, list[str | None]]) -> Iterator[dict[str, str | None]]:
    unique = {name: list(dict.fromkeys(values)) for name, values in choices.items()}
    for values in itertools.product(*unique.values()):
        pairs = zip(unique.items(), values, strict=True)
        yield {name: value for (name, usual), value in pairs if value != usual[0]}


def _changed(manifest: LaunchManifest, changed: Mapping[str, str | None]) -> LaunchManifest:
    variables = {**manifest.variables, **{name: value for name, value in changed.items() if name in _USUAL}}
    return replace(
        manifest,
        runtime=changed.get("runtime") or manifest.runtime,
        cas_key=changed.get("cas_key", manifest.cas_key),
        variables={name: value for name, value in variables.items() if value is not None},
    )


def _why(image: EncryptedImage, accepted: Collection[str], cas_key: str | None) -> str:
    """Say which fields make the measurement another one than is accepted."""
    if not accepted:
        return "the session accepts no measurement"
    found = explained_measurement(
        image.manifest,
        accepted,
        runtimes=_installed_runtime(),
        cas_keys=[cas_key] if cas_key is not None else [],
    )
    if found:
        return "; ".join(f"{one.field} is {one.image}, expected {one.other} ({one.meaning})" for one in found)
    embedded = ", an embedded file" if image.manifest.mode == BINARY_FS else ""
    return f"program, runtime, CAS key or start-up variables{embedded} are others than when the session was made"


def _installed_runtime() -> list[str]:
    """Return the digest of the runtime that images are made with here; none if it is not installed."""
    try:
        return [runtime_digest(runtime_path().read_bytes())]
    except ServiceError:
        return []


def _measured(manifest: LaunchManifest) -> dict[str, str]:
    """Return the fields of a manifest, flat."""
    document = manifest.document()
    flat: dict[str, str] = {}
    for name, value in document.items():
        if name == "variables":
            flat.update(manifest.variables)
        elif isinstance(value, dict):
            flat.update((f"{name}.{key}", str(text)) for key, text in value.items())
        else:
            flat[name] = str(value)
    return flat


def _meaning(name: str) -> str:
    if name in _OPTIONS:
        return f"another {_OPTIONS[name]}, or docker run --env {name}=..."
    return {
        "runtime": "made by another version of sconify_image",
        "cas_key": "made for another CAS",
        "program": "another --binary",
        "mode": "one with --binary-fs, one without",
        "file_system.digest": "the embedded files are others",
        "file_system.commitment": "embedded under another key",
        "file_system.key": "--binary-fs-plain in one of them",
    }.get(name, "another format")


def _compared(name: str, image: str, other: str, meaning: str) -> Comparison:
    fits = image == other
    return Comparison(field=name, image=image, other=other, fits=fits, meaning="" if fits else meaning)
