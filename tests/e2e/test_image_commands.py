"""What can be done with an encrypted image, and with a native one before: verify, diff, decrypt, trace, explain."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sconify.image.config import ImageConfig
from sconify.image.layer_writer import LayerWriter
from sconify.image.reference import ImageReference
from sconify.image.sink import write_image
from tests.containers import COMMANDS, run
from tests.e2e.conftest import Native, Result, explanation

pytestmark = pytest.mark.docker
ConvertProbe = Callable[..., Result]
Sconify = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sconify(home: dict[str, str]) -> Sconify:
    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(str(COMMANDS / "sconify"), *arguments, env=home, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return call


def fields(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {one["field"]: one for one in json.loads(done.stdout)["fields"]}


def test_verify_says_which_field_makes_another_measurement(
    convert_probe: ConvertProbe, sconify: Sconify, home: dict[str, str], tmp_path: Path
) -> None:
    made = convert_probe("--dir=/app", "--heap=64m")
    shown = sconify("verify", made.image)
    assert [line.split()[1] for line in shown.stdout.splitlines()] == ["key", "same", "same", "same", "same"]
    compared = fields(sconify("verify", made.image, "--json"))
    assert list(compared) == ["CAS key", "service", "measurement", "fspf_path", "fspf_tag"]
    other = convert_probe("--dir=/app", "--heap=1G", "--dlopen=2", name="sconify-test/option:other")
    (tmp_path / "session.yml").write_text(other.text)
    unfit = sconify("verify", made.image, f"--session={tmp_path}/session.yml", "--json", code=3)
    compared = fields(unfit)
    assert compared["measurement"]["meaning"] == (
        "SCONE_HEAP is 67108864, expected 1073741824 (another --heap, or docker run --env SCONE_HEAP=...); "
        "SCONE_ALLOW_DLOPEN is 1, expected 2 (another --dlopen, or docker run --env SCONE_ALLOW_DLOPEN=...)"
    )
    assert not compared["fspf_tag"]["fits"]
    assert "does not fit the session" in unfit.stderr
    assert "was not attested from here" in sconify("verify", made.image, "--cas=127.0.0.1:1", code=2).stderr
    nobody = run(
        str(COMMANDS / "sconify"), "verify", made.image, check=False,
        env={**home, "SCONE_CLI_CONFIG": f"{tmp_path}/none.json"},
    )  # fmt: skip
    assert nobody.returncode == 2
    assert "no attested CAS is known; run `sconify cas attest HOST:PORT` first" in nobody.stderr


def test_diff_names_what_differs(convert_probe: ConvertProbe, sconify: Sconify, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("ab" * 32)
    same = (f"--key-file={key}", "--namespace=diff", "--create-namespace", "--name=same")
    a = convert_probe("--dir=/app", *same, name="sconify-test/option:a")
    b = convert_probe("--dir=/app", *same, "--stack=4M", name="sconify-test/option:b")
    c = convert_probe("--dir=/app", "--dir=/tls", *same, name="sconify-test/option:c")
    assert all(one["fits"] for one in fields(sconify("diff", a.image, a.image, "--json")).values())
    stack = fields(sconify("diff", a.image, b.image, "--json", code=1))
    assert {name for name, one in stack.items() if not one["fits"]} == {"measurement", "SCONE_STACK"}
    files = fields(sconify("diff", a.image, c.image, "--json", code=1))
    unfit = {name for name, one in files.items() if not one["fits"]}
    assert {"fspf_tag", "/.sconify/index"} <= unfit
    assert "measurement" not in unfit
    shown = sconify("diff", a.image, b.image, code=1).stdout
    assert "SCONE_STACK" in shown
    assert "DIFFERS" in shown


def test_the_owner_decrypts_and_nobody_else(
    convert_probe: ConvertProbe, sconify: Sconify, home: dict[str, str], tmp_path: Path
) -> None:
    made = convert_probe("--dir=/app", "--plain=/data", "--env=TOKEN=x")
    assert sconify("decrypt", made.image, "-", "--file=/app/secret").stdout == "content of /app/secret"
    tree = tmp_path / "tree"
    assert "files were written into" in sconify("decrypt", made.image, str(tree)).stderr
    assert (tree / "app/deep/er").read_text() == "content of /app/deep/er"
    assert (tree / "data/public").read_text() == "content of /data/public"
    assert (tree / "usr/bin/probe").is_symlink()
    assert (tree / "usr/bin/probe1.2").read_bytes()[:4] == b"\x7fELF"
    assert (tree / "app/secret").stat().st_mtime == 1_600_000_000
    sconify("decrypt", made.image, str(tree), code=2)
    refused_tree = sconify("decrypt", made.image, "-", code=2).stderr
    assert "DESTINATION is -, but a tree can't go to standard output; give --file=PATH" in refused_tree
    assert "/nothing" in sconify("decrypt", made.image, "-", "--file=/nothing", code=2).stderr
    (tmp_path / "stranger").mkdir()
    records = Path(home["HOME"], ".cas/config.json")
    document = {**json.loads(records.read_text())}
    document.pop("identity", None)
    stranger = tmp_path / "stranger/config.json"
    stranger.touch(mode=0o600)
    stranger.write_text(json.dumps(document))
    refused = run(
        str(COMMANDS / "sconify"), "decrypt", made.image, f"{tmp_path}/stolen", check=False,
        env={**home, "SCONE_CLI_CONFIG": str(stranger)},
    )  # fmt: skip
    assert refused.returncode == 2, refused.stderr
    assert not (tmp_path / "stolen").exists()


def test_an_embedded_file_system_is_decrypted(convert_probe: ConvertProbe, sconify: Sconify, tmp_path: Path) -> None:
    made = convert_probe("--binary-fs", "--fs-dir=/app")
    assert sconify("decrypt", made.image, "-", "--file=/app/secret").stdout == "content of /app/secret"
    sconify("decrypt", made.image, f"{tmp_path}/tree")
    assert (tmp_path / "tree/app/deep/er").read_text() == "content of /app/deep/er"


def test_what_was_changed_is_not_decrypted(convert_probe: ConvertProbe, sconify: Sconify, tmp_path: Path) -> None:
    made = convert_probe("--dir=/app", "--plain=/data")
    (tmp_path / "public").write_text("content of /data/publiX")
    (tmp_path / "Dockerfile").write_text(f"FROM {made.image}\nCOPY public /data/public\n")
    changed = "sconify-test/option:changed"
    run("docker", "build", "--quiet", "--tag", changed, str(tmp_path))
    assert sconify("decrypt", changed, "-", "--file=/app/secret").stdout == "content of /app/secret"
    assert "/data/public" in sconify("decrypt", changed, f"{tmp_path}/tree", code=3).stderr
    assert not (tmp_path / "tree").exists()
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("cd" * 32)
    sconify("decrypt", made.image, f"{tmp_path}/tree", f"--key-file={key}", code=3)
    assert not (tmp_path / "tree").exists()


@pytest.fixture
def native_in_engine(probe: Native, tmp_path: Path) -> str:
    name = "sconify-test/trace:native"
    run("skopeo", "copy", "--quiet", probe.image, f"docker-archive:{tmp_path}/native.tar:{name}")
    run("docker", "load", "--quiet", f"--input={tmp_path}/native.tar")
    return name


def test_a_trace_is_recorded_and_converts(
    convert_probe: ConvertProbe, sconify: Sconify, native_in_engine: str, tmp_path: Path
) -> None:
    """The image has no shell, no strace, nothing but the program and its libraries."""
    record = tmp_path / "record"
    done = sconify(
        "trace",
        native_in_engine,
        f"--output={record}",
        "--env=SEEN=1",
        "--",
        "probe",
        "/app/secret",
        "/tls/none",
        "deep",
    )
    assert "env SEEN=1" in done.stderr
    paths = record.read_text().splitlines()
    assert {"/app/secret", "/usr/bin/probe", "/usr/lib/libanswer.so"} <= set(paths)
    assert not [path for path in paths if path.startswith(("/.sconify", "/proc", "/tls"))]
    made = convert_probe(f"--trace={record}", "--command=probe /app/secret /app/deep/er")
    lines = made.run()
    assert "file /app/secret: content of /app/secret" in lines
    assert "file /app/deep/er: No such file or directory" in lines
    assert "/app/secret" not in made.files()
    left = run("docker", "ps", "--all", "--quiet", f"--filter=ancestor={native_in_engine}").stdout
    assert left == ""


def test_what_can_not_be_traced(sconify: Sconify, native_in_engine: str) -> None:
    assert "docker pull" in sconify("trace", "sconify-test/trace:missing", code=2).stderr
    assert "skopeo copy" in sconify("trace", "oci:/nowhere:x", code=2).stderr
    missing = sconify("trace", native_in_engine, "--", "/nothing", code=2).stderr
    assert "nothing was recorded: the container ended with 1 before a program ran" in missing
    assert "name a program of the image after --" in missing


def test_a_service_is_stopped_after_its_time(sconify: Sconify, tmp_path: Path) -> None:
    """Of another user, with a program that does not end; a static one, so that the image has nothing else."""
    (tmp_path / "main.c").write_text(
        "#include <stdio.h>\n#include <unistd.h>\n"
        'int main(void) { FILE *f = fopen("data", "r"); printf("opened %d\\n", f != NULL); fflush(stdout); pause(); }\n'
    )
    run("cc", "-static", "-o", f"{tmp_path}/serve", f"{tmp_path}/main.c")
    writer = LayerWriter(tmp_path / "layer.tar", epoch=0)
    writer.add_file("/serve", tmp_path / "serve", mode=0o755)
    writer.add_bytes("/srv/data", b"x")
    name = "sconify-test/trace:service"
    config = ImageConfig(entrypoint=("/serve",), working_dir="/srv", user="1234:1234")
    reference = ImageReference.parse(name)
    write_image(reference, config=config, layers=[writer.finish()], workdir=tmp_path, overwrite=True).commit()
    done = sconify("trace", name, "--seconds=3")
    assert done.stdout.splitlines() == ["/serve", "/srv/data"]
    assert "3 s are over" in done.stderr
    assert "opened 1" in done.stderr


def test_the_expected_measurement_is_the_one_that_is_made(
    convert_probe: ConvertProbe, home: dict[str, str], probe: Native, tmp_path: Path
) -> None:
    made = convert_probe("--dir=/app", "--heap=2G")
    explained = explanation(home, probe, "--dir=/app", "--heap=2G")
    assert explained["measurement"] == made.document["measurement"]
    assert explanation(home, probe, "--dir=/app", f"--cas-key={'ab' * 32}")["measurement"] != explained["measurement"]
    unknown = explanation(home, probe, "--dir=/app", "--cas=cas.example")
    assert unknown["measurement"] is None
    assert "sconify cas attest" in unknown["measurement_depends_on"]
    embedded = explanation(home, probe, "--binary-fs", "--fs-dir=/app")
    assert "sconify measure" in embedded["measurement_depends_on"]
    page = tmp_path / "plan.html"
    done = run(
        str(COMMANDS / "sconify_image"), f"--from={probe.image}", f"--to=oci:{tmp_path}/out:x", "--binary=probe",
        "--dir=/app", "--heap=2G", f"--explain-html={page}", env=home,
    )  # fmt: skip
    assert f"expected measurement: {explained['measurement']}" in done.stdout
    assert explained["measurement"] in page.read_text()
    assert not (tmp_path / "out").exists()
