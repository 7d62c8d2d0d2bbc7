"""Every error of the converter that a user may see says what mends it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sconify
from tests.containers import PROJECT

SOURCE = Path(sconify.__file__).parent
MODULES = sorted(
    path
    for path in SOURCE.rglob("*.py")
    if path.parent == SOURCE or path.relative_to(SOURCE).parts[0] in ("image", "program", "shield")
    or path.relative_to(SOURCE).as_posix() in (
        "cas/authority.py", "cli/config_file.py", "cli/decrypt.py", "cli/image_options.py", "cli/image_session.py",
        "cli/init.py", "cli/sconify_image.py", "cli/trace.py", "policy/sections.py", "policy/template.py",
    )
)  # fmt: skip
MENDABLE = ("UserError", "ServiceError", "UnsconifiableError", "ImageNotFoundError", "BaseConflictError")


IMPERATIVES = frozenset(
    {
        "add", "begin", "build", "check", "chmod", "close", "convert", "correct", "decrypt", "docker", "embed", "free",
        "give", "install", "leave", "let", "log", "look", "mend", "name", "record", "remove", "run", "set", "skopeo",
        "start", "take", "unset", "use", "write",
    }
)  # fmt: skip
"""What a remedy begins with: an action, or the command that does it."""

WINDOW = 3
"""Words of a message that a test must have in a row to count as expecting it."""


def raised(module: Path) -> Iterator[ast.Call]:
    """Yield each error that is made in a module."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MENDABLE:
            yield node


def errors_without_remedy(module: Path) -> Iterator[str]:
    for node in raised(module):
        if not any(keyword.arg == "remedy" for keyword in node.keywords):
            yield f"{module.name}:{node.lineno}: {ast.unparse(node)}"


def texts(node: ast.expr) -> list[str]:
    """Return the literal parts of an expression that makes a text."""
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.fixture(scope="module")
def expected() -> str:
    """The words of all tests, in one line."""
    files = sorted((PROJECT / "tests").rglob("*.py"))
    return " ".join(words("\n".join(file.read_text() for file in files)))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_each_message_is_expected_by_a_test(module: Path, expected: str) -> None:
    """Of a message that has words of its own, some that follow each other stand in a test."""
    missing = []
    for node in raised(module):
        parts = [words(text) for text in texts(node.args[0])] if node.args else []
        windows = {
            " ".join(part[at : at + WINDOW])
            for part in parts
            for at in range(max(1, len(part) - WINDOW + 1))
            if len(part) >= WINDOW
        }
        if windows and not any(window in expected for window in windows):
            missing.append(f"{module.name}:{node.lineno}: {ast.unparse(node.args[0])}")
    assert missing == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_each_remedy_is_an_action(module: Path) -> None:
    remedies = [keyword.value for node in raised(module) for keyword in node.keywords if keyword.arg == "remedy"]
    # What is made elsewhere, from another error or in a variable, is looked at there.
    literal = [
        remedy for remedy in remedies
        if isinstance(remedy, ast.Constant)
        or (isinstance(remedy, ast.JoinedStr) and isinstance(remedy.values[0], ast.Constant))
    ]  # fmt: skip
    firsts = [words(texts(remedy)[0])[0] for remedy in literal]
    assert [first for first in firsts if first not in IMPERATIVES] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_each_error_has_a_remedy(module: Path) -> None:
    found = list(errors_without_remedy(module))
    if module.name in ("rootfs.py", "launch.py"):
        # Paths and digests that the program itself gives; its callers say what mends what users give.
        found = [text for text in found if "entry.path" not in text and "lower-case hex" not in text]
        found = [text for text in found if "the mode is" not in text and "normal form" not in text]
    assert found == []
