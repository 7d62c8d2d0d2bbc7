"""A CAS in debug mode for a module of tests, and clients of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cas_server import Client, RunningCas, running_cas

_numbers = itertools.count()


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCas]:
    with running_cas(tmp_path_factory.mktemp("cas") / "state") as server:
        yield server


@pytest.fixture
def new_client(cas: RunningCas, tmp_path: Path) -> Callable[[], Client]:
    return lambda: Client.make(tmp_path / f"client{next(_numbers)}", cas.client_port)


@pytest.fixture
def client(new_client: Callable[[], Client]) -> Client:
    return new_client()


@pytest.fixture
def name() -> str:
    """The name of a session that no other test has."""
    return f"session-{next(_numbers)}"
