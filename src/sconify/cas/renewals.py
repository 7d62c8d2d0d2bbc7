"""Certificates that were issued after their session was stored: the same ones at all replicas, and after a restart.

The time of a certificate is cut into epochs of two thirds of its validity; in each there is one certificate, which
whoever needs it first issues and the store keeps. In the first epoch it is the one that was issued with the session.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable

from sconify.cas import certificates
from sconify.cas.catalog import LoadedSession
from sconify.cas.secret_records import dump_secrets, load_secrets
from sconify.cas.store import Store
from sconify.policy.formats import SecretValue
from sconify.policy.secret import AuthoritySecret, CertificateSecret

_SHORTEST = datetime.timedelta(seconds=0.1)


class Renewals:
    """Keeps what certificates are issued later.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def current(
        self,
        session: LoadedSession,
        secret: CertificateSecret | AuthoritySecret,
        *,
        issuer: SecretValue | None,
        issue: Callable[[], SecretValue | None],
        now: datetime.datetime,
    ) -> tuple[SecretValue | None, datetime.datetime | None]:
        """Return the certificate of this epoch, issued if it is needed for the first time, and when the epoch ends.

        Args:
            session: The session.
            secret: Its certificate, which the session does not give.
            issuer: The certificate that issues it at present; None: it signs itself.
            issue: Issues it; None: its key or its issuer is not there.
            now: The time.
        """
        stored = session.stored.secrets.get(secret.name)
        epoch, until = _epoch(session, secret, stored, now)
        by = () if issuer is None else (issuer.data, *issuer.chain)
        if stored is not None and epoch == 0 and stored.chain == by:
            return stored, until
        name = self._name(session, secret.name, epoch, issuer)
        known = self._store.known(name)
        if known is None:
            issued = issue()
            if issued is None:
                return None, until
            known = self._store.fixed(name, new=dump_secrets({secret.name: issued}, {}))
        return load_secrets(known)[0][secret.name], until

    @staticmethod
    def _name(session: LoadedSession, secret: str, epoch: int, issuer: SecretValue | None) -> str:
        """Return what the store calls it: another issuer, another certificate."""
        by = "" if issuer is None else hashlib.sha256(issuer.data).hexdigest()
        stored = session.stored
        return f"certificate {stored.name} {stored.version} {secret} {epoch} {by}"


def _epoch(
    session: LoadedSession,
    secret: CertificateSecret | AuthoritySecret,
    stored: SecretValue | None,
    now: datetime.datetime,
) -> tuple[int, datetime.datetime | None]:
    """Return the number of the epoch at a time, from 0, and when it ends; None: never."""
    if stored is not None:
        since, validity = certificates.begin(stored), certificates.expiry(stored) - certificates.begin(stored)
    elif secret.valid_for is not None:
        since = datetime.datetime.fromtimestamp(session.stored.created_at, datetime.UTC)
        validity = datetime.timedelta(seconds=secret.valid_for)
    else:
        return 0, None
    length = max(validity * 2 / 3, _SHORTEST)
    number = max(0, (now - since) // length)
    return number, since + (number + 1) * length
