from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify.program.shell import ShellNeededError, split_simple_command, split_words

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
safe = re.compile(r"[A-Za-z0-9_%+,./:@-]+")


@given(st.lists(words, max_size=6))
def test_quoted_arguments_come_back(arguments: list[str]) -> None:
    argv = ["/usr/bin/python3", *arguments]
    assert split_simple_command(shlex.join(argv)) == tuple(argv)
    assert split_simple_command("exec " + shlex.join(argv)) == tuple(argv)


PIECES = [
    "a",
    " ",
    "\t",
    "' '",
    '"b c"',
    "\\ ",
    "\\'",
    '\\"',
    "\\\n",
    "'\"'",
    '"\'"',
    "'$x'",
    "\\$",
    '"\\\\"',
    '"\\$"',
    "a#",
]
PIECES += [
    "=",
    '"\\a"',
    "''",
    '""',
    "'\n'",
    '"\n"',
    '"\\\n"',
    "\\\\",
    "-",
    "b=",
    "!",
    "%",
    "^",
    "\r",
    "é",
    "\\*",
    "'*'",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
@settings(max_examples=150, deadline=None)
def test_what_is_accepted_is_what_a_shell_would_run(pieces: list[str]) -> None:
    script = "printf '%s\\0' - " + "".join(pieces)
    argv = split_simple_command(script)
    for shell in ("sh", "bash"):
        result = subprocess.run([shell, "-c", script], capture_output=True, check=True)
        assert [part.decode() for part in result.stdout.split(b"\0")[:-1]] == list(argv[2:])


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("$", "an expansion ($)"),
        ("`", "a command substitution (`)"),
        ("|", "a pipe (|)"),
        ("&", "a background or conditional command (&)"),
        (";", "a second command (;)"),
        ("<", "a redirection (<)"),
        (">", "a redirection (>)"),
        ("(", "a subshell or function (()"),
        (")", "a subshell or function ())"),
        ("*", "a file name pattern (*)"),
        ("?", "a file name pattern (?)"),
        ("[", "a file name pattern ([)"),
        ("~", "a home directory (~)"),
        ("{", "a brace expansion or group ({)"),
        ("}", "a brace expansion or group (})"),
    ],
)
@given(before=st.from_regex(safe, fullmatch=True), after=st.from_regex(safe, fullmatch=True))
def test_every_unquoted_metacharacter_is_refused(text: str, construct: str, before: str, after: str) -> None:
    for script in (f"app {before}{text}{after}", f"app {text}{after}", f"app {before}{text}", f"app {before} {text}"):
        with pytest.raises(ShellNeededError) as error:
            split_simple_command(script)
        assert error.value.construct == construct
        assert error.value.what == f"a shell is needed for {construct}"
        assert error.value.remedy == 'give --command="PROGRAM ARGUMENTS"'
    quoted = f"app '{before}{text}{after}'"
    assert split_simple_command(quoted) == ("app", f"{before}{text}{after}")


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        ("python3 -B app.py", ["python3", "-B", "app.py"]),
        ("exec python3", ["python3"]),
        ("  python3\t-u   app.py \n", ["python3", "-u", "app.py"]),
        ("python3 \\\n  app.py", ["python3", "app.py"]),
        ("py\\\nthon3", ["python3"]),
        ("app a\\ b \\$HOME", ["app", "a b", "$HOME"]),
        ('app "a \\"b\\" \\$c \\\\ \\x"', ["app", 'a "b" $c \\ \\x']),
        ("app '' \"\"", ["app", "", ""]),
        ("app a'b'\"c\"d", ["app", "abcd"]),
        ("app --key=value a#b x=1", ["app", "--key=value", "a#b", "x=1"]),
        ("'a=b' c", ["a=b", "c"]),
        ("'if' x", ["if", "x"]),
        ('"i"f x', ["if", "x"]),
        ("/bin/echo if cd", ["/bin/echo", "if", "cd"]),
    ],
)
def test_literal_commands(script: str, argv: list[str]) -> None:
    assert list(split_simple_command(script)) == argv


@pytest.mark.parametrize(
    ("script", "construct"),
    [
        ("", "an empty command"),
        ("  \n", "an empty command"),
        ("exec", "an empty command"),
        ("'' a", "an empty command"),
        ("A=1 app", "a variable assignment (A=)"),
        ("A+=1 app", "a variable assignment (A+=)"),
        ("_x1='a b' app", "a variable assignment (_x1=)"),
        ("cd /app", "a command of the shell itself (cd)"),
        ("'cd' /app", "a command of the shell itself (cd)"),
        (". ./env", "a command of the shell itself (.)"),
        ("if true", "a compound command (if)"),
        ("! app", "a compound command (!)"),
        ("exec -a name app", "exec with an option (-a)"),
        ("app # comment", "a comment (#)"),
        ("app 'a", "a quote that is not closed (')"),
        ('app "a', 'a quote that is not closed (")'),
        ("app \\", "a backslash at the end"),
        ('app "$HOME"', "an expansion ($)"),
        ('app "`id`"', "a command substitution (`)"),
        ("a\nb", "a second command (new line)"),
        ("cd /app && python3 app.py", "a background or conditional command (&)"),
        ('exec "$@"', "an expansion ($)"),
    ],
)
def test_what_needs_a_shell_is_named(script: str, construct: str) -> None:
    with pytest.raises(ShellNeededError) as error:
        split_simple_command(script)
    assert error.value.construct == construct


def test_words_alone_know_no_commands() -> None:
    assert split_words("A=1 if cd") == ("A=1", "if", "cd")
    assert split_words("  ") == ()
