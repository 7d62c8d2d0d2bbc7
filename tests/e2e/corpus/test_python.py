"""Python's own regression tests: what passes natively passes in the encrypted container too."""

from __future__ import annotations

import os
import re

import pytest

from tests.e2e.corpus.conftest import MakePair, Pair, run_to_end
from tests.e2e.corpus.native import PROGRAMS, debian
from tests.e2e.corpus.services import Recipe

pytestmark = [pytest.mark.docker, pytest.mark.corpus]

QUICK = (PROGRAMS / "python-tests.txt").read_text().split()
"""Tests of what a supervisor can break. ``CORPUS_PYTHON=all`` runs the whole suite."""

RUN = """
import subprocess, sys
done = subprocess.run([sys.executable, "-m", "test", "-w", "--timeout=120", "-j2", *sys.argv[1:]], stdout=2, stderr=2)
print("ended with", done.returncode)
"""

KNOWN_DIFFERENCES = frozenset(
    {"test_cleanup_with_symlink_modes (test.test_tempfile.TestTemporaryDirectory.test_cleanup_with_symlink_modes)"}
)
"""Tests that pass natively only; each with its reason in docs/limits.md."""


@pytest.fixture(scope="module")
def python(pair: MakePair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    script = tmp_path_factory.mktemp("python") / "run.py"
    script.write_text(RUN)
    tests = [] if os.environ.get("CORPUS_PYTHON") == "all" else QUICK
    command = str(["python3", "/app/run.py", *tests]).replace("'", '"')
    packages = ["libpython3.11-testsuite", "python3", "python3-venv"]
    dockerfile = f"FROM {debian(packages)}\nCOPY run.py /app/\nWORKDIR /tmp\nENV HOME=/tmp\nCMD {command}\n"
    trees = ("--dir=/app", "--dir=/usr/lib/python3.11", "--plain=/usr/share/python-wheels", "--plain=/etc",
             "--plain=/usr/bin", "--plain=/usr/sbin", "--plain=/usr/lib/x86_64-linux-gnu")  # fmt: skip
    return pair(
        Recipe(
            "python",
            dockerfile,
            (
                "--binary=python3",
                *trees,
            ),
            {"run.py": script},
        )
    )


def failed(log: str) -> set[str]:
    """The single tests that failed or broke, and the files that did not come to their ends."""
    single = re.findall(r"^(?:FAIL|ERROR): (\S+ \(\S+\)|\S+)", log, re.MULTILINE)
    files = re.findall(r"^(?:test )?(test_\S+) (?:crashed|timed out)", log, re.MULTILINE)
    return {*single, *files}


@pytest.mark.timeout(7200)
def test_the_same_tests_pass(python: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    logs = []
    for image in (python.native, python.encrypted):
        # The native one gets what the encrypted one has: only temporary directories can be written to.
        writable = ("--read-only", "--tmpfs=/tmp:exec,mode=1777", "--tmpfs=/var/tmp:mode=1777")
        options = writable if image == python.native else ()
        outcome = run_to_end(image, "--user=1000:1000", *options, timeout=3500)
        logs.append(capfd.readouterr().out)
        assert outcome.output.startswith("ended with"), logs[-1][-3000:]
    native, encrypted = map(failed, logs)
    assert "Total tests" in logs[0] or "tests OK" in logs[0]
    differences = encrypted - native - KNOWN_DIFFERENCES
    assert not differences, "\n".join([*sorted(differences), logs[1][-6000:]])
