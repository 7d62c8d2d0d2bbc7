"""A writing load on PostgreSQL that knows which of its transactions were acknowledged."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.containers import Container

WRITERS = 3
_ACCOUNTS = 50

_TABLES = f"""
CREATE EXTENSION amcheck;
CREATE TABLE booking (writer int, number int, account int, amount int, text text, PRIMARY KEY (writer, number));
CREATE INDEX ON booking (account, amount);
CREATE TABLE account (number int PRIMARY KEY, balance int NOT NULL);
INSERT INTO account SELECT number, 0 FROM generate_series(1, {_ACCOUNTS}) AS number;
"""

_TEXT = "repeat(md5(writer || '/' || number), 1 + mod(number, 97))"
"""What the text of a booking is; long ones are stored out of line."""

_BOOK = f"""
WITH booked AS (
    INSERT INTO booking SELECT writer, number, account, amount, {_TEXT}
    FROM (VALUES (%s, %s, %s, %s)) AS given (writer, number, account, amount) RETURNING account, amount
)
UPDATE account SET balance = balance + amount FROM booked WHERE account.number = booked.account
"""

_SUMS = "SELECT (SELECT coalesce(sum(amount), 0) FROM booking), (SELECT sum(balance) FROM account)"

_FIRST_OWN = 16384
"""The least number of a relation that is not the system's."""

_FAULTS = """
WITH looked_at AS MATERIALIZED (SELECT oid FROM pg_class WHERE relkind IN ('r', 't', 'm') AND oid >= %s)
SELECT oid::regclass::text, fault.msg FROM looked_at, verify_heapam(oid) AS fault
"""

_INDEXES = """
WITH looked_at AS MATERIALIZED (
    SELECT c.oid FROM pg_class AS c JOIN pg_am ON pg_am.oid = relam
    WHERE amname = 'btree' AND relkind = 'i' AND c.oid >= %s
) SELECT bt_index_check(oid, true) FROM looked_at
"""


Connection = psycopg.Connection[tuple[object, ...]]


@dataclass
class Bookings:
    """The tables of a server in a container.

    Attributes:
        container: The server.
        acknowledged: The number of the last booking of each writer that was acknowledged.
        is_ending: Whether the server is about to be killed, so that calls may fail.
    """

    container: Container
    acknowledged: list[int] = field(default_factory=lambda: [0] * WRITERS)
    is_ending: bool = False

    def connect(self, timeout: float = 120) -> Connection:
        """Connect as soon as the server takes connections."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return psycopg.connect(
                    host=self.container.address() or "0.0.0.0", user="postgres", dbname="postgres", autocommit=True,
                    client_encoding="utf8", connect_timeout=5, keepalives_idle=2, keepalives_interval=1,
                    keepalives_count=3,
                )  # fmt: skip
            except psycopg.OperationalError as error:
                running = self.container.engine("inspect", "--format", "{{.State.Running}}", self.container.name)
                if running.stdout.strip() != "true" or time.monotonic() > deadline:
                    pytest.fail(f"the server is not there: {error}\n{self.container.logs()[-6000:]}")
                time.sleep(0.05)

    def prepare(self) -> None:
        """Make the tables of a new cluster."""
        with self.connect() as connection:
            checksums = connection.execute("SHOW data_checksums").fetchone()
            assert checksums == ("on",), f"data_checksums is {checksums}"
            connection.execute(_TABLES)

    def check(self, *, everything: bool) -> int:
        """Compare what is there with what was acknowledged; ``everything`` looks at the system's tables too.

        Returns:
            How many bookings there are.
        """
        with self.connect() as connection:
            rows = connection.execute(
                f"SELECT writer, count(*), max(number), count(*) FILTER (WHERE text <> {_TEXT}) FROM booking GROUP BY 1"
            ).fetchall()
            found = [0] * WRITERS
            for writer, count, last, wrong in rows:
                assert isinstance(writer, int)
                assert isinstance(count, int)
                assert (last, wrong) == (count, 0), f"writer {writer}: {count} bookings up to {last}, {wrong} wrong"
                found[writer] = count
            for known, there in zip(self.acknowledged, found, strict=True):
                assert there in (known, known + 1), f"acknowledged were {self.acknowledged}, {found} are there"
            sums = connection.execute(_SUMS).fetchone()
            assert sums is not None
            assert sums[0] == sums[1], f"the bookings' sum is {sums[0]}, that of the accounts {sums[1]}"
            first = 0 if everything else _FIRST_OWN
            assert connection.execute(_FAULTS, [first]).fetchall() == []
            connection.execute(_INDEXES, [first])
            failures = connection.execute("SELECT sum(checksum_failures) FROM pg_stat_database").fetchone()
            assert failures == (0,)
        self.acknowledged = found
        return sum(found)

    def write(self, chance: random.Random) -> list[Future[None]]:
        """Start writers, which go on until the server is gone."""
        self.is_ending = False
        pool = ThreadPoolExecutor(WRITERS)
        connections = [self.connect() for _ in range(WRITERS)]
        writers = [
            pool.submit(self._write, writer, connection, random.Random(chance.random()))
            for writer, connection in enumerate(connections)
        ]
        pool.shutdown(wait=False)
        return writers

    def _write(self, writer: int, connection: Connection, chance: random.Random) -> None:
        with connection:
            try:
                while True:
                    number = self.acknowledged[writer] + 1
                    booking = (writer, number, chance.randint(1, _ACCOUNTS), chance.randint(-100, 100))
                    connection.execute(_BOOK, booking)
                    self.acknowledged[writer] = number
                    if chance.random() < 0.01:
                        connection.execute("CHECKPOINT")
            except psycopg.Error:
                # Not only lost connections: the supervisor is killed a moment before the server, whose calls fail then.
                if not self.is_ending:
                    raise
