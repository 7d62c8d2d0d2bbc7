from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sconify.errors import UserError
from sconify.image.reference import ImageReference
from sconify.program.launch import normal_variable
from sconify.request import (
    MAX_POLICY_FILE,
    Request,
    check_name,
    parse_size,
    parse_variable,
    read_policy_file,
    start_up_variable,
)


@pytest.mark.parametrize(("text", "size"), [("1G", 1 << 30), ("64m", 64 << 20), ("4K", 4096), ("4096", 4096)])
def test_sizes(text: str, size: int) -> None:
    assert start_up_variable("SCONE_HEAP", text, flag="--heap") == str(size)


@pytest.mark.parametrize("text", ["", "0", "1T", "-1", "1.5G", "1GB", " 1G", "G"])
def test_what_is_no_size_is_refused_with_the_flag(text: str) -> None:
    with pytest.raises(UserError, match="--heap=") as caught:
        start_up_variable("SCONE_HEAP", text, flag="--heap")
    assert "--heap" in (caught.value.remedy or "")


def test_variables() -> None:
    assert parse_variable("A=b=c") == ("A", "b=c")
    assert parse_variable("A=") == ("A", "")
    for text in ("A", "=b", "", "A=\0"):
        with pytest.raises(UserError, match="is no KEY=VALUE"):
            parse_variable(text)


@pytest.mark.parametrize(
    ("options", "is_fresh"),
    [({}, True), ({"key_file": Path("key")}, False), ({"binary_fs": True, "binary_fs_plain": True}, False)],
)
def test_a_key_that_others_have_too_is_not_fresh(options: dict[str, Any], is_fresh: bool) -> None:
    """With such a key, nonces that repeat would give contents away."""
    image = ImageReference.parse("native")
    request = Request(native=image, target=image, binary="", **options)
    assert request.key_is_fresh is is_fresh


def test_names() -> None:
    assert check_name("a-b_c.1~", flag="--name", nested=False) == "a-b_c.1~"
    assert check_name("a/b", flag="--namespace", nested=True) == "a/b"
    for text in ("", "a/b", "a:b", "ä", "x" * 129):
        with pytest.raises(UserError, match="--name="):
            check_name(text, flag="--name", nested=False)
    for text in ("/a", "a/", "a//b"):
        with pytest.raises(UserError, match="--namespace="):
            check_name(text, flag="--namespace", nested=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--secrets={} can't be read: No such file or directory"),
        (bytes(MAX_POLICY_FILE + 1), "--secrets={} is larger than 1048576 bytes"),
        (b"\xff", "--secrets={} is no UTF-8 text"),
    ],
    ids=["missing", "large", "binary"],
)
def test_files_that_an_option_names(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_policy_file(file, flag="--secrets")
    assert caught.value.what == message.format(file)
    assert (caught.value.remedy or "").startswith("give --secrets a")


def test_sizes_of_images() -> None:
    assert parse_size("64g", flag="--max-image-size") == 64 << 30
    with pytest.raises(UserError) as caught:
        parse_size("0", flag="--max-image-size")
    assert caught.value.diagnostics() == (
        "--max-image-size=0: expected a number of bytes, or one with K, M or G behind it; "
        "give --max-image-size another value"
    )


@pytest.mark.parametrize(
    ("name", "text", "message", "remedy"),
    [
        (
            "SCONE_HEAP",
            "x",
            "SCONE_HEAP is a number of bytes, or one with K, M or G behind it, got 'x'",
            "another value",
        ),
        ("SCONE_FORK", "2", "SCONE_FORK is one of 0, 1, got '2'", "give one of them"),
        ("SCONE_OTHER", "1", "SCONE_OTHER is no measured start-up variable", "SCONE_HEAP"),
    ],
)
def test_start_up_variables_that_do_not_exist(name: str, text: str, message: str, remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        normal_variable(name, text)
    assert caught.value.what == message
    assert remedy in (caught.value.remedy or "")
