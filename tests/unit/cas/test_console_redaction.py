from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.cas.console.redaction import redacted
from sconify.errors import UserError


def fingerprint(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:8]


TEXT = """# A comment stays.
name: app
version: "0.3"
services:
  - name: web
    command: [serve, --quick]
    environment: {MODE: fast}
    mrenclaves: [MEASUREMENT]
    fspf_path: /index
    fspf_key: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    fspf_tag: "TAG"
    one_time_password_shared_secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
secrets:
  - {name: plain, kind: ascii, value: s3cret-one}
  - name: block
    kind: ascii
    value: |
      s3cret-two
      s3cret-three
    export: {session: other}
  - name: quoted
    kind: ascii
    value: 's3cret-four'
  - name: fragment
    kind: config-fragment
    value:
      user: s3cret-five
      more: [s3cret-six]
  - {name: made, kind: binary, size: 32}
security: {service_access_token: s3cret-seven-12345678901234567890}
""".replace("MEASUREMENT", "ab" * 32).replace("TAG", "cd" * 16)


def test_no_secret_is_left_and_all_else_is() -> None:
    text = redacted(TEXT, fingerprint=fingerprint)
    for secret in ("s3cret", "0123456789abcdef", "AAAAAAAA"):
        assert secret not in text
    for kept in ("# A comment stays.", "{MODE: fast}", "cd" * 16, "name: made", "export: {session: other}", "ab" * 32):
        assert kept in text
    assert text.count("(hidden: ") == 7


def test_a_change_of_a_secret_shows_and_nothing_else_does() -> None:
    before = redacted(TEXT, fingerprint=fingerprint).splitlines()
    after = redacted(TEXT.replace("s3cret-two", "s3cret-2"), fingerprint=fingerprint).splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1
    assert "hidden" in changed[0][0]


def test_variables_are_shown_for_they_are_no_secrets() -> None:
    text = TEXT.replace(f'"{"0123456789abcdef" * 4}"', "$$SCONE::made:hex$$")
    assert "fspf_key: $$SCONE::made:hex$$" in redacted(text, fingerprint=fingerprint)


def test_a_value_that_is_written_elsewhere_is_hidden_there() -> None:
    text = TEXT.replace("{MODE: fast}", "{MODE: &mode s3cret-anchor}").replace("value: s3cret-one", "value: *mode")
    assert "s3cret-anchor" not in redacted(text, fingerprint=fingerprint)


@given(
    st.text(
        alphabet=st.characters(
            codec="utf-8", exclude_characters="\0\x85\u2028\u2029", categories=["L", "N", "P", "S", "Zs"]
        ),
        min_size=8,
    )
)
def test_no_quoted_value_is_left(value: str) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    try:
        text = redacted(
            f"name: a\nversion: '0.3'\nsecrets:\n- {{name: s, kind: ascii, value: {quoted}}}\n",
            fingerprint=lambda _: "x",
        )
    except UserError:
        return
    assert text == "name: a\nversion: '0.3'\nsecrets:\n- {name: s, kind: ascii, value: (hidden: x)}\n"


def test_what_is_no_session_is_refused() -> None:
    with pytest.raises(UserError):
        redacted("a: &a [*a]", fingerprint=fingerprint)
