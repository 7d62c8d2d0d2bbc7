from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.program.command import parse_command, require_no_shell


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("python3 -B app.py", ["python3", "-B", "app.py"]),
        ("  a\t'b c'\n\"d 'e'\" ", ["a", "b c", "d 'e'"]),
        ("a --x='b c'\"d\"", ["a", "--x=b cd"]),
        ("a '' \"\"", ["a", "", ""]),
        ("a \\n $$SCONE::x$$ @@1 *", ["a", "\\n", "$$SCONE::x$$", "@@1", "*"]),
    ],
)
def test_command_is_split_as_the_session_language_does(text: str, argv: list[str]) -> None:
    assert list(parse_command(text)) == argv


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="'")), min_size=1, max_size=5))
def test_any_words_without_single_quotes_can_be_given(argv: list[str]) -> None:
    assert list(parse_command(" ".join(f"'{word}'" for word in argv))) == argv


@pytest.mark.parametrize(
    ("text", "rest"), [("a 'b", "'b"), ('a "b c', '"b c'), ("a b'c d", "'c d"), ("don't", "'t"), ("'a b' 'c", "'c")]
)
def test_a_quote_that_is_not_closed(text: str, rest: str) -> None:
    with pytest.raises(UserError) as error:
        parse_command(text)
    assert error.value.what == f"--command has a quote that is not closed: {rest}"
    assert error.value.remedy == "close it; a quote inside a word needs the other kind of quote around it"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_blank_command(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_command(text)
    assert error.value.what == "--command is empty, expected a program and its arguments"
    assert error.value.remedy == 'give --command="PROGRAM ARGUMENTS"'


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("a && b", "&&"),
        ("a || b", "||"),
        ("a | b", "|"),
        ("a ; b", ";"),
        ("a; b", "; after a"),
        ("a b&& ; c", ";"),
        ("a &", "&"),
        ("( a )", "("),
        ("a > out", ">"),
        ("a >out", ">out"),
        ("a >> /var/log/x", ">>"),
        ("a 2>&1", "2>&1"),
        ("a 2>/dev/null", "2>/dev/null"),
        ("a < in", "<"),
        ("a &>all", "&>all"),
        ("a $HOME", "the expansion in $HOME"),
        ("a x${HOME}y", "the expansion in x${HOME}y"),
        ('a "$HOME/x"', 'the expansion in "$HOME/x"'),
        ("a $(date)", "the expansion in $(date)"),
        ("a `date`", "the expansion in `date`"),
        ("a $@", "the expansion in $@"),
        ("PORT=1 a", "the assignment PORT=1"),
    ],
)
def test_what_a_shell_would_do_is_refused(text: str, construct: str) -> None:
    with pytest.raises(UserError) as error:
        require_no_shell(text)
    assert error.value.what == f"--command is run without a shell, which would be needed for {construct}"
    assert "/bin/sh -c" in (error.value.remedy or "")


@pytest.mark.parametrize(
    "text",
    [
        "a '&&' '|' '>' '$HOME' 'x;'",
        "nginx -g 'daemon off;'",
        "a $$SCONE::x$$ $$SCONE::y:hex$$z @@1 costs $$5 5$ a$",
        "curl http://host/?a=1&b=2 *.txt {} x>y --flag=a|b",
        "/bin/sh -c 'a && b > $HOME/x'",
        '/bin/sh -c "a && b > $HOME/x"',
        'bash -c "exec a $PORT"',
        "a --set=A=1 B=2",
    ],
)
def test_what_is_meant_as_it_is_passes(text: str) -> None:
    require_no_shell(text)
