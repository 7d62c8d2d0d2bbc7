"""Databases whose files stand in host paths: redis with its append-only file, PostgreSQL, MariaDB."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.containers import Container, run
from tests.e2e.corpus import services
from tests.e2e.corpus.conftest import MakePair, Pair, wait_for_port

pytestmark = [pytest.mark.docker, pytest.mark.corpus]


def in_native(pair: Pair, *command: str, timeout: float = 60) -> str:
    """What a client prints that runs in a container of the native image, its entry point replaced."""
    words = ("docker", "run", "--rm", "--entrypoint", command[0], pair.native, *command[1:])
    return run(*words, timeout=timeout).stdout


@pytest.fixture(scope="module")
def redis(pair: MakePair) -> Pair:
    return pair(services.redis())


def test_redis_keeps_its_append_only_file(redis: Pair, start: Callable[..., Container]) -> None:
    answers = []
    for image in (redis.native, redis.encrypted):
        container = start(image)
        wait_for_port(container, 6379)
        client = ("redis-cli", "-h", container.address())
        outputs = [
            in_native(redis, *client, *words.split())
            for words in ("SET a 1", "INCR a", "LPUSH l x y z", "LRANGE l 0 -1", "BGREWRITEAOF")
        ]
        report = in_native(redis, "redis-benchmark", *client[1:], "-n", "2000", "-t", "set,lpush", "-q")
        assert report.count("requests per second") == 2
        run("docker", "restart", "--time=10", container.name)
        wait_for_port(container, 6379)
        client = ("redis-cli", "-h", container.address())
        outputs += [in_native(redis, *client, *words.split()) for words in ("GET a", "LLEN l", "CONFIG GET appendonly")]
        answers.append(outputs)
        run("docker", "stop", "--time=10", container.name)
        assert run("docker", "wait", container.name).stdout.strip() == "0"
    assert answers[0] == answers[1]
    assert "2\n" in answers[0]


@pytest.fixture(scope="module")
def postgres(pair: MakePair) -> Pair:
    return pair(services.postgres())


def test_postgres_runs_pgbench(postgres: Pair, start: Callable[..., Container]) -> None:
    answers = []
    for image in (postgres.native, postgres.encrypted):
        container = start(image)
        wait_for_port(container, 5432, timeout=60)
        where = ("-h", container.address(), "-U", "postgres")
        in_native(postgres, f"{services.POSTGRES_PROGRAMS}/pgbench", *where, "-i", "-q", "-s", "2", "postgres")
        report = in_native(
            postgres, f"{services.POSTGRES_PROGRAMS}/pgbench", *where, "-c", "4", "-t", "100", "-n", "postgres"
        )
        assert "number of transactions actually processed: 400/400" in report
        ask = (f"{services.POSTGRES_PROGRAMS}/psql", *where, "-At", "-c")
        outputs = [
            in_native(postgres, *ask, query)
            for query in (
                "SELECT count(*) FROM pgbench_accounts",
                "SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts) FROM pgbench_history",
                "CREATE EXTENSION pg_stat_statements",
                "SELECT name FROM pg_available_extensions ORDER BY 1",
                "CREATE DATABASE other",
                "SELECT * FROM pg_ls_dir('base') ORDER BY 1",
            )
        ]
        answers.append(outputs[:-1])
        run("docker", "stop", "--time=20", container.name)
        assert run("docker", "wait", container.name).stdout.strip() == "0"
        run("docker", "start", container.name)
        wait_for_port(container, 5432, timeout=60)
        again = (f"{services.POSTGRES_PROGRAMS}/psql", "-h", container.address(), "-U", "postgres", "-At", "-c")
        assert in_native(postgres, *again, "SELECT count(*) FROM pgbench_history") == "400\n"
    assert answers[0] == answers[1]


@pytest.fixture(scope="module")
def mariadb(pair: MakePair) -> Pair:
    return pair(services.mariadb())


def test_mariadb_serves_its_tables(mariadb: Pair, start: Callable[..., Container]) -> None:
    answers = []
    for image in (mariadb.native, mariadb.encrypted):
        container = start(image)
        wait_for_port(container, 3306, timeout=60)
        client = ("mariadb", "-h", container.address(), "-u", "tester", "-N", "-e")
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
        answers.append([in_native(mariadb, *client, statement) for statement in statements])
        assert run("docker", "wait", container.name).stdout.strip() == "0"
    assert answers[0] == answers[1]
