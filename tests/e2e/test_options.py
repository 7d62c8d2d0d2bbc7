"""Every option of the conversion shows its effect on a real image."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sconify.image.config import ImageConfig
from sconify.image.layer_writer import LayerWriter
from sconify.image.reference import ImageReference
from sconify.image.sink import write_image
from tests.containers import COMMANDS, Convert, run
from tests.e2e.conftest import Native, Result, explanation

pytestmark = pytest.mark.docker
ConvertProbe = Callable[..., Result]


def command(home: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return run(str(COMMANDS / "sconify_image"), *options, env=home, check=False)


def test_directories_files_and_the_base_image(convert_probe: ConvertProbe, probe: Native) -> None:
    made = convert_probe(
        "--dir=/app", "--dir", "/tls", "--plain=/data", "--plain-file=/etc/motd", f"--base={probe.base}",
        "--command=probe /app/secret /app/deep/er /tls/key /data/public /etc/motd /etc/base-file /etc/other",
    )  # fmt: skip
    lines = made.run()
    for path in ("/app/secret", "/app/deep/er", "/tls/key", "/data/public", "/etc/motd"):
        assert f"file {path}: content of {path}" in lines
    assert "file /etc/base-file: of the base image" in lines
    assert "file /etc/other: No such file or directory" in lines
    host = made.files()
    assert {"/data/public", "/data/one", "/etc/motd", "/etc/base-file"} <= set(host)
    assert not [path for path in host if path.startswith(("/app", "/tls"))]


def test_command_environment_and_working_directory(convert_probe: ConvertProbe) -> None:
    made = convert_probe("--dir=/app", "--env=ONE=1", "--env", "TWO=a=b c", '--command=probe "two words" x')
    lines = made.run("--env", "HOST=1")
    assert [line for line in lines if line.startswith("arg ")] == ["arg probe", "arg two words", "arg x"]
    assert {"env ONE=1", "env TWO=a=b c", "env NATIVE=from the image", "env HOME=/", "cwd /app"} <= set(lines)
    assert "env HOST=1" not in lines


def test_native_variables_can_be_left_out(convert_probe: ConvertProbe) -> None:
    made = convert_probe("--dir=/app", "--disable-copy-envvars", "--env=MINE=1", "--disable-copy-service-libraries")
    assert set(made.session.services[0].environment) == {"PATH", "HOME", "MINE"}
    assert "env NATIVE=from the image" not in made.run()
    made = convert_probe("--dir=/app", "--disable-ld-library-path-in-session")
    assert "LD_LIBRARY_PATH" not in made.session.services[0].environment
    assert "NATIVE" in made.session.services[0].environment


def test_names(convert_probe: ConvertProbe) -> None:
    made = convert_probe("--namespace=option-names/nested", "--create-namespace", "--name=mine", "--service-name=web")
    assert made.document["session"] == made.session.name == "option-names/nested/mine"
    assert made.document["config_id"] == "option-names/nested/mine/web"
    environment = json.loads(run("docker", "inspect", "--format", "{{json .Config.Env}}", made.image).stdout)
    assert "SCONE_CONFIG_ID=option-names/nested/mine/web" in environment
    assert "answer 42" in made.run()


def test_a_namespace_that_does_not_exist(home: dict[str, str], probe: Native, tmp_path: Path) -> None:
    done = command(
        home, f"--from={probe.image}", f"--to=oci:{tmp_path}/out:x", "--binary=probe", "--namespace=option-missing"
    )
    assert done.returncode == 2
    assert "--create-namespace" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_an_existing_session_is_updated_unless_that_is_forbidden(
    convert_probe: ConvertProbe, home: dict[str, str], probe: Native, tmp_path: Path
) -> None:
    options = ("--namespace=option-update", "--create-namespace", "--name=s")
    first, second = convert_probe(*options), convert_probe(*options)
    assert first.document["session_hash"] != second.document["session_hash"]
    done = command(
        home, f"--from={probe.image}", f"--to=oci:{tmp_path}/out:x", "--binary=probe", *options,
        "--disable-update-session-if-exists",
    )  # fmt: skip
    assert done.returncode == 2
    assert "--disable-update-session-if-exists" in done.stderr.splitlines()[-1]


def test_secrets_and_injected_files(convert_probe: ConvertProbe, tmp_path: Path) -> None:
    (tmp_path / "secrets.yml").write_text(
        "secrets:\n  - {name: password, kind: ascii, value: hunter2}\n  - {name: token, kind: binary, size: 8}\n"
    )
    (tmp_path / "files.yml").write_text(
        "     injection_files:\n"
        "        - path: /etc/injected\n"
        "          content: |\n"
        "             password=$$SCONE::password$$\n"
        "          permission: 0o400\n"
    )
    made = convert_probe(
        f"--secrets={tmp_path}/secrets.yml", f"--injectedfiles={tmp_path}/files.yml",
        "--env=TOKEN=$$SCONE::token:hex$$", "--command=probe $$SCONE::password$$ /etc/injected", "--verbose",
    )  # fmt: skip
    lines = made.run()
    assert "arg hunter2" in lines
    assert "file /etc/injected: password=hunter2" in lines
    assert len(next(line for line in lines if line.startswith("env TOKEN="))) == len("env TOKEN=") + 16
    for text in (json.dumps(made.document), made.stderr):
        assert "hunter2" not in text


TEMPLATE = """\
name: $NAMESPACE/$SESSION
version: "0.3"
services:
   - name: $SERVICE
     mrenclaves: [$MRENCLAVE]
     command: $CMD
     environment:
        FROM_TEMPLATE: "yes"
$ENVVARS
     fspf_path: $SCONE_FSPF_PATH
     fspf_key: $SCONE_FSPF_KEY
     fspf_tag: $SCONE_FSPF_TAG
$SECRETS
security:
  attestation: {tolerate: [simulated-platform]}
"""


def test_a_template(convert_probe: ConvertProbe, tmp_path: Path) -> None:
    (tmp_path / "template.yml").write_text(TEMPLATE)
    lines = convert_probe("--dir=/app", f"--template={tmp_path}/template.yml").run()
    assert {"env FROM_TEMPLATE=yes", "env NATIVE=from the image", "cwd /app"} <= set(lines)


def test_a_trace(convert_probe: ConvertProbe, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(
        'openat(AT_FDCWD, "/app/secret", O_RDONLY) = 3\nopenat(AT_FDCWD, "deep/er", O_RDONLY) = 3\n'
        'openat(AT_FDCWD, "/tls/key", O_RDONLY) = -1 ENOENT (No such file or directory)\n'
        'openat(AT_FDCWD, "/proc/self/maps", O_RDONLY) = 3\n'
    )
    made = convert_probe(f"--trace={tmp_path}/trace", "--command=probe /app/secret /app/deep/er /tls/key")
    lines = made.run()
    assert "file /app/secret: content of /app/secret" in lines
    assert "file /app/deep/er: content of /app/deep/er" in lines
    assert "file /tls/key: No such file or directory" in lines
    host = made.files()
    assert sorted(path for path in host if path.startswith("/.sconify")) == ["/.sconify/index", "/.sconify/pack0"]
    assert "/app/secret" not in host


def test_shared_objects_can_be_left_to_the_base_image(
    convert_probe: ConvertProbe, home: dict[str, str], probe: Native
) -> None:
    option = "--disable-copy-shared-object-dependencies"
    paths = explanation(home, probe, option)["paths"]
    assert "/usr/lib/libanswer.so" in explanation(home, probe)["paths"]
    assert "/usr/lib/libanswer.so" not in paths
    assert "answer 42" in convert_probe(option, f"--base={probe.base}").run()


def test_links_to_the_binary(home: dict[str, str], probe: Native) -> None:
    assert "/usr/bin/probe" in explanation(home, probe)["paths"]
    assert "/usr/bin/probe" not in explanation(home, probe, "--disable-binary-symlink-detection")["paths"]


def test_build_resources_make_the_same_files(convert_probe: ConvertProbe, tmp_path: Path) -> None:
    made = convert_probe("--dir=/app", "--plain=/data", f"--build-resources={tmp_path}/resources")
    again = "sconify-test/option:rebuilt"
    run("docker", "build", "--quiet", "--tag", again, f"{tmp_path}/resources")
    rebuilt = Result(made.document, made.session, made.text, again, "")
    assert rebuilt.files() == made.files()
    assert rebuilt.run() == made.run()
    shown = "{{json .Config.Env}} {{json .Config.Entrypoint}} {{json .Config.Labels}} {{json .Config.ExposedPorts}}"
    inspected = [run("docker", "inspect", "--format", shown, image).stdout for image in (made.image, again)]
    # The builder sets a PATH where there is none; nothing of the container's environment reaches the program.
    assert inspected[0] == re.sub('"PATH=[^"]*",', "", inspected[1])
    assert "kept" in inspected[0]


def test_a_session_that_is_not_uploaded(convert_probe: ConvertProbe, home: dict[str, str]) -> None:
    made = convert_probe("--dir=/app", "--disable-session-upload", "--namespace=option-later")
    refused = run("docker", "run", "--rm", made.image, check=False)
    assert refused.returncode != 0
    file = Path(home["HOME"], "later.yml")
    file.write_text(made.text)
    sconify = str(COMMANDS / "sconify")
    namespace = Path(home["HOME"], "namespace.yml")
    namespace.write_text('name: option-later\nversion: "0.3"\n')
    run(sconify, "session", "create", str(namespace), env=home)
    assert made.document["session_hash"] is None
    run(sconify, "session", "create", str(file), env=home)
    assert "file /app/secret: content of /app/secret" in made.run()


def test_a_session_must_not_get_lost(home: dict[str, str], probe: Native, tmp_path: Path) -> None:
    done = command(
        home, f"--from={probe.image}", f"--to=oci:{tmp_path}/out:x", "--binary=probe", "--disable-session-upload"
    )
    assert done.returncode == 2
    assert "--session=FILE or --build-resources=DIRECTORY" in done.stderr


def test_identity(convert_probe: ConvertProbe, home: dict[str, str], tmp_path: Path) -> None:
    """A PEM file made as the documentation of such tools says, and a config.json."""
    pem = tmp_path / "identity.pem"
    subject = ("-subj", "/CN=Test")
    run("openssl", "genpkey", "-out", str(pem), "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    certificate = run("openssl", "req", "-x509", "-key", str(pem), "-days", "31", "-nodes", "-sha256", *subject)
    pem.write_text(pem.read_text() + certificate.stdout)
    pem.chmod(0o600)
    options = ("--namespace=option-identity", "--create-namespace", f"--identity={pem}")
    session = convert_probe(*options, "--name=a").document["session"]
    sconify = str(COMMANDS / "sconify")
    assert run(sconify, "session", "read", session, env=home, check=False).returncode == 2
    assert "option-identity" in run(sconify, "session", "read", f"--identity={pem}", session, env=home).stdout
    config = tmp_path / "config.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identity": pem.read_text(), "cas_db": {}}))
    convert_probe("--namespace=option-identity", f"--identity={config}", "--name=b")


def test_without_attestation_of_the_service(convert_probe: ConvertProbe) -> None:
    made = convert_probe("--disable-session-security-attestation")
    assert made.session.security.attestation.mode == "none"
    assert "warning: --disable-session-security-attestation" in made.stderr
    assert "answer 42" in made.run()


def test_what_the_policy_puts_up_with(convert_probe: ConvertProbe) -> None:
    made = convert_probe("--allow-debug-mode", "--allow_tcb_vulnerabilities")
    assert set(made.session.security.attestation.tolerate) == {
        "simulated-platform", "debug-mode", "hyperthreading", "insecure-igpu", "outdated-tcb",
        "software-hardening-needed", "insecure-configuration",
    }  # fmt: skip
    assert made.session.security.attestation.ignore_advisories == ("*",)


def test_start_up_variables(convert_probe: ConvertProbe) -> None:
    made = convert_probe("--heap", "256m", "--stack=4M", "--dlopen=2", "--fork=1", "--fork=0")
    environment = json.loads(run("docker", "inspect", "--format", "{{json .Config.Env}}", made.image).stdout)
    assert {"SCONE_HEAP=268435456", "SCONE_STACK=4194304", "SCONE_ALLOW_DLOPEN=2", "SCONE_FORK=0"} <= set(environment)


def test_what_is_not_needed_is_accepted_and_said(convert_probe: ConvertProbe) -> None:
    made = convert_probe("--cli=some/image", "--crosscompiler=other/image", "--mprotect=1")
    for option in ("--cli", "--crosscompiler", "--mprotect"):
        assert f"warning: {option} is not needed and has no effect" in made.stderr


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        (["--verbose"], ["--- Dockerfile", "fspf_key", "FROM scratch"], ["content of", "from the image"]),
        (["--log=warning"], ["warning: no --cas"], ["sconify_image: plan"]),
        (["--log=error"], [], ["warning:", "sconify_image:"]),
        (["-x", "--base={base}"], ["sconify_image: plan"], []),
    ],
    ids=["verbose", "warning", "error", "debug"],
)
def test_what_is_printed(
    convert_probe: ConvertProbe, probe: Native, options: Sequence[str], present: list[str], absent: list[str]
) -> None:
    made = convert_probe(*(option.format(base=probe.base) for option in options))
    for text in present:
        assert text in made.stderr
    for text in absent:
        assert text not in made.stderr
    assert str(made.session.services[0].fspf_key) not in made.stderr
    assert "\x1b[" not in made.stderr


def test_a_dry_run_makes_nothing(home: dict[str, str], probe: Native, tmp_path: Path) -> None:
    done = command(
        home, f"--from={probe.image}", f"--to=oci:{tmp_path}/out:x", "--binary=probe", "--dir=/app", "--dry-run"
    )
    assert done.returncode == 0
    assert "/app" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def own_cas(cas_of: Callable[..., str]) -> str:
    return cas_of("own")


def test_a_cas_of_ones_own(convert: Convert, home: dict[str, str], probe: Native, own_cas: str, tmp_path: Path) -> None:
    def options(name: str) -> tuple[str, ...]:
        return (f"--from={probe.image}", f"--to=oci:{tmp_path}/{name}:x", "--binary=probe", f"--cas={own_cas}")

    session = tmp_path / "session.yml"
    unknown = command(home, *options("a"), "--disable-session-upload", f"--session={session}")
    assert unknown.returncode == 2
    assert "--cas-key=KEY_HASH" in unknown.stderr
    careless = convert(*options("b"), "--disable-attestation", "--las=las.example:1")
    assert "is not attested" in careless["stderr"]
    assert careless["las"] == "las.example:1"
    attested = convert(*options("c"), "--cas-debug")
    known = convert(*options("d"), "--disable-session-upload", f"--session={session}")
    assert careless["measurement"] == attested["measurement"] == known["measurement"]
    wrong = command(home, *options("e"), "--cas-debug", f"--cas-key={'ab' * 32}")
    assert wrong.returncode == 3
    assert not (tmp_path / "e").exists()


def test_the_result_goes_to_standard_output_alone(home: dict[str, str], probe: Native, tmp_path: Path) -> None:
    done = command(
        home, "--from", probe.image, "--to", f"oci:{tmp_path}/out:x", "--binary", "/usr/bin/probe", "--no-color"
    )
    lines: list[Any] = done.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("sconify-")
    assert (tmp_path / "out/index.json").exists()


def test_a_binary_that_can_not_run_is_replaced_or_refused(
    convert: Convert, home: dict[str, str], probe: Native, tmp_path: Path
) -> None:
    """An image whose binary is for another architecture, and one that has it for this one."""
    foreign = LayerWriter(tmp_path / "foreign.tar", epoch=0)
    elf = bytearray(b"\x7fELF\x02\x01\x01" + bytes(57))
    elf[16:20] = b"\x02\x00\xb7\x00"  # an executable for aarch64
    foreign.add_bytes("/opt/bin/probe", bytes(elf), mode=0o755)
    foreign.add_bytes("/app/secret", b"of the foreign image")
    source = f"oci:{tmp_path}/foreign:x"
    config = ImageConfig(entrypoint=("/opt/bin/probe", "/app/secret"))
    layers = [foreign.finish()]
    write_image(ImageReference.parse(source), config=config, layers=layers, workdir=tmp_path, overwrite=False).commit()
    options = (f"--from={source}", "--binary=/opt/bin/probe", "--dir=/app")
    refused = command(home, *options, f"--to=oci:{tmp_path}/a:x")
    assert refused.returncode == 2
    assert "aarch64" in refused.stderr
    assert "--replacement-image" in refused.stderr
    kept = command(
        home, *options, f"--to=oci:{tmp_path}/a:x", f"--replacement-image={probe.image}",
        "--disable-replace-unsconifiable-binaries",
    )  # fmt: skip
    assert "leave --disable-replace-unsconifiable-binaries out" in kept.stderr
    other = command(home, *options, f"--to=oci:{tmp_path}/a:x", f"--replacement-image={probe.base}")
    assert "no replacement image has probe" in other.stderr
    assert not (tmp_path / "a").exists()
    image = "sconify-test/option:replaced"
    made = convert(*options, f"--to={image}", "--overwrite", f"--replacement-image={probe.image}")
    assert "it is replaced by the one of" in made["stderr"]
    lines = run("docker", "run", "--rm", image).stdout.splitlines()
    assert {"answer 42", "file /app/secret: of the foreign image"} <= set(lines)


def test_auto_finds_binary_and_directories(
    convert: Convert, home: dict[str, str], probe: Native, tmp_path: Path
) -> None:
    image = "sconify-test/option:auto"
    made = convert(f"--from={probe.image}", f"--to={image}", "--overwrite", "--auto")
    assert "--binary=/usr/bin/probe: Cmd of the image" in made["stderr"]
    assert "--dir=/app: not a directory of the distribution" in made["stderr"]
    lines = run("docker", "run", "--rm", image).stdout.splitlines()
    assert {"file /app/secret: content of /app/secret", "file /data/public: content of /data/public"} <= set(lines)


def test_init_writes_a_file_that_converts(home: dict[str, str], probe: Native, tmp_path: Path) -> None:
    file, target = tmp_path / "sconify.yaml", f"oci:{tmp_path}/out:x"
    sconify = str(COMMANDS / "sconify")
    done = run(sconify, "init", probe.image, f"--to={target}", f"--output={file}", env=home)
    assert done.stdout == f"sconify_image --config={file}\n"
    again = run(sconify, "init", probe.image, f"--output={file}", env=home, check=False)
    assert "--overwrite" in again.stderr
    assert command(home, f"--config={file}").returncode == 0
    assert (tmp_path / "out/index.json").exists()
    explained = json.loads(command(home, f"--config={file}", "--explain", "--json", "--plain-file=/etc/motd").stdout)
    kinds = {region["prefix"]: region["protection"] for region in explained["regions"]}
    assert kinds["/app"] == "encrypted"


def test_an_image_is_inspected_and_compared_with_its_session(
    convert_probe: ConvertProbe, home: dict[str, str], tmp_path: Path
) -> None:
    made = convert_probe("--dir=/app", "--heap=64m")
    sconify = str(COMMANDS / "sconify")
    document = json.loads(run(sconify, "inspect", made.image, "--verify", env=home).stdout)
    assert document["measurement"] == made.document["measurement"]
    assert document["root_tag"] == made.session.services[0].fspf_tag
    assert document["config_id"] == made.document["config_id"]
    assert document["differences"] == []
    file = tmp_path / "other.yml"
    file.write_text(made.text.replace(document["measurement"], "ab" * 32).replace(document["root_tag"], "cd" * 16))
    unfit = run(sconify, "inspect", made.image, f"--session={file}", env=home, check=False)
    assert unfit.returncode == 3
    assert [one["field"] for one in json.loads(unfit.stdout)["differences"]] == ["measurement", "fspf_tag"]
    native = run(sconify, "inspect", "docker-daemon:sconify-test/flask:native", env=home, check=False)
    assert native.returncode == 2
