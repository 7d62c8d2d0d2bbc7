"""An image's configuration, as OCI's image-spec ("config.md") and Docker's image specification v1.2 define it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sconify.errors import BugError, UntrustedDataError

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """How one layer, or one change of the configuration, came to be."""

    created_by: str
    empty_layer: bool = False
    """True for changes that made no layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The configuration of an image."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: str = ""
    """``NAME-OR-UID[:GROUP-OR-GID]``; empty is root."""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    """``PORT[/PROTOCOL]``, sorted."""
    volumes: tuple[str, ...] = ()
    """Paths, sorted."""
    stop_signal: str = ""
    healthcheck: Mapping[str, Any] | None = None
    """Docker's ``Healthcheck`` object as it stands."""
    architecture: str = "amd64"
    os: str = "linux"
    variant: str = ""
    created: int | None = None
    """Seconds since 1970."""
    history: tuple[HistoryEntry, ...] = ()
    diff_ids: tuple[str, ...] = ()
    """Digests of the uncompressed layers, the lowest first. Ignored by ``to_oci``."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole JSON document that this was read from. Ignored by ``to_oci``."""

    @classmethod
    def parse(cls, data: bytes, *, label: str) -> ImageConfig:
        """Read an OCI or Docker configuration.

        Args:
            data: The JSON document.
            label: What it is, for messages.

        Raises:
            UntrustedDataError: It is not JSON, or a field has another type than the specifications say.
        """
        document = parse_json(data, label=label)
        image = _Object(document, label)
        run = _Object(image.mapping("config"), f"{label}, config")
        rootfs = _Object(image.mapping("rootfs"), f"{label}, rootfs")
        return cls(
            entrypoint=run.command("Entrypoint"),
            cmd=run.command("Cmd"),
            env=_environment(run.texts("Env")),
            working_dir=run.text("WorkingDir"),
            user=run.text("User"),
            labels=run.text_mapping("Labels"),
            exposed_ports=tuple(sorted(run.mapping("ExposedPorts"))),
            volumes=tuple(sorted(run.mapping("Volumes"))),
            stop_signal=run.text("StopSignal"),
            healthcheck=run.mapping("Healthcheck") or None,
            architecture=image.text("architecture"),
            os=image.text("os"),
            variant=image.text("variant"),
            created=_parse_time(image.text("created"), label=label),
            history=tuple(_parse_history(image.objects("history"), label=label)),
            diff_ids=rootfs.texts("diff_ids"),
            raw=document,
        )

    def to_oci(self, *, diff_ids: Sequence[str]) -> bytes:
        """Return the canonical JSON document of a new image: sorted keys, no spaces, empty fields left out.

        Args:
            diff_ids: Digests of the uncompressed layers, the lowest first.

        Raises:
            BugError: There is a history, and its layers are not as many as ``diff_ids``.
        """
        if self.history and sum(not entry.empty_layer for entry in self.history) != len(diff_ids):
            raise BugError(f"the history does not describe {len(diff_ids)} layers")
        run: dict[str, Any] = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Env": [f"{name}={value}" for name, value in self.env.items()],
            "WorkingDir": self.working_dir,
            "User": self.user,
            "Labels": dict(self.labels),
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Volumes": {path: {} for path in self.volumes},
            "StopSignal": self.stop_signal,
            "Healthcheck": self.healthcheck,
        }
        created = None if self.created is None else datetime.fromtimestamp(self.created, UTC).strftime("%FT%TZ")
        history = []
        for entry in self.history:
            line: dict[str, Any] = {"created_by": entry.created_by}
            if created is not None:
                line["created"] = created
            if entry.empty_layer:
                line["empty_layer"] = True
            history.append(line)
        document = {
            "architecture": self.architecture,
            "os": self.os,
            "variant": self.variant,
            "created": created,
            "history": history,
        }
        return canonical_json(
            {
                **{key: value for key, value in document.items() if value},
                "config": {key: value for key, value in run.items() if value},
                "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            }
        )


def canonical_json(document: object) -> bytes:
    """Return JSON with sorted keys and without spaces, the same for the same document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_json(data: bytes, *, label: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UntrustedDataError: It is something else.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UntrustedDataError(f"{label} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise UntrustedDataError(f"{label} is not a JSON object")
    return document


class _Object:
    """Typed access to a JSON object whose fields may be missing or null, which both mean empty."""

    def __init__(self, document: Mapping[str, Any], label: str) -> None:
        self._document = document
        self._label = label

    def _get(self, key: str, kind: type, empty: Any) -> Any:
        value = self._document.get(key)
        if value is None:
            return empty
        if not isinstance(value, kind):
            raise UntrustedDataError(f"{self._label}: {key} is {json.dumps(value)[:80]}, expected a {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        return str(self._get(key, str, ""))

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._get(key, list, [])
        if not all(isinstance(value, str) for value in values):
            raise UntrustedDataError(f"{self._label}: {key} has an item that is no string")
        return tuple(values)

    def command(self, key: str) -> tuple[str, ...]:
        """A list of strings, or one string, which very old images have."""
        return (self.text(key),) if isinstance(self._document.get(key), str) else self.texts(key)

    def mapping(self, key: str) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self._get(key, dict, {})
        return value

    def text_mapping(self, key: str) -> Mapping[str, str]:
        value = self.mapping(key)
        if not all(isinstance(item, str) for item in value.values()):
            raise UntrustedDataError(f"{self._label}: {key} has a value that is no string")
        return value

    def objects(self, key: str) -> Sequence[Mapping[str, Any]]:
        values = self._get(key, list, [])
        if not all(isinstance(value, dict) for value in values):
            raise UntrustedDataError(f"{self._label}: {key} has an item that is no object")
        return list(values)


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    environment = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        environment[name] = value
    return environment


def _parse_time(text: str, *, label: str) -> int | None:
    if not text:
        return None
    match = _TIME.fullmatch(text)
    try:
        return int(datetime.fromisoformat(match[1] + match[2]).timestamp()) if match else _bad_time(text, label)
    except ValueError:
        return _bad_time(text, label)


def _bad_time(text: str, label: str) -> int:
    raise UntrustedDataError(f"{label}: created is {text[:80]!r}, expected a time of RFC 3339")


def _parse_history(entries: Sequence[Mapping[str, Any]], *, label: str) -> list[HistoryEntry]:
    history = []
    for entry in entries:
        line = _Object(entry, f"{label}, history")
        history.append(HistoryEntry(created_by=line.text("created_by"), empty_layer=entry.get("empty_layer") is True))
    return history
