"""Files that are brought to the disk while they are made."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sconify.image.storage import written_back


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each file that was synced, when it was."""
    sizes: list[int] = []
    sync = os.fdatasync

    def recorded(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", recorded)
    return sizes


def wait_for(sizes: list[int], size: int) -> None:
    ended = threading.Event()
    for _ in range(600):
        if size in sizes:
            return
        ended.wait(0.05)
    pytest.fail(f"no file of {size} bytes was synced: {sizes}")


def test_a_file_is_synced_as_it_grows(tmp_path: Path, synced: list[int]) -> None:
    file = tmp_path / "file"
    with written_back(tmp_path, "file"):
        for size in (10, 20):
            with file.open("ab") as output:
                output.write(bytes(10))
            wait_for(synced, size)
    count = len(synced)
    file.write_bytes(bytes(30))
    threading.Event().wait(0.3)
    assert len(synced) == count, "it ends with the block"


def test_a_file_that_is_never_made_is_none_of_its_business(tmp_path: Path, synced: list[int]) -> None:
    with written_back(tmp_path, "absent"):
        threading.Event().wait(0.3)
    assert synced == []


def test_all_files_of_a_pattern_are_synced(tmp_path: Path, synced: list[int]) -> None:
    (tmp_path / "other").write_bytes(bytes(3))
    (tmp_path / "pack0").write_bytes(bytes(1))
    with written_back(tmp_path, "pack*"):
        wait_for(synced, 1)
        (tmp_path / "pack1").write_bytes(bytes(2))
        wait_for(synced, 2)
    assert 3 not in synced


def test_what_can_not_be_synced_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    def fail(descriptor: int) -> None:
        failed.append(os.fstat(descriptor).st_size)
        raise OSError

    monkeypatch.setattr(os, "fdatasync", fail)
    (tmp_path / "pack0").write_bytes(bytes(1))
    with written_back(tmp_path, "pack*"):
        wait_for(failed, 1)
