"""What a service finds of volumes: its session's own, and those that other sessions export to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sconify.cas.catalog import Catalog, LoadedSession
from sconify.cas.errors import ForbiddenError, NotFoundError
from sconify.cas.resolution import Resolver
from sconify.cas.volumes import VolumeId, VolumeState, VolumeStates
from sconify.errors import BugError
from sconify.policy.references import VolumeImport, exports_to, resolve_name
from sconify.policy.storage import ImageVolume, UpdatePolicy, Volume, VolumeExport

_UNWRITTEN = VolumeState(root=None, counter=0)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A volume at its place, for one run.

    Attributes:
        name: Its name in the importing session.
        path: Where it is mounted.
        update_policy: How the run may use it.
        read_only: Whether it may change nothing.
        strict: Whether ``fsync`` waits until the new state is recorded.
        cas_absence: Seconds for which writes go on without reports.
        key: The key of its content, 32 bytes.
        volume: Which volume it is.
        state: Its newest state; of ``no_rollback_protection``, none is known.
    """

    name: str
    path: str
    update_policy: UpdatePolicy
    read_only: bool
    strict: bool
    cas_absence: int
    key: bytes = field(repr=False)
    volume: VolumeId
    state: VolumeState


class Mounts:
    """Finds the volumes of images.

    Args:
        catalog: The sessions.
        resolver: Finds the keys that are secrets.
        states: The newest states.
    """

    def __init__(self, catalog: Catalog, *, resolver: Resolver, states: VolumeStates) -> None:
        self._catalog = catalog
        self._resolver = resolver
        self._states = states

    def of(self, session: LoadedSession, image_name: str | None) -> tuple[Mount, ...]:
        """Return the volumes of an image of a session.

        Raises:
            NotFoundError: A session or volume that is imported does not exist.
            ForbiddenError: It is not exported to this session, or not for this use.
        """
        image = session.model.image(image_name)
        return tuple(self._mount(session, entry) for entry in image.volumes) if image is not None else ()

    def _mount(self, session: LoadedSession, entry: ImageVolume) -> Mount:
        volume = session.model.volume(entry.name)
        if volume is None:
            raise BugError(f"image volume {entry.name} names no volume")
        owner = session
        if volume.import_ is not None:
            owner, volume = self._imported(volume.import_, session, entry)
        key = self._key(owner, volume)
        identity = self._states.identify(session=owner.model.name, volume=volume.name, key=key)
        state = _UNWRITTEN
        if entry.update_policy != "no_rollback_protection":
            first = VolumeState(root=bytes.fromhex(volume.fspf_tag), counter=0) if volume.fspf_tag else _UNWRITTEN
            state = self._states.newest(identity) or first
        return Mount(
            name=entry.name,
            path=entry.path,
            update_policy=entry.update_policy,
            read_only=entry.read_only,
            strict=entry.strict,
            cas_absence=entry.cas_absence_seconds,
            key=key,
            volume=identity,
            state=state,
        )

    def _imported(
        self, source: VolumeImport, importer: LoadedSession, entry: ImageVolume
    ) -> tuple[LoadedSession, Volume]:
        name = resolve_name(source.session, base=importer.model.name)
        exporter = self._catalog.latest(name)
        if exporter is None or (source.session_hash is not None and exporter.hash != source.session_hash):
            raise NotFoundError(f"volume {entry.name} is imported from session {name}, which is not there")
        for volume in exporter.model.volumes:
            for export in volume.export:
                if source.volume == (export.volume_alias or volume.name) and _names(export, exporter, importer):
                    _check_use(export, entry, exporter=name)
                    return exporter, volume
        raise ForbiddenError(
            f"session {name} does not export a volume {source.volume} to session {importer.model.name}",
            remedy=f"have it say export: [{{session: {importer.model.name}}}] in the volume",
        )

    def _key(self, owner: LoadedSession, volume: Volume) -> bytes:
        resolved = self._resolver.part(volume, owner)
        if resolved.fspf_key is not None:
            return bytes.fromhex(resolved.fspf_key)
        key = owner.stored.volume_keys.get(volume.name)
        if key is None:
            raise BugError(f"volume {volume.name} of session {owner.model.name} has no key")
        return key


def _names(export: VolumeExport, exporter: LoadedSession, importer: LoadedSession) -> bool:
    return any(
        exports_to(target, exporter=exporter.model.name, importer=importer.model.name, importer_hash=importer.hash)
        for target in export.to
    )


def _check_use(export: VolumeExport, entry: ImageVolume, *, exporter: str) -> None:
    allowed: tuple[UpdatePolicy, ...] = ("ephemeral",)
    if export.update_policy != "ephemeral":
        allowed = (*allowed, "rollback_protected")
    if export.update_policy == "no_rollback_protection":
        allowed = (*allowed, "no_rollback_protection")
    if entry.update_policy not in allowed:
        raise ForbiddenError(
            f"volume {entry.name} is exported by session {exporter} as {export.update_policy}: "
            f"got update_policy {entry.update_policy}, expected {' or '.join(allowed)}"
        )
    if export.read_only and not entry.read_only and entry.update_policy != "ephemeral":
        raise ForbiddenError(
            f"volume {entry.name} is exported by session {exporter} to be read only",
            remedy="have the image say read_only: true of it, or update_policy: ephemeral",
        )
