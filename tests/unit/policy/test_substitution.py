from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.policy.formats import SecretValue
from sconify.policy.substitution import check, escape, substitute

BINARY = bytes(range(256))
SECRETS = {
    "key": SecretValue(kind="binary", data=BINARY),
    "token": SecretValue(kind="ascii", data=b"$$SCONE::key$$"),
    "dollars": SecretValue(kind="ascii", data=b"$$"),
}
NASTY = st.lists(
    st.one_of(st.text(max_size=3), st.sampled_from(["$", "$$", "$$SCONE::", "SCONE::", "dollars", "$$$SCONE::a$$"])),
    max_size=8,
).map("".join).filter(lambda text: text.isprintable())  # fmt: skip


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", b""),
        ("a $$ b $SCONE::x", b"a $$ b $SCONE::x"),
        ("<$$SCONE::key:hex$$>", b"<" + BINARY.hex().encode() + b">"),
        ("$$SCONE::key.hex$$", BINARY.hex().encode()),
        ("$$SCONE::key$$", BINARY),
        ("$$SCONE::key:bin$$", BINARY),
        ("$$SCONE::key:base64$$", base64.b64encode(BINARY)),
        ("$$SCONE::key:base64url$$", base64.urlsafe_b64encode(BINARY)),
        ("$$SCONE::key:base32$$", base64.b32encode(BINARY)),
        ("$$SCONE::key:base32nopad$$", base64.b32encode(BINARY).rstrip(b"=")),
        ("$$SCONE::dollars$$$$SCONE::dollars$$", b"$$$$"),
        ("é$$SCONE::dollars$$é", "é$$é".encode()),
    ],
)
def test_values_go_where_their_placeholders_are(text: str, result: bytes) -> None:
    assert substitute(text, secrets=SECRETS) == result


def test_values_are_not_read_again() -> None:
    assert substitute("$$SCONE::token$$", secrets=SECRETS) == b"$$SCONE::key$$"
    assert substitute("$$SCONE::dollars$$SCONE::key$$", secrets=SECRETS) == b"$$SCONE::key$$"


@given(NASTY)
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    assert substitute(escape(text, dollars="dollars"), secrets=SECRETS).decode() == text


@pytest.mark.parametrize("text", ["$$SCONE::", "$$SCONE::key", "$$SCONE::$$", "$$SCONE::a b$$", "$$SCONE::key:$$"])
def test_malformed_placeholders_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="malformed"):
        substitute(text, secrets=SECRETS)


@pytest.mark.parametrize(
    ("text", "kinds", "raw", "why"),
    [
        ("$$SCONE::x$$", {}, True, "no such secret"),
        ("$$SCONE::x.hex$$", {}, True, "secret x.hex"),
        ("$$SCONE::x$$", {"x": "binary"}, False, "raw bytes"),
        ("$$SCONE::x:bin$$", {"x": "binary"}, False, "raw bytes"),
        ("$$SCONE::x:der$$", {"x": "binary"}, True, "got format der"),
        ("$$SCONE::x:hex$$", {"x": "ascii"}, True, "expected none"),
    ],
)
def test_formats_must_fit(text: str, kinds: Mapping[str, object], raw: bool, why: str) -> None:
    with pytest.raises(UserError, match=why):
        check(text, secrets=kinds, raw=raw)  # type: ignore[arg-type]


def test_a_name_with_a_dot_is_not_cut() -> None:
    check("$$SCONE::a.hex$$", secrets={"a.hex": "ascii"}, raw=False)


def test_values_are_not_shown() -> None:
    assert "abc" not in repr(SecretValue(kind="ascii", data=b"abc"))
