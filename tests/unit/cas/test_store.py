from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from sconify.cas.errors import ConflictError
from sconify.cas.master_key import FileMasterKey
from sconify.cas.store import Store, StoredSession
from sconify.cas.tables import metadata
from sconify.errors import ServiceError, UserError
from sconify.policy.formats import SecretValue


def open_store(directory: Path) -> Store:
    return Store(directory / "state", master_key=FileMasterKey(directory / "key"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path)
    yield store
    store.close()


def version(number: int, *, text: str = "text") -> StoredSession:
    secrets = {"k": SecretValue(kind="binary", data=b"\0\xff"), "t": SecretValue(kind="ascii", data="é".encode())}
    return StoredSession(name="a/b", version=number, creator="me", text=text, secrets=secrets)


def test_versions_are_kept_and_found(store: Store, tmp_path: Path) -> None:
    store.append(version(1, text="first"), session_hash="h1")
    store.append(version(2, text="second"), session_hash="h2")
    again = open_store(tmp_path)
    assert again.latest_version("a/b") == 2
    assert again.latest_version("a") == 0
    assert again.load("a/b", 1) == version(1, text="first")
    assert again.load_by_hash("a/b", "h2") == version(2, text="second")
    assert again.load_by_hash("a/b", "h3") is None
    assert again.load_by_hash("a", "h2") is None
    again.close()


def test_a_version_is_written_once(store: Store) -> None:
    store.append(version(1), session_hash="h1")
    with pytest.raises(ConflictError):
        store.append(version(1, text="other"), session_hash="h2")
    assert store.load("a/b", 1) == version(1)


def test_what_is_fixed_stays(store: Store, tmp_path: Path) -> None:
    assert store.fixed("cas", new=b"one") == b"one"
    assert store.fixed("cas", new=b"two") == b"one"
    other = Store(tmp_path / "other", master_key=FileMasterKey(tmp_path / "key"))
    assert other.fixed("cas", new=b"three") == b"three"
    other.close()


def test_of_many_threads_one_uses_a_nonce(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        used = list(pool.map(lambda _: store.use_nonce(b"n" * 32, expires_at=1), range(32)))
    assert sorted(used) == [False] * 31 + [True]


def test_the_migrations_make_the_tables_that_the_code_uses(store: Store, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'state/cas.sqlite'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_state_is_for_its_owner_only(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ServiceError, match=r"the state directory .* can't be used") as caught:
        open_store(tmp_path)
    assert "--state-dir" in caught.value.diagnostics()


def test_a_database_that_is_none(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / "state/cas.sqlite").write_bytes(b"x" * 8192)
    with pytest.raises(ServiceError, match="not a database"):
        open_store(tmp_path)


def test_a_store_of_a_later_version_is_refused(store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state/cas.sqlite") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UserError, match="later version"):
        open_store(tmp_path)
