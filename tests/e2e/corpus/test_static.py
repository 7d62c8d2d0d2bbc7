"""Programs that bring everything along, in images with nothing else: Go, Rust against musl, busybox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.containers import run
from tests.e2e.corpus.conftest import MakePair, Pair
from tests.e2e.corpus.engines import Way, ways
from tests.e2e.corpus.native import PROGRAMS, TOOLS, debian
from tests.e2e.corpus.services import Recipe

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def go(pair: MakePair, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    program = tmp_path_factory.mktemp("go") / "program"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    run("go", "build", "-o", str(program), str(PROGRAMS / "static.go"), env=environment)
    dockerfile = (
        "FROM scratch\nCOPY program /app/program\nCOPY data /data\nENV GREETING=hello\n"
        'CMD ["/app/program", "a b", ""]\n'
    )
    return pair(
        Recipe(
            "go",
            dockerfile,
            (
                "--binary=/app/program",
                "--dir=/data",
            ),
            {"program": program, "data": data},
        )
    )


@pytest.fixture(scope="module")
def musl(pair: MakePair, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    program = tmp_path_factory.mktemp("musl") / "program"
    target = "--target=x86_64-unknown-linux-musl"
    if not Path(run("rustc", target, "--print=target-libdir").stdout.strip()).is_dir():
        pytest.skip("Rust's standard library for musl is not installed: rustup target add x86_64-unknown-linux-musl")
    run("rustc", "-O", "--edition=2021", target, "-o", str(program), str(PROGRAMS / "static.rs"))
    (program.parent / "link").symlink_to("program")
    files = {"app": program.parent, "data": data}
    dockerfile = (
        'FROM scratch\nCOPY app /app\nCOPY data /data\nWORKDIR /data\nENTRYPOINT ["/app/program"]\nCMD ["one"]\n'
    )
    return pair(
        Recipe(
            "musl",
            dockerfile,
            (
                "--binary=/app/program",
                "--dir=/data",
                "--dir=/app",
            ),
            files,
        )
    )


@pytest.fixture(scope="module")
def busybox(pair: MakePair, data: Path) -> Pair:
    files = {name: PROGRAMS / name for name in ("busybox.sh", "nested")}
    dockerfile = (
        f"FROM {debian(TOOLS)} AS tools\n"
        "RUN mkdir /bb && cp /bin/busybox /bb && cd /bb && "
        "for name in $(./busybox --list); do [ -e $name ] || ln -s busybox $name; done\n"
        "FROM scratch\nCOPY --from=tools /bb /bin\nCOPY busybox.sh nested /app/\nCOPY data /data\n"
        'ENV GREETING=hello\nCMD ["/bin/sh", "/app/busybox.sh", "x", "y z"]\n'
    )
    options = ("--binary=/bin/busybox", "--dir=/data", "--dir=/app", "--plain=/bin")
    return pair(Recipe("busybox", dockerfile, (*options,), {**files, "data": data}))


@pytest.mark.parametrize("program", ["go", "musl", "busybox"])
@pytest.mark.parametrize("way", ways("docker-plain", "docker-restricted"), indirect=True)
@pytest.mark.usefixtures("mode")
def test_it_does_what_the_native_one_does(program: str, way: Way, request: pytest.FixtureRequest) -> None:
    native, encrypted = request.getfixturevalue(program).outcomes(way)
    assert native.output
    assert encrypted == native
