"""Sessions as the service uses them: loaded from the store once, parsed once, kept while they are in use."""

from __future__ import annotations

import datetime
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sconify.cas.store import Store, StoredSession
from sconify.policy.formats import SecretValue
from sconify.policy.model import Session
from sconify.policy.session import parse_session, session_hash

_CAPACITY = 256


@dataclass(frozen=True, kw_only=True)
class ResolvedSecrets:
    """The secrets of a session at one moment.

    Attributes:
        values: Their values by name; tokens are not among them.
        good_until: Until when they stay the same; None: as long as the version of the session is the newest.
    """

    values: Mapping[str, SecretValue] = field(repr=False)
    good_until: datetime.datetime | None


@dataclass(frozen=True, kw_only=True)
class LoadedSession:
    """One version of a session, parsed.

    Attributes:
        stored: What the store has.
        model: Its parsed text.
        kept: What others keep with it while it is in use: results that hold as long as the version is the newest.
    """

    stored: StoredSession
    model: Session
    kept: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def hash(self) -> str:
        """The session hash, 64 hex digits."""
        return session_hash(self.model)


class Catalog:
    """The latest versions of sessions, cached by name and version.

    Which version is the latest is asked of the store each time: another process may have written it.

    Args:
        store: Where the sessions are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: OrderedDict[tuple[str, int], LoadedSession] = OrderedDict()
        self._lock = threading.Lock()

    def latest(self, name: str) -> LoadedSession | None:
        """Return the latest version of a session, or None if there is no such session."""
        version = self._store.latest_version(name)
        if not version:
            return None
        with self._lock:
            loaded = self._cache.get((name, version))
            if loaded is not None:
                self._cache.move_to_end((name, version))
                return loaded
        stored = self._store.load(name, version)
        if stored is None:
            return None
        loaded = self.parse(stored)
        with self._lock:
            self._cache.pop((name, version - 1), None)
            self._cache[name, version] = loaded
            while len(self._cache) > _CAPACITY:
                self._cache.popitem(last=False)
        return loaded

    @staticmethod
    def parse(stored: StoredSession) -> LoadedSession:
        """Parse a stored version."""
        return LoadedSession(stored=stored, model=parse_session(stored.text))
