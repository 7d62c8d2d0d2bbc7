"""Sessions over the client API of a real CAS, with real curl."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sconify.policy.keyhash import certificate_key_hash
from sconify.policy.session import parse_session, session_hash
from tests.cas_server import Client, RunningCas, session_text

SECRET = "secrets: [{name: token, kind: ascii}, {name: key, kind: binary, size: 32}]"


@pytest.mark.parametrize("path", ["/v1/sessions", "/session"])
def test_a_session_is_created_and_read_back(client: Client, name: str, path: str) -> None:
    text = "# why it is as it is\n" + session_text(name)
    created = client.request(path, body=text)
    assert created.status == 201
    answer = client.read(name)
    assert answer.status == 200
    assert answer.body["hash"] == created.body["hash"]
    assert "# why it is as it is" in answer.body["session"]
    session = parse_session(answer.body["session"])
    assert session.creator == certificate_key_hash(client.certificate)
    assert session_hash(session) == created.body["hash"]
    # What the client computes from the file that it uploaded.
    assert session_hash(parse_session(text).model_copy(update={"creator": session.creator})) == created.body["hash"]


def test_any_key_type_of_a_client_is_an_identity(cas: RunningCas, client: Client, name: str) -> None:
    for kind in (["rsa:2048"], ["ed25519"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]):
        other = Client(client.directory / kind[0].replace(":", ""), cas.client_port)
        other.directory.mkdir()
        command = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=x", "-newkey", *kind]
        files = ["-keyout", str(other.directory / "key.pem"), "-out", str(other.directory / "cert.pem")]
        subprocess.run([*command, *files], check=True, capture_output=True)
        assert other.upload(session_text(f"{name}-{kind[0].replace(':', '')}")).status == 201


def test_tls_1_2_and_1_3_are_spoken_and_nothing_older(client: Client, name: str) -> None:
    client.upload(session_text(name))
    for version in ("1.2", "1.3"):
        assert client.request(f"/v1/sessions/{name}", f"--tlsv{version}", "--tls-max", version).status == 200
    with pytest.raises(AssertionError, match=r"TLS|alert|protocol"):
        client.request(f"/v1/sessions/{name}", "--tlsv1.1", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")


def test_an_update_needs_the_hash_of_the_latest_version(client: Client, name: str) -> None:
    first = client.upload(session_text(name)).body["hash"]
    assert client.upload(session_text(name)).status == 409
    second = client.upload(session_text(name, extra=f'predecessor: "{first}"'))
    assert second.status == 201
    assert client.upload(session_text(name, extra=f'predecessor: "{first}"')).status == 409
    assert client.read(name).body["hash"] == second.body["hash"]
    old = client.request(f"/v1/sessions/{name}?hash={first}")
    assert old.body["hash"] == first
    assert "predecessor" not in old.body["session"]


def test_what_was_read_back_can_be_edited_and_uploaded(client: Client, name: str) -> None:
    first = client.upload(session_text(name)).body["hash"]
    text = client.read(name).body["session"] + f'predecessor: "{first}"\n'
    assert client.upload(text).status == 201


def test_an_update_of_what_does_not_exist_is_refused(client: Client, name: str) -> None:
    answer = client.upload(session_text(name, extra=f'predecessor: "{"0" * 64}"'))
    assert answer.status == 404


def test_of_concurrent_updates_exactly_one_wins(client: Client, name: str) -> None:
    first = client.upload(session_text(name)).body["hash"]
    texts = [session_text(name, environment=f"{{N: {n}}}", extra=f'predecessor: "{first}"') for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(answer.status for answer in pool.map(client.upload, texts))
    assert statuses == [201] + [409] * 7


def test_of_concurrent_creations_exactly_one_wins(client: Client, name: str) -> None:
    texts = [session_text(name, environment=f"{{N: {n}}}") for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(answer.status for answer in pool.map(client.upload, texts))
    assert statuses == [201] + [409] * 7


def test_generated_secrets_survive_an_update_and_given_ones_follow_the_text(
    cas: RunningCas, client: Client, name: str
) -> None:
    values = "{TOKEN: $$SCONE::token$$, KEY: '$$SCONE::key:hex$$'}"
    first = client.upload(session_text(name, environment=values, extra=SECRET)).body["hash"]
    enclave = cas.enclave(f"{name}/web")
    before = enclave.open(enclave.attest().body["sealed"])["environment"]
    assert len(before["TOKEN"]) == 20
    assert len(bytes.fromhex(before["KEY"])) == 32
    given = SECRET.replace("kind: ascii", "kind: ascii, value: given")
    assert client.upload(session_text(name, environment=values, extra=f'{given}\npredecessor: "{first}"')).status == 201
    after = enclave.open(enclave.attest().body["sealed"])["environment"]
    assert after == {"TOKEN": "given", "KEY": before["KEY"]}


def test_a_kept_secret_does_not_change_its_size_in_silence(client: Client, name: str) -> None:
    first = client.upload(session_text(name, extra=SECRET)).body["hash"]
    changed = SECRET.replace("size: 32", "size: 16")
    answer = client.upload(session_text(name, extra=f'{changed}\npredecessor: "{first}"'))
    assert answer.status == 400
    assert "key" in answer.message


def test_namespaces_are_sessions_that_let_others_create(
    client: Client, new_client: Callable[[], Client], name: str
) -> None:
    friend, stranger = new_client(), new_client()
    assert friend.upload(session_text(f"{name}/a")).status == 404
    grant = certificate_key_hash(friend.certificate)
    parent = f'name: {name}\nversion: "0.3"\naccess_policy: {{create_sessions: [CREATOR, {grant}]}}\n'
    assert client.upload(parent).status == 201
    assert stranger.upload(session_text(f"{name}/a")).status == 403
    assert friend.upload(session_text(f"{name}/a")).status == 201
    assert client.upload(session_text(f"{name}/b")).status == 201
    assert client.read(f"{name}/a").status == 403  # the owner of a namespace does not own what is in it


def test_certificates_in_access_policies_stand_for_their_keys(
    client: Client, new_client: Callable[[], Client], name: str
) -> None:
    reader = new_client()
    pem = "\n".join(f"      {line}" for line in reader.certificate.splitlines())
    assert client.upload(session_text(name, extra=f"access_policy:\n  read:\n    - |\n{pem}\n")).status == 201
    assert reader.read(name).status == 200
    assert client.read(name).status == 403


def test_errors_name_line_and_key(client: Client, name: str) -> None:
    answer = client.upload(session_text(name).replace("command:", "comand:"))
    assert answer.status == 400
    assert 'line 6, column 5: services[0]: unknown key "comand": did you mean "command"?' in answer.message
    assert answer.body["version"] == "0.1.0"


def test_the_cas_shows_what_it_is_without_a_certificate(cas: RunningCas, client: Client) -> None:
    answer = client.request(f"/v1/attest?nonce={'5a' * 32}", identify=False)
    assert answer.status == 200
    assert answer.body["mode"] == "debug"
    assert client.request("/v1/version", identify=False).body == {"version": "0.1.0"}
    for wrong in ("", "?nonce=5a", f"?nonce={'5A' * 32}"):
        assert client.request(f"/v1/attest{wrong}", identify=False).status == 400


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/v1/nothing", [], 404),
        ("/v1/sessions", ["-X", "DELETE"], 405),
        ("/v1/sessions/none", [], 404),
        ("/v1/challenge", ["-X", "POST"], 405),
    ],
)
def test_what_the_api_does_not_have(client: Client, path: str, options: list[str], status: int) -> None:
    assert client.request(path, *options).status == status
