"""Random valid sessions survive parsing, canonical form, storing, reading and hashing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.cas.access import Caller
from sconify.cas.audit import AuditLog
from sconify.cas.catalog import Catalog
from sconify.cas.keys import load_cas_key
from sconify.cas.master_key import FileMasterKey
from sconify.cas.renewals import Renewals
from sconify.cas.resolution import Resolver
from sconify.cas.sessions import Sessions
from sconify.cas.store import Store
from sconify.policy.keyhash import key_hash
from sconify.policy.model import Session
from sconify.policy.session import parse_session, session_hash
from tests.session_strategies import as_yaml, sessions

CREATOR = key_hash(b"the creator")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    directory = tmp_path_factory.mktemp("cas")
    store = Store(directory / "state", master_key=FileMasterKey(directory / "key"))
    catalog = Catalog(store)
    audit = AuditLog(
        directory / "audit", signing_key=Ed25519PrivateKey.from_private_bytes(bytes(32)), cas_key=load_cas_key(store)
    )
    yield Sessions(store, catalog=catalog, resolver=Resolver(catalog, renewals=Renewals(store)), audit=audit)
    store.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sessions(st.integers().map(lambda _: f"s{next(_numbers)}")))
def test_a_session_is_read_back_as_it_is(service: Sessions, data: dict[str, Any]) -> None:
    text = as_yaml(data)
    session = parse_session(text)
    canonical = session.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert parse_session(as_yaml(canonical)) == session == Session.model_validate(canonical)
    expected = session_hash(session.model_copy(update={"creator": CREATOR}))
    me = Caller(key=CREATOR)
    stored = service.put(text, caller=me)
    assert stored == expected
    read = service.read(session.name, caller=me)
    assert read.hash == stored == session_hash(parse_session(read.text))
    assert parse_session(read.text) == session.model_copy(update={"creator": CREATOR})
    assert [version.hash for version in service.history(session.name, caller=me)] == [stored]
