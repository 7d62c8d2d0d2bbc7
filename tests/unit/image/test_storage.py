"""Files that are brought to the disk while they are made."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from sconify.errors import ServiceError
from sconify.image.storage import WriteBack


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
    with WriteBack(tmp_path, "file"):
        for size in (10, 20):
            with file.open("ab") as output:
                output.write(bytes(10))
            wait_for(synced, size)
    count = len(synced)
    file.write_bytes(bytes(30))
    threading.Event().wait(0.3)
    assert len(synced) == count, "it ends with the block"


def test_a_file_that_is_never_made_is_none_of_its_business(tmp_path: Path, synced: list[int]) -> None:
    with WriteBack(tmp_path, "absent"):
        threading.Event().wait(0.3)
    assert synced == []


def test_all_files_of_a_pattern_are_synced(tmp_path: Path, synced: list[int]) -> None:
    (tmp_path / "other").write_bytes(bytes(3))
    (tmp_path / "pack0").write_bytes(bytes(1))
    with WriteBack(tmp_path, "pack*"):
        wait_for(synced, 1)
        (tmp_path / "pack1").write_bytes(bytes(2))
        wait_for(synced, 2)
    assert 3 not in synced


@pytest.mark.parametrize(("number", "text"), [(errno.ENOSPC, "no space is left"), (errno.EIO, "can't be written")])
def test_a_failure_is_kept_for_those_who_sync_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    """The kernel tells of it once."""
    sizes: list[int] = []

    def fail_once(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        if len(sizes) == 1:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail_once)
    pack = tmp_path / "pack0"
    pack.write_bytes(bytes(1))
    with WriteBack(tmp_path, "pack*") as write_back:
        wait_for(sizes, 1)
        with pytest.raises(ServiceError, match=text) as refused:
            write_back.confirm()
    assert str(pack) in str(refused.value)


def test_all_is_well_if_nothing_failed(tmp_path: Path, synced: list[int]) -> None:
    (tmp_path / "pack0").write_bytes(bytes(1))
    with WriteBack(tmp_path, "pack*") as write_back:
        wait_for(synced, 1)
        write_back.confirm()
