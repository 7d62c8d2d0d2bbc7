"""What a CAS can do: attestations, creations and reads of sessions a second, their latency, its memory.

Real TLS over loopback, a new connection for each attestation as the runtime makes it, simulated evidence. The clients
run on the same cores as the CAS, so it can do more than this shows: the CPU time that it took is printed too.

    python -m bench.cas [--seconds 5] [--clients 8] [--databases SQLite PostgreSQL]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sconify.cas.attested import CasAddress
from sconify.cas.connection import CasConnection
from sconify.cas.identity import Identity
from tests.cas_server import Enclave, RunningCas, running_cas, session_text
from tests.postgresql import postgresql_server


@dataclass(frozen=True)
class Measured:
    """What some clients did in some time.

    Attributes:
        latencies: Seconds that each operation took.
        seconds: How long they did it.
        cpu: Seconds of CPU time that the CAS took for it.
    """

    latencies: list[float]
    seconds: float
    cpu: float

    def line(self, name: str) -> str:
        ordered = sorted(self.latencies)
        p50, p99 = statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))]
        rate = len(ordered) / self.seconds
        each = 1000 * self.cpu / len(ordered)
        times = f"p50 {1000 * p50:7.1f} ms   p99 {1000 * p99:7.1f} ms"
        return f"{name:20} {rate:6.0f}/s   {times}   {each:5.2f} ms CPU of the CAS each"


def attest(port: int, _client_port: int, _number: int) -> Callable[[], None]:
    def operation() -> None:
        answer = Enclave(port, "bench/web").attest()
        assert answer.status == 200, answer

    return operation


def create(_port: int, client_port: int, number: int) -> Callable[[], None]:
    connection = CasConnection(
        CasAddress("127.0.0.1", client_port), identity=Identity.generate(), key_sha256=None, retries=0
    )
    count = 0

    def operation() -> None:
        nonlocal count
        count += 1
        text = session_text(f"bench-{number}-{os.getpid()}-{count}", extra="secrets: [{name: t, kind: ascii}]")
        connection.request("POST", "/v1/sessions", body=text.encode())

    return operation


def read(_port: int, client_port: int, _number: int) -> Callable[[], None]:
    connection = CasConnection(
        CasAddress("127.0.0.1", client_port), identity=Identity.generate(), key_sha256=None, retries=0
    )
    return lambda: void(connection.request("GET", "/v1/sessions/bench"))


def void(_value: object) -> None:
    return


def client(
    make: Callable[[int, int, int], Callable[[], None]],
    ports: tuple[int, int],
    number: int,
    seconds: float,
    results: str,
) -> None:
    operation = make(*ports, number)
    operation()
    latencies = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        operation()
        latencies.append(time.monotonic() - begin)
    Path(results, str(number)).write_text(json.dumps(latencies))


def measure(
    make: Callable[[int, int, int], Callable[[], None]], cas: RunningCas, *, clients: int, seconds: float
) -> Measured:
    with tempfile.TemporaryDirectory() as results:
        before = cpu_seconds(cas.process.pid)
        ports = (cas.enclave_port, cas.client_port)
        processes = [
            multiprocessing.Process(target=client, args=(make, ports, number, seconds, results))
            for number in range(clients)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        files = list(Path(results).iterdir())
        assert len(files) == clients, "a client has failed"
        latencies = [latency for file in files for latency in json.loads(file.read_text())]
        return Measured(latencies, seconds, cpu_seconds(cas.process.pid) - before)


def cpu_seconds(pid: int) -> float:
    total = 0.0
    for process in [pid, *children(pid)]:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def memory_mib(pid: int) -> float:
    total = 0.0
    for process in [pid, *children(pid)]:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def cas_on(database: str, directory: Path) -> Iterator[RunningCas]:
    if database == "SQLite":
        with running_cas(directory / "sqlite", "--quiet", "--rate-limit=0") as cas:
            yield cas
    else:
        with (
            postgresql_server() as url,
            running_cas(directory / "replica", f"--database={url}", "--quiet", "--rate-limit=0") as cas,
        ):
            yield cas


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--databases", nargs="+", default=["SQLite", "PostgreSQL"])
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {options.clients} clients on the same cores, {options.seconds:g} s each")
    for database in options.databases:
        with tempfile.TemporaryDirectory() as directory, cas_on(database, Path(directory)) as cas:
            connection = CasConnection(
                CasAddress("127.0.0.1", cas.client_port), identity=Identity.generate(), key_sha256=None, retries=5
            )
            text = session_text("bench", extra="access_policy: {read: ANY}")
            connection.request("POST", "/v1/sessions", body=text.encode())
            print(f"\n{database}: {memory_mib(cas.process.pid):.0f} MiB when idle")
            for name, make in (("attestations", attest), ("sessions created", create), ("sessions read", read)):
                print(measure(make, cas, clients=options.clients, seconds=options.seconds).line(name), flush=True)
            print(f"{memory_mib(cas.process.pid):.0f} MiB afterwards")


if __name__ == "__main__":
    main()
