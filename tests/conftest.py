"""What tests of whole conversions share: a home of their own, a real image with canaries in it, and containers."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.containers import (
    COMMANDS,
    DOCKER,
    ENCRYPTED,
    FLASK_OPTIONS,
    NATIVE,
    PROJECT,
    Canaries,
    Container,
    Convert,
    Engine,
    run,
)

# A shell that starts the tests in the background has them, and all that they start, ignore what Ctrl-C sends.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with a home of its own; the services that were started there are stopped."""
    directory = tmp_path_factory.mktemp("home")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SCONE_", "XDG_"))},
        "HOME": str(directory),
        "PATH": f"{COMMANDS}:{os.environ['PATH']}",
    }
    environment.pop("SOURCE_DATE_EPOCH", None)
    yield environment
    run(str(COMMANDS / "sconify"), "embedded", "stop", env=environment, check=False)


@pytest.fixture(scope="session")
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture(scope="session")
def flask_native(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> str:
    """The example's native image with canaries in /app, /tls, the environment and the arguments."""
    run(str(PROJECT / "examples/flask/build.sh"), "sconify-example/flask:native", timeout=900)
    context = tmp_path_factory.mktemp("native")
    (context / "secret.txt").write_text(canaries.app * 3)
    (context / "secret.pem").write_text(canaries.tls)
    command = json.dumps(["python3", "-B", "/app/rest_api.py", canaries.argument])
    (context / "Dockerfile").write_text(
        "FROM sconify-example/flask:native\n"
        "COPY secret.txt /app/data/secret.txt\n"
        "COPY secret.pem /tls/secret.pem\n"
        f"ENV GREETING={canaries.environment}\n"
        f"CMD {command}\n"
    )
    run("docker", "build", "--quiet", "--tag", NATIVE, str(context))
    return NATIVE


@pytest.fixture(scope="session")
def convert(home: dict[str, str]) -> Convert:
    """Run ``sconify_image`` with options and return its JSON document."""

    def command(*options: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        done = run(
            str(COMMANDS / "sconify_image"), *options, "--json", env={**home, **(environment or {})}, cwd=home["HOME"]
        )
        document: dict[str, Any] = json.loads(done.stdout)
        return {**document, "stderr": done.stderr}

    return command


@pytest.fixture(scope="session")
def flask_encrypted(flask_native: str, convert: Convert) -> dict[str, Any]:
    """The encrypted image of ``flask_native``, as the converter's JSON document."""
    return convert(f"--from={flask_native}", f"--to={ENCRYPTED}", *FLASK_OPTIONS)


@pytest.fixture
def start() -> Iterator[Callable[..., Container]]:
    """Start containers in the background; they are removed after the test."""
    started: list[Container] = []

    def begin(image: str, *options: str, engine: Engine = DOCKER) -> Container:
        container = Container(f"sconify-test-{uuid.uuid4().hex[:12]}", engine)
        started.append(container)
        engine("run", "--detach", "--name", container.name, *options, image)
        return container

    yield begin
    for container in started:
        container.engine("rm", "--force", "--volumes", container.name, check=False)
