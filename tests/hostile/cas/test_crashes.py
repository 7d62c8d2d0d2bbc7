"""kill -9 at any moment: every acknowledged write is there, whole; nothing else is half there.

Clients create and update sessions without a break while CASes are killed and started again. ``SCONIFY_CRASH_WRITES``
says how many writes are made (make crash-test: 1,000).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sconify.policy.session import parse_session, session_hash
from tests.cas_server import Client, RunningCas, running_cas, session_text
from tests.postgresql import postgresql_server

WRITES = int(os.environ.get("SCONIFY_CRASH_WRITES", "80"))
CLIENTS = 8


class Writer(threading.Thread):
    """A client that creates a session, then updates it, again and again, at whichever CAS answers."""

    def __init__(self, number: int, client: Client, ports: list[int], writes: int) -> None:
        super().__init__()
        self.number, self.client, self.ports, self.writes = number, client, ports, writes
        self.acknowledged: dict[str, list[str]] = {}
        self.failure: str | None = None

    def run(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(self.client.directory / "cert.pem", self.client.directory / "key.pem")
        try:
            for write in range(self.writes):
                self.write(context, f"crash-{self.number}-{write // 4}", write)
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"

    def write(self, context: ssl.SSLContext, name: str, write: int) -> None:
        """Write one version, and go on until it is acknowledged or known to be there."""
        known = self.acknowledged.setdefault(name, [])
        text = session_text(name, environment=f"{{W: {write}}}", extra="secrets: [{name: t, kind: ascii}]")
        if known:
            text += f"\npredecessor: {known[-1]}"
        deadline, last = time.monotonic() + 300, "nothing"
        while time.monotonic() < deadline:
            try:
                status, body = self.send(context, "POST", "/v1/sessions", text.encode())
                last = f"{status} {body}"
                if status == 201:
                    known.append(body["hash"])
                    return
                if status == 409:  # an earlier attempt was stored, but its answer was lost
                    status, body = self.send(context, "GET", f"/v1/sessions/{name}")
                    if status == 200 and f"W: {write}}}" in body["session"]:
                        known.append(body["hash"])
                        return
                assert status in (409, 503), (status, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                last = type(error).__name__
                time.sleep(0.02)
        raise TimeoutError(f"{name}: no CAS has taken write {write} for five minutes, at last: {last}")

    def send(
        self, context: ssl.SSLContext, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, dict[str, str]]:
        port = random.choice(self.ports)
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@contextmanager
def database_of(kind: str) -> Iterator[tuple[str, ...]]:
    if kind == "sqlite":
        yield ()
    else:
        with postgresql_server() as url:
            yield (f"--database={url}",)


@pytest.mark.parametrize(("kind", "replicas"), [("sqlite", 1), ("sqlite", 2), ("postgresql", 3)])
def test_no_acknowledged_write_is_lost_and_none_is_there_by_half(tmp_path: Path, kind: str, replicas: int) -> None:
    key = tmp_path / "master.key"
    key.touch(0o600)
    key.write_text("17" * 32 + "\n")
    client = Client.make(tmp_path / "client", 0)
    with database_of(kind) as options, ExitStack() as stack:

        def start(number: int, port: int = 0) -> RunningCas:
            state = tmp_path / ("state" if kind == "sqlite" else f"state{number}")
            return stack.enter_context(
                running_cas(state, *options, f"--master-key-file={key}", "--quiet", client_port=port)
            )

        running = [start(number) for number in range(replicas)]
        ports = [cas.client_port for cas in running]
        writers = [Writer(number, client, ports, WRITES // CLIENTS) for number in range(CLIENTS)]
        for writer in writers:
            writer.start()
        kills = 0
        chance = random.Random(len(ports))
        while any(writer.is_alive() for writer in writers):
            time.sleep(chance.uniform(0.2, 2.0))
            number = chance.randrange(replicas)
            running[number].kill()
            kills += 1
            running[number] = start(number, ports[number])
        for writer in writers:
            writer.join()
            assert writer.failure is None
        assert kills >= 1
        survivor = client.at(running[0].client_port)
        check(survivor, writers)
        answers = {name: running[0].enclave(f"{name}/web").attest().status for name in writers[0].acknowledged}
        assert set(answers.values()) == {200}


def check(client: Client, writers: list[Writer]) -> None:
    """Every acknowledged version is there, whole and in its place, and there is none besides."""
    total = 0
    for writer in writers:
        for name, acknowledged in writer.acknowledged.items():
            versions = client.request(f"/v1/history/{name}").body["versions"]
            assert [version["hash"] for version in versions] == acknowledged, name
            assert [version["version"] for version in versions] == list(range(1, len(versions) + 1))
            newest = client.read(name).body
            session = parse_session(newest["session"])
            assert session_hash(session) == newest["hash"] == acknowledged[-1]
            assert session.predecessor == (acknowledged[-2] if len(acknowledged) > 1 else None)
            total += len(versions)
    assert total == len(writers) * (WRITES // CLIENTS)
