"""Native images of the corpus, made of Debian packages and of programs compiled here."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.containers import PROJECT, run

CACHE = Path(os.environ.get("SCONIFY_CACHE", "/var/cache/sconify"))
PROGRAMS = PROJECT / "tests/e2e/corpus/programs"
SUITE = "bookworm"
TOOLS = ("busybox-static", "git", "nginx-light", "perl", "redis-server", "redis-tools", "sqlite3")
"""The packages of the image that several programs are taken from."""


def debian(packages: Iterable[str]) -> str:
    """Return an image with these packages. Its root file system is made once and kept in ``SCONIFY_CACHE``."""
    names = sorted(packages)
    digest = hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]
    tag = f"sconify-corpus/debian:{digest}"
    if run("docker", "image", "inspect", tag, check=False).returncode == 0:
        return tag
    rootfs = CACHE / f"debian-{digest}.tar"
    if not rootfs.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = rootfs.with_suffix(f".{os.getpid()}")
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        options = ("--quiet", "--format=tar", "--variant=minbase", f"--include={','.join(names)}")
        run("mmdebstrap", *options, SUITE, str(part), env=environment, timeout=1200)
        part.rename(rootfs)
    run("docker", "import", str(rootfs), tag)
    return tag


def build(name: str, dockerfile: str, files: Mapping[str, Path], context: Path) -> str:
    """Build an image and return its name.

    Args:
        name: Its own name.
        dockerfile: The Dockerfile.
        files: What the Dockerfile may copy, by name.
        context: An empty directory.
    """
    for target, source in files.items():
        if source.is_dir():
            shutil.copytree(source, context / target, symlinks=True)
        else:
            shutil.copy(source, context / target)
    (context / "Dockerfile").write_text(dockerfile)
    tag = f"sconify-corpus/{name}:native"
    run("docker", "build", "--quiet", "--tag", tag, str(context), timeout=900)
    return tag
