"""Several CAS processes on one PostgreSQL: any of them serves any request."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from sconify.cas.database import Database
from sconify.cas.tables import metadata
from tests.cas_server import Answer, Client, RunningCas, running_cas, session_text
from tests.postgresql import postgresql_server

REPLICAS = 3


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture(scope="module")
def replicas(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningCas]]:
    """Replicas that start at the same time, each with a state directory of its own; the master key is shared."""
    directory = tmp_path_factory.mktemp("replicas")
    (directory / "master.key").touch(0o600)
    (directory / "master.key").write_text("5a" * 32 + "\n")
    options = (f"--database={database}", f"--master-key-file={directory / 'master.key'}")
    with ExitStack() as stack, ThreadPoolExecutor(REPLICAS) as pool:
        yield list(
            pool.map(
                lambda number: stack.enter_context(running_cas(directory / str(number), *options)), range(REPLICAS)
            )
        )


@pytest.fixture
def client(replicas: list[RunningCas], tmp_path: Path) -> Client:
    return Client.make(tmp_path / "client", replicas[0].client_port)


def test_all_replicas_are_one_cas(replicas: list[RunningCas]) -> None:
    assert len({replica.output[:2] for replica in replicas}) == 1


def test_the_migrations_make_the_tables_that_the_code_uses(
    replicas: list[RunningCas], database: str, tmp_path: Path
) -> None:
    opened = Database(tmp_path / "state", url=database)
    with opened.durable.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    opened.close()


def test_a_replica_with_a_new_log_at_an_old_path_starts(
    replicas: list[RunningCas], database: str, tmp_path: Path
) -> None:
    options = (f"--database={database}", f"--master-key-file={replicas[0].state_dir.parent / 'master.key'}")
    with running_cas(tmp_path / "state", *options) as first:
        for _ in range(5):
            first.enclave("no/service").attest()
    shutil.rmtree(tmp_path / "state")  # a container with a fresh disk
    with running_cas(tmp_path / "state", *options):
        pass


def test_a_challenge_of_one_is_answered_by_another_once(replicas: list[RunningCas], client: Client, name: str) -> None:
    assert client.upload(session_text(name)).status == 201
    one, two, three = (replica.enclave(f"{name}/web") for replica in replicas)
    nonce = one.challenge()
    request = {"nonce": nonce, "evidence": one.evidence(nonce), "public_key": one.public_key}
    answer = two.attest(**request)
    assert answer.status == 200
    assert one.open(answer.body["sealed"])["nonce"] == nonce
    assert "used before" in three.attest(**request).message
    token = answer.body["session_token"]
    assert three.post("/v1/exit", {"status": 0, "signal": None}, token=token).status == 204


def test_an_update_at_one_counts_at_all(replicas: list[RunningCas], client: Client, name: str) -> None:
    last = client.upload(session_text(name, environment="{V: 0}")).body["hash"]
    for number in range(1, 7):
        text = session_text(name, environment=f"{{V: {number}}}", extra=f"predecessor: {last}")
        last = client.at(replicas[number % REPLICAS].client_port).upload(text).body["hash"]
        enclave = replicas[(number + 1) % REPLICAS].enclave(f"{name}/web")
        assert enclave.open(enclave.attest().body["sealed"])["environment"] == {"V": str(number)}


def test_of_concurrent_updates_at_all_replicas_exactly_one_wins(
    replicas: list[RunningCas], client: Client, name: str
) -> None:
    last = client.upload(session_text(name)).body["hash"]
    for round_ in range(3):
        texts = [
            session_text(name, environment=f"{{N: {n}, R: {round_}}}", extra=f"predecessor: {last}") for n in range(9)
        ]

        def upload(numbered: tuple[int, str]) -> Answer:
            return client.at(replicas[numbered[0] % REPLICAS].client_port).upload(numbered[1])

        with ThreadPoolExecutor(9) as pool:
            answers = list(pool.map(upload, enumerate(texts)))
        assert sorted(answer.status for answer in answers) == [201] + [409] * 8
        last = next(answer.body["hash"] for answer in answers if answer.status == 201)
    assert len(client.request(f"/v1/history/{name}").body["versions"]) == 4


def test_of_concurrent_writers_of_a_volume_exactly_one_wins(
    replicas: list[RunningCas], client: Client, name: str
) -> None:
    extra = "images: [{name: i, volumes: [{name: v, path: /v}]}]\nvolumes: [{name: v}]"
    text = session_text(name, extra=extra).replace("- name: web", "- name: web\n    image_name: i")
    assert client.upload(text).status == 201
    enclaves = [replicas[number % REPLICAS].enclave(f"{name}/web") for number in range(9)]
    tokens = [enclave.attest().body["session_token"] for enclave in enclaves]

    def advance(number: int) -> int:
        body = {"root": f"{number:064x}", "counter": 1}
        return enclaves[number].post("/v1/volumes/v", body, token=tokens[number]).status

    with ThreadPoolExecutor(9) as pool:
        assert sorted(pool.map(advance, range(9))) == [204] + [409] * 8


def test_a_replica_that_is_killed_is_not_missed(
    replicas: list[RunningCas], client: Client, name: str, database: str, tmp_path: Path
) -> None:
    key = replicas[0].state_dir.parent / "master.key"
    with running_cas(tmp_path / "extra", f"--database={database}", f"--master-key-file={key}") as extra:
        created = client.at(extra.client_port).upload(session_text(name)).body["hash"]
        extra.kill()
    assert client.read(name).body["hash"] == created
    assert replicas[1].enclave(f"{name}/web").attest().status == 200


def test_a_certificate_that_was_renewed_is_the_same_at_all_replicas(
    replicas: list[RunningCas], client: Client, name: str
) -> None:
    extra = (
        "secrets:\n  - {name: k, kind: private-key}\n"
        "  - {name: ca, kind: x509-ca, private_key: k, valid_for: 12s}\n"
        "  - {name: c, kind: x509, private_key: k, issuer: ca, valid_for: 12s, export_public: true}\n"
    )
    assert client.upload(session_text(name, extra=extra)).status == 201
    path = f"/v1/values/session={name},secret=c"
    first = client.request(path).body["value"]
    time.sleep(8.5)  # two thirds of 12 s are over
    for _ in range(5):  # in the meantime they may be over once more
        values = [client.at(replica.client_port).request(path).body["value"] for replica in replicas]
        if len(set(values)) == 1:
            break
    assert len(set(values)) == 1
    assert values[0] != first


def test_wrong_passwords_are_counted_by_all_replicas_together(
    replicas: list[RunningCas], client: Client, name: str
) -> None:
    otp = "security: {attestation: {tolerate: [simulated-platform], one_time_password_shared_secret: %s}}" % ("A" * 32)
    text = session_text(name)
    assert client.upload(text[: text.index("security:")] + otp).status == 201
    # Of 24 at least 12 are in one step of time; each replica alone sees eight.
    reasons = [replicas[number % REPLICAS].enclave(f"{name}/web@000000").attest().message for number in range(24)]
    assert any("too many" in reason for reason in reasons)


def test_stolen_data_files_of_postgresql_give_up_no_secret(
    replicas: list[RunningCas], database: str, client: Client, name: str
) -> None:
    extra = (
        "secrets: [{name: given, kind: ascii, value: canary-given-77aa}, {name: made, kind: binary, size: 32}]\n"
        f"# {name}-in-the-open"
    )
    text = session_text(name, environment="{A: canary-environment-77aa, M: $$SCONE::made:hex$$}", extra=extra)
    created = client.upload(text).body["hash"]
    enclave = replicas[1].enclave(f"{name}/web")
    answer = enclave.attest()
    made = enclave.open(answer.body["sealed"])["environment"]["M"]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        directory = Path(connection.execute("SHOW data_directory").fetchone()[0])  # type: ignore[index]
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert any(name.encode() in content for content in files.values())  # names are no secrets: the search works
    needles = [b"canary-", f"{name}-in-the-open".encode(), b"0123456789abcdef" * 4, b"5a" * 32, bytes([0x5A] * 32)]
    needles += [made.encode(), bytes.fromhex(made), created.encode(), bytes.fromhex(created)]
    needles += [answer.body["session_token"].encode(), b"PRIVATE KEY"]
    for path, content in files.items():
        for needle in needles:
            assert needle not in content, (path, needle)
