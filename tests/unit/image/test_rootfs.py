from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.image.rootfs import NotADirectoryInImageError, PathNotFoundError, RootFileSystem, SymlinkLoopError

Maker = Callable[..., tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def root(merged: Callable[..., RootFileSystem], member: Maker) -> RootFileSystem:
    return merged([
        member("usr/bin/sh", content=b"shell"), member("bin", tarfile.SYMTYPE, linkname="usr/bin"),
        member("usr/bin/link", tarfile.SYMTYPE, linkname="../../etc/./file"),
        member("etc/file", content=b"x" * 300_000),
        member("etc/abs", tarfile.SYMTYPE, linkname="/bin/sh"), member("out", tarfile.SYMTYPE, linkname="../../../etc"),
        member("a-b"), member("a/b"), member("a", tarfile.DIRTYPE), member("\udcff"), member("\U0001f600"),
        member("loop1", tarfile.SYMTYPE, linkname="loop2"), member("loop2", tarfile.SYMTYPE, linkname="loop1"),
        member("dangling", tarfile.SYMTYPE, linkname="nowhere"),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/bin/sh", "/usr/bin/sh"), ("/bin/link", "/etc/file"), ("/etc/abs", "/usr/bin/sh"), ("/out/file", "/etc/file"),
        ("//bin/./sh", "/usr/bin/sh"), ("/bin/..", "/usr"), ("/../..", "/"), ("/", "/"), ("/bin", "/usr/bin"),
    ],
)  # fmt: skip
def test_resolve_follows_links_inside_the_root(root: RootFileSystem, path: str, real: str) -> None:
    assert root.resolve(path).path == real


def test_the_last_link_may_be_kept(root: RootFileSystem) -> None:
    assert root.resolve("/bin", follow_last=False).path == "/bin"
    assert root.resolve("/bin/link", follow_last=False).path == "/usr/bin/link"
    assert root.resolve("/loop1", follow_last=False).path == "/loop1"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/missing", PathNotFoundError), ("/dangling", PathNotFoundError), ("/bin/missing/x", PathNotFoundError),
        ("/bin/sh/x", NotADirectoryInImageError), ("/bin/sh/..", NotADirectoryInImageError),
        ("/loop1", SymlinkLoopError), ("/loop1/x", SymlinkLoopError), ("bin", UserError),
    ],
)  # fmt: skip
def test_what_resolve_refuses(root: RootFileSystem, path: str, error: type[UserError]) -> None:
    with pytest.raises(error, match=path.split("/")[1] if path.startswith("/") else "not an absolute path"):
        root.resolve(path)


def test_lookup_follows_nothing(root: RootFileSystem) -> None:
    assert root.lookup("/bin/sh") is None
    assert root.lookup("/usr/bin/sh") is not None


def test_walk_is_sorted_by_bytes_and_stays_below(root: RootFileSystem) -> None:
    everything = [entry.path for entry in root.walk()]
    assert everything == sorted(everything, key=os.fsencode) == list(root.paths())
    assert len(everything) == len(root)
    assert [entry.path for entry in root.walk("/a")] == ["/a", "/a/b"]
    assert [entry.path for entry in root.walk("/a-b")] == ["/a-b"]
    assert list(root.walk("/missing")) == []


def test_children_are_sorted_by_bytes(root: RootFileSystem) -> None:
    assert root.children("/usr") == ["bin"]
    assert root.children("/")[-2:] == ["\U0001f600", "\udcff"]
    assert root.children("/a-b") == []


def test_read_has_a_limit(root: RootFileSystem) -> None:
    file = root.resolve("/etc/file")
    assert root.read(file, 300_000) == b"x" * 300_000
    with pytest.raises(UserError, match="/etc/file has 300000 bytes"):
        root.read(file, 299_999)
    with pytest.raises(UserError, match="no regular file"):
        root.read(root.resolve("/usr"), 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 400), st.integers(-1, 400))))
def test_open_is_a_seekable_file(
    merged: Callable[..., RootFileSystem], member: Maker, content: bytes, reads: list[tuple[int, int]]
) -> None:
    root = merged([member("a", content=content)])
    with root.open(root.resolve("/a")) as file, io.BytesIO(content) as expected:
        for offset, size in reads:
            assert file.seek(offset) == expected.seek(offset)
            assert file.read(size) == expected.read(size)
        assert file.seek(0, io.SEEK_END) == len(content)


def test_an_archive_that_vanished_is_an_error(root: RootFileSystem) -> None:
    file = root.resolve("/etc/file")
    assert file.content is not None
    file.content.source.unlink()
    with pytest.raises(UserError, match="can't be read"):
        root.open(file)


def test_entries_of_another_image_on_top(merged: Callable[..., RootFileSystem], member: Maker) -> None:
    root = merged([member("a/b", content=b"1"), member("file", content=b"2"), member("kept", content=b"3")])
    other = merged([member("a/c", content=b"4"), member("file/inside", content=b"5")])
    made = root.overlaid(other.walk())
    assert list(made.paths()) == ["/", "/a", "/a/b", "/a/c", "/file", "/file/inside", "/kept"]
    assert made.read(made.resolve("/file/inside"), 9) == b"5"
    assert root.read(root.resolve("/file"), 9) == b"2"
