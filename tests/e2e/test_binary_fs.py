"""The Flask example with its whole file system in the binary, by the seed document's own command."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.containers import COMMANDS, Canaries, Container, Convert, run

pytestmark = pytest.mark.docker

EMBEDDED = "sconify-test/flask:embedded"
PROGRAM = "/usr/bin/python3.11"
SERVICE = ("--binary=/usr/bin/python3", "--binary-fs", "--fs-dir=/app", "--fs-dir=/tls", "--overwrite")
HOST_PATHS = ("--host-path=/etc/resolv.conf", "--host-path=/etc/hosts")
KEY = "5c" * 32


@pytest.fixture(scope="module")
def embedded(flask_native: str, convert: Convert) -> dict[str, Any]:
    return convert(
        f"--from={flask_native}", f"--to={EMBEDDED}", "--cas-debug", *SERVICE, *HOST_PATHS,
        "--service-name=flask-api", "--name=flask-binary-fs", "--namespace=binary-fs", "--create-namespace",
        "--heap=1G", "--stack=4M", "--dlopen=1", "--crosscompiler=not/needed",
    )  # fmt: skip


def answers(container: Container, canaries: Canaries) -> None:
    assert container.answer() == {
        "service": "patients", "greeting": canaries.environment, "arguments": [canaries.argument]
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [(), ("--user", "1000:3000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")],
    ids=["plain", "restricted"],
)
def test_it_answers_over_https(
    options: tuple[str, ...], embedded: dict[str, Any], canaries: Canaries, start: Callable[..., Container]
) -> None:
    assert embedded["session"] == "binary-fs/flask-binary-fs"
    answers(start(EMBEDDED, *options), canaries)


def test_the_binary_is_the_only_file(embedded: dict[str, Any], tmp_path: Path, canaries: Canaries) -> None:
    container = run("docker", "create", EMBEDDED).stdout.strip()
    with (tmp_path / "all.tar").open("wb") as archive:
        subprocess.run(["docker", "export", container], check=True, stdout=archive)
    run("docker", "rm", container)
    names = run("tar", "--list", "--file", str(tmp_path / "all.tar")).stdout.splitlines()
    engine = {".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"}
    assert {name for name in names if not name.endswith("/")} - engine == {PROGRAM[1:]}
    content = (tmp_path / "all.tar").read_bytes()
    assert not [canary for canary in canaries.all() if canary.encode() in content]


def test_every_other_file_may_be_garbage(
    embedded: dict[str, Any], tmp_path: Path, canaries: Canaries, start: Callable[..., Container]
) -> None:
    """The host puts garbage where the native image has files: nothing of it reaches the program."""
    garbage = tmp_path / "garbage"
    for path in (
        "lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6", "usr/lib/python3.11/os.py",
        "app/rest_api.py", "tls/flask.key", "etc/passwd", "etc/ld.so.cache", "etc/ld.so.preload",
        "usr/lib/python3.11/sitecustomize.py", "usr/lib/python3/dist-packages/flask/__init__.py",
        "app/flask.py", "usr/bin/python3",
    ):  # fmt: skip
        (garbage / path).parent.mkdir(parents=True, exist_ok=True)
        (garbage / path).write_bytes(b"\xff\x00garbage" * 100)
    (tmp_path / "Dockerfile").write_text(f"FROM {EMBEDDED}\nCOPY garbage /\n")
    run("docker", "build", "--quiet", "--tag", "sconify-test/binary-fs:garbage", str(tmp_path))
    answers(start("sconify-test/binary-fs:garbage"), canaries)


def test_the_binary_alone_suffices(
    embedded: dict[str, Any], tmp_path: Path, canaries: Canaries, start: Callable[..., Container]
) -> None:
    """Everything else of the image deleted, directories too."""
    (config,) = json.loads(run("docker", "image", "inspect", EMBEDDED).stdout)
    variables = "".join(f'ENV {name}="{value}"\n' for name, value in (
        variable.split("=", 1) for variable in config["Config"]["Env"]
    ))  # fmt: skip
    (tmp_path / "Dockerfile").write_text(
        f"FROM {EMBEDDED} AS all\nFROM scratch\nCOPY --from=all {PROGRAM} {PROGRAM}\n{variables}"
        f'ENTRYPOINT ["{PROGRAM}"]\n'
    )
    run("docker", "build", "--quiet", "--tag", "sconify-test/binary-fs:alone", str(tmp_path))
    answers(start("sconify-test/binary-fs:alone"), canaries)


def test_changes_are_gone_at_exit_and_not_on_the_disk(flask_native: str, convert: Convert, tmp_path: Path) -> None:
    image = "sconify-test/binary-fs:changes"
    secret = f"changed-{uuid.uuid4().hex}"
    code = (
        "import os; print(os.path.exists('/app/new'), os.stat('/app/rest_api.py').st_mode & 0o777); "
        f"open('/app/rest_api.py', 'a').write('{secret}'); os.chmod('/app/rest_api.py', 0o600); "
        "os.rename('/app', '/usr/app'); os.mkdir('/app'); os.rename('/usr/app/rest_api.py', '/app/new'); "
        f"print(open('/app/new').read().endswith('{secret}'), os.listdir('/app')); os.remove('/usr/bin/python3')"
    )
    convert(f"--from={flask_native}", f"--to={image}", *SERVICE, f'--command=python3 -c "{code}"')
    container = run("docker", "create", image).stdout.strip()
    for _ in range(2):
        assert run("docker", "start", "--attach", container).stdout == "False 420\nTrue ['new']\n"
    assert secret not in run("docker", "diff", container).stdout
    with (tmp_path / "all.tar").open("wb") as archive:
        subprocess.run(["docker", "export", container], check=True, stdout=archive)
    run("docker", "rm", container)
    assert secret.encode() not in (tmp_path / "all.tar").read_bytes()


def test_the_hash_is_printed_by_the_container_by_measure_and_by_the_conversion(
    embedded: dict[str, Any], home: dict[str, str]
) -> None:
    printed = run("docker", "run", "--rm", "--env", "SCONE_HASH=1", "--network", "none", EMBEDDED)
    assert printed.stdout == embedded["measurement"] + "\n"
    measured = run(str(COMMANDS / "sconify"), "measure", EMBEDDED, env=home)
    assert measured.stdout == printed.stdout
    variable = "SCONE_HEAP=2G"
    printed = run("docker", "run", "--rm", "--env", "SCONE_HASH=1", "--env", variable, EMBEDDED)
    measured = run(str(COMMANDS / "sconify"), "measure", f"--env={variable}", EMBEDDED, env=home)
    assert measured.stdout == printed.stdout != embedded["measurement"] + "\n"


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory, flask_native: str, convert: Convert) -> Callable[..., str]:
    """Measure the native image with some lines more in its Dockerfile, always under the same key."""
    key_file = tmp_path_factory.mktemp("key") / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)

    def measurement(*lines: str, key: Path | None = key_file) -> str:
        context = tmp_path_factory.mktemp("variant")
        (context / "Dockerfile").write_text("\n".join([f"FROM {flask_native}", *lines]) + "\n")
        (context / "changed.py").write_text("changed = True\n")
        image = f"sconify-test/binary-fs-variant:{context.name}"
        run("docker", "build", "--quiet", "--tag", image, str(context))
        options = (f"--key-file={key}",) if key is not None else ()
        made = convert(f"--from={image}", f"--to=oci:{context}/layout:made", *SERVICE, *HOST_PATHS, *options)
        run("docker", "image", "rm", image)
        return str(made["measurement"])

    return measurement


def test_the_same_files_and_key_give_the_same_measurement(variant: Callable[..., str]) -> None:
    original = variant()
    assert variant("COPY changed.py /srv/changed.py") == original, "what is not embedded does not count"
    assert variant("COPY changed.py /app/data/secret.txt") != original
    assert variant(key=None) != original


def test_what_is_plain_can_be_listed_by_everybody_and_runs(
    flask_native: str, convert: Convert, home: dict[str, str], canaries: Canaries, start: Callable[..., Container]
) -> None:
    image = "sconify-test/flask:embedded-plain"
    convert(f"--from={flask_native}", f"--to={image}", *SERVICE, *HOST_PATHS, "--binary-fs-plain")
    listed = run(str(COMMANDS / "sconify"), "files", image, env=home).stdout.splitlines()
    assert any(line.startswith("-rw-r--r-- 0 0") and line.endswith(" /app/rest_api.py") for line in listed)
    answers(start(image), canaries)


def test_what_is_encrypted_is_listed_only_with_the_key(embedded: dict[str, Any], home: dict[str, str]) -> None:
    done = run(str(COMMANDS / "sconify"), "files", EMBEDDED, env=home, check=False)
    assert done.returncode == 2
    assert "--key-file" in done.stderr


def test_only_what_is_embedded_or_the_hosts_exists(flask_native: str, convert: Convert, tmp_path: Path) -> None:
    """Native files that are not embedded, plain files beside the binary, and files of the host do not exist."""
    image = "sconify-test/binary-fs:sight"
    code = (
        "import os; print({p: os.path.exists(p) for p in "
        "('/app', '/srv/beside', '/var/log/dpkg.log', '/etc/shadow', '/host/file', '/hidden/file', '/etc/hosts')}); "
        "print(open('/host/file').read()); print('log' in os.listdir('/var') if os.path.exists('/var') else False)"
    )
    (tmp_path / "beside").write_text("beside")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {flask_native}\nCOPY beside /srv/beside\nCOPY beside /host/file\nRUN mkdir /hidden\n"
    )
    run("docker", "build", "--quiet", "--tag", "sconify-test/binary-fs:sight-native", str(tmp_path))
    made = convert(
        "--from=sconify-test/binary-fs:sight-native", f"--to={image}", *SERVICE, *HOST_PATHS,
        "--plain-file=/srv/beside", "--plain=/host", "--host-path=/host",
        f'--command=python3 -c "{code}"',
    )  # fmt: skip
    assert "/srv/beside and what else --plain and --plain-file name do not exist for the program" in made["stderr"]
    (tmp_path / "file").write_text("from the host")
    done = run("docker", "run", "--rm", "--volume", f"{tmp_path}:/hidden", image)
    exists, content, _ = done.stdout.splitlines()
    assert exists == str({
        "/app": True, "/srv/beside": False, "/var/log/dpkg.log": False, "/etc/shadow": False, "/host/file": True,
        "/hidden/file": False, "/etc/hosts": True,
    })  # fmt: skip
    assert content == "beside"
    container = run("docker", "create", image).stdout.strip()
    run("docker", "cp", f"{container}:/srv/beside", str(tmp_path / "copied"))
    run("docker", "rm", container)
    assert (tmp_path / "copied").read_text() == "beside"


def test_without_defaults_only_what_is_named_is_embedded(
    flask_native: str, convert: Convert, home: dict[str, str]
) -> None:
    target = f"oci:{home['HOME']}/bare:made"
    convert(f"--from={flask_native}", f"--to={target}", *SERVICE, "--disable-binary-fs-defaults", "--binary-fs-plain")
    listed = run(str(COMMANDS / "sconify"), "files", target, env=home).stdout
    assert "/app/rest_api.py" in listed
    assert "libc.so.6" not in listed
    assert "/usr/lib/python3.11/os.py" not in listed
