"""Every error of the converter that a user may see says what mends it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sconify

SOURCE = Path(sconify.__file__).parent
MODULES = sorted(
    path
    for path in SOURCE.rglob("*.py")
    if path.parent == SOURCE or path.relative_to(SOURCE).parts[0] in ("image", "program", "shield")
    or path.relative_to(SOURCE).as_posix() in (
        "cas/authority.py", "cli/config_file.py", "cli/image_options.py", "cli/init.py", "cli/sconify_image.py",
        "policy/sections.py", "policy/template.py",
    )
)  # fmt: skip
MENDABLE = ("UserError", "ServiceError", "UnsconifiableError", "ImageNotFoundError", "BaseConflictError")


def errors_without_remedy(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in MENDABLE:
            continue
        if not any(keyword.arg == "remedy" for keyword in node.keywords):
            yield f"{module.name}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_each_error_has_a_remedy(module: Path) -> None:
    found = list(errors_without_remedy(module))
    if module.name in ("rootfs.py", "launch.py"):
        # Paths and digests that the program itself gives; its callers say what mends what users give.
        found = [text for text in found if "entry.path" not in text and "lower-case hex" not in text]
        found = [text for text in found if "the mode is" not in text and "normal form" not in text]
    assert found == []
