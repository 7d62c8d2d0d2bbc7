"""The real runtime with a real CAS and a real LAS: attested, it runs the program of a protected file system."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sconify._shield import Builder
from sconify.program.launch import LaunchManifest, measurement, runtime_path, sconified_binary
from tests.cas_server import Client, RunningCas, running_cas

PROGRAM = """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words) {
    for (int at = 0; at < count; at++) puts(words[at]);
    puts(getenv("GREETING"));
    if (getenv("HOST_SECRET")) puts("the host's environment");
    fflush(stdout);
    int code = atoi(words[1]);
    if (code < 0) raise(-code);
    return code;
}
"""
KEY = bytes(range(32))


@dataclass
class Setup:
    """A converted program, by hand."""

    binary: Path
    measurement: str
    index: Path
    tag: str
    cas: RunningCas
    client: Client
    las: str

    def upload(self, name: str, *, argument: str, measured: str | None = None, tag: str | None = None) -> None:
        answer = self.client.upload(f"""
name: {name}
version: "0.3"
services:
  - name: web
    command: [program, "{argument}"]
    environment: {{GREETING: hello}}
    pwd: /
    attestation: {{mrenclave: ["{measured or self.measurement}"]}}
    fspf_path: {self.index}
    fspf_key: "{KEY.hex()}"
    fspf_tag: "{tag or self.tag}"
security:
  attestation: {{tolerate: [simulated-platform]}}
""")
        assert answer.status == 201, answer

    def cas_events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.cas.state_dir / "audit.jsonl").read_text().splitlines()]

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "SCONE_CONFIG_ID": f"{name}/web",
            "SCONE_CAS_ADDR": f"localhost:{self.cas.enclave_port}",
            "SCONE_LAS_ADDR": self.las,
            "HOST_SECRET": "x",
        }
        return subprocess.run(
            [self.binary, "ignored"], env=environment, capture_output=True, text=True, check=False, timeout=60
        )


@contextmanager
def running_las(socket: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "sconify.cli.main", "las", "serve", "--listen=127.0.0.1:0", f"--socket={socket}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        assert f"unix:{socket}" in process.stderr.readline()
        try:
            yield f"unix:{socket}"
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    directory = tmp_path_factory.mktemp("runtime")
    program = directory / "program"
    subprocess.run(["cc", "-static", "-x", "c", "-", "-o", program], input=PROGRAM.encode(), check=True)
    index, pack = directory / "index", directory / "pack"
    builder = Builder(KEY)
    builder.add_region(b"/app", "encrypted", "test")
    for path in ("/proc", "/dev"):
        builder.add_region(path.encode(), "host", "test")
    number = builder.add_pack(b"/app", str(pack).encode(), str(pack))
    add_entry = partial(builder.add_entry, uid=0, gid=0, mtime=0, mtime_nsec=0)
    add_entry(b"/", type="d", mode=0o755, inode=1)
    add_entry(b"/app", type="d", mode=0o755, inode=2)
    size = program.stat().st_size
    add_entry(b"/app/program", type="-", mode=0o755, inode=3, source=str(program), size=size, pack=number)
    tag = builder.finish(str(index)).tag.hex()
    with running_cas(directory / "cas") as cas, running_las(directory / "las.sock") as las:
        cas_key = next(line for line in cas.output if line.startswith("CAS key: ")).split()[2]
        manifest = LaunchManifest.for_runtime(
            runtime_path(), program="/app/program", cas_key=cas_key, variables={"SCONE_ALLOW_DLOPEN": "1"}
        )
        binary = directory / "sconified"
        binary.write_bytes(sconified_binary(runtime_path(), manifest))
        binary.chmod(0o755)
        client = Client.make(directory / "client", cas.client_port)
        yield Setup(binary, measurement(manifest), index, tag, cas, client, las)


@pytest.mark.parametrize(("argument", "code"), [("0", 0), ("7", 7), ("255", 255), ("-9", 137), ("-15", 143)])
def test_program_runs_and_its_end_is_ours(setup: Setup, argument: str, code: int) -> None:
    name = f"end{argument}"
    setup.upload(name, argument=argument)
    done = setup.run(name)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines() == ["program", argument, "hello"]
    told = setup.cas_events()[-1]
    assert told["event"] == "service exited"
    assert told["config_id"] == f"{name}/web"
    assert (told["status"], told["signal"]) == ((code, None) if code < 128 or code == 255 else (None, code - 128))
    assert "[SCONE|FATAL]" not in done.stderr


def test_other_measurement_is_refused_by_name(setup: Setup) -> None:
    setup.upload("measured", argument="0", measured="cd" * 32)
    done = setup.run("measured")
    assert done.returncode == 115
    assert done.stdout == ""
    assert setup.measurement in done.stderr


def test_unknown_session_is_refused(setup: Setup) -> None:
    done = setup.run("nobody")
    assert done.returncode == 115
    assert "nobody/web" in done.stderr


def test_wrong_tag_is_refused(setup: Setup) -> None:
    setup.upload("tag", argument="0", tag="00" * 16)
    done = setup.run("tag")
    assert done.returncode == 117
    assert str(setup.index) in done.stderr
    assert "fspf_tag" in done.stderr
    assert KEY.hex() not in done.stderr
