"""From one registry to another without an engine: with credentials, without TLS, with a certificate of its own."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sconify.image.config import ImageConfig
from sconify.image.layer_writer import LayerWriter
from sconify.image.layout import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX
from sconify.image.reference import ImageReference
from sconify.image.sink import write_image
from tests.containers import COMMANDS, PROJECT, Canaries, Container, Convert, run
from tests.e2e.conftest import Native
from tests.registries import PASSWORD, USER, blobs, registry

pytestmark = pytest.mark.docker
NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, probe: Native) -> Iterator[tuple[str, Path]]:
    """A registry without TLS that has the native image."""
    directory = tmp_path_factory.mktemp("plain")
    with registry(directory) as address:
        run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", probe.image, f"docker://{address}/native")
        yield address, directory


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, probe: Native) -> Iterator[tuple[str, Path]]:
    """A registry with TLS, a certificate of its own and a password; it has the native image."""
    directory = tmp_path_factory.mktemp("private")
    with registry(directory, tls=True, login=True) as address:
        run(
            "skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}", probe.image,
            f"docker://{address}/native",
        )  # fmt: skip
        yield address, directory


def test_without_an_engine_and_the_engine_runs_it(convert: Convert, plain: tuple[str, Path]) -> None:
    address, _ = plain
    target = f"{address}/team/encrypted:v1"
    made = convert(
        f"--from=docker://{address}/native", f"--to=docker://{target}", "--binary=probe", "--dir=/app",
        f"--insecure-registry={address}", environment=NO_ENGINE,
    )  # fmt: skip
    assert made["image"] == f"docker://{target}"
    inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{target}").stdout)
    assert inspected["Digest"] == made["digest"]
    manifest = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{target}").stdout)
    assert {layer["mediaType"].partition("tar")[2] for layer in manifest["layers"]} == {"+gzip", ""}
    try:
        printed = run("docker", "run", "--rm", "--pull=always", target).stdout.splitlines()
    finally:
        run("docker", "rmi", "--force", target, check=False)
    assert "file /app/secret: content of /app/secret" in printed


def test_a_bare_name_is_pushed(convert: Convert, plain: tuple[str, Path]) -> None:
    address, _ = plain
    target = f"{address}/pushed:v1"
    options = (f"--from={address}/native", f"--to={target}", "--binary=probe", f"--insecure-registry={address}",
               "--push-image", "--compression=zstd")  # fmt: skip
    made = convert(*options, environment=NO_ENGINE)
    manifest = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{target}").stdout)
    assert {layer["mediaType"].partition("tar")[2] for layer in manifest["layers"]} == {"+zstd", ""}
    assert (
        made["digest"]
        == json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{target}").stdout)["Digest"]
    )
    try:
        made = convert(*options, "--overwrite")
        assert made["image"] == f"docker://{target}"
        assert run("docker", "inspect", "--format", "{{.Id}}", target).stdout.strip() == made["image_id"]
    finally:
        run("docker", "rmi", "--force", target, check=False)


def test_what_is_unchanged_is_not_pushed_again(convert: Convert, plain: tuple[str, Path], tmp_path: Path) -> None:
    address, directory = plain
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("ab" * 32)
    options = (
        f"--from=docker://{address}/native", f"--to=docker://{address}/again:v1", "--binary=probe", "--dir=/app",
        "--plain=/data", f"--insecure-registry={address}", "--overwrite", f"--key-file={key}", "--name=again",
        "--namespace=again", "--create-namespace",
    )  # fmt: skip
    convert(*options, environment=NO_ENGINE)
    before = blobs(directory)
    convert(*options, environment=NO_ENGINE)
    assert blobs(directory) == before
    convert(*options, "--host-path=/nothing", environment=NO_ENGINE)
    new = {digest: size for digest, size in blobs(directory).items() if digest not in before}
    # The index, the configuration and the manifest; neither the packs nor the plain files nor the binary.
    assert len(new) == 3
    assert sum(new.values()) < 20_000


def test_credentials_and_certificates(convert: Convert, home: dict[str, str], private: tuple[str, Path]) -> None:
    address, directory = private
    options = (f"--from=docker://{address}/native", f"--to=docker://{address}/out:v1", "--binary=probe")
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    authfile = directory / "auth.json"
    authfile.write_text(json.dumps({"auths": {address: {"auth": auth}}}))

    def refused(*more: str) -> str:
        done = run(str(COMMANDS / "sconify_image"), *options, *more, env={**home, **NO_ENGINE}, check=False)
        assert done.returncode == 4
        assert PASSWORD not in done.stderr
        return done.stderr.splitlines()[-1]

    assert "--registry-cert-dir=DIR" in refused()
    assert "--authfile=FILE" in refused(f"--registry-cert-dir={directory}/certs")
    made = convert(*options, f"--registry-cert-dir={directory}/certs", f"--authfile={authfile}", environment=NO_ENGINE)
    assert made["digest"].startswith("sha256:")
    # What docker login leaves behind is found too.
    (Path(home["HOME"]) / ".docker").mkdir()
    (Path(home["HOME"]) / ".docker/config.json").write_text(authfile.read_text())
    convert(*options, f"--insecure-registry={address}", "--overwrite", environment=NO_ENGINE)


HELPER = """#!/bin/sh
read -r server
echo "$1 $server" >> "{log}"
echo '{{"ServerURL": "'"$server"'", "Username": "{user}", "Secret": "{password}"}}'
"""


@pytest.mark.parametrize("form", ["credHelpers", "credsStore", "credsStore of --authfile"])
def test_credential_helpers(
    convert: Convert, home: dict[str, str], private: tuple[str, Path], tmp_path: Path, form: str
) -> None:
    """A helper on the PATH for one registry, and one for all; nothing of what it says gets into a log or a command."""
    address, _ = private
    log = tmp_path / "log"
    helper = tmp_path / "bin/docker-credential-fake"
    helper.parent.mkdir()
    helper.write_text(HELPER.format(log=log, user=USER, password=PASSWORD))
    helper.chmod(0o755)
    config = tmp_path / ".docker/config.json"
    config.parent.mkdir()
    document: dict[str, Any] = {"credHelpers": {address: "fake"}}
    if form != "credHelpers":
        document = {"credsStore": "fake", "auths": {address: {}}}
    config.write_text(json.dumps(document))
    options = [f"--authfile={config}"] if "authfile" in form else []
    environment = {
        **NO_ENGINE, "PATH": f"{helper.parent}:{home['PATH']}",
        "DOCKER_CONFIG": str(tmp_path / "none") if options else str(config.parent),
    }  # fmt: skip
    if form == "credHelpers":
        environment["REGISTRY_AUTH_FILE"] = str(config)
    made = convert(
        f"--from=docker://{address}/native", f"--to=docker://{address}/helped:v1", "--binary=probe",
        "--overwrite", "-x", f"--insecure-registry={address}", *options, environment=environment,
    )  # fmt: skip
    assert made["digest"].startswith("sha256:")
    assert f"get {address}" in log.read_text().splitlines()
    assert PASSWORD not in made["stderr"]


def test_a_registry_without_tls_is_named_in_the_message(home: dict[str, str], plain: tuple[str, Path]) -> None:
    command = (f"--from=docker://{plain[0]}/native", f"--to=docker://{plain[0]}/x", "--binary=probe")
    done = run(str(COMMANDS / "sconify_image"), *command, env=home, check=False)
    assert done.returncode == 4
    assert "--insecure-registry=" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("media_type", "layer_format"), [(OCI_INDEX, "oci"), (DOCKER_LIST, "v2s2")])
def test_an_index_of_several_platforms(
    convert: Convert, plain: tuple[str, Path], tmp_path: Path, media_type: str, layer_format: str
) -> None:
    """The image for linux/amd64 is taken; Docker's and OCI's forms."""
    address, _ = plain
    repository = f"multi-{layer_format}"
    options = ("--src-tls-verify=false", "--dest-tls-verify=false", f"--format={layer_format}")
    run("skopeo", "copy", "--quiet", *options, f"docker://{address}/native", f"docker://{address}/{repository}:one")
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{address}/{repository}:one").stdout
    answer = httpx.get(
        f"http://{address}/v2/{repository}/manifests/one",
        headers={"Accept": f"{DOCKER_MANIFEST}, {json.loads(raw).get('mediaType', '')}"},
    )
    kind = json.loads(raw).get("mediaType") or "application/vnd.oci.image.manifest.v1+json"
    entry = {"mediaType": kind, "digest": answer.headers["Docker-Content-Digest"], "size": len(answer.content)}
    index = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [{**entry, "platform": {"os": "linux", "architecture": name}} for name in ("arm64", "amd64")],
    }
    put = httpx.put(
        f"http://{address}/v2/{repository}/manifests/all",
        content=json.dumps(index),
        headers={"Content-Type": media_type},
    )
    assert put.status_code == 201, put.text
    made = convert(
        f"--from=docker://{address}/{repository}:all", f"--to=oci:{tmp_path}/out:x", "--binary=probe",
        f"--insecure-registry={address}", environment=NO_ENGINE,
    )  # fmt: skip
    assert made["digest"].startswith("sha256:")


@pytest.fixture
def bare_image(tmp_path: Path) -> Iterator[str]:
    """An image of nothing but links into /usr, which is mounted."""
    writer = LayerWriter(tmp_path / "bare.tar", epoch=0)
    for name in ("bin", "lib", "lib64", "sbin"):
        writer.add_symlink(f"/{name}", f"usr/{name}")
    writer.add_directory("/tmp", mode=0o1777)
    reference = ImageReference.parse("sconify-test/bare:latest")
    config = ImageConfig(cmd=("/bin/true",))
    write_image(reference, config=config, layers=[writer.finish()], workdir=tmp_path, overwrite=True).commit()
    yield str(reference)
    run("docker", "rmi", "--force", str(reference), check=False)


@pytest.fixture(scope="module")
def flask_in_registry(plain: tuple[str, Path], flask_native: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The native image of the tutorial, in the registry without TLS."""
    archive = tmp_path_factory.mktemp("flask") / "native.tar"
    run("docker", "save", f"--output={archive}", flask_native)
    name = f"docker://{plain[0]}/my-repo/my-native-flask"
    run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{archive}", name)
    archive.unlink()
    return name


FLASK_OPTIONS = ("--binary=/usr/bin/python3", "--dir=/app", "--dir=/tls")


def test_in_a_container_as_somebody_without_rights(
    plain: tuple[str, Path], flask_in_registry: str, bare_image: str, home: dict[str, str], canaries: Canaries,
    start: Callable[..., Container], tmp_path: Path,
) -> None:  # fmt: skip
    """The converter in a container with this machine's programs: no engine, no capability, not root."""
    address, _ = plain
    run(str(COMMANDS / "sconify"), "embedded", "start", env=home)
    state = Path(home["HOME"], ".local/share/sconify/embedded/services.json")
    ports = json.loads(state.read_text())["ports"]
    python = Path(sys.base_prefix).resolve()
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o777)
    mounts = {"/usr", "/etc/containers", "/etc/ssl", str(PROJECT), str(python), "/etc/alternatives"}
    target = f"{address}/rootless:v1"
    done = run(
        "docker", "run", "--rm", "--network=host", "--user=1234:1234", "--cap-drop=ALL", "--entrypoint=",
        "--env=HOME=/home/somebody", "--env=PYTHONDONTWRITEBYTECODE=1", f"--volume={tmp_path}/home:/home/somebody",
        *(f"--volume={path}:{path}:ro" for path in sorted(mounts) if Path(path).exists()), bare_image,
        str(PROJECT / ".venv/bin/python"), str(COMMANDS / "sconify_image"), f"--from={flask_in_registry}",
        f"--to=docker://{target}", f"--insecure-registry={address}", "--cas-debug",
        f"--cas=127.0.0.1:{ports['client']}", f"--cas-enclave=localhost:{ports['enclave']}",
        f"--las=localhost:{ports['las']}", *FLASK_OPTIONS,
    )  # fmt: skip
    assert done.stdout.startswith("sconify-")
    try:
        assert start(target, "--pull=always").answer()["greeting"] == canaries.environment
    finally:
        run("docker", "rmi", "--force", target, check=False)


def test_the_flask_tutorial_without_an_engine(
    convert: Convert, plain: tuple[str, Path], flask_in_registry: str, canaries: Canaries,
    start: Callable[..., Container],
) -> None:  # fmt: skip
    """From ``docker://`` to ``docker://``; an engine runs the result only."""
    address, _ = plain
    target = f"{address}/my-repo/my-encrypted-flask"
    made = convert(
        f"--from={flask_in_registry}", f"--to=docker://{target}", *FLASK_OPTIONS,
        "--service-name=my-flask-service", "--name=my-flask-session",
        "--namespace=my-workflow-namespace", "--create-namespace", "--heap=1G", "--stack=4M", "--dlopen=2",
        f"--insecure-registry={address}", environment=NO_ENGINE,
    )  # fmt: skip
    assert made["session"] == "my-workflow-namespace/my-flask-session"
    try:
        container = start(target, "--pull=always")
        assert container.answer()["greeting"] == canaries.environment
    finally:
        run("docker", "rmi", "--force", target, check=False)
