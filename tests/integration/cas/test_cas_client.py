"""The client and the command line against a real `sconify cas serve`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sconify.attestation.judge import Mode
from sconify.cas.attest import attest_cas, connect
from sconify.cas.attested import CasAddress
from sconify.cas.client import CasClient
from sconify.cas.client_config import PATH_VARIABLE, ClientConfig
from sconify.cas.connection import CasRefusedError
from sconify.cas.identity import Identity
from sconify.errors import UntrustedDataError, UserError

SERVICE = """\
services:
  - name: app
    command: [/app]
    mrenclaves: [%s]
""" % ("ab" * 32)


@dataclass(frozen=True)
class RunningCas:
    address: CasAddress
    key_hash: str


def serve(state: Path, *flags: str) -> Iterator[RunningCas]:
    command = [sys.executable, "-m", "sconify.cli.main", "cas", "serve", f"--state-dir={state}", *flags]
    listen = ["--client-listen=127.0.0.1:0", "--enclave-listen=127.0.0.1:0"]
    with subprocess.Popen([*command, *listen], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        told: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.strip().partition(": ")
            told[name] = value
            if name == "Enclave API":
                break
        yield RunningCas(CasAddress.parse(told["Client API"].removeprefix("https://")), told["CAS key hash"])
        process.terminate()


@pytest.fixture(scope="module")
def debug_cas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCas]:
    yield from serve(tmp_path_factory.mktemp("debug"), "--debug")


@pytest.fixture(scope="module")
def production_cas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCas]:
    yield from serve(tmp_path_factory.mktemp("production"))


@pytest.fixture
def config(tmp_path: Path) -> ClientConfig:
    return ClientConfig(tmp_path / "config.json")


@pytest.fixture
def client(debug_cas: RunningCas, config: ClientConfig) -> CasClient:
    return connect(debug_cas.address, config=config, allow_debug=True)


@pytest.fixture
def name(tmp_path: Path) -> str:
    return re.sub("[^a-z0-9]", "-", tmp_path.name)


def test_attesting_records_the_key(debug_cas: RunningCas, config: ClientConfig) -> None:
    client = connect(debug_cas.address, config=config, allow_debug=True)
    assert client.cas.key_hash == debug_cas.key_hash
    assert client.cas.mode is Mode.DEBUG
    assert config.attested(debug_cas.address) == client.cas


def test_debug_cas_needs_consent(debug_cas: RunningCas, config: ClientConfig) -> None:
    with pytest.raises(UntrustedDataError, match=r"debug mode.*simulated") as caught:
        connect(debug_cas.address, config=config)
    assert "--cas-debug" in str(caught.value.remedy)
    assert config.all_attested() == []


def test_simulated_evidence_of_a_production_cas_needs_consent(production_cas: RunningCas) -> None:
    with pytest.raises(UntrustedDataError, match="its evidence is simulated"):
        attest_cas(production_cas.address, allow_debug=False)
    assert attest_cas(production_cas.address, allow_debug=True).mode is Mode.PRODUCTION


def test_unexpected_key_and_measurement_are_refused(debug_cas: RunningCas) -> None:
    with pytest.raises(UntrustedDataError, match="has not the key"):
        attest_cas(debug_cas.address, allow_debug=True, expected_key=bytes(32))
    with pytest.raises(UntrustedDataError, match="Error during attestation of CAS") as caught:
        attest_cas(debug_cas.address, allow_debug=True, expected_measurements=["0" * 64])
    assert re.search(
        "Caused by: Enclave hash does not match expectation: it runs [0-9a-f]{64}, expected 0{64}",
        caught.value.diagnostics(),
    )


def test_another_cas_in_its_place_is_refused(
    debug_cas: RunningCas, production_cas: RunningCas, config: ClientConfig
) -> None:
    known = connect(debug_cas.address, config=config, allow_debug=True).cas
    moved = type(known)(
        production_cas.address,
        known.certificate,
        known.mode,
        known.evidence_kind,
        known.measurement,
        known.attested_at,
    )
    config.record(moved)
    with pytest.raises(UntrustedDataError, match="another key"):
        connect(production_cas.address, config=config, allow_debug=True)
    with pytest.raises(UntrustedDataError, match="has not the key of the attested CAS"):
        CasClient(moved, identity=config.identity()).create_session('name: a\nversion: "0.3"\n')


def test_create_read_update(client: CasClient, config: ClientConfig, name: str) -> None:
    text = f'# kept\nname: {name}\nversion: "0.3"\n{SERVICE}'
    first = client.create_session(text)
    read = client.read_session(name)
    assert read.hash == first
    assert "# kept" in read.text
    assert config.identity().key_hash in read.text
    second = client.update_session(text.replace("/app", "/other"))
    assert client.read_session(name).hash == second != first
    assert client.read_session(name, session_hash=first).text == read.text


def test_upload_creates_then_updates_or_refuses(client: CasClient, name: str) -> None:
    text = f'name: {name}\nversion: "0.3"\n'
    first = client.upload_session(text, update=False)
    assert client.upload_session(text + SERVICE, update=True) == client.read_session(name).hash != first
    with pytest.raises(CasRefusedError, match=f"session {name} exists already") as caught:
        client.upload_session(text, update=False)
    assert caught.value.remedy


def test_namespaces_are_created_once(client: CasClient, name: str) -> None:
    assert client.ensure_namespace(f"{name}/b/c")
    assert not client.ensure_namespace(f"{name}/b/c")
    assert client.ensure_namespace(f"{name}/b/d")
    client.create_session(f'name: {name}/b/c/session\nversion: "0.3"\n')
    for wrong in ("", "/", "a//b", "a b", "a\nb: c"):
        with pytest.raises(UserError, match="is no namespace"):
            client.ensure_namespace(wrong)


def test_refusals_name_what_and_have_their_status(client: CasClient, debug_cas: RunningCas, name: str) -> None:
    client.create_session(f'name: {name}\nversion: "0.3"\n')
    stranger = CasClient(client.cas, identity=Identity.generate())
    with pytest.raises(CasRefusedError, match=f"may not read session {name}") as caught:
        stranger.read_session(name)
    assert caught.value.status == 403
    with pytest.raises(CasRefusedError, match="no session") as caught:
        client.read_session("none/such")
    assert caught.value.status == 404
    with pytest.raises(CasRefusedError) as caught:
        client.create_session("secret: hunter2hunter2")
    assert caught.value.status == 400
    assert "hunter2" not in caught.value.diagnostics()


class Cli:
    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, PATH_VARIABLE: str(home / "config.json"), "SCONE_CLI_RETRIES": "0"}
        self.directory = home

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        command = [sys.executable, "-m", "sconify.cli.main", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, cwd=self.directory, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_command_line_from_attest_to_read(cli: Cli, debug_cas: RunningCas, tmp_path: Path, name: str) -> None:
    address, host = str(debug_cas.address), debug_cas.address.host
    assert "is not trustworthy" in cli("cas", "attest", address, code=3)[1]
    attested = cli("cas", "attest", "-c", debug_cas.key_hash, "--only_for_testing-debug", address)[0].splitlines()
    assert attested[0] == f"CAS {host} at https://{address}/ is trustworthy"
    assert cli("cas", "list")[0] == f"* {host}: https://{address}/\n"
    assert cli("cas", "show-identification", "-c", address)[0] == f"{debug_cas.key_hash}\n"

    file = tmp_path / "session.yml"
    file.write_text(f'name: $NAME\nversion: "0.3"\nsecrets:\n  - {{name: s, kind: ascii, value: "$${{x}}"}}\n{SERVICE}')
    assert "Value for variable $NAME is missing at line 1 column 7" in cli("session", "create", str(file), code=2)[1]
    variable = f"NAME={name}"
    checked = cli("session", "check", "-e", variable, str(file))[0]
    assert f"name: {name}\n" in checked
    assert '"$${x}"' in checked
    expected = cli("session", "hash", "--with-self-as-creator", "-e", variable, str(file))[0]
    assert cli("session", "create", "-e", variable, str(file))[0] == expected
    assert re.fullmatch(r"[0-9a-f]{64}\n", expected)
    assert "exists" in cli("session", "create", "-e", variable, str(file), code=2)[1]
    updated = cli("session", "update", "-e", variable, f"--cas={address}", str(file))[0]
    assert re.fullmatch(r"[0-9a-f]{64}\n", updated)
    text = cli("session", "read", name)[0]
    assert text.count("predecessor") == 1
    assert expected.strip() in text
    assert "predecessor" not in cli("session", "read", "--hash", expected.strip(), name)[0]
    (tmp_path / "read.yml").write_text(text)
    assert cli("session", "verify", str(tmp_path / "read.yml"))[0] == updated

    cli("cas", "forget", address)
    assert cli("cas", "list")[0] == ""
    assert "cas attest" in cli("session", "read", name, code=2)[1]


def test_command_line_identity_from_a_pem_file(cli: Cli, debug_cas: RunningCas, tmp_path: Path, name: str) -> None:
    cli("cas", "attest", "--only_for_testing-debug", str(debug_cas.address))
    identity = Identity.generate()
    pem = tmp_path / "me.pem"
    pem.touch(0o600)
    pem.write_bytes(identity.private_pem())
    (tmp_path / "session.yml").write_text(f'name: {name}\nversion: "0.3"\n')
    cli("session", "create", f"--identity={pem}", "session.yml")
    assert identity.key_hash in cli("session", "read", f"--identity={pem}", name)[0]
    assert "may not read" in cli("session", "read", name, code=2)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Usage: sconify"),
        (("nothing",), 2, "No such command 'nothing'"),
        (("session", "create"), 2, "Missing argument 'FILE'"),
        (("session", "verify", "none.yml"), 2, "none.yml can't be read: No such file"),
        (("session", "verify", "."), 2, "can't be read: Is a directory"),
        (("session", "verify", "-e", "X", "f"), 2, "can't be read"),
        (("session", "read", "x"), 2, "no CAS is named"),
        (("session", "read", "-c", "a b", "x"), 2, "is no address of a CAS"),
        (("cas", "attest", "127.0.0.1:1"), 4, "CAS at 127.0.0.1:1 can't be reached: connection refused"),
        (("cas", "attest", "name.invalid"), 4, "its name is not known"),
        (("cas", "attest", "-c", "xyz", "127.0.0.1:1"), 2, "not a key hash"),
        (("cas", "attest", "127.0.0.1:1", "abc"), 2, "is no measurement"),
        (("cas", "show-identification"), 2, "no CAS was attested"),
        (("cas", "forget", "x"), 2, "is not known"),
        (("las", "serve", "--listen=a b"), 2, "is no address of a LAS"),
        (("las", "serve", "--listen=unix:/x"), 2, "--socket=PATH"),
        (("las", "serve", "--listen=203.0.113.9:1"), 4, "can't listen"),
    ],
)
def test_wrong_input_is_one_message_and_its_code(cli: Cli, arguments: tuple[str, ...], code: int, message: str) -> None:
    out, err = cli(*arguments, code=code)
    assert out == ""
    assert message in err
    assert err.startswith("sconify: error: ")
