"""The health check of an image, converted: it runs inside the shield, and whoever asks learns its result only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import Container, Convert, run
from tests.e2e.corpus.native import TOOLS, build, debian

pytestmark = pytest.mark.docker

SECRET = "canary-of-the-health-check"
CHECK = f'[ "$(cat /data/secret)" = {SECRET} ] && [ "$MARK" = inside ] && [ "$(pwd)" = /data ]'
SERVICE = "while :; do sleep 1; done"


@pytest.fixture(scope="module")
def images(convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Encrypted images whose check succeeds, fails, and never ends."""
    made = {}
    for name, check in (("good", CHECK), ("bad", f"{CHECK} && exit 7"), ("endless", "sleep 1000")):
        context = tmp_path_factory.mktemp(name)
        secret = context / "secret"
        secret.write_text(f"{SECRET}\n")
        dockerfile = (
            f"FROM {debian(TOOLS)}\nCOPY secret /data/secret\nWORKDIR /data\nENV MARK=inside\n"
            f"HEALTHCHECK --interval=1s --timeout=2s --retries=1 CMD {check}\n"
            f'CMD ["/bin/busybox", "sh", "-c", "{SERVICE}"]\n'
        )
        native = build(f"health-{name}", dockerfile, {"secret": secret}, tmp_path_factory.mktemp(f"{name}-build"))
        made[name] = native.replace(":native", ":encrypted")
        options = ("--binary=/bin/busybox", "--dir=/data", "--overwrite")
        result = convert(f"--from={native}", f"--to={made[name]}", *options)
        assert "HEALTHCHECK" not in result["stderr"]
    return made


def health(container: Container, expected: str) -> str:
    """Wait until the engine has judged; return the output of the last check."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        text = run("docker", "inspect", "--format", "{{json .State.Health}}", container.name).stdout
        state = json.loads(text)
        if state["Status"] == expected and state["Log"]:
            output: str = state["Log"][-1]["Output"]
            return output
        time.sleep(0.2)
    pytest.fail(f"the container did not become {expected}: {text}\n{container.logs()}")


@pytest.mark.parametrize("options", [(), ("--user=1000", "--cap-drop=ALL", "--read-only")], ids=["root", "restricted"])
@pytest.mark.parametrize(("name", "expected"), [("good", "healthy"), ("bad", "unhealthy")])
def test_the_check_runs_inside(
    images: dict[str, str],
    start: Callable[..., Container],
    name: str,
    expected: str,
    options: tuple[str, ...],
) -> None:
    container = start(images[name], *options)
    assert health(container, expected) == ""


def test_a_check_that_does_not_end_is_killed(images: dict[str, str], start: Callable[..., Container]) -> None:
    container = start(images["endless"])
    health(container, "unhealthy")
    time.sleep(4)
    processes = run("docker", "top", container.name, "-eo", "pid,args").stdout
    # At most the present check: its shell and what that runs.
    assert processes.count("/bin/sh -c sleep 1000") <= 1
    assert processes.count("sleep 1000") <= 2


def test_the_image_does_not_show_the_check(images: dict[str, str], tmp_path: Path) -> None:
    run("skopeo", "copy", "--quiet", f"docker-daemon:{images['good']}", f"dir:{tmp_path}")
    found = [blob.name for blob in tmp_path.iterdir() if SECRET.encode() in blob.read_bytes()]
    assert not found


def test_without_a_program_nobody_is_healthy(images: dict[str, str]) -> None:
    alone = ("--entrypoint=/bin/busybox",)
    done = run("docker", "run", "--rm", *alone, images["good"], "sconify:health-check", check=False)
    assert done.returncode == 1
    assert "no program of this container answers" in done.stderr
