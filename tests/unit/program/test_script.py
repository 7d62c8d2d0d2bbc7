from __future__ import annotations

import pytest

from sconify.errors import UserError
from sconify.program.script import SHEBANG_SIZE, parse_shebang


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("#!/usr/bin/python3", ["/usr/bin/python3"]),
        ("#! /usr/bin/python3 -B\n", ["/usr/bin/python3", "-B"]),
        ("#!/usr/bin/python3 -B  -u ", ["/usr/bin/python3", "-B  -u"]),
        ("#!/usr/bin/env python3", ["python3"]),
        ("#!/usr/bin/env -S python3 -B 'a b'", ["python3", "-B", "a b"]),
        ("#!/usr/bin/env --split-string=python3 -B", ["python3", "-B"]),
        ("#!/usr/bin/env python3 -B", ["python3 -B"]),
    ],
)
def test_interpreter_line_is_read_as_the_kernel_does(line: str, argv: list[str]) -> None:
    shebang = parse_shebang(line.encode() + b"\nimport os\n")
    assert shebang is not None
    assert list(shebang.argv) == argv


@pytest.mark.parametrize("head", [b"", b"\x7fELF", b"#", b"#!", b"#! \n", b"# !/bin/sh", b"#!\0/bin/sh"])
def test_no_interpreter_line(head: bytes) -> None:
    assert parse_shebang(head) is None


def test_a_long_line_is_cut_off_where_the_kernel_stops() -> None:
    shebang = parse_shebang(b"#!/bin/a " + b"x" * 1000)
    assert shebang is not None
    assert len("#!/bin/a ") + len(shebang.argv[1]) == SHEBANG_SIZE


@pytest.mark.parametrize(
    ("line", "shell"),
    [("#!/bin/sh -e", True), ("#!/usr/bin/env bash", True), ("#!/usr/bin/python3", False), ("#!/opt/fish", True)],
)
def test_shells_are_told_from_other_interpreters(line: str, shell: bool) -> None:
    shebang = parse_shebang(line.encode())
    assert shebang is not None
    assert shebang.is_shell is shell


@pytest.mark.parametrize("argument", ["", "-i python3", "-S -i python3", "A=1", "-S A=1 python3"])
def test_env_that_does_more_than_to_find_a_program_is_refused(argument: str) -> None:
    with pytest.raises(UserError) as error:
        parse_shebang(f"#!/usr/bin/env {argument}".encode())
    line = f"/usr/bin/env {argument}".strip()
    assert error.value.what == f"the interpreter line #!{line} asks env for more than to find a program"
    assert error.value.remedy == 'give --binary=PATH and --command="PROGRAM ARGUMENTS"'
