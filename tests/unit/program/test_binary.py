from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from sconify.errors import UserError
from sconify.program.binary import DEFAULT_PATH, Program, detect_symlinks, load_program, same_file
from sconify.program.elf import Libc
from sconify.program.view import RootView

MakeView = Callable[..., RootView]
MakeElf = Callable[..., bytes]
LOADER = "/lib64/ld-linux-x86-64.so.2"


def load(view: RootView, name: str, environment: Mapping[str, str] | None = None, working_dir: str = "/") -> Program:
    return load_program(view, name, environment=environment or {}, working_dir=working_dir)


@pytest.fixture
def elf(make_elf: MakeElf) -> bytes:
    return make_elf(interpreter=LOADER, needed=("libc.so.6",))


@pytest.fixture
def view(make_view: MakeView, elf: bytes) -> RootView:
    return make_view(
        {
            "/usr/bin/python3.11": elf,
            "/usr/bin/python3": "python3.11",
            "/bin": "usr/bin",
            "/etc/alternatives/python": "/usr/bin/python3",
            "/usr/local/bin/python": "/etc/alternatives/python",
            "/usr/local/bin/other": "/usr/bin/ls",
            "/usr/bin/ls": elf,
            "/app/tool": elf,
            "/app/data": (b"text", 0o644),
        }
    )


@pytest.mark.parametrize(
    ("name", "path", "links"),
    [
        ("/usr/bin/python3.11", "/usr/bin/python3.11", []),
        ("/bin/python3", "/usr/bin/python3.11", ["/bin", "/usr/bin/python3"]),
        ("python3", "/usr/bin/python3.11", ["/usr/bin/python3"]),
        (
            "python",
            "/usr/bin/python3.11",
            ["/usr/local/bin/python", "/etc/alternatives/python", "/usr/bin/python3"],
        ),
        ("./tool", "/app/tool", []),
        ("../app/tool", "/app/tool", []),
    ],
)
def test_program_is_located(view: RootView, name: str, path: str, links: list[str]) -> None:
    program = load(view, name, working_dir="/app")
    assert program.path == path
    assert [link.path for link in program.trail.links] == links
    assert program.libc is Libc.GLIBC


def test_path_of_the_image_decides_on_bare_names(view: RootView) -> None:
    assert load(view, "tool", {"PATH": "/bin:/app"}).path == "/app/tool"
    assert load(view, "tool", {"PATH": ":./app"}).path == "/app/tool"


def refusal(view: RootView, name: str, environment: Mapping[str, str] | None = None) -> tuple[str, str | None]:
    with pytest.raises(UserError) as error:
        load(view, name, environment)
    return error.value.what, error.value.remedy


def test_messages_when_there_is_no_such_program(view: RootView) -> None:
    program = "give --binary=PATH with the path of a program"
    assert refusal(view, "") == ("an empty program name", "give --binary=PATH")
    assert refusal(view, "/nope") == ("/nope is not in the image", f"{program} in the image")
    assert refusal(view, "/app") == ("/app is a directory, expected a program", program)
    assert refusal(view, "/app/data") == ("/app/data is not executable (mode 0644)", program)
    assert refusal(view, "data", {"PATH": "/app"}) == ("/app/data is not executable (mode 0644)", program)
    assert refusal(view, "nope") == (
        f"nope is in no directory of the image's PATH ({DEFAULT_PATH})",
        "give --binary=PATH",
    )


def test_messages_when_the_file_is_no_program_for_us(make_view: MakeView, make_elf: MakeElf, elf: bytes) -> None:
    def problem(content: bytes) -> tuple[str, str | None]:
        return refusal(make_view({"/app": content}), "/app")

    other_build = (
        "give --binary=PATH with a 64-bit build of the program, or convert the image's linux/amd64 variant, "
        "or give a --replacement-image that has it"
    )
    program = "give --binary=PATH with the path of a program"
    assert problem(b"#!/usr/bin/python3 -B\n") == (
        "/app is a script: interpreter /usr/bin/python3",
        "give --binary=/usr/bin/python3",
    )
    assert problem(b"#!/usr/bin/env python3\n") == ("/app is a script: interpreter python3", "give --binary=python3")
    assert problem(b"#!/bin/sh -e\n") == (
        "/app is a script: interpreter /bin/sh",
        "give --binary=PATH with the program that the script starts",
    )
    assert problem(b"PK\x03\x04") == (
        "/app is neither an ELF file nor a script with an interpreter line (#!)",
        program,
    )
    assert problem(b"\x7fELF\x01\x01" + elf[6:18] + b"\x03\0") == (
        "/app is for 32-bit i386, expected 64-bit x86_64",
        other_build,
    )
    assert problem(b"\x7fELF\x01" + elf[5:]) == ("/app is for 32-bit x86_64, expected 64-bit x86_64", other_build)
    assert problem(make_elf(machine=183)) == (
        "/app is for aarch64, expected 64-bit x86_64",
        "convert the image's linux/amd64 variant, or give a --replacement-image that has it",
    )
    assert problem(make_elf(soname="libx.so", needed=("libc.so.6",))) == (
        "/app is an ELF file of type shared, expected an executable",
        program,
    )
    assert problem(make_elf(elf_type=1, static=True)) == (
        "/app is an ELF file of type relocatable, expected an executable",
        program,
    )
    assert problem(make_elf(interpreter="/lib/ld-uClibc.so.1")) == (
        "/app is started by /lib/ld-uClibc.so.1, expected the loader of glibc (ld-linux) or of musl (ld-musl)",
        "give --binary=PATH with a program for glibc or musl, or a static one, or a --replacement-image",
    )


def test_links_that_lead_to_the_program_are_found(view: RootView) -> None:
    program = load(view, "/usr/bin/python3.11")
    links = detect_symlinks(view, program, environment={}, working_dir="/")
    assert [link.path for link in links] == [
        "/bin",
        "/etc/alternatives/python",
        "/usr/bin/python3",
        "/usr/local/bin/python",
    ]


def test_links_outside_the_search_path_are_not_looked_for(make_view: MakeView, elf: bytes) -> None:
    view = make_view({"/opt/bin/app": elf, "/opt/bin/link": "app", "/data/app": "/opt/bin/app", "/srv/app": "x"})
    program = load(view, "/opt/bin/app")
    links = detect_symlinks(view, program, environment={"PATH": "/srv"}, working_dir="/")
    assert [link.path for link in links] == ["/opt/bin/link"]
    called = load(view, "/data/app")
    links = detect_symlinks(view, called, environment={"PATH": "/srv"}, working_dir="/")
    assert [link.path for link in links] == ["/data/app", "/opt/bin/link"]


def test_links_of_directories_count(make_view: MakeView, elf: bytes) -> None:
    view = make_view({"/bin": "usr/bin", "/sbin": "usr/sbin", "/usr/sbin/tool": "/opt/tool", "/opt/tool": elf})
    links = detect_symlinks(view, load(view, "/opt/tool"), environment={}, working_dir="/")
    assert [link.path for link in links] == ["/sbin", "/usr/sbin/tool"]
    view = make_view({"/bin": "usr/bin", "/sbin": "usr/sbin", "/usr/sbin": None, "/usr/bin/tool": elf})
    links = detect_symlinks(view, load(view, "/usr/bin/tool"), environment={}, working_dir="/")
    assert [link.path for link in links] == ["/bin"]


def test_hard_links_are_one_file(view: RootView) -> None:
    one, other = (load(view, name).trail.entry for name in ("/usr/bin/python3.11", "/app/tool"))
    assert not same_file(one, other)
    assert same_file(one, one)
    assert same_file(replace(one, link_group=7), replace(other, link_group=7))
    assert not same_file(replace(one, link_group=7), replace(other, link_group=8))
