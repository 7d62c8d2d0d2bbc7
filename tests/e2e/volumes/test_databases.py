"""Databases whose files are on an encrypted volume: they run, end, start again, and find their data sound."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import Container, run
from tests.e2e.corpus import services
from tests.e2e.corpus.conftest import MakePair, Pair, comes_up, mode, pair
from tests.e2e.volumes.programs import on_volume

__all__ = ["mode", "pair"]

pytestmark = [pytest.mark.docker, pytest.mark.corpus]


def client(pair: Pair, *command: str, timeout: float = 120) -> str:
    """What a program of the native image prints in a container of its own."""
    return run("docker", "run", "--rm", "--entrypoint", command[0], pair.native, *command[1:], timeout=timeout).stdout


def ready(ask: Callable[[str], str], query: str) -> str:
    """The answer to a query, as soon as a server that recovers gives one."""
    for _ in range(60):
        try:
            return ask(query)
        except pytest.fail.Exception:
            time.sleep(2)
    return ask(query)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def test_redis_keeps_its_append_only_file(pair: MakePair, start: Callable[..., Container], store: Path) -> None:
    redis = pair(on_volume(services.redis(), "/var/lib/redis"))
    container = start(redis.encrypted, f"--volume={store}:/var/lib/redis")
    assert comes_up(container, 6379)

    def ask(words: str) -> str:
        return client(redis, "redis-cli", "-h", container.address(), *words.split())

    assert ask("CONFIG SET appendfsync always") == "OK\n"
    report = client(redis, "redis-benchmark", "-h", container.address(), "-n", "2000", "-t", "set,lpush,incr", "-q")
    assert report.count("requests per second") == 3
    assert ask("SET a 1") + ask("INCR a") + ask("BGREWRITEAOF").split()[0] == "OK\n2\nBackground"
    before = ask("DBSIZE")
    run("docker", "kill", "--signal=KILL", container.name)
    run("docker", "start", container.name)
    assert comes_up(container, 6379)
    assert (ask("GET a"), ask("DBSIZE"), ask("LLEN mylist")) == ("2\n", before, "2000\n")
    run("docker", "stop", "--time=20", container.name)
    assert run("docker", "wait", container.name).stdout.strip() == "0"
    assert not any(b"mylist" in path.read_bytes() for path in store.iterdir())


def test_postgres_runs_pgbench(pair: MakePair, start: Callable[..., Container], store: Path) -> None:
    postgres = pair(on_volume(services.postgres(), "/var/lib/postgresql"))
    container = start(postgres.encrypted, f"--volume={store}:/var/lib/postgresql")
    assert comes_up(container, 5432, timeout=180)
    programs = services.POSTGRES_PROGRAMS

    def ask(query: str) -> str:
        where = ("-h", container.address(), "-U", "postgres")
        return client(postgres, f"{programs}/psql", *where, "-At", "-c", query)

    def bench(*options: str) -> str:
        return client(
            postgres, f"{programs}/pgbench", "-h", container.address(), "-U", "postgres", *options, "postgres"
        )

    bench("-i", "-q", "-s", "1")
    assert "number of transactions actually processed: 200/200" in bench("-c", "4", "-t", "50", "-n")
    run("docker", "kill", "--signal=KILL", container.name)
    run("docker", "start", container.name)
    assert comes_up(container, 5432, timeout=180)
    sums = "SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts) FROM pgbench_history"
    assert ready(ask, sums) == "200|t\n"
    assert "200/200" in bench("-c", "4", "-t", "50", "-n")
    ask("CREATE EXTENSION amcheck")
    assert (
        ask("SELECT bt_index_check(indexrelid, true) FROM pg_index WHERE indrelid = 'pgbench_accounts'::regclass")
        == "\n"
    )
    ask("VACUUM FULL pgbench_accounts")
    assert ask("SELECT count(*) FROM pgbench_accounts") == "100000\n"
    run("docker", "stop", "--time=60", container.name)
    assert run("docker", "wait", container.name).stdout.strip() == "0"


def test_mariadb_serves_its_tables(pair: MakePair, start: Callable[..., Container], store: Path) -> None:
    mariadb = pair(on_volume(services.mariadb(), "/var/lib/mysql"))
    container = start(mariadb.encrypted, f"--volume={store}:/var/lib/mysql")
    assert comes_up(container, 3306, timeout=240)

    def ask(statement: str) -> str:
        return client(mariadb, "mariadb", "-h", container.address(), "-u", "tester", "-N", "-e", statement)

    ask("CREATE DATABASE d; CREATE TABLE d.t (i INT PRIMARY KEY, s TEXT) ENGINE=InnoDB")
    ask("INSERT INTO d.t SELECT seq, CONCAT('text', seq * 7919 % 10007) FROM d.seq_1_to_5000")
    sums = ask("SELECT COUNT(*), SUM(i), MAX(s) FROM d.t")
    run("docker", "kill", "--signal=KILL", container.name)
    run("docker", "start", container.name)
    assert comes_up(container, 3306, timeout=240)
    assert ready(ask, "SELECT COUNT(*), SUM(i), MAX(s) FROM d.t") == sums
    assert "status\tOK" in ask("CHECK TABLE d.t EXTENDED")
    ask("SET GLOBAL innodb_fast_shutdown = 1; SHUTDOWN")
    assert run("docker", "wait", container.name).stdout.strip() == "0"
