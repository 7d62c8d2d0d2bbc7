"""The host owns the disk: what it finds there, what it can change, and what a crash leaves."""

from __future__ import annotations

import base64
import shutil
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from sconify.attestation.judge import Mode
from sconify.cas.service import Cas
from sconify.errors import UserError
from tests.cas_server import Client, running_cas, session_text

CANARY = "canary-of-a-secret-3f9b"


def files_of(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_nothing_secret_is_on_disk_or_in_logs(tmp_path: Path) -> None:
    extra = f"""
images: [{{name: i, injection_files: [{{path: /x, content: "{CANARY}-file"}},
  {{path: /k, content: "$$SCONE::key:der$$"}},
  {{path: /p, content: "$$SCONE::pgp:privatekey:binary$$"}}], volumes: [{{name: v, path: /v}}]}}]
secrets: [{{name: given, kind: ascii, value: "{CANARY}-secret"}}, {{name: made, kind: ascii}},
  {{name: key, kind: private-key}}, {{name: pgp, kind: pgp-key}}]
volumes: [{{name: v}}]
"""
    text = session_text("ns", environment=f"{{E: {CANARY}-environment, M: $$SCONE::made$$}}", extra=extra)
    text = text.replace("- name: web", "- name: web\n    image_name: i")
    text = text.replace("/app/server.py", f"{CANARY}-argument").replace("0123456789abcdef" * 4, "c0ffee77" * 8)
    with running_cas(tmp_path / "state") as cas:
        client = Client.make(tmp_path / "client", cas.client_port)
        created = client.upload(text).body["hash"]
        assert client.request(f"/v1/sessions/ns?hash={created}").status == 200
        client.upload(text.replace("command", f"{CANARY}-key"))  # an error that might quote it
        client.upload(text.replace("kind: ascii, value", "kind: binary, value"))
        enclave = cas.enclave("ns/web")
        answer = enclave.attest()
        configuration = enclave.open(answer.body["sealed"])
        made = configuration["environment"]["M"]
        keys = [base64.b64decode(file["content"]) for file in configuration["injection_files"][1:]]
        keys.append(bytes.fromhex(configuration["volumes"][0]["key"]))
        enclave.attest(evidence={CANARY: 1})
        needles = [CANARY, "c0ffee77c0ffee77", made, created, answer.body["session_token"], "PRIVATE KEY"]
        needles += [form for key in keys for form in (key[-24:].decode("latin-1"), key[-24:].hex())]
        needles += [bytes.fromhex("c0ffee77c0ffee77").decode("latin-1"), bytes.fromhex(created).decode("latin-1")]
        while_running = files_of(tmp_path / "state")
    contents = [*while_running.items(), *files_of(tmp_path / "state").items(), *files_of(tmp_path).items()]
    searched = [(path, content) for path, content in contents if "client" not in path.parts]
    assert any(path.name == "cas.sqlite" for path, _ in searched)
    assert any(path == cas.log and b"POST /v1/attest" in content for path, content in searched)
    for path, content in searched:
        for needle in needles:
            assert needle.encode("latin-1") not in content, (path, needle)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_text(CANARY)
    assert any(CANARY.encode() in content for content in files_of(tmp_path).values())


@pytest.mark.parametrize("column", ["sealed_text", "sealed_secrets"])
def test_a_row_that_was_changed_or_moved_is_not_served(tmp_path: Path, column: str) -> None:
    state = tmp_path / "state"
    with running_cas(state) as cas:
        client = Client.make(tmp_path / "client", cas.client_port)
        assert client.upload(session_text("one")).status == 201
        assert client.upload(session_text("two")).status == 201
    with sqlite3.connect(state / "cas.sqlite") as database:
        database.execute(
            f"UPDATE session_versions SET {column} = (SELECT {column} FROM session_versions WHERE name = 'two') "
            "WHERE name = 'one'"
        )
    with running_cas(state) as cas:
        answer = client.at(cas.client_port).read("one")
        assert answer.status == 403
        assert "does not authenticate" in answer.message
        assert cas.enclave("one/web").attest().status == 403
        assert client.at(cas.client_port).read("two").status == 200


def test_a_session_can_not_be_given_another_creator_on_disk(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_cas(state) as cas:
        client = Client.make(tmp_path / "client", cas.client_port)
        thief = Client.make(tmp_path / "thief", cas.client_port)
        client.upload(session_text("one"))
        thief.upload(session_text("two"))
    with sqlite3.connect(state / "cas.sqlite") as database:
        database.execute(
            "UPDATE session_versions SET creator = (SELECT creator FROM session_versions WHERE name = 'two')"
        )
    with running_cas(state) as cas:
        assert thief.at(cas.client_port).read("one").status == 403


def test_a_store_without_its_master_key_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    Cas(state, mode=Mode.DEBUG).close()
    key = state / "master.key"
    kept = key.read_text()
    key.unlink()
    with pytest.raises(UserError, match="does not exist, but the store does"):
        Cas(state, mode=Mode.DEBUG)
    key.write_text("00" * 32)
    key.chmod(0o600)
    with pytest.raises(UserError, match="another master key"):
        Cas(state, mode=Mode.DEBUG)
    key.write_text(kept)
    key.chmod(0o640)
    with pytest.raises(UserError, match="expected 0600"):
        Cas(state, mode=Mode.DEBUG)


def test_a_crash_leaves_whole_sessions_only(tmp_path: Path) -> None:
    """Kill the CAS while it stores; each session that it confirmed is there, and each that is there is whole."""
    state = tmp_path / "state"
    confirmed: list[str] = []
    for attempt in range(4):
        with running_cas(state) as cas:
            client = Client.make(tmp_path / f"client{attempt}", cas.client_port)
            stop = threading.Event()

            def upload(
                worker: int, client: Client = client, attempt: int = attempt, stop: threading.Event = stop
            ) -> None:
                for number in range(1000):
                    name = f"s-{attempt}-{worker}-{number}"
                    try:
                        # Everybody may read, for each attempt has a client of its own.
                        if client.upload(session_text(name, extra="access_policy: {read: ANY}")).status == 201:
                            confirmed.append(name)
                    except AssertionError:
                        return
                    if stop.is_set():
                        return

            workers = [threading.Thread(target=upload, args=(number,)) for number in range(2)]
            for worker in workers:
                worker.start()
            stop.wait(0.3 + 0.13 * attempt)
            cas.process.send_signal(signal.SIGKILL)
            cas.process.wait()
            stop.set()
            for worker in workers:
                worker.join()
    assert len(confirmed) > 4
    with running_cas(state) as cas:
        with sqlite3.connect(state / "cas.sqlite") as database:
            stored = {row[0] for row in database.execute("SELECT name FROM session_versions")}
        assert set(confirmed) <= stored
        reader = client.at(cas.client_port)
        for name in sorted(stored)[:: max(1, len(stored) // 20)]:
            assert reader.read(name).status == 200
            assert cas.enclave(f"{name}/web").attest().status == 200


def test_a_copied_store_is_the_same_cas(tmp_path: Path) -> None:
    with running_cas(tmp_path / "state") as cas:
        keys = cas.output[:2]
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    with running_cas(tmp_path / "copy") as cas:
        assert cas.output[:2] == keys
