from __future__ import annotations

import pytest

from sconify.errors import UserError
from sconify.request import check_name, parse_variable, start_up_variable


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
        with pytest.raises(UserError, match="KEY=VALUE"):
            parse_variable(text)


def test_names() -> None:
    assert check_name("a-b_c.1~", flag="--name", nested=False) == "a-b_c.1~"
    assert check_name("a/b", flag="--namespace", nested=True) == "a/b"
    for text in ("", "a/b", "a:b", "ä", "x" * 129):
        with pytest.raises(UserError, match="--name="):
            check_name(text, flag="--name", nested=False)
    for text in ("/a", "a/", "a//b"):
        with pytest.raises(UserError, match="--namespace="):
            check_name(text, flag="--namespace", nested=True)
