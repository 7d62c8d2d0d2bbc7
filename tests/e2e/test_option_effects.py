"""The effect of options that reach out of the image: what the host gives, where the CAS is, what is replaced."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.containers import COMMANDS, Convert, run
from tests.e2e.conftest import Native, Result

pytestmark = pytest.mark.docker
ConvertProbe = Callable[..., Result]


def test_a_host_path_is_the_hosts(convert_probe: ConvertProbe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    mount = f"--volume={tmp_path}:/mnt/host:ro"
    ask = "--command=probe /mnt/host/file /app/secret"
    made = convert_probe("--dir=/app", "--host-path=/mnt/host", ask)
    assert {"file /mnt/host/file: of the host", "file /app/secret: content of /app/secret"} <= set(made.run(mount))
    without = convert_probe("--dir=/app", ask)
    assert "file /mnt/host/file: No such file or directory" in without.run(mount)


def test_a_host_path_with_a_wildcard_is_no_pattern(convert_probe: ConvertProbe) -> None:
    assert "--host-path=/mnt/* has a wildcard" in convert_probe("--dir=/app", "--host-path=/mnt/*").stderr


def test_the_key_is_the_one_of_the_file(convert_probe: ConvertProbe, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("5a" * 32)
    made = convert_probe("--dir=/app", f"--key-file={key}")
    assert made.session.services[0].fspf_key == "5a" * 32
    assert "file /app/secret: content of /app/secret" in made.run()
    assert convert_probe("--dir=/app").session.services[0].fspf_key != "5a" * 32


def test_single_files_are_embedded_and_nothing_is_remembered(convert: Convert, probe: Native, tmp_path: Path) -> None:
    image = "sconify-test/option:fs-file"
    options = (f"--from={probe.image}", f"--to={image}", "--binary=probe", "--overwrite", "--binary-fs",
               "--fs-file=/app/secret", "--command=probe /app/secret /app/deep/er")  # fmt: skip
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    convert(*options, "--no-cache", environment=cache)
    assert list(tmp_path.rglob("*")) == []
    lines = run("docker", "run", "--rm", image).stdout.splitlines()
    assert {"file /app/secret: content of /app/secret", "file /app/deep/er: No such file or directory"} <= set(lines)
    convert(*options, environment=cache)
    assert list(tmp_path.rglob("*")) != []


@pytest.mark.parametrize("flag", ["-x", "--debug", "--log=trace"])
def test_commands_are_shown(convert: Convert, probe: Native, tmp_path: Path, flag: str) -> None:
    """Those of the transports; nothing else is run."""
    (tmp_path / "native").mkdir()
    run("skopeo", "copy", "--quiet", probe.image, f"dir:{tmp_path}/native")
    made = convert(
        f"--from={probe.image}", "--to=docker://127.0.0.1:9/x", "--binary=probe", "--explain", flag, "--json"
    )
    assert made["program"] == "/usr/bin/probe1.2"
    refused = run(
        str(COMMANDS / "sconify_image"), "--from=docker://127.0.0.1:9/x", f"--to=oci:{tmp_path}/out:x",
        "--binary=probe", flag, check=False,
    )  # fmt: skip
    assert refused.returncode == 4
    assert "+ skopeo" in refused.stderr
    assert "copy" in refused.stderr
    quiet = run(
        str(COMMANDS / "sconify_image"), "--from=docker://127.0.0.1:9/x", f"--to=oci:{tmp_path}/out:x",
        "--binary=probe", check=False,
    )  # fmt: skip
    assert "+ skopeo" not in quiet.stderr


def test_an_image_is_replaced_only_when_asked(
    convert: Convert, home: dict[str, str], probe: Native, tmp_path: Path
) -> None:
    options = (f"--from={probe.image}", f"--to=oci:{tmp_path}/out:x", "--binary=probe")
    first = convert(*options)
    refused = run(str(COMMANDS / "sconify_image"), *options, env=home, check=False)
    assert refused.returncode == 2
    assert "exists already; give --overwrite" in refused.stderr
    assert convert(*options, "--overwrite")["digest"] != first["digest"]


@contextmanager
def service(*arguments: str) -> Iterator[list[str]]:
    """Run a service of ours until the block ends; yield what it says until it is ready."""
    reader, writer = os.pipe()
    server = subprocess.Popen(
        [str(COMMANDS / "sconify"), *arguments, f"--ready-fd={writer}"], pass_fds=[writer], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        os.close(writer)
        assert os.read(reader, 100) == b"ready\n"
        os.close(reader)
        os.set_blocking(server.stdout.fileno(), False)  # type: ignore[union-attr]
        yield (server.stdout.read() or "").splitlines()  # type: ignore[union-attr]
    finally:
        server.terminate()
        server.wait(30)


def port_of(lines: list[str], what: str) -> str:
    """Return the port of the first address in a line."""
    return next(match[1] for line in lines if (match := re.match(rf"{what}\b.*?:(\d+)", line)))


def test_a_cas_whose_ports_are_its_own(convert: Convert, probe: Native, tmp_path: Path) -> None:
    """The container finds the enclave API by the port that --cas-enclave names."""
    cas = ("cas", "serve", "--debug", f"--state-dir={tmp_path}/cas", "--client-listen=127.0.0.1:0")
    las = ("las", "serve", "--provider=simulated", "--listen=0.0.0.0:0")
    with service(*cas, "--enclave-listen=0.0.0.0:0") as said, service(*las) as las_said:
        client, enclave = port_of(said, "Client API"), port_of(said, "Enclave API")
        las_port = port_of(las_said, "LAS")
        image = "sconify-test/option:own-cas"
        made = convert(
            f"--from={probe.image}", f"--to={image}", "--binary=probe", "--dir=/app", "--overwrite", "--cas-debug",
            f"--cas=127.0.0.1:{client}", f"--cas-enclave=localhost:{enclave}", f"--las=localhost:{las_port}",
        )  # fmt: skip
        assert made["cas"] == f"localhost:{enclave}"
        lines = run("docker", "run", "--rm", image).stdout.splitlines()
        assert "file /app/secret: content of /app/secret" in lines


def test_what_a_cas_enclave_needs(home: dict[str, str], probe: Native, tmp_path: Path) -> None:
    options = (f"--from={probe.image}", f"--to=oci:{tmp_path}/out:x", "--binary=probe", "--cas-enclave=:1")
    refused = run(str(COMMANDS / "sconify_image"), *options, env=home, check=False)
    assert refused.returncode == 2
    assert "--cas-enclave needs --cas" in refused.stderr
