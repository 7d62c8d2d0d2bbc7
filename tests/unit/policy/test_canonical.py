from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import BugError
from sconify.policy.canonical import canonical_json

VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.text(st.characters(exclude_categories=["Cs"]))),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)),
    max_leaves=20,
)


def test_a_known_value() -> None:
    assert canonical_json({"b": [1, True], "a": 'é"\n', "\u00e9": {}}) == '{"a":"é\\"\\n","b":[1,true],"é":{}}'.encode()


@given(VALUES)
def test_it_is_json_and_does_not_depend_on_order(value: object) -> None:
    encoded = canonical_json(value)
    again = json.loads(encoded)
    assert canonical_json(again) == encoded
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == encoded


@pytest.mark.parametrize("value", [None, 1.5, {"a": None}, [float("nan")], {1: "a"}, b"x", {"a"}])
def test_what_has_no_single_spelling_is_refused(value: object) -> None:
    with pytest.raises(BugError):
        canonical_json(value)
