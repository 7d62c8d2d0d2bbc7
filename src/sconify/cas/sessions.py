"""Sessions: created, updated by compare-and-swap on the predecessor's hash, read, listed, with their history."""

from __future__ import annotations

from dataclasses import dataclass, field

from sconify.cas import access
from sconify.cas.access import Caller
from sconify.cas.audit import AuditLog
from sconify.cas.catalog import Catalog, LoadedSession
from sconify.cas.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError
from sconify.cas.resolution import Resolver
from sconify.cas.secret_values import make_values, make_volume_keys
from sconify.cas.store import Store, StoredSession
from sconify.errors import UserError
from sconify.policy.access import Operation
from sconify.policy.fields import ROOT
from sconify.policy.model import Session
from sconify.policy.session import creator_identity, parse_session, session_hash, with_creator
from sconify.policy.unsupported import refuse_unsupported

MAX_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class SessionText:
    """A version of a session as it is read back.

    Attributes:
        text: Its YAML.
        hash: Its hash, 64 hex digits.
        version: Its number, from 1.
        created_at: Seconds since 1970.
    """

    text: str = field(repr=False)
    hash: str
    version: int
    created_at: int


class Sessions:
    """The session operations of the client API.

    Args:
        store: Where sessions are kept.
        catalog: The parsed sessions of that store.
        resolver: Finds what stands for the variables in access policies.
        audit: Where it is written who did what.
    """

    def __init__(self, store: Store, *, catalog: Catalog, resolver: Resolver, audit: AuditLog) -> None:
        self._store = store
        self._catalog = catalog
        self._resolver = resolver
        self._audit = audit

    def put(self, text: str, *, caller: Caller) -> str:
        """Create a session, or replace its latest version.

        A text without ``predecessor`` creates; with it, it replaces the latest version if that has this hash.

        Args:
            text: The YAML.
            caller: Who brings it.

        Returns:
            The hash of the new version.

        Raises:
            BadRequestError: The text is no session.
            ForbiddenError: The access policy does not let the caller.
            ConflictError: The session exists, or the predecessor is not the latest version.
            NotFoundError: The namespace or the session to update does not exist.
        """
        try:
            session = parse_session(text)
            refuse_unsupported(session)
            latest = self._catalog.latest(session.name)
            creator = self._check_update(session, latest, caller) if latest else self._check_create(session, caller)
            written = _creator_member(creator, latest, caller)
            if session.creator is not None and creator_identity(session.creator) != creator:
                raise ForbiddenError(
                    f"session {session.name}: got creator {creator_identity(session.creator)}, expected {creator}",
                    remedy="leave creator out: the CAS fills it in",
                )
            text = with_creator(text, creator=written)
        except UserError as error:
            raise error if hasattr(error, "status") else BadRequestError(error.what, remedy=error.remedy) from None
        values = make_values(
            session, before=latest.model if latest else None, kept=latest.stored.secrets if latest else {}
        )
        stored = StoredSession(
            name=session.name,
            version=latest.stored.version + 1 if latest else 1,
            creator=creator,
            text=text,
            secrets=values,
            volume_keys=make_volume_keys(session, kept=latest.stored.volume_keys if latest else {}),
        )
        new_hash = session_hash(parse_session(text))
        generation = self._store.append(stored, session_hash=new_hash)
        self._audit.record(
            "session updated" if latest else "session created",
            session=session.name,
            version=stored.version,
            client=str(caller),
            # The hash of a session without salt would let a reader of the log guess weak secrets.
            hash=new_hash if session.salt else None,
            generation=generation,
        )
        return new_hash

    def read(self, name: str, *, caller: Caller, wanted_hash: str | None = None) -> SessionText:
        """Return the text of a session.

        Args:
            name: Its name.
            caller: Who asks.
            wanted_hash: The hash of the version; None: the latest.

        Raises:
            NotFoundError: There is no such session, or no such version of it.
            ForbiddenError: The latest version's access policy does not let the caller.
        """
        found = latest = self._require("read", name, caller)
        if wanted_hash is not None and wanted_hash != latest.hash:
            stored = self._store.load_by_hash(name, wanted_hash)
            if stored is None:
                raise NotFoundError(f"session {name} has no version with hash {wanted_hash[:64]}")
            found = self._catalog.parse(stored)
        self._audit.record("session read", session=name, version=found.stored.version, client=str(caller))
        return _text(found)

    def history(self, name: str, *, caller: Caller) -> list[SessionText]:
        """Return all versions of a session, the first one first.

        Raises:
            NotFoundError: There is no such session.
            ForbiddenError: The latest version's access policy does not let the caller.
        """
        latest = self._require("read", name, caller)
        versions = [_text(self._catalog.parse(stored)) for stored in self._store.load_all(name)]
        self._audit.record("session history read", session=name, version=latest.stored.version, client=str(caller))
        return versions

    def may_read(self, name: str, *, caller: Caller) -> bool:
        """Tell whether there is such a session, and the caller may read it; nothing is recorded."""
        latest = self._catalog.latest(name)
        return latest is not None and self._allows("read", latest, caller)

    def names(self, *, namespace: str | None, caller: Caller, after: str = "") -> tuple[list[str], bool]:
        """Return the names of the sessions that the caller may list, in their order.

        Args:
            namespace: Only the sessions below this one; None: all.
            caller: Who asks.
            after: Only names behind this one.

        Returns:
            At most ``MAX_LISTED`` names, and whether there may be more behind the last one.
        """
        below = "" if namespace in (None, ROOT) else f"{namespace}/"
        found: list[str] = []
        while True:
            batch = self._store.names(below=below, after=after, limit=MAX_LISTED)
            for name in batch:
                if len(found) == MAX_LISTED:
                    return found, True
                session = self._catalog.latest(name)
                if session is not None and self._allows("list_sessions", session, caller):
                    found.append(name)
            if len(batch) < MAX_LISTED:
                return found, False
            after = batch[-1]

    def _check_create(self, session: Session, caller: Caller) -> str:
        namespace = session.namespace
        parent = self._catalog.latest(namespace) if namespace is not None else None
        if parent is not None:
            self._require_in("create_sessions", parent, caller)
        elif namespace is None:
            if not self._store.is_empty():
                raise ForbiddenError("the root namespace is sealed: it must be the first session of a CAS")
        elif namespace != ROOT:
            raise NotFoundError(
                f"namespace {namespace} of session {session.name} does not exist",
                remedy=f"create a session named {namespace} first, or give --create-namespace",
            )
        if session.namespace_hash is not None and (parent is None or parent.hash != session.namespace_hash):
            raise ConflictError(
                f"session {session.name}: its namespace {namespace} has not the hash {session.namespace_hash}",
                remedy="read the namespace's session again, and set namespace_hash to the hash that comes with it",
            )
        if session.predecessor is not None:
            raise NotFoundError(
                f"session {session.name} has a predecessor, but there is no such session",
                remedy="leave predecessor out to create it",
            )
        return caller.creator

    def _check_update(self, session: Session, latest: LoadedSession, caller: Caller) -> str:
        if session.predecessor is None:
            raise ConflictError(
                f"session {session.name} exists",
                remedy="choose another name, or update it: set predecessor to the hash of its latest version",
            )
        self._require_in("update", latest, caller)
        if session.predecessor != latest.hash:
            raise ConflictError(
                f"session {session.name}: predecessor {session.predecessor} is not its latest version",
                remedy="read the session again, and set predecessor to the hash that comes with it",
            )
        return latest.stored.creator

    def _require(self, operation: Operation, name: str, caller: Caller) -> LoadedSession:
        latest = self._catalog.latest(name)
        if latest is None:
            raise NotFoundError(f"there is no session {name}")
        self._require_in(operation, latest, caller)
        return latest

    def _require_in(self, operation: Operation, session: LoadedSession, caller: Caller) -> None:
        policy = self._resolver.access_policy(session)
        name, creator = session.model.name, session.stored.creator
        access.require(operation, policy=policy, session=name, creator=creator, caller=caller)

    def _allows(self, operation: Operation, session: LoadedSession, caller: Caller) -> bool:
        policy = self._resolver.access_policy(session)
        return access.allows(operation, policy=policy, creator=session.stored.creator, caller=caller)


def _text(session: LoadedSession) -> SessionText:
    stored = session.stored
    return SessionText(text=stored.text, hash=session.hash, version=stored.version, created_at=stored.created_at)


def _creator_member(creator: str, latest: LoadedSession | None, caller: Caller) -> str | dict[str, str]:
    """Return the ``creator`` that is written into the text."""
    if not creator.startswith("signer:"):
        return creator
    if latest is not None and isinstance(latest.model.creator, dict):
        return latest.model.creator
    return {"signer": next(iter(caller.signers))}
