from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.cli.session_template import fill_in, parse_variables
from sconify.errors import UserError


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("name: $A", "name: 1"),
        ("name: ${A}b/$B-x", "name: 1b/2-x"),
        ("$$SCONE::A$$", "$$SCONE::A$$"),
        ("$$SCONE::x$$$A", "$$SCONE::x$$1"),
        ("$$A", "$$A"),
        ("a $ b $1 ${ } $-", "a $ b $1 ${ } $-"),
        ("$AB", None),
    ],
)
def test_variables_are_replaced_and_nothing_else(text: str, result: str | None) -> None:
    variables = {"A": "1", "B": "2"}
    if result is None:
        with pytest.raises(UserError):
            fill_in(text, variables)
    else:
        assert fill_in(text, variables) == result


def test_values_are_not_read_again() -> None:
    assert fill_in("$A", {"A": "$B $$ ${A} \\1"}) == "$B $$ ${A} \\1"


def test_missing_variable_is_named_with_its_place() -> None:
    with pytest.raises(UserError, match=r"^name: Value for variable \$SESSION is missing at line 3 column 7") as caught:
        fill_in("a: 1\nb: 2\nname: $SESSION", {})
    assert caught.value.remedy == "give -e SESSION=VALUE, or --use-env"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("services:\n  - name: a\n    command: [x, $A]", r"^services\[0\]\.command\[1\]: Value for variable \$A"),
        ("a: {b: '$A'}", r"^a\.b: Value"),
        ("a: [$A", r"^Value for variable \$A is missing at line 1 column 5"),
    ],
)
def test_missing_variables_are_found_where_they_stand(text: str, where: str) -> None:
    with pytest.raises(UserError, match=where):
        fill_in(text, {})


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_dollar_stays(text: str) -> None:
    assert fill_in(text, {}) == text


def test_options_are_parsed_and_the_last_one_wins() -> None:
    assert parse_variables(["A=1", "B=x=y", "A=", "C=a b"]) == {"A": "", "B": "x=y", "C": "a b"}


@pytest.mark.parametrize("text", ["A", "=x", "1A=secret", "A-B=secret", ""])
def test_wrong_options_are_refused_without_their_value(text: str) -> None:
    with pytest.raises(UserError, match="is no variable") as caught:
        parse_variables([text])
    assert "secret" not in caught.value.diagnostics()
