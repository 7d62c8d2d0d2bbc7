"""What is taken along for an interpreter is enough: each runs in a root file system of nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sconify.image.model import EntryType, Extent
from sconify.image.rootfs import RootFileSystem
from sconify.program.binary import detect_symlinks, load_program
from sconify.program.closure import shared_objects
from sconify.program.services import service_of
from sconify.program.system_files import system_files

PACKAGES = ("nodejs", "ruby", "perl", "php-cli", "nginx-light", "openjdk-17-jre-headless", "r-base-core",
            "ca-certificates", "tzdata")  # fmt: skip

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for mmdebstrap and chroot")


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> RootFileSystem:
    """A Debian root file system with all interpreters, made once and kept in ``$SCONIFY_CACHE``."""
    archive = Path(os.environ.get("SCONIFY_CACHE", "/var/cache/sconify"), "debian-services.tar")
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(".part")
        command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        subprocess.run([*command, "bookworm", str(part)], check=True)
        part.rename(archive)
    layer = Extent(archive, 0, archive.stat().st_size)
    return RootFileSystem.from_layers([("debian", layer)], workdir=tmp_path_factory.mktemp("work"))


def chosen(root: RootFileSystem, binary: str, environment: dict[str, str]) -> set[str]:
    program = load_program(root, binary, environment={}, working_dir="/")
    service = service_of(root, program)
    assert service is not None
    found = service.libraries(root, program, environment=environment)
    closure = shared_objects(root, program, environment=environment, working_dir="/", modules=found.modules)
    paths = {program.path, *(link.path for link in detect_symlinks(root, program, environment={}, working_dir="/"))}
    for dependency in closure.dependencies:
        paths.update(dependency.paths)
    system = system_files(root, libc=program.libc, environment=environment)
    for trail in (*(part.trail for part in found.inclusions), *(file.trail for file in system)):
        paths.update(link.path for link in trail.links)
        paths.update(entry.path for entry in root.walk(trail.entry.path))
    return paths


def write(root: RootFileSystem, paths: set[str], directory: Path) -> None:
    for path in sorted(paths):
        entry = root.lookup(path)
        assert entry is not None
        target = directory / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.type is EntryType.DIRECTORY:
            target.mkdir(exist_ok=True)
        elif entry.type is EntryType.SYMLINK:
            target.symlink_to(entry.target)
        else:
            with root.open(entry) as source:
                target.write_bytes(source.read())
            target.chmod(entry.mode)


CASES = {
    "node": (["-p", "require('crypto').createHash('sha256').update('').digest('hex').slice(0, 8)"], "e3b0c442"),
    "ruby": (["-ropenssl", "-rjson", "-ryaml", "-e", "puts OpenSSL::Digest::SHA256.hexdigest('')[0,8]"], "e3b0c442"),
    "perl": (["-MDigest::SHA=sha256_hex", "-MEncode", "-MPOSIX", "-e", "print sha256_hex('')"], "e3b0c442"),
    "php": (["-r", "echo hash('sha256', ''), json_encode([1]), extension_loaded('posix');"], "e3b0c442"),
    "java": (["-version"], "OpenJDK"),
    "/usr/lib/R/bin/exec/R": (["--no-echo", "--no-restore", "-e", "cat(mean(1:3), sd(1:3))"], "2 1"),
    "nginx": (["-v"], "nginx/"),
}
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin",
    "R_HOME": "/usr/lib/R",
    # Without /proc, loaders don't know where a program stands ($ORIGIN).
    "LD_LIBRARY_PATH": "/usr/lib/R/lib:/usr/lib/jvm/java-17-openjdk-amd64/lib",
}


@pytest.mark.parametrize("binary", CASES)
def test_it_runs_from_what_is_taken_along_alone(debian: RootFileSystem, tmp_path: Path, binary: str) -> None:
    arguments, expected = CASES[binary]
    root = tmp_path / "root"
    write(debian, chosen(debian, binary, ENVIRONMENT), root)
    for directory in ("dev", "proc", "tmp"):
        (root / directory).mkdir(exist_ok=True)
    (root / "dev/null").write_bytes(b"")
    subprocess.run(["mknod", "-m", "444", str(root / "dev/urandom"), "c", "1", "9"], check=True)

    def enter() -> None:
        os.chroot(root)
        os.chdir("/")

    outcome = subprocess.run(
        [load_program(debian, binary, environment={}, working_dir="/").path, *arguments],
        env=ENVIRONMENT,
        preexec_fn=enter,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert expected in outcome.stdout + outcome.stderr
