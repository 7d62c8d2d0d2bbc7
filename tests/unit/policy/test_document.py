from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.policy.document import MAX_BYTES, Number, parse_document

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=20,
)


@given(PLAIN)
def test_json_means_what_it_says(value: object) -> None:
    assert parse_document(json.dumps(value, ensure_ascii=False)).data == value


def spelled(data: object) -> object:
    """The data with numbers as they are spelled: writers of YAML 1.1 take some of them, such as 0E0, for text."""
    if isinstance(data, dict):
        return {key: spelled(value) for key, value in data.items()}
    if isinstance(data, list):
        return [spelled(value) for value in data]
    return data.source if isinstance(data, Number) else data


@given(PLAIN)
@example("0E0")
def test_what_a_yaml_writer_writes_is_read_back(value: object) -> None:
    assert spelled(parse_document(yaml.safe_dump(value, allow_unicode=True)).data) == value


@given(st.text(max_size=200))
def test_any_text_is_a_document_or_an_error_of_the_user(text: str) -> None:
    try:
        parse_document(text)
    except UserError:
        return


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2026-01-01", "2026-01-01"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("1.10", Number("1.10")),
        ("0o17", Number("0o17")),
        ("017", Number("017")),
        ("0xff", Number("0xff")),
        ("-1e3", Number("-1e3")),
        (".inf", Number(".inf")),
        ("'1'", "1"),
        ("0.3.10", "0.3.10"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert parse_document(text).data == value


def test_places_are_found_also_behind_aliases() -> None:
    document = parse_document("a: &x\n  b: [1,\n      two]\nc: *x\n")
    assert str(document.mark(("a", "b", 1))) == "line 3, column 7"
    assert str(document.key_mark(("a",), "b")) == "line 2, column 3"
    assert str(document.mark(("c",))) == "line 4, column 4"
    assert str(document.mark(("a", "nothing"))) == "line 1, column 4"


def test_aliases_share_and_expand() -> None:
    assert parse_document("a: &x {k: v}\nb: *x").data == {"a": {"k": "v"}, "b": {"k": "v"}}


def test_the_size_is_bounded() -> None:
    parse_document('"' + "x" * (MAX_BYTES - 2) + '"')
    with pytest.raises(UserError, match="larger than"):
        parse_document("é" * (MAX_BYTES // 2 + 1))


def test_an_alias_of_another_document_is_unknown() -> None:
    with pytest.raises(UserError, match="no finished anchor"):
        parse_document("*nothing")
