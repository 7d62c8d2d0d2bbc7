"""The newest state of each volume: its root and its counter (docs/protocol.md, section 4).

The host keeps a volume's bytes and could put older ones in their place, so the CAS remembers which state is the
newest. A run that mounts a volume is told it, and reports each new one. A report counts only if its counter grows, and
if nobody else has reported since this run was told: of two runs that mounted the same state, one can go on.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sconify.cas.database import reported
from sconify.cas.errors import ConflictError
from sconify.cas.sealing import Authenticator, Sealer
from sconify.cas.store import Store
from sconify.cas.tables import volume_states

ROOT_SIZE = 32
MAX_COUNTER = 2**53 - 1  # the largest that every JSON reader keeps exact


@dataclass(frozen=True, kw_only=True)
class VolumeId:
    """Which volume: under another key there is another one.

    Attributes:
        session: The session that owns it.
        volume: Its name there.
        key_digest: A keyed digest of its key, hex digits.
    """

    session: str
    volume: str
    key_digest: str


@dataclass(frozen=True, kw_only=True)
class VolumeState:
    """The newest state of a volume.

    Attributes:
        root: The root of its tree, 32 bytes; None: it was never written.
        counter: Grows with each state; 0: it was never written.
    """

    root: bytes | None
    counter: int


class VolumeStates:
    """Reads and advances the states of volumes.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._database = store.database
        self._sealer = Sealer(store.root_key, purpose="volume root")
        self._digests = Authenticator(store.root_key, purpose="volume key")

    def identify(self, *, session: str, volume: str, key: bytes) -> VolumeId:
        """Return which volume this is."""
        return VolumeId(session=session, volume=volume, key_digest=self._digests.digest(key).hex())

    def newest(self, volume: VolumeId) -> VolumeState | None:
        """Return the newest state, or None if none was ever reported."""
        with reported("the store"), self._database.fast.connect() as connection:
            row = connection.execute(sa.select(volume_states).where(*_is(volume))).first()
        return None if row is None else VolumeState(root=self._open(volume, row), counter=row.counter)

    def advance(self, volume: VolumeId, state: VolumeState, *, run: str, told: int) -> None:
        """Record a newer state.

        Args:
            volume: Which volume.
            state: Its new state.
            run: The run that reports it.
            told: The counter that this run was told when it was attested.

        Raises:
            ConflictError: The counter does not grow, or another run has reported since.
        """
        assert state.root is not None
        sealed = self._sealer.seal(state.root, place=_place(volume, state.counter))
        values = {"counter": state.counter, "run": run, "sealed_root": sealed}
        try:
            with self._database.transaction() as connection:
                row = connection.execute(sa.select(volume_states).where(*_is(volume)).with_for_update()).first()
                if row is None:
                    _check(volume, state, counter=0, other=told != 0)
                    identity = {
                        "session": volume.session,
                        "volume": volume.volume,
                        "key_digest": bytes.fromhex(volume.key_digest),
                    }
                    connection.execute(volume_states.insert().values(**identity, **values))
                    return
                if row.run == run and row.counter == state.counter and self._open(volume, row) == state.root:
                    return  # sent again, because the answer was lost
                _check(volume, state, counter=row.counter, other=row.run != run and row.counter != told)
                connection.execute(volume_states.update().where(*_is(volume)).values(**values))
        except IntegrityError:
            raise _overtaken(volume) from None

    def _open(self, volume: VolumeId, row: sa.Row[tuple[object, ...]]) -> bytes:
        return self._sealer.open(bytes(row.sealed_root), place=_place(volume, row.counter))


def _is(volume: VolumeId) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        volume_states.c.session == volume.session,
        volume_states.c.volume == volume.volume,
        volume_states.c.key_digest == bytes.fromhex(volume.key_digest),
    )


def _place(volume: VolumeId, counter: int) -> tuple[str, ...]:
    return ("volume_states", volume.session, volume.volume, volume.key_digest, str(counter))


def _check(volume: VolumeId, state: VolumeState, *, counter: int, other: bool) -> None:
    if other:
        raise _overtaken(volume)
    if state.counter <= counter:
        raise ConflictError(
            f"volume {volume.volume} of session {volume.session}: got counter {state.counter}, "
            f"expected more than {counter}"
        )


def _overtaken(volume: VolumeId) -> ConflictError:
    return ConflictError(
        f"volume {volume.volume} of session {volume.session} was changed by another run since this one was attested",
        remedy="start the program again: it gets the newest state",
    )
