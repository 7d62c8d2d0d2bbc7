"""The commands around sessions and the store, as an operator uses them, with what scripts parse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from sconify.policy.keyhash import certificate_key_hash
from tests.cas_server import Client, RunningCas, running_cas, serve_environment, session_text


class Shell:
    """A user with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "", **environment: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "sconify.cli.main", *arguments],
            cwd=self.home,
            env={**serve_environment(), "HOME": str(self.home), "SCONE_CLI_CONFIG": "", **environment},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture
def attested(shell: Shell, cas: RunningCas) -> Shell:
    shell("cas", "attest", "--only_for_testing-debug", f"127.0.0.1:{cas.client_port}")
    return shell


def test_what_curl_uploads_the_commands_read_and_the_other_way_round(
    attested: Shell, client: Client, name: str
) -> None:
    me = attested("self", "show-key-hash")[0].strip()
    created = client.upload(session_text(name, extra=f"access_policy: {{read: [CREATOR, {me}], update: [{me}]}}"))
    text = attested("session", "read", name)[0]
    (attested.home / "read.yml").write_text(text)
    assert attested("session", "verify", "read.yml")[0] == created.body["hash"] + "\n"
    (attested.home / "mine.yml").write_text(session_text(f"{name}-2", extra="access_policy: {read: ANY}"))
    hash_ = attested("session", "create", "mine.yml")[0].strip()
    assert client.read(f"{name}-2").body["hash"] == hash_
    assert attested("session", "update", "read.yml")[0].strip() == client.read(name).body["hash"]


def test_lists_history_and_differences(attested: Shell, name: str) -> None:
    for number in range(3):
        (attested.home / "s.yml").write_text(session_text(name, environment=f"{{N: {number}}}"))
        attested("session", "create" if number == 0 else "update", "s.yml")
    assert name in attested("session", "list")[0].splitlines()
    assert attested("session", "list", name)[0] == ""
    lines = attested("session", "history", name)[0].splitlines()
    assert all(re.fullmatch(rf"{n} \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ [0-9a-f]{{64}}", line)
               for n, line in enumerate(lines, 1))  # fmt: skip
    changes = attested("session", "diff", name, code=1)[0]
    assert "-    environment: {N: 1}" in changes
    assert "+    environment: {N: 2}" in changes
    assert "-    environment: {N: 0}" in attested("session", "diff", name, "1", "3", code=1)[0]
    assert attested("session", "diff", name, "2", "2")[0] == ""


def test_templates_take_options_the_environment_and_another_name(attested: Shell, name: str) -> None:
    template = session_text("$NAMESPACE/app", environment="{A: $A, B: '${B}', C: '$$SCONE::t$$'}")
    (attested.home / "s.yml").write_text(template + "secrets: [{name: t, kind: ascii}]\n")
    _, error = attested("session", "check", "-e", "A=1", "-e", "NAMESPACE=x", "s.yml", code=2)
    assert "Parsing session from session template file s.yml" in error
    assert "Caused by: services[0].environment.B: Value for variable $B is missing at line 7 column " in error
    out = attested("session", "check", "--use-env", "-e", "A=2", "-n", name, "s.yml", A="1", B="b", NAMESPACE="x")[0]
    checked = yaml.safe_load(out)
    assert checked["name"] == name
    assert checked["services"][0]["environment"] == {"A": 2, "B": "b", "C": "$$SCONE::t$$"}
    assert attested("session", "verify", "-", stdin=out)[0] == attested("session", "hash", "-", stdin=out)[0]


def test_warnings_go_to_stderr_and_may_be_errors(attested: Shell, name: str) -> None:
    text = (
        session_text(name).replace("attestation: {mrenclave: [", "mrenclaves: [").replace("]}\n    fspf", "]\n    fspf")
    )
    (attested.home / "s.yml").write_text(text)
    out, error = attested("session", "verify", "s.yml")
    assert re.fullmatch("[0-9a-f]{64}\n", out)
    assert "warning: service web: mrenclaves is the old form" in error
    assert "tolerate has simulated-platform" in error
    assert "warnings" in attested("session", "create", "--fail-on-warning", "s.yml", code=2)[1]


def test_signed_sessions(attested: Shell, name: str) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", attested.home / "k.pem"], check=True)
    (attested.home / "k.pem").chmod(0o600)
    (attested.home / "s.yml").write_text(session_text(name))
    attested("-o", "signed.json", "session", "sign", "-k", "k.pem", "s.yml")
    first = attested("session", "upload", "signed.json")[0].strip()
    assert attested("session", "history", name)[0].split()[2] == first
    (attested.home / "s2.yml").write_text(session_text(f"{name}-2"))
    assert re.fullmatch("[0-9a-f]{64}\n", attested("session", "create", "--sign", "k.pem", "s2.yml")[0])


def test_who_i_am_and_who_others_are(shell: Shell, client: Client) -> None:
    me = shell("self", "show-key-hash")[0].strip()
    (shell.home / "me.pem").write_text(shell("self", "show-certificate")[0])
    assert shell("cert", "show-key-hash", "me.pem")[0].strip() == me
    assert me in shell("self", "show")[0]
    (shell.home / "other.pem").write_text(client.certificate)
    assert shell("cert", "show-key-hash", "other.pem")[0].strip() == certificate_key_hash(client.certificate)
    assert "PEM" in shell("cert", "show-key-hash", "nothing.pem", code=2)[1]


def test_arguments_from_files_output_to_files_and_completion(shell: Shell) -> None:
    (shell.home / "arguments").write_text("self show-key-hash # mine\n")
    out = shell("@arguments")[0]
    assert shell("-o", "out", "@arguments")[0] == ""
    assert (shell.home / "out").read_text() == out
    shell("-o", "out2", "session", "verify", "nothing", code=2)
    assert sorted(path.name for path in shell.home.iterdir() if not path.name.startswith(".")) == ["arguments", "out"]
    assert "no such file" in shell("@nothing", code=2)[1].lower()
    script = shell("completion", "bash")[0]
    assert "_SCONIFY_COMPLETE" in script
    completed = shell(_SCONIFY_COMPLETE="bash_complete", COMP_WORDS="sconify session cr", COMP_CWORD="2")[0]
    assert completed == "plain,create\n"


def test_the_commands_about_a_cas(attested: Shell, cas: RunningCas) -> None:
    key_hash = cas.output[0].partition(": ")[2]
    assert attested("cas", "show-identification", "-c")[0] == f"{key_hash}\n"
    assert attested("cas", "show-identification", "-C")[0] == cas.output[1].partition(": ")[2] + "\n"
    measurement = attested("cas", "show-identification", "-s")[0].strip()
    assert "BEGIN CERTIFICATE" in attested("cas", "show-certificate")[0]
    address = f"127.0.0.1:{cas.client_port}"
    options = ["-GCS", "--only_for_testing-debug", "--only_for_testing-ignore-signer", "--only_for_testing-trust-any"]
    assert "is trustworthy" in attested("cas", "attest", *options, address, measurement)[0]
    error = attested("cas", "attest", "--only_for_testing-debug", "--mrenclave", "0" * 64, address, code=3)[1]
    assert re.search(
        "error: Error during attestation of CAS .*\n  Caused by: Enclave hash does not match expect", error
    )
    attested("cas", "set-default", address)


def test_provisioning_gives_a_new_cas_its_owner(shell: Shell, tmp_path: Path) -> None:
    with running_cas(tmp_path / "state", "--require-provisioning") as own:
        assert own.process.stdout is not None
        token = own.process.stdout.readline().strip().partition("Provisioning token: ")[2]
        key_hash = own.output[0].partition(": ")[2]
        address = f"127.0.0.1:{own.client_port}"
        client = Client.make(tmp_path / "c", own.client_port)
        assert client.upload(session_text("a")).status == 503
        (shell.home / "root.yml").write_text('name: /\nversion: "0.3"\n')
        command = ["cas", "provision", address, "-c", key_hash, "--root-session", "root.yml"]
        test = "only_for_testing-without-attestation"
        assert "is not trustworthy" in shell(*command, "--token", token, code=3)[1]
        assert "another one" in shell(*command, "--token", "0" * 32, test, code=2)[1]
        owner = shell(*command, "--token", token, test)[0].strip()
        assert owner == shell("self", "show-key-hash")[0].strip()
        assert "provisioned already" in shell(*command, "--token", token, test, code=2)[1]
        assert client.upload(session_text("a")).status == 403
        (shell.home / "a.yml").write_text(session_text("a"))
        shell("session", "create", "a.yml")
    with running_cas(tmp_path / "state", "--require-provisioning") as own:
        assert client.at(own.client_port).request("/v1/sessions/a").status == 403


def test_backup_while_serving_restore_and_what_an_older_database_says(shell: Shell, tmp_path: Path) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    backup = str(tmp_path / "backup")
    with running_cas(state) as own:
        client = Client.make(tmp_path / "c", own.client_port)
        first = client.upload(session_text("a", extra="secrets: [{name: t, kind: ascii, value: canary-5f}]")).body[
            "hash"
        ]
        out = shell("cas", "backup", f"--state-dir={state}", backup)[0]
        assert out.startswith("1 versions of sessions, 0 states of volumes")
        assert "exists" in shell("cas", "backup", f"--state-dir={state}", backup, code=2)[1]
        client.upload(session_text("b"))
    assert b"canary-5f" not in Path(backup).read_bytes()
    assert "holds something" in shell("cas", "restore", f"--state-dir={state}", backup, code=2)[1]
    assert "is no backup" in shell("cas", "restore", f"--state-dir={copy}", str(own.log), code=2)[1]
    shell("cas", "restore", f"--state-dir={copy}", backup)
    key = f"--master-key-file={state / 'master.key'}"
    with running_cas(copy, key) as restored:
        assert restored.output[0] == own.output[0]
        assert client.at(restored.client_port).read("a").body["hash"] == first
        assert client.at(restored.client_port).read("b").status == 404
    # The same database put back under the audit log that has seen more.
    (state / "cas.sqlite").unlink()
    shell("cas", "restore", f"--state-dir={state}", backup)
    listen = ("--client-listen=127.0.0.1:0", "--enclave-listen=127.0.0.1:0")
    _, error = shell("cas", "serve", "--debug", f"--state-dir={state}", *listen, code=2)
    assert "the database is older than the audit log has seen it" in error
    with running_cas(state, "--accept-older-database") as accepted:
        assert client.at(accepted.client_port).read("a").status == 200
    assert "older database accepted" in (state / "audit.jsonl").read_text()
    with running_cas(state):
        pass
    lines = (state / "audit.jsonl").read_text().splitlines(keepends=True)
    (state / "audit.jsonl").write_text("".join(lines[:-2]))
    _, error = shell("cas", "serve", "--debug", f"--state-dir={state}", *listen, code=2)
    assert "the audit log is shorter" in error


def test_the_audit_log_is_verified_without_the_cas(shell: Shell, tmp_path: Path) -> None:
    with running_cas(tmp_path / "state") as own:
        Client.make(tmp_path / "c", own.client_port).upload(session_text("a"))
    log, key_hash = str(tmp_path / "state/audit.jsonl"), own.output[0].partition(": ")[2]
    out, error = shell("cas", "audit", "verify", log)
    assert out.startswith(f"CAS key hash: {key_hash}\nLines: ")
    assert "whose log it is was not checked" in error
    head = out.splitlines()[2].partition(": ")[2]
    assert shell("cas", "audit", "verify", "-c", key_hash, "--head", head, log) == (out, "")
    Path(log).write_text(Path(log).read_text().replace("session created", "session updated"))
    assert "its signature is not valid" in shell("cas", "audit", "verify", log, code=3)[1]


def test_another_master_key(shell: Shell, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_cas(state) as own:
        client = Client.make(tmp_path / "c", own.client_port)
        client.upload(session_text("a"))
    new = tmp_path / "new.key"
    shell("cas", "rotate-master-key", f"--state-dir={state}", f"--new-master-key-file={new}")
    listen = ("--client-listen=127.0.0.1:0", "--enclave-listen=127.0.0.1:0")
    _, error = shell("cas", "serve", "--debug", f"--state-dir={state}", *listen, code=2)
    assert "another master key" in error
    with running_cas(state, f"--master-key-file={new}") as again:
        assert again.output[0] == own.output[0]
        assert client.at(again.client_port).read("a").status == 200


def test_a_master_key_made_of_a_passphrase(shell: Shell, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(0o600)
    passphrase.write_text("correct horse battery staple\n")
    option = f"--master-key-passphrase-file={passphrase}"
    with running_cas(tmp_path / "state", option) as own:
        Client.make(tmp_path / "c", own.client_port).upload(session_text("a"))
    with running_cas(tmp_path / "state", option) as again:
        assert again.output[0] == own.output[0]
    listen = ("--client-listen=127.0.0.1:0", "--enclave-listen=127.0.0.1:0")
    serve = ("cas", "serve", "--debug", f"--state-dir={tmp_path / 'state'}", *listen, option)
    passphrase.write_text("another horse battery staple\n")
    assert "another master key" in shell(*serve, code=2)[1]
    passphrase.write_text("short\n")
    assert "expected 12" in shell(*serve, code=2)[1]
    assert "exclude each other" in shell(*serve, "--master-key-file=x", code=2)[1]


class KeyService(BaseHTTPRequestHandler):
    """As cloud key services do it, with a cipher that only a test may use."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        allowed = self.headers.get("Authorization") == "Bearer secret-token"
        self.send_response(200 if allowed else 403)
        self.end_headers()
        if self.path == "/v1/encrypt":
            answer = {"ciphertext": "wrapped:" + body["plaintext"][::-1]}
        else:
            answer = {"plaintext": body["ciphertext"].removeprefix("wrapped:")[::-1]}
        self.wfile.write(json.dumps(answer).encode() if allowed else b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def key_service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), KeyService)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_master_key_of_a_key_management_service(
    shell: Shell, tmp_path: Path, key_service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = f"--master-key-url={key_service}"
    listen = ("--client-listen=127.0.0.1:0", "--enclave-listen=127.0.0.1:0")
    serve = ("cas", "serve", "--debug", f"--state-dir={tmp_path / 'state'}", *listen)
    assert "SCONIFY_KMS_TOKEN" in shell(*serve, option, code=2)[1]
    assert "expected https" in shell(*serve, "--master-key-url=http://kms.example/", code=2)[1]
    monkeypatch.setitem(os.environ, "SCONIFY_KMS_TOKEN", "secret-token")
    with running_cas(tmp_path / "state", option) as own:
        Client.make(tmp_path / "c", own.client_port).upload(session_text("a"))
    assert (tmp_path / "state/master.wrapped").read_text().startswith("wrapped:")
    with running_cas(tmp_path / "state", option) as again:
        assert again.output[0] == own.output[0]
    assert "can't be used" in shell(*serve, "--master-key-url=http://127.0.0.1:1/", code=4)[1]


def test_encrypted_sessions(attested: Shell, name: str) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", attested.home / "k.pem"], check=True)
    (attested.home / "k.pem").chmod(0o600)
    (attested.home / "s.yml").write_text(session_text(name, extra="access_policy: {read: ANY}"))
    attested("-o", "sealed.jwe", "session", "encrypt", "--sign", "k.pem", "s.yml")
    assert name not in (attested.home / "sealed.jwe").read_text()
    assert re.fullmatch("[0-9a-f]{64}\n", attested("session", "upload", "sealed.jwe")[0])
    assert name in attested("session", "read", name)[0]
