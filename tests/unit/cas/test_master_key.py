from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sconify.cas.master_key import FileMasterKey
from sconify.errors import ServiceError, UserError


def test_a_key_is_made_once_also_when_many_try(tmp_path: Path) -> None:
    provider = FileMasterKey(tmp_path / "key")
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: provider.master_key(create=True), range(16)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("content", ["", "00" * 31, "00" * 33, "zz" * 32, "é" * 32, "\0" * 32])
def test_what_is_no_key(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match="does not hold 64 hex digits") as caught:
        FileMasterKey(path).master_key(create=True)
    assert "00" * 31 not in caught.value.diagnostics()


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("00" * 32)
    path.chmod(0o604)
    with pytest.raises(UserError, match="mode 0604, expected 0600") as caught:
        FileMasterKey(path).master_key(create=True)
    assert "chmod 600" in caught.value.diagnostics()


def test_a_key_that_is_missing_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        FileMasterKey(tmp_path / "key").master_key(create=False)
    with pytest.raises((UserError, ServiceError), match=r"no regular file|directory"):
        FileMasterKey(tmp_path).master_key(create=False)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(UserError, match="no regular file"):
        FileMasterKey(tmp_path / "fifo").master_key(create=False)
    with pytest.raises((UserError, ServiceError)):
        FileMasterKey(tmp_path / "none/key").master_key(create=True)
