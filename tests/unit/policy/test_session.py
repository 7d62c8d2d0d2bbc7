from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.policy.keyhash import key_hash
from sconify.policy.model import Session
from sconify.policy.session import parse_session, session_hash, with_creator

M = "ab" * 32
CREATOR = key_hash(b"a key")
SESSION = f"""
# A comment.
name: a/b
version: 0.3
services:
  - name: web
    command: program "an argument" '' x\\y
    environment: {{A: 1, B: 1.50}}
    mrenclaves: [{M.upper()}]
    fspf_path: /x
    fspf_key: {"1" * 64}
    fspf_tag: {"0" * 32}
secrets:
  - {{name: token, kind: ascii}}
  - {{name: key, kind: binary, size: 32}}
"""


def test_short_forms_are_normalised() -> None:
    service = parse_session(SESSION).services[0]
    assert service.command == ("program", "an argument", "", "x\\y")
    assert service.environment == {"A": "1", "B": "1.50"}
    assert [factor.mrenclave for factor in service.factors] == [(M,)]
    assert service.pwd == "/"
    assert service.fspf_key == "1" * 64


@pytest.mark.parametrize(
    "factors",
    [
        f"attestation: {{mrenclave: {M}}}",
        f"attestation: {{mrenclave: [{M}]}}",
        f"attestation: [{{mrenclave: {M}}}]",
        f"mrenclaves: [{M}]",
    ],
)
def test_all_forms_of_a_factor_accept_the_same(factors: str) -> None:
    session = parse_session(f'name: a\nversion: "0.3"\nservices: [{{name: s, command: p, {factors}}}]')
    assert [factor.mrenclave for factor in session.services[0].factors] == [(M,)]


def test_defaults_are_the_secure_ones() -> None:
    session = parse_session('name: a\nversion: "0.3.10"')
    assert session.access_policy.read == session.access_policy.update == ("CREATOR",)
    assert session.access_policy.create_sessions is None
    assert session.security.attestation.mode == "hardware"
    assert session.security.attestation.tolerate == ()


def test_each_change_changes_the_hash() -> None:
    texts = [
        SESSION,
        SESSION.replace("a/b", "a/c"),
        SESSION.replace("0.3", "0.3.1"),
        SESSION.replace("argument", "Argument"),
        SESSION.replace("1.50", "1.5"),
        SESSION.replace("AB", "AC", 1),
        SESSION.replace("size: 32", "size: 33"),
        SESSION.replace("name: token, kind: ascii", "name: token, kind: ascii, value: x"),
        SESSION + f"predecessor: '{M}'",
        SESSION + "salt: 000102030405060708090a0b0c0d0e0f",
        SESSION + f"creator: {CREATOR}",
        SESSION + "access_policy: {read: ANY}",
        SESSION + "security: {attestation: {tolerate: [debug-mode]}}",
    ]
    assert len({session_hash(parse_session(text)) for text in texts}) == len(texts)


def test_spelling_does_not_change_the_hash() -> None:
    reference = session_hash(parse_session(SESSION))
    for text in (
        SESSION.replace("# A comment.", ""),
        SESSION.replace("kind: ascii", "kind: ascii, size: 20"),
        SESSION + "predecessor: ~",
        SESSION + "access_policy: {read: [CREATOR], update: CREATOR}",
        SESSION.replace(M.upper(), M),
    ):
        assert session_hash(parse_session(text)) == reference


@pytest.mark.parametrize(
    "text",
    [
        SESSION,
        "---\n" + SESSION,
        "%YAML 1.2\n---\n" + SESSION + "\n...\n",
        "   name: a\n   version: '0.3'",
        "{name: a, version: '0.3'}",
        "# é\n{\n  name: a,\n  version: '0.3'}",
        "\ufeffname: a\nversion: '0.3'",
        "name: a\r\nversion: '0.3'\r\n",
        "? name\n: a\n? version\n: '0.3'\n",
    ],
)
def test_the_creator_is_written_into_the_text_and_the_rest_stays(text: str) -> None:
    written = with_creator(text, creator=CREATOR)
    session = parse_session(text).model_copy(update={"creator": CREATOR})
    assert parse_session(written) == session
    assert session_hash(parse_session(written)) == session_hash(session)
    assert ("# A comment." in written) == ("# A comment." in text)
    assert with_creator(written, creator=CREATOR) == written


def test_an_anchored_top_level_is_refused_with_a_remedy() -> None:
    with pytest.raises(UserError, match="creator can't be written"):
        with_creator("&top\nname: a\nversion: '0.3'", creator=CREATOR)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("name: a/b", "nmae: a/b", r'line 3, column 1: unknown key "nmae": did you mean "name"\?'),
        ("    command", "    zzz: 1\n    command",
         r'line 7, column 5: services\[0\]: unknown key "zzz": known are name'),
        ("name: a/b", "name: a//b", "line 3, column 7: name: got '', expected a name"),
        ("name: a/b", "name: a/..", "expected a name"),
        ("name: a/b\n", "", "name: this key is missing"),
        ("0.3", "0.2", "got version '0.2'"),
        ("0.3", "1", "got version '1'"),
        (M.upper(), "abc", r"line 9, column 18: services\[0\]\.mrenclaves\[0\]: .*expected 32 bytes: 64 hex digits"),
        ("A: 1", "A: true", "value of A: got a boolean, expected text; write it in quotes"),
        ("A: 1", "A: ~", "value of A: got nothing"),
        ("A: 1", "A: [x]", "value of A: got a list"),
        ("A: 1", '"A=B": 1', "without = and NUL"),
        ("A: 1", '"": 1', "without = and NUL"),
        ("A: 1", r'A: "\0"', "value of A: text holds a NUL"),
        ('program "an argument"', 'program "an', "quote that is not closed"),
        ("command: program \"an argument\" '' x\\y", "command: []", "got no argument"),
        ("command: program \"an argument\" '' x\\y", "command: ''", "got no argument"),
        ("fspf_path: /x", "fspf_path: x", "absolute path"),
        ("fspf_path: /x", "fspf_path: /x/../y", "absolute path"),
        ("    fspf_path: /x\n", "", "fspf_path missing: fspf_path, fspf_key and fspf_tag go together"),
        (f"    mrenclaves: [{M.upper()}]\n", "", r"line 6, column 5: services\[0\]: service web has no attestation"),
        (f"mrenclaves: [{M.upper()}]", "mrenclaves: []", "at least 1 item"),
        (f"mrenclaves: [{M.upper()}]", f"mrenclaves: [{M}]\n    attestation: {{mrenclave: {M}}}", "exclude each other"),
        ("kind: ascii", "kind: ascii, value: x, size: 1", "exclude each other"),
        ("kind: ascii", "kind: private-keys", r"line 14, column 5: secrets\[0\]: got kind 'private-keys', "),
        ("size: 32", "size: 0", "expected 1 to 4096"),
        ("size: 32", "size: 1.5", "expected a whole number"),
        ("size: 32", "value: 0g", "no hex digits"),
        ("size: 32", "value: '00 11'", "no hex digits"),
        ("name: key", "name: token", "name token is given twice"),
        ("name: web", "name: web\n    image_name: nothing", r"services\[0\]\.image_name: there is no image nothing"),
        ("an argument", "$$SCONE::nothing$$", "the session has no such secret"),
        ("an argument", "$$SCONE::key$$", "raw bytes can't stand in arguments"),
        ("an argument", "$$SCONE::key:pem$$", "got format pem"),
        ("an argument", "$$SCONE::token:hex$$", "got format hex, expected none"),
        ("an argument", "$$SCONE::", "malformed placeholder"),
        ("an argument", "$$SCONE::token", "malformed placeholder"),
        ("secrets:", "access_policy: {read: [ANY, CREATOR]}\nsecrets:", "ANY must be the only entry"),
        ("secrets:", "access_policy: {read: []}\nsecrets:", "at least 1 item"),
        ("secrets:", "access_policy: {read: somebody}\nsecrets:", "not a key hash"),
        ("secrets:", "access_policy: {list: ANY}\nsecrets:", 'unknown key "list"'),
        ("secrets:", "security: {attestation: {tolerate: [simulated]}}\nsecrets:", "simulated-platform"),
        ("secrets:", "security: {attestation: {mode: off}}\nsecrets:", "'hardware' or 'none'"),
        ("secrets:", "images: [{name: i, injection_files: [[/x]]}]\nsecrets:", "expected a mapping with the keys path"),
        ("secrets:", "images: [{name: i, injection_files: [{path: /x, content: '', permission: 0700}]}]\nsecrets:",
         "0o700"),
        ("secrets:",
         "images: [{name: i, injection_files: [{path: /x, content: ''}, {path: /x, content: ''}]}]\nsecrets:",
         r"images\[0\].*path /x is given twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(old: str, new: str, why: str) -> None:
    assert old in SESSION
    with pytest.raises(UserError, match=why) as caught:
        parse_session(SESSION.replace(old, new))
    assert "line " in caught.value.what


def test_no_secret_is_quoted_by_errors_or_shown_by_repr() -> None:
    canary = "canary5ecret"
    session = SESSION.replace("an argument", canary).replace("A: 1", f"A: {canary}")
    session = session.replace("name: token, kind: ascii", f"name: token, kind: ascii, value: {canary}")
    assert canary not in repr(parse_session(session))
    assert "1" * 64 not in repr(parse_session(session))
    for broken in (
        session.replace("kind: ascii", "kind: binary"),
        session.replace(f"A: {canary}", f"A: [{canary}]"),
        session.replace("1" * 64, canary * 5),
        session.replace("0" * 32, canary * 5),
        session + f": {canary} : :",
    ):
        with pytest.raises(UserError) as caught:
            parse_session(broken)
        assert canary not in caught.value.diagnostics()
        assert canary not in repr(caught.value)


@given(st.text(max_size=100))
def test_any_text_is_a_session_or_an_error_of_the_user(text: str) -> None:
    try:
        parse_session(text)
    except UserError:
        return


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)), lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(st.sampled_from([*Session.model_fields, "command", "kind", "attestation"]), inner, max_size=5),
), max_leaves=15))  # fmt: skip
def test_any_tree_is_a_session_or_an_error_of_the_user(tree: object) -> None:
    try:
        parse_session(json.dumps(tree))
    except UserError:
        return
