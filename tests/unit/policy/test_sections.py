from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.policy.sections import parse_section, section_yaml

INJECTED = """
     injection_files:
        - path: /etc/app.conf
          content: |
             key = $$SCONE::key$$
             # comment
          permission: 0o400
"""


def test_a_section_may_be_indented_and_comes_back_as_it_was() -> None:
    entries = parse_section(INJECTED, key="injection_files", source="f")
    again = parse_section(section_yaml(entries), key="injection_files", source="g")
    assert entries == again
    assert "permission: 0o400" in section_yaml(entries)


def test_a_list_alone_is_a_section() -> None:
    assert parse_section("- name: a\n", key="secrets", source="f") == [{"name": "a"}]
    assert parse_section("secrets:\n", key="secrets", source="f") == []


@pytest.mark.parametrize("text", ["services: []\n", "text", "secrets: {a: 1}\n", "secrets: []\nservices: []\n", "a: ["])
def test_what_is_no_section_is_refused_with_its_source(text: str) -> None:
    with pytest.raises(UserError, match="--secrets=f") as caught:
        parse_section(text, key="secrets", source="--secrets=f")
    assert caught.value.remedy


@given(
    st.lists(
        st.dictionaries(
            st.from_regex(r"[a-z]{1,8}", fullmatch=True),
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
            | st.sampled_from(["0o17", "yes", "1.0", "null", "", " a", "a\n b\n", "- x", "{}", "$$SCONE::x$$", "1e3"]),
            max_size=4,
        ),
        max_size=3,
    )
)
def test_text_stays_text(entries: list[dict[str, str]]) -> None:
    assert parse_section(section_yaml(entries) or "[]", key="secrets", source="f") == entries
