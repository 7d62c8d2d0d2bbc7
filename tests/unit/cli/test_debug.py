"""``sconify debug`` finds the container and its binary, and has the engine run the command behind it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from sconify.cli.debug import debug
from sconify.errors import ServiceError, UserError

ENGINE = """#!/bin/sh
if [ "$1" = inspect ]; then
    [ "$5" = web ] && echo "true /usr/bin/python3" && exit
    [ "$5" = stopped ] && echo "false /usr/bin/python3" && exit
    echo "no such container" >&2; exit 1
fi
echo "$(basename "$0") $*"
exit 7
"""


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("docker", "podman"):
        (tmp_path / name).write_text(ENGINE)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def test_the_command_goes_to_the_engine_behind_the_binary(engines: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(debug, ["web", "sh", "-c", "echo x"])
    assert result.exit_code == 7
    assert capfd.readouterr().out == "docker exec --interactive web /usr/bin/python3 sconify:debug sh -c echo x\n"
    CliRunner().invoke(debug, ["--engine=podman", "web", "--", "ls", "-l"])
    assert capfd.readouterr().out == "podman exec --interactive web /usr/bin/python3 sconify:debug ls -l\n"


def test_an_engine_that_has_not_the_container_is_passed_over(engines: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (engines / "docker").write_text("#!/bin/sh\nexit 1\n")
    CliRunner().invoke(debug, ["web", "true"])
    assert capfd.readouterr().out.startswith("podman exec")


def test_a_container_that_is_not_there_or_does_not_run(engines: Path) -> None:
    for name, text in (("nobody", "no such container"), ("stopped", "does not run")):
        result = CliRunner().invoke(debug, [name, "true"])
        assert isinstance(result.exception, UserError)
        assert text in str(result.exception)


def test_there_must_be_a_command(engines: Path) -> None:
    assert isinstance(CliRunner().invoke(debug, ["web", "--"]).exception, UserError)
    assert CliRunner().invoke(debug, ["web"]).exit_code == 2


def test_without_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isinstance(CliRunner().invoke(debug, ["web", "true"]).exception, ServiceError)
