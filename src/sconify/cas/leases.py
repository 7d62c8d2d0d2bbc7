"""Services that run once at a time: a lease for the one that runs.

A run holds its lease until it ends, and as long as it renews it. Who comes meanwhile is refused. When a lease has
expired, the next one takes it, and whatever the old run still sends is refused: it must end.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sconify.cas.errors import ConflictError
from sconify.cas.store import Store
from sconify.cas.tables import leases
from sconify.errors import UntrustedDataError

LEASE_SECONDS = 60


class Leases:
    """Gives, renews and ends leases.

    Args:
        store: Where they are kept.
        clock: Seconds since 1970.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._database = store.database
        self._clock = clock

    def take(self, service: str, *, run: str) -> None:
        """Give the lease of a service to a run.

        Raises:
            UntrustedDataError: Another run holds it.
        """
        now = int(self._clock())
        values = {"run": run, "expires_at": now + LEASE_SECONDS}
        try:
            with self._database.transaction() as connection:
                taken = connection.execute(
                    leases.update().where(leases.c.service == service, leases.c.expires_at < now).values(**values)
                )
                if taken.rowcount:
                    return
                held = connection.execute(sa.select(leases.c.run).where(leases.c.service == service)).first()
                if held is None:
                    connection.execute(leases.insert().values(service=service, **values))
                    return
        except IntegrityError:
            pass  # somebody else was first
        raise UntrustedDataError(
            f"check singleton: {service} runs already, and may run once at a time",
            remedy=f"end the other one; if it is dead, its place is free after {LEASE_SECONDS} s",
        )

    def renew(self, service: str, *, run: str) -> int:
        """Prolong the lease of a run; return for how many seconds.

        Raises:
            ConflictError: Another run holds it by now, or it has ended.
        """
        values = {"expires_at": int(self._clock()) + LEASE_SECONDS}
        with self._database.transaction() as connection:
            mine = leases.update().where(leases.c.service == service, leases.c.run == run)
            if not connection.execute(mine.values(**values)).rowcount:
                raise ConflictError(f"{service} was taken over by another run", remedy="end this one")
        return LEASE_SECONDS

    def end(self, service: str, *, run: str) -> None:
        """End the lease of a run."""
        with self._database.transaction() as connection:
            connection.execute(leases.delete().where(leases.c.service == service, leases.c.run == run))
