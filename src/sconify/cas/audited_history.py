"""Store and audit log vouch for one another: an older copy of either is noticed at the next start.

The audit log has the store's generation, which grows with what is stored. The store has how many lines the log had.
Who puts back an older state of one of them alone is found out; of both together, who keeps a copy of the log elsewhere
finds it out.
"""

from __future__ import annotations

from sconify.cas.audit import AuditLog
from sconify.cas.store import Store
from sconify.errors import UserError


class AuditedHistory:
    """Compares a store and an audit log.

    Args:
        store: The store.
        audit: The audit log.
        name: Tells the log from those of other replicas.
    """

    def __init__(self, store: Store, audit: AuditLog, *, name: str) -> None:
        self._store = store
        self._audit = audit
        self._counter = f"audit log {name}"
        self._noted = -1

    def require_newest(self, *, accept_older: bool) -> None:
        """Make sure that both are the newest.

        Args:
            accept_older: Go on with an older database, and write into the log that somebody said so.

        Raises:
            UserError: One of them is older than the other has seen it.
        """
        stored, logged = self._store.generation, self._audit.generation
        lines, noted = self._audit.position, self._store.counter(self._counter)
        if stored < logged and not accept_older:
            raise UserError(
                f"the database is older than the audit log has seen it: got generation {stored}, expected {logged} or "
                "more; updates of sessions and states of volumes may be missing",
                remedy="restore the newest one; only if it is lost, accept this with --accept-older-database",
            )
        if lines < noted and not accept_older:
            raise UserError(
                f"the audit log is shorter than the database has seen it: got {lines} lines, expected {noted} or more",
                remedy="restore it; only if it is lost, accept this with --accept-older-database",
            )
        if stored < logged or lines < noted:
            self._store.raise_counter("generation", logged)
            self._audit.record("older database accepted", got=stored, expected=logged, generation=max(stored, logged))

    def note(self, *, volumes_advanced: bool) -> None:
        """Note in each how far the other has come.

        Args:
            volumes_advanced: Whether states of volumes were stored, at which the generation does not grow by itself.
        """
        if volumes_advanced:
            self._audit.record("checkpoint", generation=self._store.checkpoint())
        position = self._audit.position
        if position != self._noted:
            self._store.raise_counter(self._counter, position)
            self._noted = position
