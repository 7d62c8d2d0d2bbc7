"""What a policy may ask of the runtime besides a command and an environment, in containers with a real CAS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import COMMANDS, Container, Convert, run
from tests.e2e.corpus.native import TOOLS, build, debian

pytestmark = pytest.mark.docker

TEMPLATE = r"""
name: $NAMESPACE/$SESSION
version: "0.3"
services:
  - name: $SERVICE
    image_name: image
    attestation: {mrenclave: [$MRENCLAVE]}
    command: [/bin/busybox, sh, -c, %s, sh, "@@2", "@@1"]
    environment:
      PATH: /bin
      "\\@\\@GREETING": ""
    pwd: /data
    fspf_path: $SCONE_FSPF_PATH
    fspf_key: $SCONE_FSPF_KEY
    fspf_tag: $SCONE_FSPF_TAG
images:
  - name: image
    injection_files: [/data/service.conf]
secrets:
  - {name: password, kind: ascii, value: canary-of-the-template}
access_policy: {read: [CREATOR], update: [CREATOR]}
security:
  attestation: {tolerate: [simulated-platform%s]}
%s
"""
TELL = "cat /data/service.conf; echo $@; env"
SERVE = "while :; do sleep 1; done"

MakeImage = Callable[..., str]


@pytest.fixture(scope="module")
def make(convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> MakeImage:
    """Return what converts the same native image with a command and a security section of its own."""
    context = tmp_path_factory.mktemp("context")
    conf = tmp_path_factory.mktemp("conf") / "service.conf"
    conf.write_text("user=me\npassword=$$SCONE::password$$\n")
    dockerfile = f"FROM {debian(TOOLS)}\nCOPY service.conf /data/service.conf\nCMD /bin/busybox true\n"
    native = build("configuration", dockerfile, {"service.conf": conf}, context)

    def call(name: str, command: str, *, tolerate: str = "", security: str = "", host: bool = False) -> str:
        template = tmp_path_factory.mktemp("template") / "session.yml"
        text = TEMPLATE % (f'"{command}"', tolerate, security)
        template.write_text(text if host else text.replace(', "@@2", "@@1"', ""))
        image = native.replace("configuration:native", f"configuration-{name}:encrypted")
        options = ("--binary=/bin/busybox", "--dir=/data", "--overwrite", f"--template={template}")
        convert(f"--from={native}", f"--to={image}", *options)
        return image

    return call


def ended(*command: str) -> subprocess.CompletedProcess[str]:
    return run("docker", "run", "--rm", *command, check=False)


def test_the_host_gives_arguments_and_variables_where_the_policy_says_so(make: MakeImage) -> None:
    image = make("host", TELL, host=True)
    done = ended("-e", "GREETING=good morning", "-e", "OTHER=x", image, "first", "second argument")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["user=me", "password=canary-of-the-template", "second argument first"]
    assert "GREETING=good morning" in lines
    assert "OTHER=x" not in lines
    done = ended(image, "first")
    assert done.returncode == 110
    assert "@@2" in done.stderr
    assert done.stdout == ""
    assert "GREETING=" in ended(image, "first", "second").stdout.splitlines()


def test_the_filled_in_file_is_in_memory_only(make: MakeImage, start: Callable[..., Container]) -> None:
    container = start(make("memory", f"cat /data/service.conf; {SERVE}"))
    deadline = time.monotonic() + 30
    while "canary-of-the-template" not in container.logs():
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.1)
    exported = subprocess.run(["docker", "export", container.name], capture_output=True, check=True).stdout
    assert b"canary-of-the-template" not in exported
    assert b"password=" not in exported


def test_the_service_access_token_is_asked_for(make: MakeImage) -> None:
    image = make("token", "echo started", security="  service_access_token: open sesame, please")
    done = ended("-e", "SCONE_SERVICE_ACCESS_TOKEN=open sesame, please", image)
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    done = ended("-e", "SCONE_SERVICE_ACCESS_TOKEN=another", image)
    assert (done.returncode, done.stdout) == (115, "")
    assert ended(image).returncode == 115


def test_a_service_runs_once_at_a_time(make: MakeImage, start: Callable[..., Container]) -> None:
    image = make("once", f"echo started; {SERVE}", security="  singleton_enclaves: true")
    first = start(image)
    deadline = time.monotonic() + 30
    while "started" not in first.logs():
        assert time.monotonic() < deadline, first.logs()
        time.sleep(0.1)
    second = ended(image)
    assert second.returncode == 115
    assert "may run once at a time" in second.stderr
    # Who ends gives its place back at once.
    run("docker", "stop", "--time=5", first.name)
    third = start(image)
    while "started" not in third.logs():
        assert time.monotonic() < deadline, third.logs()
        time.sleep(0.1)


def sconify_debug(container: Container, *command: str) -> subprocess.CompletedProcess[str]:
    return run(str(COMMANDS / "sconify"), "debug", container.name, *command, check=False, stdin=subprocess.DEVNULL)


RESTRICTED = ("--user=1000", "--cap-drop=ALL", "--read-only", "--security-opt=no-new-privileges")


@pytest.mark.parametrize("options", [(), RESTRICTED], ids=["root", "restricted"])
def test_commands_run_inside_a_session_in_debug_mode(
    make: MakeImage, start: Callable[..., Container], options: tuple[str, ...]
) -> None:
    container = start(make("debug", SERVE, tolerate=", debug-mode"), *options)
    deadline = time.monotonic() + 30
    while "debug mode" not in container.logs():
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.1)
    done = sconify_debug(container, "/bin/busybox", "cat", "/data/service.conf")
    assert (done.returncode, done.stdout) == (0, "user=me\npassword=canary-of-the-template\n"), done.stderr
    done = sconify_debug(container, "busybox", "sh", "-c", "pwd; exit 7")
    assert (done.returncode, done.stdout) == (7, "/data\n")
    assert sconify_debug(container, "nothing").returncode == 127


def test_other_sessions_take_no_commands(make: MakeImage, start: Callable[..., Container]) -> None:
    container = start(make("production", f"echo started; {SERVE}"))
    deadline = time.monotonic() + 30
    while "started" not in container.logs():
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.1)
    done = sconify_debug(container, "/bin/busybox", "true")
    assert done.returncode == 115
    assert "--allow-debug-mode" in done.stderr
    assert done.stdout == ""


def test_there_must_be_a_container(tmp_path: Path) -> None:
    done = sconify_debug(Container("sconify-test-nobody"), "true")
    assert done.returncode == 2
    assert "sconify-test-nobody" in done.stderr
