"""Python's own regression tests: what passes natively passes in the encrypted container too, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.containers import DOCKER
from tests.e2e.corpus.conftest import MakePair, Pair, run_to_end
from tests.e2e.corpus.engines import READ_ONLY, TEMPORARY
from tests.e2e.corpus.native import PROGRAMS, debian
from tests.e2e.corpus.services import Recipe

pytestmark = pytest.mark.docker

QUICK = ("test_fcntl", "test_fork1", "test_mmap", "test_os", "test_posix", "test_shutil", "test_tempfile")
"""Files with tests of what a supervisor can break."""

ATTEMPTS = 3
"""How often the files of tests that differ are run: some of Python's tests depend on how busy the machine is."""


@pytest.fixture(scope="module")
def python(pair: MakePair) -> Pair:
    """A user with a home, who may write to nothing else but temporary directories."""
    dockerfile = (
        f"FROM {debian(['libpython3.11-testsuite', 'python3', 'python3-venv'])}\n"
        "RUN useradd --create-home --uid 1000 tester\nCOPY regression.py /app/\n"
        "USER tester\nWORKDIR /home/tester\nVOLUME /home/tester\n"
        'CMD ["python3", "/app/regression.py"]\n'
    )
    options = ("--binary=python3", "--dir=/app", "--dir=/usr/lib/python3.11", "--plain=/usr", "--plain=/etc",
               "--plain=/bin", "--plain=/sbin", "--host-path=/chosen")  # fmt: skip
    return pair(Recipe("python", dockerfile, options, {"regression.py": PROGRAMS / "regression.py"}))


def run_tests(image: str, tests: Iterable[str], chosen: Path, *options: str) -> dict[str, str]:
    """Run files of tests, all of them when none is named, and return the outcome by single test."""
    chosen.mkdir(exist_ok=True)
    (chosen / "tests").write_text("\n".join(sorted(tests)))
    outcome = run_to_end(DOCKER, image, f"--volume={chosen}:/chosen:ro", *options, timeout=5000)
    assert outcome.code == 0
    outcomes: dict[str, str] = json.loads(outcome.output)
    return outcomes


def passed(outcomes: dict[str, str]) -> set[str]:
    return {name for name, what in outcomes.items() if what == "passed"}


def file_of(test: str) -> str:
    """Return the name by which a test's file is run: ``test_os`` for ``test.test_os.FileTests.test_read``."""
    match = re.search(r"\btest_\w+", test)
    assert match is not None, test
    return match[0]


def differences(python: Pair, tests: Iterable[str], chosen: Path) -> dict[str, str]:
    """Return how the tests came out natively and encrypted that passed in one of both only, whenever they were run.

    As for all programs, the native container's root is read-only where protected directories are.
    """
    options = () if python.mode.embeds else (READ_ONLY, *TEMPORARY)
    found: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        native = run_tests(python.native, tests, chosen, *options)
        encrypted = run_tests(python.encrypted, tests, chosen)
        assert len(passed(native)) > 100 or attempt
        differing = passed(native) ^ passed(encrypted)
        if attempt:
            differing &= set(found)
        found = {name: f"native {native.get(name)}, encrypted {encrypted.get(name)}" for name in sorted(differing)}
        tests = {file_of(name) for name in found}
        if not found:
            break
    return found


def test_the_same_tests_of_what_a_supervisor_can_break_pass(python: Pair, tmp_path: Path) -> None:
    assert differences(python, QUICK, tmp_path / "chosen") == {}


@pytest.mark.corpus
@pytest.mark.timeout(4 * 3600)
def test_the_same_tests_of_the_whole_suite_pass(python: Pair, tmp_path: Path) -> None:
    assert differences(python, (), tmp_path / "chosen") == {}
