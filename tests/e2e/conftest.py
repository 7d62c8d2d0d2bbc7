"""A small native image whose program tells what it sees, for tests of single options."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sconify.image.config import ImageConfig
from sconify.image.layer_writer import LayerWriter
from sconify.image.reference import ImageReference
from sconify.image.sink import write_image
from sconify.policy.model import Session
from sconify.policy.session import parse_session
from tests.containers import COMMANDS, Convert, run

PROGRAM = r"""
#include <stdio.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
extern char **environ;
int answer(void);
int main(int argc, char **argv) {
    char cwd[4096];
    printf("answer %d\ncwd %s\n", answer(), getcwd(cwd, sizeof cwd));
    for (char **e = environ; *e; e++) printf("env %s\n", *e);
    for (int i = 0; i < argc; i++) {
        printf("arg %s\n", argv[i]);
        if (i == 0 || argv[i][0] != '/') continue;
        FILE *f = fopen(argv[i], "r");
        char text[256] = "";
        if (!f) { printf("file %s: %s\n", argv[i], strerror(errno)); continue; }
        fgets(text, sizeof text, f);
        printf("file %s: %s\n", argv[i], text);
        fclose(f);
    }
}
"""
LIBRARY = "int answer(void) { return 42; }\n"
LOADER = Path("/lib64/ld-linux-x86-64.so.2")
LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6")


@dataclass(frozen=True)
class Native:
    """An OCI layout with the native image, and one with a base image that has its shared objects."""

    image: str
    base: str


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Native:
    directory = tmp_path_factory.mktemp("probe")
    (directory / "program.c").write_text(PROGRAM)
    (directory / "library.c").write_text(LIBRARY)
    run("cc", "-shared", "-fPIC", "-o", f"{directory}/libanswer.so", f"{directory}/library.c")
    run("cc", "-o", f"{directory}/probe", f"{directory}/program.c", f"-L{directory}", "-lanswer")

    def system(writer: LayerWriter) -> None:
        writer.add_file("/lib/x86_64-linux-gnu/libc.so.6", LIBC.resolve(), mode=0o755)
        writer.add_file("/lib64/ld-linux-x86-64.so.2", LOADER.resolve(), mode=0o755)
        writer.add_file("/usr/lib/libanswer.so", directory / "libanswer.so", mode=0o755)

    native = LayerWriter(directory / "native.tar", epoch=1_600_000_000)
    system(native)
    native.add_file("/usr/bin/probe1.2", directory / "probe", mode=0o755)
    native.add_symlink("/usr/bin/probe", "probe1.2")
    for path in ("/app/secret", "/app/deep/er", "/tls/key", "/data/public", "/data/one", "/etc/motd"):
        native.add_bytes(path, f"content of {path}".encode())
    config = ImageConfig(
        cmd=("probe", "/app/secret", "/data/public"),
        env={"PATH": "/usr/bin", "NATIVE": "from the image", "LD_LIBRARY_PATH": "/usr/lib"},
        working_dir="/app",
        labels={"label": "kept"},
        exposed_ports=("80/tcp",),
        stop_signal="SIGINT",
    )
    base = LayerWriter(directory / "base.tar", epoch=1_600_000_000)
    system(base)
    base.add_bytes("/etc/base-file", b"of the base image")
    for name, writer, settings in (("native", native, config), ("base", base, ImageConfig(cmd=("/bin/sh",)))):
        reference = ImageReference.parse(f"oci:{directory}/{name}:latest")
        layer = writer.finish()
        write_image(reference, config=settings, layers=[layer], workdir=directory, overwrite=False).commit()
    return Native(image=f"oci:{directory}/native:latest", base=f"oci:{directory}/base:latest")


@dataclass(frozen=True)
class Result:
    """A conversion of the probe."""

    document: dict[str, Any]
    session: Session
    text: str
    """Of the session."""
    image: str
    stderr: str

    def run(self, *options: str) -> list[str]:
        """Return the lines that the program prints in a container."""
        done = run("docker", "run", "--rm", *options, self.image)
        return done.stdout.splitlines()

    def files(self) -> dict[str, int]:
        """Return size by path of the files in the image, as the host sees them."""
        container = run("docker", "create", self.image).stdout.strip()
        try:
            exported = subprocess.run(["docker", "export", container], capture_output=True, check=True).stdout
        finally:
            run("docker", "rm", container)
        listed = subprocess.run(["tar", "-tv"], input=exported, capture_output=True, check=True).stdout.decode()
        rows = (line.split(maxsplit=5) for line in listed.splitlines())
        return {"/" + row[5].partition(" -> ")[0].rstrip("/"): int(row[2]) for row in rows if row[0][0] in "-l"}


@pytest.fixture
def convert_probe(probe: Native, convert: Convert, tmp_path: Path) -> Callable[..., Result]:
    """Convert the probe with options into the Docker engine."""

    def call(*options: str, name: str = "sconify-test/option:enc") -> Result:
        session = tmp_path / "session.yml"
        document = convert(
            f"--from={probe.image}", f"--to={name}", "--binary=probe", "--overwrite", f"--session={session}", *options
        )
        text = session.read_text()
        return Result(document, parse_session(text), text, name, document["stderr"])

    return call


def explanation(home: dict[str, str], probe: Native, *options: str) -> dict[str, Any]:
    """Return what ``--explain --json`` says."""
    done = run(
        str(COMMANDS / "sconify_image"),
        *(f"--from={probe.image}", "--to=oci:/nowhere:x", "--binary=probe", "--explain", "--json", *options),
        env=home,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture
def cas_of(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start a debug CAS with a state of this name at the one address that the test has; the one before is stopped."""
    running: list[subprocess.Popen[bytes]] = []
    port = 0

    def stop() -> None:
        for server in running:
            server.terminate()
            server.wait(30)
        running.clear()

    def start(name: str) -> str:
        nonlocal port
        stop()
        reader, writer = os.pipe()
        server = subprocess.Popen(
            [
                *(str(COMMANDS / "sconify"), "cas", "serve", "--debug", "--quiet", f"--state-dir={tmp_path / name}"),
                *(f"--client-listen=127.0.0.1:{port}", "--enclave-listen=127.0.0.1:0", f"--ready-fd={writer}"),
            ],
            pass_fds=[writer], stdout=subprocess.PIPE,
        )  # fmt: skip
        os.close(writer)
        running.append(server)
        assert os.read(reader, 100) == b"ready\n"
        os.close(reader)
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith(b"Client API: https://"):
                port = int(line.rsplit(b":", 1)[1])
                break
        return f"127.0.0.1:{port}"

    yield start
    stop()
