"""A CAS as a converted image: its master key comes from the session of another CAS, once its platform is attested."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cas_server import Client, Enclave, serve_command, serve_environment, session_text
from tests.containers import PROJECT, Container, Convert, run
from tests.e2e.corpus.native import debian

pytestmark = pytest.mark.docker

NATIVE, ENCRYPTED = "sconify-test/cas:native", "sconify-test/cas:encrypted"
CANARY = "canary-in-a-session-91fe"
STATE = "/var/lib/sconify-cas"
COMMAND = (
    f"/opt/sconify/bin/python -m sconify.cli.main cas serve --debug --evidence=simulated --state-dir={STATE} "
    "--master-key-file=/run/secrets/master.key"
)


@pytest.fixture(scope="module")
def native() -> str:
    build = str(PROJECT / "deploy/build-image.sh")
    run(build, NATIVE, debian(["python3", "python3-venv"]), timeout=1200)
    return NATIVE


@pytest.fixture(scope="module")
def encrypted(native: str, convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("sections")
    (directory / "secrets.yml").write_text("- {name: master, kind: binary, size: 32}\n")
    (directory / "files.yml").write_text(
        "- path: /run/secrets/master.key\n  content: $$SCONE::master:hex$$\n  permission: 0o400\n"
    )
    convert(
        *(f"--from={native}", f"--to={ENCRYPTED}", "--overwrite", "--binary=/opt/sconify/bin/python"),
        *("--dir=/opt/sconify", f"--host-path={STATE}", f"--command={COMMAND}"),
        *(f"--secrets={directory / 'secrets.yml'}", f"--injectedfiles={directory / 'files.yml'}"),
    )
    return ENCRYPTED


def ready(container: Container) -> str:
    """Wait until the CAS in a container serves; return its address."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        address = container.address()
        done = run("curl", "-sk", "--max-time", "5", f"https://{address}:8081/v1/ready", check=False)
        if done.stdout == '{"status": "ok"}':
            return address
        time.sleep(0.2)
    pytest.fail(f"the CAS does not serve; its log:\n{container.logs()}")


def ask(client: Client, address: str, path: str, *options: str) -> str:
    who = ("--cert", str(client.directory / "cert.pem"), "--key", str(client.directory / "key.pem"))
    return run("curl", "-sSk", *who, *options, f"https://{address}:8081{path}").stdout


def test_a_native_one_is_healthy_and_runs_as_a_user_of_its_own(native: str, start: Callable[..., Container]) -> None:
    container = start(native, "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    ready(container)
    assert run("docker", "exec", container.name, "id", "-u").stdout == "10001\n"
    health = run("docker", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", container.name).stdout
    check = health.strip('[]\n"').split('","')[1:]
    run("docker", "exec", container.name, *check)
    assert '"event": "request"' in container.logs()


def test_it_keeps_its_state_and_the_disk_gives_up_nothing(
    encrypted: str, start: Callable[..., Container], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)  # the image's user is 10001
    client = Client.make(tmp_path / "client", 0)
    text = session_text(
        "inner", extra=f"secrets: [{{name: s, kind: ascii, value: {CANARY}}}]", environment="{S: $$SCONE::s$$}"
    )
    (tmp_path / "session.yml").write_text(text)

    first = start(encrypted, f"--volume={state}:{STATE}")
    address = ready(first)
    created = ask(client, address, "/v1/sessions", "--data-binary", f"@{tmp_path / 'session.yml'}")
    key = first.logs().partition("CAS key hash: ")[2].split()[0]
    run("docker", "stop", first.name)

    second = start(encrypted, f"--volume={state}:{STATE}")
    address = ready(second)
    assert second.logs().partition("CAS key hash: ")[2].split()[0] == key
    assert created.split('"')[3] in ask(client, address, "/v1/sessions/inner")
    service = Enclave(18765, "inner/web", host=address)
    assert service.open(service.attest().body["sealed"])["environment"] == {"S": CANARY}
    run("docker", "stop", second.name)

    files = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert any(path.name == "cas.sqlite" and b"inner" in content for path, content in files.items())
    for path, content in files.items():
        assert CANARY.encode() not in content, path
        assert b"PRIVATE KEY" not in content, path
    assert not (state / "master.key").exists()
    # Whoever has the disk and no key has nothing.
    stolen = tmp_path / "stolen"
    shutil.copytree(state, stolen)
    key_file = tmp_path / "guessed.key"
    key_file.write_text("00" * 32 + "\n")
    key_file.chmod(0o600)
    done = subprocess.run(
        serve_command("--debug", f"--state-dir={stolen}", f"--master-key-file={key_file}"),
        env=serve_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "was written under another master key" in done.stderr
