"""The configured user: its home and its numbers."""

from __future__ import annotations

import pytest

from sconify.errors import UserError
from sconify.program.users import home_directory, numbered_user
from tests.unit.program.conftest import DictView

IMAGE = DictView({
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\npostgres:x:105:109::/var/lib/postgresql:/bin/sh\nbad:line\n",
    "/etc/group": b"root:x:0:\nssl-cert:x:108:other,postgres\npostgres:x:109:postgres\nstaff:x:50:\n",
})  # fmt: skip
EMPTY = DictView({})


@pytest.mark.parametrize(
    ("user", "expected", "further"),
    [
        ("", "", ()),
        ("root", "0:0", ()),
        ("postgres", "105:109", ("ssl-cert",)),
        ("105", "105:109", ("ssl-cert",)),
        ("postgres:staff", "105:50", ()),
        ("postgres:77", "105:77", ()),
        (":staff", "0:50", ()),
        ("1000", "1000:0", ()),
        ("1000:3000", "1000:3000", ()),
    ],
)
def test_names_become_numbers_as_an_engine_would_have_it(user: str, expected: str, further: tuple[str, ...]) -> None:
    found = numbered_user(IMAGE, user)
    assert (found.text, found.further_groups) == (expected, further)


@pytest.mark.parametrize("user", ["nobody", "nobody:staff", "postgres:nobody"])
def test_a_name_that_the_image_does_not_have_is_refused(user: str) -> None:
    with pytest.raises(UserError, match=f"USER {user}: the native image has no (user|group) nobody"):
        numbered_user(IMAGE, user)


def test_numbers_need_no_files() -> None:
    assert numbered_user(EMPTY, "7:8").text == "7:8"
    assert home_directory(EMPTY, "7:8") == "/"


@pytest.mark.parametrize(
    ("user", "home"),
    [("", "/root"), ("postgres:staff", "/var/lib/postgresql"), ("105", "/var/lib/postgresql"), ("9", "/")],
)
def test_the_home_is_that_of_the_user(user: str, home: str) -> None:
    assert home_directory(IMAGE, user) == home
