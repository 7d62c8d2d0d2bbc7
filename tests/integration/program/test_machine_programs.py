"""Programs of this machine, compared with what ldd and the interpreters themselves say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sconify.image.model import Extent
from sconify.image.rootfs import RootFileSystem
from sconify.program.binary import Program, load_program
from sconify.program.closure import shared_objects
from sconify.program.elf import Libc, parse_elf
from sconify.program.search import GlibcRules
from sconify.program.services import service_of

LAZY = {name for name, _ in GlibcRules.run_time_objects}


def load(view: Any, name: str) -> Program:
    return load_program(view, name, environment={"PATH": os.environ["PATH"]}, working_dir="/")


def ldd(path: str) -> set[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}
    output = subprocess.run(["ldd", path], capture_output=True, text=True, check=True, env=environment).stdout
    return {os.path.realpath(found) for found in re.findall(r"(?:=> |^\s+)(/\S+) \(", output, re.MULTILINE)}


def real_files(dependencies: Any) -> set[str]:
    return {dependency.trail.entry.path for dependency in dependencies}


@pytest.mark.parametrize("name", ["ls", "tar", "perl", "curl", "git", "gcc", "ssh", "gpg", "/usr/bin/python3"])
def test_closure_is_that_of_ldd(machine: Any, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")
    program = load(machine, name)
    closure = shared_objects(machine, program, environment={}, working_dir="/")
    assert not closure.missing
    objects = real_files(closure.dependencies) - {"/etc/ld.so.cache"}
    expected = ldd(program.path)
    assert expected <= objects
    lazy = [dependency for dependency in closure.dependencies if dependency.name in LAZY]
    assert objects - expected <= real_files(lazy).union(*(ldd(path) for path in real_files(lazy)))


def test_every_path_of_a_dependency_exists_and_ends_at_its_file(machine: Any) -> None:
    closure = shared_objects(machine, load(machine, "ls"), environment={}, working_dir="/")
    for dependency in closure.dependencies:
        assert os.path.realpath(dependency.trail.path) == dependency.trail.entry.path == dependency.paths[-1]
        assert all(Path(path).is_symlink() for path in dependency.paths[:-1])


@pytest.mark.parametrize("interpreter", ["/usr/bin/python3", sys.executable])
def test_python_finds_all_its_modules_in_what_is_taken_along(machine: Any, interpreter: str) -> None:
    if not Path(interpreter).exists():
        pytest.skip(f"{interpreter} is not installed here")
    program = load(machine, interpreter)
    service = service_of(machine, program)
    assert service is not None
    found = service.libraries(machine, program, environment={})
    trees = [inclusion.trail.entry.path for inclusion in found.inclusions]
    closure = shared_objects(machine, program, environment={}, working_dir="/", modules=found.modules)
    objects = real_files(closure.dependencies)
    script = (
        "import sys, ssl, sqlite3, ctypes, lzma, decimal, json, site\n"
        "files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)]\n"
        "maps = [l.split()[5] for l in open('/proc/self/maps') if '.so' in l]\n"
        "paths = [p for p in sys.path if p.startswith((sys.prefix, sys.base_prefix)) and not p.endswith('.zip')]\n"
        "print('\\n'.join([*files, *maps, *paths]))"
    )
    used = subprocess.run([interpreter, "-c", script], capture_output=True, text=True, check=True, cwd="/").stdout
    for path in {os.path.realpath(line) for line in used.splitlines()}:
        assert path in objects or any(path == tree or path.startswith(f"{tree}/") for tree in trees), path
    for module in found.modules:
        if "lib-dynload" in module.path:
            assert ldd(module.path) <= objects | {module.path}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built")
    source = directory / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    kinds = {
        "pie": ["-pie", "-fPIE"],
        "no-pie": ["-no-pie"],
        "static": ["-static"],
        "static-pie": ["-static-pie"],
        "shared": ["-shared", "-fPIC", "-Wl,-soname,libmain.so"],
    }
    for kind, flags in kinds.items():
        subprocess.run(["gcc", "-o", directory / kind, source, *flags], check=True)
    subprocess.run(["strip", "-o", directory / "stripped", directory / "pie"], check=True)
    return directory


@pytest.mark.parametrize(
    ("kind", "executable", "static"),
    [
        ("pie", True, False),
        ("stripped", True, False),
        ("no-pie", True, False),
        ("static", True, True),
        ("static-pie", True, True),
    ],
)
def test_what_compilers_make(built: Path, kind: str, executable: bool, static: bool) -> None:
    with (built / kind).open("rb") as stream:
        elf = parse_elf(stream, name=kind)
    assert (elf.executable, elf.is_static) == (executable, static)
    assert elf.libc is (Libc.NONE if static else Libc.GLIBC)


def test_a_shared_object_is_no_executable(built: Path) -> None:
    with (built / "shared").open("rb") as stream:
        elf = parse_elf(stream, name="shared")
    assert (elf.executable, elf.soname) == (False, "libmain.so")


def test_an_image_and_a_directory_give_the_same_closure(
    built: Path, tmp_path: Path, make_view: Callable[[Path], Any]
) -> None:
    root = tmp_path / "root"
    for path in ("usr/bin", "usr/lib64", "usr/lib/x86_64-linux-gnu", "etc"):
        (root / path).mkdir(parents=True)
    shutil.copy(built / "pie", root / "usr/bin/app")
    shutil.copy("/lib64/ld-linux-x86-64.so.2", root / "usr/lib64")
    shutil.copy("/lib/x86_64-linux-gnu/libc.so.6", root / "usr/lib/x86_64-linux-gnu/libc-real.so")
    (root / "usr/lib/x86_64-linux-gnu/libc.so.6").symlink_to("libc-real.so")
    for name in ("lib", "lib64", "bin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n")
    archive = tmp_path / "layer.tar"
    with tarfile.open(archive, "w") as layer:
        layer.add(root, arcname=".")
    image = RootFileSystem.from_layers(
        [("layer", Extent(archive, 0, archive.stat().st_size))], workdir=tmp_path / "workdir"
    )
    answers = []
    for view in (image, make_view(root)):
        program = load_program(view, "app", environment={}, working_dir="/")
        closure = shared_objects(view, program, environment={}, working_dir="/")
        answers.append([(dependency.name, dependency.paths) for dependency in closure.dependencies])
        assert not closure.missing
    assert answers[0] == answers[1]
    assert answers[0] == [
        ("/lib64/ld-linux-x86-64.so.2", ("/lib64", "/usr/lib64/ld-linux-x86-64.so.2")),
        (
            "libc.so.6",
            ("/lib", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libc-real.so"),
        ),
    ]
