"""Merging layers: against a naive model, and rule by rule."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.errors import UntrustedDataError
from sconify.image.model import EntryType, Extent
from sconify.image.rootfs import RootFileSystem
from sconify.image.union import UnsafeNameError, clean_name

Maker = Callable[..., tuple[tarfile.TarInfo, bytes]]
Merge = Callable[..., RootFileSystem]

DIR, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE

paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
kinds = st.sampled_from(["file", "directory", "symlink", "whiteout", "opaque"])
layers_of_changes = st.lists(st.lists(st.tuples(kinds, paths), max_size=6, unique_by=lambda change: change), max_size=4)


def ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def consistent(changes: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop changes below a path that the same layer makes a file or link, and all but the last at one path."""
    kinds_by_path = {path: kind for kind, path in changes if kind in {"file", "directory", "symlink"}}
    kept = {
        path
        for path in kinds_by_path
        if all(kinds_by_path.get(up, "directory") == "directory" for up in ancestors(path))
    }
    result = []
    for kind, path in changes:
        above = [*ancestors(path), path] if kind == "opaque" else ancestors(path)
        hides = kind in {"whiteout", "opaque"}
        below_directories = all(kinds_by_path.get(up, "directory") == "directory" for up in above)
        if (hides and below_directories) or (path in kept and kinds_by_path[path] == kind):
            result.append((kind, path))
    return result


def model(layers: list[list[tuple[str, str]]]) -> dict[str, str]:
    """Path to its type and the layer that it comes from; quadratic, but plainly what the specification says."""
    union: dict[str, str] = {}

    def drop(path: str, *, itself: bool) -> None:
        for other in [other for other in union if other.startswith(path + "/") or (itself and other == path)]:
            del union[other]

    for number, changes in enumerate(layers):
        for kind, path in changes:
            if kind == "whiteout":
                drop(path, itself=True)
            elif kind == "opaque":
                drop(path, itself=False)
        for kind, path in sorted(changes, key=lambda change: change[1]):
            if kind in {"whiteout", "opaque"}:
                continue
            for up in ancestors(path):
                if not union.get(up, "").startswith("directory"):
                    drop(up, itself=True)
                    union[up] = "directory implied"
            if not (kind == "directory" and union.get(path, "").startswith("directory")):
                drop(path, itself=True)
            union[path] = f"{kind} {number}"
    return union


TYPES = {"file": tarfile.REGTYPE, "directory": DIR, "symlink": LINK}


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers_of_changes, st.randoms())
def test_merging_is_what_the_model_says(
    archive: Callable[..., bytes], member: Maker, tmp_path: Path, layers: list[list[tuple[str, str]]], random: object
) -> None:
    layers = [consistent(changes) for changes in layers]
    extents = []
    for number, changes in enumerate(layers):
        shuffled = list(changes)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        members = []
        for kind, path in shuffled:
            parent, _, name = path.rpartition("/")
            if kind == "whiteout":
                members.append(member(f"{parent}/.wh.{name}".lstrip("/")))
            elif kind == "opaque":
                members.append(member(f"{path}/.wh..wh..opq"))
            else:
                members.append(member(path, TYPES[kind], mtime=number, linkname="x" if kind == "symlink" else ""))
        file = tmp_path / f"{number}.tar"
        file.write_bytes(archive(members))
        extents.append((f"layer {number}", Extent(file, 0, file.stat().st_size)))
    root = RootFileSystem.from_layers(extents, workdir=tmp_path)
    names = {EntryType.FILE: "file", EntryType.DIRECTORY: "directory", EntryType.SYMLINK: "symlink"}
    expected = {f"/{path}": text.replace(" implied", " 0") for path, text in model(layers).items()}
    assert {
        entry.path: f"{names[entry.type]} {entry.mtime}" for entry in root.walk("/") if entry.path != "/"
    } == expected
    for path in root.paths():
        below = {other for other in root.paths() if other != "/" and (other.rpartition("/")[0] or "/") == path}
        assert {f"{path.rstrip('/')}/{name}" for name in root.children(path)} == below


def test_a_directory_that_is_only_implied_keeps_what_lower_layers_say(merged: Merge, member: Maker) -> None:
    root = merged([member("tmp", DIR, mode=0o1777, uid=3)], [member("tmp/x"), member("new/y")])
    tmp, new = root.lookup("/tmp"), root.lookup("/new")
    assert tmp is not None
    assert new is not None
    assert (tmp.mode, tmp.uid) == (0o1777, 3)
    assert (new.mode, new.uid, new.mtime) == (0o755, 0, 0)


def test_a_link_of_the_same_layer_is_followed_in_directories(merged: Merge, member: Maker) -> None:
    root = merged([member("usr/bin", DIR), member("bin", LINK, linkname="usr/bin"), member("bin/sh", content=b"x")])
    assert root.lookup("/usr/bin/sh") is not None
    assert root.children("/bin") == []


def test_a_link_that_points_out_of_the_root_stays_inside(merged: Merge, member: Maker) -> None:
    root = merged(
        [
            member("a", LINK, linkname="../../../etc"),
            member("a/passwd"),
            member("b", LINK, linkname="/c/../d"),
            member("b/x"),
        ]
    )
    assert {"/etc/passwd", "/d/x"} <= set(root.paths())


def test_a_link_of_a_lower_layer_is_replaced(merged: Merge, member: Maker) -> None:
    root = merged([member("usr/bin/ls"), member("bin", LINK, linkname="usr/bin")], [member("bin/sh")])
    entry = root.lookup("/bin")
    assert entry is not None
    assert entry.type is EntryType.DIRECTORY
    assert root.children("/bin") == ["sh"]
    assert root.children("/usr/bin") == ["ls"]


def test_endless_links_are_refused(merged: Merge, member: Maker) -> None:
    with pytest.raises(UntrustedDataError, match="more than 40 symbolic links"):
        merged([member("a", LINK, linkname="b"), member("b", LINK, linkname="a"), member("a/x")])


def test_an_entry_below_a_file_of_the_same_layer_is_refused(merged: Merge, member: Maker) -> None:
    with pytest.raises(UntrustedDataError, match=r"'a/b' stands below /a, which is no directory"):
        merged([member("a"), member("a/b")])


def test_the_last_of_several_entries_at_a_path_wins(merged: Merge, member: Maker) -> None:
    root = merged([
        member("a", DIR), member("a/b"), member("a", content=b"12"), member("a", content=b"1"),
        member("d", DIR, mode=0o700), member("d/x"), member("d", DIR, mode=0o711),
    ])  # fmt: skip
    a, d = root.lookup("/a"), root.lookup("/d")
    assert a is not None
    assert a.size == 1
    assert root.lookup("/a/b") is None
    assert d is not None
    assert d.mode == 0o711
    assert root.children("/d") == ["x"]


def test_hard_links_share_content_and_metadata(merged: Merge, member: Maker) -> None:
    root = merged(
        [member("a", content=b"abc", mode=0o640), member("b", HARD, linkname="a"), member("c", HARD, linkname="./b")]
    )
    found = [root.lookup(path) for path in ("/a", "/b", "/c")]
    assert all(entry is not None for entry in found)
    assert {(entry.mode, entry.content, entry.link_group) for entry in found if entry} == {(0o640, found[0].content, 1)}  # type: ignore[union-attr]


def test_a_hard_link_to_a_lower_layer(merged: Merge, member: Maker) -> None:
    root = merged([member("a", content=b"abc")], [member("b", HARD, linkname="a"), member(".wh.a")])
    entry = root.lookup("/b")
    assert entry is not None
    assert root.read(entry, 10) == b"abc"
    assert root.lookup("/a") is None


def test_a_hard_link_stays_when_its_target_is_replaced(merged: Merge, member: Maker) -> None:
    root = merged([member("a", content=b"old"), member("b", HARD, linkname="a")], [member("a", content=b"new")])
    a, b = root.lookup("/a"), root.lookup("/b")
    assert a is not None
    assert b is not None
    assert (root.read(a, 9), root.read(b, 9)) == (b"new", b"old")
    assert a.link_group == 0


@pytest.mark.parametrize(
    ("target", "problem"), [("missing", "does not exist"), ("d", "is a directory"), ("../x", "climbs")]
)
def test_impossible_hard_links_are_refused(merged: Merge, member: Maker, target: str, problem: str) -> None:
    with pytest.raises(UntrustedDataError, match=problem):
        merged([member("d", DIR), member("x", HARD, linkname=target)])


def test_remains_of_aufs_and_the_root_are_ignored(merged: Merge, member: Maker) -> None:
    root = merged(
        [member("./", DIR, mode=0o700, uid=9), member(".wh..wh.plnk", DIR), member(".wh..wh.aufs"), member("a")]
    )
    entry = root.lookup("/")
    assert entry is not None
    assert (entry.mode, entry.uid) == (0o755, 0)
    assert root.paths() == ["/", "/a"]


def test_whiteouts_do_not_act_on_their_own_layer(merged: Merge, member: Maker) -> None:
    root = merged([member("a", content=b"old"), member("d/old")], [
        member("a", content=b"newer"), member(".wh.a"), member("d/new"), member("d/.wh..wh..opq"),
    ])  # fmt: skip
    entry = root.lookup("/a")
    assert entry is not None
    assert entry.size == 5
    assert root.children("/d") == ["new"]


def test_all_types_and_attributes(merged: Merge, member: Maker) -> None:
    root = merged([
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3), member("sda", tarfile.BLKTYPE, devmajor=8),
        member("fifo", tarfile.FIFOTYPE, mtime=77), member("link", LINK, linkname="/x"),
        member("file", mode=0o4755, uid=2**31, gid=5, pax_headers={
            "SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.capability": "\udcff", "mtime": "7.5"}),
    ])  # fmt: skip
    null, sda, fifo, link, file = (root.lookup(f"/{name}") for name in ("null", "sda", "fifo", "link", "file"))
    assert null and sda and fifo and link and file  # noqa: PT018
    assert (null.type, null.device) == (EntryType.CHARACTER, (1, 3))
    assert (sda.type, sda.device) == (EntryType.BLOCK, (8, 0))
    assert (fifo.type, fifo.mtime, fifo.content) == (EntryType.FIFO, 77, None)
    assert (link.type, link.target, link.mode, link.size) == (EntryType.SYMLINK, "/x", 0o777, 2)
    assert (file.mode, file.uid, file.gid, file.mtime, file.mtime_nsec) == (0o4755, 2**31, 5, 7, 500_000_000)
    assert file.xattrs == {"user.a": b"1", "security.capability": b"\xff"}


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd", "a/../../x", "..", "a/" * 3000 + "x", "x" * 256, "a/.wh.", "a/.wh..", ".wh...",
        "é" * 128, "a/" * 10**6,
    ],
)  # fmt: skip
def test_hostile_names_are_refused(merged: Merge, member: Maker, name: str) -> None:
    with pytest.raises(UntrustedDataError, match="layer 0"):
        merged([member(name)])


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"a", "/a"),
        (b"/a//b/./c/", "/a/b/c"),
        (b"a/../b", "/b"),
        (b"./", "/"),
        (b"", "/"),
        (b"\xff", "/\udcff"),
        (b"...", "/..."),
    ],
)
def test_names_are_cleaned(raw: bytes, path: str) -> None:
    assert clean_name(raw) == path


@given(st.binary(max_size=40).map(lambda raw: raw.replace(b"x", b"/").replace(b"y", b"..")))
def test_clean_names_are_normal(raw: bytes) -> None:
    try:
        path = clean_name(raw)
    except UnsafeNameError:
        return
    assert path == "/" or all(part not in {"", ".", ".."} for part in path[1:].split("/"))
    assert clean_name(path.encode(errors="surrogateescape")) == path


def test_symlinks_without_target_are_refused(merged: Merge, member: Maker) -> None:
    with pytest.raises(UntrustedDataError, match="target of 0 bytes"):
        merged([member("a", LINK)])
    with pytest.raises(UntrustedDataError, match="target of 5000 bytes"):
        merged([member("a", LINK, linkname="x" * 5000)])
