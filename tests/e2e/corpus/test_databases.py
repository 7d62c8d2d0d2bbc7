"""Databases whose files stand in ephemeral regions: redis with its append-only file, PostgreSQL, MariaDB."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.containers import Container, Engine
from tests.e2e.corpus import services
from tests.e2e.corpus.conftest import MakePair, Pair, conversations
from tests.e2e.corpus.engines import Way, ways

pytestmark = [pytest.mark.docker, pytest.mark.corpus]


class Client:
    """Runs programs of a native image against a service."""

    def __init__(self, engine: Engine, image: str, *command: str) -> None:
        self.engine, self.image, self.command = engine, image, command

    def __call__(self, *arguments: str) -> str:
        """Return what it prints."""
        return self._run(*arguments, check=True)[1]

    def fails(self, *arguments: str) -> bool:
        return self._run(*arguments, check=False)[0] != 0

    def _run(self, *arguments: str, check: bool) -> tuple[int, str]:
        words = ("run", "--rm", "--entrypoint", self.command[0], self.image, *self.command[1:], *arguments)
        done = self.engine(*words, check=check)
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def redis(pair: MakePair) -> Pair:
    return pair(services.redis())


@pytest.mark.parametrize("way", ways(), indirect=True)
def test_redis_reads_its_append_only_file_again(redis: Pair, way: Way, start: Callable[..., Container]) -> None:
    def talk(container: Container) -> list[str]:
        client = Client(way.engine, redis.native, "redis-cli", "-h", container.address())
        answers = [client(*words.split()) for words in ("SET a 1", "INCR a", "LPUSH l x y z", "LRANGE l 0 -1")]
        benchmark = Client(way.engine, redis.native, "redis-benchmark", "-h", container.address())
        assert benchmark("-n", "2000", "-t", "set,lpush", "-q").count("requests per second") == 2
        answers.append(client("DEBUG", "LOADAOF"))
        # Another process writes the file anew.
        answers.append(client("BGREWRITEAOF"))
        deadline = time.monotonic() + 30
        while "aof_rewrite_in_progress:1" in (state := client("INFO", "persistence")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert "aof_last_bgrewrite_status:ok" in state
        answers += [client(*words.split()) for words in ("SET b 2", "DEBUG LOADAOF", "GET a", "GET b", "LLEN l")]
        way.engine("stop", "--time=10", container.name)
        return [*answers, f"ended with {container.wait()}"]

    native, encrypted = conversations(redis, way, start, 6379, talk)
    assert encrypted == native
    # Without its capabilities, root can't write to redis' directory.
    expected = "ended with 1" if way.mode.takes_capabilities_from_root else "ended with 0"
    assert native[-1] == expected


@pytest.fixture(scope="module")
def postgres(pair: MakePair) -> Pair:
    return pair(services.postgres())


@pytest.mark.parametrize("way", ways(), indirect=True)
def test_postgres_runs_pgbench(postgres: Pair, way: Way, start: Callable[..., Container]) -> None:
    def talk(container: Container) -> list[str]:
        where = ("-h", container.address(), "-U", "postgres")
        pgbench = Client(way.engine, postgres.native, f"{services.POSTGRES_PROGRAMS}/pgbench", *where)
        ask = Client(way.engine, postgres.native, f"{services.POSTGRES_PROGRAMS}/psql", *where, "-At", "-c")
        pgbench("-i", "-q", "-s", "2", "postgres")
        report = pgbench("-c", "4", "-t", "100", "-n", "postgres")
        assert "number of transactions actually processed: 400/400" in report
        answers = [
            ask(query)
            for query in (
                "SELECT count(*) FROM pgbench_accounts",
                "SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts) FROM pgbench_history",
                "CREATE EXTENSION pg_stat_statements",
                "SELECT name FROM pg_available_extensions ORDER BY 1",
                "CREATE DATABASE other",
            )
        ]
        # A server process that dies makes all of them start anew and read the log of what was written.
        assert ask.fails("COPY (SELECT 1) TO PROGRAM 'kill -KILL $PPID'")
        deadline = time.monotonic() + 30
        while ask.fails("SELECT 1"):
            assert time.monotonic() < deadline, container.logs()[-4000:]
            time.sleep(0.2)
        answers.append(ask("SELECT count(*) FROM pgbench_history"))
        way.engine("stop", "--time=20", container.name)
        return [*answers, f"ended with {container.wait()}"]

    native, encrypted = conversations(postgres, way, start, 5432, talk)
    assert encrypted == native
    assert native[-2:] == ["400\n", "ended with 0"]


@pytest.fixture(scope="module")
def mariadb(pair: MakePair) -> Pair:
    return pair(services.mariadb())


@pytest.mark.parametrize("way", ways(), indirect=True)
def test_mariadb_serves_its_tables(mariadb: Pair, way: Way, start: Callable[..., Container]) -> None:
    def talk(container: Container) -> list[str]:
        client = Client(way.engine, mariadb.native, "mariadb", "-h", container.address(), "-u", "tester", "-N", "-e")
        statements = (
            "CREATE DATABASE d; CREATE TABLE d.t (i INT PRIMARY KEY, s TEXT) ENGINE=InnoDB",
            "INSERT INTO d.t SELECT seq, CONCAT('text', seq * 7919 % 10007) FROM d.seq_1_to_5000",
            "SELECT COUNT(*) FROM d.t",
            "SELECT MAX(s), SUM(i) FROM d.t WHERE s LIKE 'text9%'",
            "CREATE TABLE d.a (i INT) ENGINE=Aria; INSERT INTO d.a VALUES (1), (2); SELECT * FROM d.a",
            "CHECK TABLE d.a, d.t",
            "SHOW ENGINES",
            "SET GLOBAL innodb_fast_shutdown = 1; SHUTDOWN",
        )
        return [*(client(statement) for statement in statements), f"ended with {container.wait()}"]

    native, encrypted = conversations(mariadb, way, start, 3306, talk)
    assert encrypted == native
    # Without its capabilities, root can't become mysql.
    if not way.mode.takes_capabilities_from_root:
        assert native[-1] == "ended with 0"
