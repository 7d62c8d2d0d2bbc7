"""What is taken along is enough: this machine's Python runs in a root file system of nothing else."""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sconify.program.binary import detect_symlinks, load_program
from sconify.program.closure import shared_objects
from sconify.program.services import service_of

PYTHON = "/usr/bin/python3"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for chroot"),
    pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"{PYTHON} is not installed here"),
]


def chosen_paths(view: Any) -> set[str]:
    program = load_program(view, PYTHON, environment={}, working_dir="/")
    service = service_of(view, program)
    assert service is not None
    found = service.libraries(view, program, environment={})
    closure = shared_objects(view, program, environment={}, working_dir="/", modules=found.modules)
    paths = {program.path, *(link.path for link in detect_symlinks(view, program, environment={}, working_dir="/"))}
    for dependency in closure.dependencies:
        paths.update(dependency.paths)
    for inclusion in found.inclusions:
        paths.update(link.path for link in inclusion.trail.links)
        paths.update(entry.path for entry in view.walk(inclusion.trail.entry.path))
    return paths


def copy(paths: set[str], root: Path) -> None:
    for path in sorted(paths):
        source, target = Path(path), root / path.lstrip("/")
        (root / posixpath.dirname(path).lstrip("/")).mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copy2(source, target)


def test_python_runs_from_what_is_taken_along_alone(machine: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    copy(chosen_paths(machine), root)
    script = (
        "import bz2, ctypes, curses, hashlib, json, lzma, readline, socket, sqlite3, ssl, threading, uuid, zlib\n"
        "thread = threading.Thread(target=hashlib.sha256, args=(b'',)); thread.start(); thread.join()\n"
        "print(sqlite3.connect(':memory:').execute('select 6*7').fetchone()[0], ssl.OPENSSL_VERSION)"
    )
    outcome = subprocess.run(
        [PYTHON, "-B", "-c", script],
        env={},
        cwd="/",
        preexec_fn=lambda: os.chroot(root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("42 OpenSSL ")
    shutil.rmtree(root)
