"""The search rules against the loaders themselves: random layouts, listed by ld-linux and by ld-musl in a chroot."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.program.binary import load_program
from sconify.program.closure import shared_objects

GLIBC = Path("/lib64/ld-linux-x86-64.so.2")
MUSL = Path("/lib/ld-musl-x86_64.so.1")
LIBRARIES = ("liba.so", "libb.so", "libc0.so")
DIRECTORIES = ("/one", "/two", "/usr/lib", "/lib", "/conf")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for chroot")


@dataclass(frozen=True)
class Object:
    """What one file asks for."""

    needed: tuple[str, ...]
    tag: str | None
    path: tuple[str, ...]


objects = st.builds(
    Object,
    needed=st.lists(st.sampled_from(LIBRARIES), max_size=3, unique=True).map(tuple),
    tag=st.sampled_from([None, "rpath", "runpath"]),
    path=st.lists(st.sampled_from(["/one", "/two", "$ORIGIN", "${ORIGIN}/../two"]), min_size=1, max_size=2).map(tuple),
)
layouts = st.dictionaries(st.tuples(st.sampled_from(DIRECTORIES), st.sampled_from(LIBRARIES)), objects, max_size=7)


class Workshop:
    """Links real objects, each kind once, and lays them out as a root file system."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self._stubs = directory / "stubs"
        self._built = directory / "built"
        self._stubs.mkdir()
        self._built.mkdir()
        self._empty = directory / "empty.o"
        subprocess.run(["as", "-o", self._empty, "/dev/null"], check=True)
        for name in LIBRARIES:
            subprocess.run(["ld", "-shared", "-o", self._stubs / name, self._empty], check=True)

    def link(self, wanted: Object, interpreter: Path | None) -> Path:
        flags = [f"-L{self._stubs}", "--no-as-needed", *(f"-l:{name}" for name in wanted.needed)]
        if wanted.tag is not None:
            dtags = "--disable-new-dtags" if wanted.tag == "rpath" else "--enable-new-dtags"
            flags += [dtags, f"-rpath={':'.join(wanted.path)}"]
        flags += ["-shared"] if interpreter is None else ["-pie", "-e", "0", f"--dynamic-linker={interpreter}"]
        flags += ["--allow-shlib-undefined", "--unresolved-symbols=ignore-all"]
        out = self._built / re.sub(r"[^a-z0-9]+", "_", " ".join(flags[1:]))
        if not out.exists():
            subprocess.run(["ld", "-o", out, self._empty, *flags], check=True)
        return out

    def lay_out(self, app: Object, layout: dict[tuple[str, str], Object], loader: Path) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self._install(self.link(app, loader), "/bin/app")
        self._install(loader.resolve(), str(loader))
        for directory in DIRECTORIES:
            (self.root / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for (directory, name), wanted in layout.items():
            self._install(self.link(wanted, None), f"{directory}/{name}")
        (self.root / "etc").mkdir()

    def _install(self, source: Path, path: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        target.chmod(0o755)

    def run(self, *argv: str, environment: dict[str, str]) -> str:
        return subprocess.run(
            argv,
            env=environment,
            preexec_fn=lambda: os.chroot(self.root),
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=20,
            check=False,
        ).stdout


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def answer(
    make_view: Callable[[Path], Any], workshop: Workshop, environment: dict[str, str], loader: Path
) -> tuple[set[str], set[str]]:
    view = make_view(workshop.root)
    program = load_program(view, "/bin/app", environment=environment, working_dir="/")
    closure = shared_objects(view, program, environment=environment, working_dir="/")
    ours = {dependency.trail.path for dependency in closure.dependencies if dependency.name in LIBRARIES}
    return ours, {missing.name for missing in closure.missing}


slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@slow
@given(app=objects, layout=layouts, environment=st.sampled_from(["", "/two", "/conf:/one"]))
def test_glibc(
    make_view: Callable[[Path], Any],
    workshop: Workshop,
    app: Object,
    layout: dict[tuple[str, str], Object],
    environment: str,
) -> None:
    workshop.lay_out(app, layout, GLIBC)
    (workshop.root / "etc/ld.so.conf").write_text("/conf\n")
    subprocess.run(["ldconfig", "-r", workshop.root], check=True, capture_output=True)
    variables = {"LD_LIBRARY_PATH": environment}
    output = workshop.run(str(GLIBC), "/bin/app", environment={**variables, "LD_TRACE_LOADED_OBJECTS": "1"})
    theirs = {posixpath.normpath(path) for path in re.findall(r"=> (/\S+) \(", output)}
    ours, missing = answer(make_view, workshop, variables, GLIBC)
    assert {posixpath.normpath(path) for path in ours} == theirs, output
    assert missing == set(re.findall(r"(\S+) => not found", output)), output


@pytest.mark.skipif(not MUSL.exists(), reason="needs musl (Debian package musl)")
@slow
@given(
    app=objects,
    layout=layouts,
    environment=st.sampled_from(["", "/two", "/conf:/one"]),
    path_file=st.sampled_from([None, "", "/conf\n/lib\n", "/usr/lib:/two"]),
)
def test_musl(
    make_view: Callable[[Path], Any],
    workshop: Workshop,
    app: Object,
    layout: dict[tuple[str, str], Object],
    environment: str,
    path_file: str | None,
) -> None:
    workshop.lay_out(app, layout, MUSL)
    if path_file is not None:
        (workshop.root / "etc/ld-musl-x86_64.path").write_text(path_file)
    variables = {"LD_LIBRARY_PATH": environment}
    output = workshop.run(str(MUSL), "--list", "/bin/app", environment=variables)
    theirs = {posixpath.normpath(path) for path in re.findall(r"=> (/\S+) \(", output)} - {str(MUSL)}
    ours, missing = answer(make_view, workshop, variables, MUSL)
    assert {posixpath.normpath(path) for path in ours} == theirs, output
    assert missing == set(re.findall(r"loading shared library (\S+):", output)), output
