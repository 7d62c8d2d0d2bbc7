from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.cas.session_text import with_predecessor
from sconify.errors import UserError
from sconify.policy.session import parse_session

HASH = "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        'name: a/b\nversion: "0.3"\n',
        "# ä comment €\nname: a/b   # kept\nversion: 0.3.10\n",
        "---\nname: a/b\nversion: 0.3\n",
        "  name: a/b\n  version: 0.3\n",
        '{"name": "a/b", "version": "0.3"}',
        "{name: a/b, predecessor: ~, version: '0.3'}",
        "name: a/b\npredecessor:\nversion: '0.3'\n",
        "name: a/b\nversion: '0.3'\npredecessor: ~ # none yet",
        "name: a/b\nversion: '0.3'\npredecessor:",
        f"name: a/b\nversion: '0.3'\npredecessor: {'cd' * 32}\nsecrets: []\n",
        "name: a/b\r\nversion: '0.3'\r\n",
    ],
)
def test_predecessor_is_set_and_the_rest_is_kept(text: str) -> None:
    result = with_predecessor(text, HASH)
    assert parse_session(result) == parse_session(text).model_copy(update={"predecessor": HASH})
    assert [line for line in text.splitlines() if line.lstrip().startswith("#")] == [
        line for line in result.splitlines() if line.lstrip().startswith("#")
    ]


@given(st.text(alphabet=st.sampled_from("abcé€𝄞# :'\""), max_size=40), st.booleans())
def test_any_comment_before_is_kept(comment: str, flow: bool) -> None:
    body = '{"name": "a", "version": "0.3"}' if flow else 'name: a\nversion: "0.3"\n'
    result = with_predecessor(f"# {comment}\n{body}", HASH)
    assert result.startswith(f"# {comment}\n")
    assert parse_session(result).predecessor == HASH


@pytest.mark.parametrize("text", ["", "[]", "a", "name: [", "name: a", "name: a\nversion: '0.3'\nname: b\n"])
def test_what_is_no_session_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        with_predecessor(text, HASH)
