"""Digests that are computed in the background."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from sconify.errors import UntrustedDataError, UserError
from sconify.image.model import Extent
from sconify.image.verification import Verification

MIB = 1 << 20


@pytest.fixture
def extent(tmp_path: Path) -> Extent:
    """Two MiB and a half in the middle of a file."""
    file = tmp_path / "file"
    file.write_bytes(b"before" + bytes(range(256)) * (5 * MIB // 2 // 256) + b"behind")
    return Extent(file, 6, 5 * MIB // 2)


def refuse(_digest: str) -> None:
    raise UntrustedDataError("it is another one")


def test_a_digest_is_given_to_its_check(extent: Extent) -> None:
    found: list[str] = []
    with Verification() as verification:
        verification.add(extent, found.append)
        verification.confirm()
    assert found == [f"sha256:{hashlib.sha256(extent.source.read_bytes()[6:-6]).hexdigest()}"]


def test_one_that_is_wrong_is_told_whatever_else_fails(extent: Extent, tmp_path: Path) -> None:
    with Verification() as verification:
        verification.add(extent, refuse)
        verification.add(Extent(tmp_path, 0, 1), lambda _: None)
        for confirm in (verification.confirm, verification.raise_mismatch):
            with pytest.raises(UntrustedDataError, match="it is another one"):
                confirm()


def test_a_file_that_ends_early_is_a_mismatch_and_one_that_can_not_be_read_is_none(
    extent: Extent, tmp_path: Path
) -> None:
    with Verification() as verification:
        verification.add(Extent(tmp_path, 0, 1), lambda _: None)
        with pytest.raises(UserError, match="can't be read: Is a directory"):
            verification.confirm()
        verification.raise_mismatch()
        verification.add(Extent(extent.source, 0, 3 * MIB), lambda _: None)
        with pytest.raises(UntrustedDataError, match="bytes early"):
            verification.raise_mismatch()


def test_a_file_that_changes_after_it_was_hashed_is_refused(extent: Extent) -> None:
    """Who reads it too may have read what it was for a moment."""
    done = threading.Event()
    with Verification() as verification:
        verification.add(extent, lambda _: done.set())
        assert done.wait(60)
        os.utime(extent.source, ns=(0, 0))
        with pytest.raises(UntrustedDataError, match="file was changed while it was read"):
            verification.confirm()


def test_a_file_may_change_once_it_is_confirmed(extent: Extent) -> None:
    """The output of a conversion may take the place of its source."""
    with Verification() as verification:
        verification.add(extent, lambda _: None)
        verification.confirm()
        extent.source.unlink()
        verification.confirm()


def test_the_last_bytes_are_left_for_later(extent: Extent) -> None:
    done = threading.Event()
    with Verification() as verification:
        with verification.leaving(MIB):
            verification.add(extent, lambda _: done.set())
            assert not done.wait(0.3)
        verification.confirm()
    assert done.is_set()


def test_leaving_ends_what_waits(extent: Extent) -> None:
    done = threading.Event()
    with Verification() as verification, verification.leaving(5 * MIB):
        verification.add(extent, lambda _: done.set())
        verification.__exit__(None, None, None)
    assert not done.is_set()
    with Verification() as verification:
        verification.add(Extent(Path("/dev/zero"), 0, 1 << 50), lambda _: done.set())
    assert not done.is_set()
