"""The tutorial of the README, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.containers import PROJECT, run

pytestmark = pytest.mark.docker

MARK = "@@ block"


@pytest.fixture
def blocks() -> list[str]:
    """The shell blocks of the section, in order."""
    text = (PROJECT / "README.md").read_text()
    section = text.split("\n## Five minutes\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


def test_the_tutorial(blocks: list[str], home: dict[str, str], tmp_path: Path) -> None:
    script = ["set -euo pipefail", "trap 'docker rm --force my-flask >/dev/null 2>&1 || true' EXIT"]
    for number, block in enumerate(blocks):
        script += [f"echo '{MARK} {number}'", block]
    # A home of its own: the tutorial ends with stopping the embedded services.
    environment = {**home, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    (tmp_path / "home").mkdir()
    done = run("bash", "-c", "\n".join(script), env=environment, cwd=PROJECT, timeout=600)
    printed = re.split(rf"^{MARK} \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(printed) == len(blocks)
    _build, explain, convert, answer, look, tamper, read = printed
    assert "/app" in explain
    assert re.fullmatch(r"sconify-[0-9a-f]{12}/my-repomy-encrypted-flask\n", convert)
    assert '"service":"patients"' in answer
    assert "what stands there is the runtime, not Python" in look
    assert "app/\n" in look
    assert "rest_api.py" not in look
    assert "GREETING" not in look
    assert tamper.endswith("refused\n")
    assert "/.sconify/pack0" in done.stderr
    assert "fspf_key:" in read
    assert f'"{convert.strip()}"' in read
