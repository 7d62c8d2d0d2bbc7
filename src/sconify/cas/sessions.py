"""Sessions: created, updated by compare-and-swap on the predecessor's hash, and read."""

from __future__ import annotations

import secrets as random
import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from sconify.cas import access
from sconify.cas.audit import AuditLog
from sconify.cas.catalog import Catalog, LoadedSession
from sconify.cas.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError
from sconify.cas.store import Store, StoredSession
from sconify.errors import UserError
from sconify.policy.model import Secret, Session
from sconify.policy.session import parse_session, session_hash, with_creator
from sconify.policy.substitution import SecretValue

_PRINTABLE = string.digits + string.ascii_letters + string.punctuation


@dataclass(frozen=True, kw_only=True)
class SessionText:
    """A session as it is read back.

    Attributes:
        text: Its YAML.
        hash: Its hash, 64 hex digits.
    """

    text: str = field(repr=False)
    hash: str


class Sessions:
    """The session operations of the client API.

    Args:
        store: Where sessions are kept.
        catalog: The parsed sessions of that store.
        audit: Where it is written who did what.
    """

    def __init__(self, store: Store, *, catalog: Catalog, audit: AuditLog) -> None:
        self._store = store
        self._catalog = catalog
        self._audit = audit

    def put(self, text: str, *, caller: str) -> str:
        """Create a session, or replace its latest version.

        A text without ``predecessor`` creates; with it, it replaces the latest version if that has this hash.

        Args:
            text: The YAML.
            caller: The key hash of the client.

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
            latest = self._catalog.latest(session.name)
            creator = self._check_update(session, latest, caller) if latest else self._check_create(session, caller)
            if session.creator not in (None, creator):
                raise ForbiddenError(
                    f"session {session.name}: got creator {session.creator}, expected {creator}",
                    remedy="leave creator out: the CAS fills it in",
                )
            text = with_creator(text, creator=creator)
        except UserError as error:
            raise error if hasattr(error, "status") else BadRequestError(error.what, remedy=error.remedy) from None
        stored = StoredSession(
            name=session.name,
            version=latest.stored.version + 1 if latest else 1,
            creator=creator,
            text=text,
            secrets=_secret_values(session, kept=latest.stored.secrets if latest else {}),
        )
        new_hash = session_hash(session.model_copy(update={"creator": creator}))
        self._store.append(stored, session_hash=new_hash)
        self._audit.record(
            "session updated" if latest else "session created",
            session=session.name,
            version=stored.version,
            client=caller,
            # The hash of a session without salt would let a reader of the log guess weak secrets.
            hash=new_hash if session.salt else None,
        )
        return new_hash

    def read(self, name: str, *, caller: str, wanted_hash: str | None = None) -> SessionText:
        """Return the text of a session.

        Args:
            name: Its name.
            caller: The key hash of the client.
            wanted_hash: The hash of the version; None: the latest.

        Raises:
            NotFoundError: There is no such session, or no such version of it.
            ForbiddenError: The latest version's access policy does not let the caller.
        """
        latest = self._catalog.latest(name)
        if latest is None:
            raise NotFoundError(f"there is no session {name}")
        access.require("read", session=latest.model, creator=latest.stored.creator, caller=caller)
        found = latest
        if wanted_hash is not None and wanted_hash != latest.hash:
            stored = self._store.load_by_hash(name, wanted_hash)
            if stored is None:
                raise NotFoundError(f"session {name} has no version with hash {wanted_hash[:64]}")
            found = self._catalog.parse(stored)
        self._audit.record("session read", session=name, version=found.stored.version, client=caller)
        return SessionText(text=found.stored.text, hash=found.hash)

    def _check_create(self, session: Session, caller: str) -> str:
        namespace, _, _ = session.name.rpartition("/")
        if namespace:
            parent = self._catalog.latest(namespace)
            if parent is None:
                raise NotFoundError(
                    f"namespace {namespace} of session {session.name} does not exist",
                    remedy=f"create a session named {namespace} first, or give --create-namespace",
                )
            access.require("create_sessions", session=parent.model, creator=parent.stored.creator, caller=caller)
        if session.predecessor is not None:
            raise NotFoundError(
                f"session {session.name} has a predecessor, but there is no such session",
                remedy="leave predecessor out to create it",
            )
        return caller

    @staticmethod
    def _check_update(session: Session, latest: LoadedSession, caller: str) -> str:
        if session.predecessor is None:
            raise ConflictError(
                f"session {session.name} exists",
                remedy="choose another name, or update it: set predecessor to the hash of its latest version",
            )
        access.require("update", session=latest.model, creator=latest.stored.creator, caller=caller)
        if session.predecessor != latest.hash:
            raise ConflictError(
                f"session {session.name}: predecessor {session.predecessor} is not its latest version",
                remedy="read the session again, and set predecessor to the hash that comes with it",
            )
        return latest.stored.creator


def _secret_values(session: Session, *, kept: Mapping[str, SecretValue]) -> dict[str, SecretValue]:
    return {secret.name: _secret_value(secret, kept.get(secret.name)) for secret in session.secrets}


def _secret_value(secret: Secret, old: SecretValue | None) -> SecretValue:
    """Return the given value, else the value that the session has already, else a new random one."""
    if secret.value is not None:
        data = secret.value.encode() if secret.kind == "ascii" else bytes.fromhex(secret.value)
    elif old is not None and old.kind == secret.kind:
        if "size" in secret.model_fields_set and len(old.data) != secret.size:
            raise BadRequestError(
                f"secret {secret.name}: got size {secret.size}, but its value is kept, and has {len(old.data)}",
                remedy="give a new secret another name",
            )
        data = old.data
    elif secret.kind == "ascii":
        data = "".join(random.choice(_PRINTABLE) for _ in range(secret.size)).encode()
    else:
        data = random.token_bytes(secret.size)
    return SecretValue(kind=secret.kind, data=data)
