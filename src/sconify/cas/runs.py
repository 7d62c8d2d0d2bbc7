"""Runs: what a program may do at the CAS after it was attested, until it ends."""

from __future__ import annotations

import base64
import json
import secrets as random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from sconify.cas.audit import AuditLog
from sconify.cas.errors import ConflictError, ForbiddenError, NotFoundError, UnauthenticatedError
from sconify.cas.leases import LEASE_SECONDS, Leases
from sconify.cas.messages import AdvanceRequest, ExitRequest, base64url
from sconify.cas.mounts import Mount
from sconify.cas.sealing import Sealer
from sconify.cas.volumes import VolumeId, VolumeState, VolumeStates
from sconify.errors import UntrustedDataError

_PLACE = ("session token",)


@dataclass(frozen=True, kw_only=True)
class MountedVolume:
    """A volume of a run.

    Attributes:
        volume: Which volume.
        update_policy: How the run may use it.
        told: The counter that the run was told when it was attested.
        read_only: Whether it may change nothing.
    """

    volume: VolumeId
    update_policy: str
    told: int
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a service.

    Attributes:
        id: Names it in the audit log.
        service: ``SESSION/SERVICE``.
        singleton: Whether it holds the lease of the service.
        volumes: Its volumes by name.
    """

    id: str
    service: str
    singleton: bool
    volumes: dict[str, MountedVolume] = field(default_factory=dict)

    @classmethod
    def begin(cls, service: str, *, mounts: Sequence[Mount], singleton: bool) -> Run:
        """Return a new run."""
        volumes = {
            mount.name: MountedVolume(
                volume=mount.volume,
                update_policy=mount.update_policy,
                told=mount.state.counter,
                read_only=mount.read_only,
            )
            for mount in mounts
        }
        return cls(id=random.token_hex(8), service=service, singleton=singleton, volumes=volumes)


class RunTokens:
    """Seals runs to tokens, so that the CAS need not remember them.

    Args:
        root_key: Where its key is derived from.
    """

    def __init__(self, root_key: bytes) -> None:
        self._sealer = Sealer(root_key, purpose="session token")

    def seal(self, run: Run) -> str:
        """Return the token of a run."""
        return base64url(self._sealer.seal(json.dumps(asdict(run)).encode(), place=_PLACE))

    def open(self, token: str) -> Run:
        """Return the run of a token.

        Raises:
            UnauthenticatedError: The token is none of this CAS.
        """
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            data = json.loads(self._sealer.open(sealed, place=_PLACE))
        except (ValueError, UntrustedDataError):
            raise UnauthenticatedError("the session token is not one of this CAS") from None
        volumes = {
            name: MountedVolume(volume=VolumeId(**mounted.pop("volume")), **mounted)
            for name, mounted in data.pop("volumes").items()
        }
        return Run(**data, volumes=volumes)


class Runs:
    """The operations of runs.

    Args:
        tokens: Opens their tokens.
        states: The newest states of volumes.
        leases: The services that run once at a time.
        audit: Where it is written what they did.
    """

    def __init__(self, tokens: RunTokens, *, states: VolumeStates, leases: Leases, audit: AuditLog) -> None:
        self._tokens = tokens
        self._states = states
        self._leases = leases
        self._audit = audit
        self.advanced = False
        """Whether a volume was advanced since somebody set this to False."""

    def exit(self, request: ExitRequest, *, token: str) -> None:
        """Record how a program ended.

        Raises:
            UnauthenticatedError: The token is none of this CAS.
        """
        run = self._tokens.open(token)
        self._audit.record(
            "service exited", config_id=run.service, run=run.id, status=request.status, signal=request.signal
        )
        if run.singleton:
            self._leases.end(run.service, run=run.id)

    def renew(self, *, token: str) -> int:
        """Prolong the lease of a run; return for how many seconds.

        Raises:
            UnauthenticatedError: The token is none of this CAS.
            ConflictError: Another run has taken over: this one must end.
        """
        run = self._tokens.open(token)
        return self._leases.renew(run.service, run=run.id) if run.singleton else LEASE_SECONDS

    def volume(self, name: str, *, token: str) -> VolumeState:
        """Return the newest state of a volume of a run.

        Raises:
            UnauthenticatedError: The token is none of this CAS.
            NotFoundError: The run has no such volume, or none whose state is remembered.
        """
        return self._states.newest(_mounted(self._tokens.open(token), name).volume) or VolumeState(root=None, counter=0)

    def advance(self, name: str, request: AdvanceRequest, *, token: str) -> None:
        """Record a newer state of a volume of a run.

        Raises:
            UnauthenticatedError: The token is none of this CAS.
            NotFoundError: The run has no such volume, or none whose state is remembered.
            ForbiddenError: The run may not change it.
            ConflictError: The counter does not grow, or another run has taken over.
        """
        run = self._tokens.open(token)
        mounted = _mounted(run, name)
        if mounted.update_policy != "rollback_protected":
            raise ForbiddenError(f"volume {name} is {mounted.update_policy}: its state is not recorded")
        if mounted.read_only:
            raise ForbiddenError(f"volume {name} is read-only for this run: its state is another one's to report")
        if run.singleton:
            self._leases.renew(run.service, run=run.id)
        state = VolumeState(root=bytes.fromhex(request.root), counter=request.counter)
        try:
            self._states.advance(mounted.volume, state, run=run.id, told=mounted.told)
        except ConflictError as error:
            self._audit.record("volume refused", config_id=run.service, run=run.id, volume=name, reason=error.what)
            raise
        self.advanced = True


def _mounted(run: Run, name: str) -> MountedVolume:
    mounted = run.volumes.get(name)
    if mounted is None:
        raise NotFoundError(f"the run of {run.service} has no volume {name[:128]!r}")
    return mounted
