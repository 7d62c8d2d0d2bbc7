from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sconify.program.binary import load_program
from sconify.program.services import SUPPORTED, service_of

MakeView = Callable[[Mapping[str, Any]], Any]


@pytest.fixture
def elf(make_elf: Callable[..., bytes]) -> bytes:
    return make_elf(static=True, elf_type=2)


def found(view: Any, binary: str, environment: Mapping[str, str] | None = None) -> tuple[str, list[str], list[str]]:
    program = load_program(view, binary, environment={}, working_dir="/")
    service = service_of(view, program)
    assert service is not None
    libraries = service.libraries(view, program, environment=environment or {})
    included = sorted(inclusion.trail.entry.path for inclusion in libraries.inclusions)
    return service.name, included, [link.path for link in libraries.links]


CASES: list[tuple[str, str, list[str], str, list[str], list[str]]] = [
    ("Node.js", "/usr/local/bin/node", ["/usr/local/lib/node_modules/npm/x.js"], "node",
     ["/usr/local/lib/node_modules"], []),
    ("Node.js", "/usr/bin/nodejs", ["/usr/share/nodejs/acorn/x.js"], "nodejs", ["/usr/share/nodejs"],
     ["/usr/bin/node"]),
    ("Java", "/usr/lib/jvm/java-17/bin/java", ["/usr/lib/jvm/java-17/lib/modules", "/usr/lib/jvm/java-17/src.zip"],
     "/usr/lib/jvm/java-17/bin/java", ["/usr/lib/jvm/java-17/lib"], []),
    ("Ruby", "/usr/bin/ruby3.1", ["/usr/lib/ruby/x.rb", "/bundle/gem.rb", "/usr/lib/python3/x.py"], "ruby3.1",
     ["/bundle", "/usr/lib/ruby"], ["/usr/bin/ruby"]),
    ("Perl", "/usr/bin/perl", ["/usr/share/perl5/X.pm", "/etc/perl/x", "/usr/share/doc/x"], "perl",
     ["/etc/perl", "/usr/share/perl5"], []),
    ("PHP", "/usr/sbin/php-fpm8.2", ["/usr/lib/php/20220829/x.so", "/etc/php/8.2/fpm/php.ini"],
     "/usr/sbin/php-fpm8.2", ["/etc/php", "/usr/lib/php"], ["/usr/sbin/php-fpm"]),
    ("R", "/usr/lib/R/bin/exec/R", ["/usr/lib/R/library/base/x", "/usr/share/R/x"], "/usr/lib/R/bin/exec/R",
     ["/usr/lib/R", "/usr/share/R"], []),
    ("nginx", "/usr/sbin/nginx", ["/usr/lib/nginx/modules/x.so", "/etc/nginx/nginx.conf"], "nginx",
     ["/usr/lib/nginx/modules"], []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "binary", "files", "called", "included", "links"), CASES, ids=[c[1] for c in CASES])
def test_what_is_taken_along(
    make_view: MakeView, elf: bytes, name: str, binary: str, files: list[str], called: str, included: list[str],
    links: list[str],
) -> None:  # fmt: skip
    view = make_view({binary: elf, **dict.fromkeys(files, (b"", 420))})
    service, paths, made = found(view, called, {"GEM_HOME": "/bundle"})
    assert (service, paths, made) == (name, included, links)


def test_a_program_that_only_has_the_name(make_view: MakeView, elf: bytes) -> None:
    view = make_view({"/opt/tool/bin/java": elf, "/usr/bin/R": elf, "/usr/bin/perlish": elf})
    for path in ("/opt/tool/bin/java", "/usr/bin/R", "/usr/bin/perlish"):
        assert service_of(view, load_program(view, path, environment={}, working_dir="/")) is None


def test_help_names_all() -> None:
    for name in ("Python", "Node.js", "Java", "Ruby", "Perl", "PHP", "R:", "nginx", "Go", "Rust"):
        assert name in SUPPORTED


SHIM = b"#!/usr/bin/env bash\nexec pyenv exec python\n"


@pytest.mark.parametrize("version", [b"3.11.4\n", None])
def test_what_a_version_manager_would_start(make_view: MakeView, elf: bytes, version: bytes | None) -> None:
    root = "/root/.pyenv"
    contents: dict[str, Any] = {
        f"{root}/shims/python": SHIM,
        f"{root}/versions/3.11.4/bin/python": "python3.11",
        f"{root}/versions/3.11.4/bin/python3.11": elf,
        f"{root}/versions/3.11.4/lib/python3.11/os.py": (b"", 0o644),
    }
    if version is not None:
        contents[f"{root}/version"] = (version, 0o644)
        contents[f"{root}/versions/3.9.0/bin/python"] = elf
    view = make_view(contents)
    program = load_program(view, "python", environment={"PATH": f"{root}/shims:/usr/bin"}, working_dir="/")
    assert program.path == f"{root}/versions/3.11.4/bin/python3.11"
    assert found(view, f"{root}/shims/python")[1] == [f"{root}/versions/3.11.4/lib/python3.11"]
