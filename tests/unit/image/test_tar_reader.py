from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.errors import UntrustedDataError
from sconify.image.model import Extent
from sconify.image.sparse import materialise
from sconify.image.tar_reader import Member, read_members

Maker = Callable[..., tuple[tarfile.TarInfo, bytes]]
Archiver = Callable[..., bytes]
Store = Callable[[bytes], Extent]

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=60)
deep_names = st.lists(names, min_size=1, max_size=6).map("/".join)
KINDS = [
    tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
]  # fmt: skip


@st.composite
def infos(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(deep_names))
    info.type = draw(st.sampled_from(KINDS))
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(st.integers(0, 2**31)), draw(st.integers(0, 2**31))
    info.mtime = draw(st.integers(0, 2**35))
    content = b""
    if info.isreg():
        content = draw(st.binary(max_size=2000))
        info.size = len(content)
    elif info.issym() or info.islnk():
        info.linkname = draw(deep_names)
    elif info.isdev():
        info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 2**20))
    xattrs = draw(st.dictionaries(st.sampled_from(["user.a", "security.b"]), st.text(max_size=20)))
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in xattrs.items()}
    return info, content


def read(extent: Extent) -> list[Member]:
    return list(read_members(extent, label="layer x"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(infos(), max_size=8), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_reads_what_the_standard_library_reads(
    archive: Archiver,
    stored: Store,
    members: list[tuple[tarfile.TarInfo, bytes]],
    format: int,  # noqa: A002
) -> None:
    data = archive(members, format)
    extent = stored(data)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        expected = tar.getmembers()
    found = read(extent)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert os.fsdecode(ours.name).rstrip("/") == theirs.name.rstrip("/")
        assert ours.type == theirs.type
        assert (ours.mode, ours.uid, ours.gid, ours.mtime) == (theirs.mode, theirs.uid, theirs.gid, theirs.mtime)
        assert os.fsdecode(ours.target) == theirs.linkname
        if theirs.isreg():
            assert (ours.offset - extent.offset, ours.size) == (theirs.offset_data, theirs.size)
        if theirs.isdev():
            assert ours.device == (theirs.devmajor, theirs.devminor)
        expected_xattrs = {
            key.removeprefix("SCHILY.xattr."): value.encode()
            for key, value in theirs.pax_headers.items()
            if key.startswith("SCHILY.xattr.")
        }
        assert dict(ours.xattrs) == expected_xattrs
    extent.source.unlink()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(infos(), min_size=1, max_size=3), st.data())
def test_a_truncated_or_changed_archive_gives_members_or_our_error(
    archive: Archiver, stored: Store, members: list[tuple[tarfile.TarInfo, bytes]], data: st.DataObject
) -> None:
    spoiled = bytearray(archive(members))
    if data.draw(st.booleans()):
        del spoiled[data.draw(st.integers(0, len(spoiled) - 1)) :]
    else:
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] ^= data.draw(st.integers(1, 255))
    extent = stored(bytes(spoiled))
    try:
        read(extent)
    except UntrustedDataError as error:
        assert "layer x" in error.what  # noqa: PT017
    extent.source.unlink()


@pytest.mark.parametrize("format", FORMATS)
def test_long_names_in_every_format(archive: Archiver, stored: Store, member: Maker, format: int) -> None:  # noqa: A002
    name = "/".join(["directory"] * 15 + ["file"])
    [found] = read(stored(archive([member(name, content=b"abc")], format)))
    assert (found.name, found.size) == (name.encode(), 3)


def test_nanoseconds(archive: Archiver, stored: Store, member: Maker) -> None:
    [found] = read(stored(archive([member("a", pax_headers={"mtime": "1234.123456789"})])))
    assert (found.mtime, found.mtime_nsec) == (1234, 123456789)


def test_an_empty_archive_and_no_archive_at_all_have_no_members(stored: Store) -> None:
    assert read(stored(bytes(1024))) == []
    assert read(stored(b"")) == []


def test_global_headers_are_ignored(stored: Store) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", pax_headers={"path": "everything", "uid": "7"}) as tar:
        tar.addfile(tarfile.TarInfo("a"))
    [found] = read(stored(output.getvalue()))
    assert (found.name, found.uid) == (b"a", 0)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"size": 2**62}, "ends .* earlier"),
        ({"size": -1}, "negative"),
        ({"uid": 2**40}, "owner"),
        ({"gid": -5}, "owner"),
        ({"type": b"V"}, "type b'V'"),
        ({"type": tarfile.XHDTYPE, "size": 2**40}, "extended header has"),
        ({"type": tarfile.GNUTYPE_LONGNAME, "size": 2**21}, "extended header has"),
        ({"type": tarfile.XHDTYPE, "size": 0}, "ends after an extended header"),
    ],
)
def test_absurd_headers_are_refused(stored: Store, fields: dict[str, object], match: str) -> None:
    info = tarfile.TarInfo("absurd")
    for key, value in fields.items():
        setattr(info, key, value)
    with pytest.raises(UntrustedDataError, match=match):
        read(stored(info.tobuf(tarfile.GNU_FORMAT)))


def test_a_wrong_checksum_names_layer_and_offset(archive: Archiver, stored: Store, member: Maker) -> None:
    data = bytearray(archive([member("a", content=b"x" * 600), member("b")]))
    data[512 + 1024] ^= 1
    with pytest.raises(UntrustedDataError, match=r"layer x .* at byte 1536: the header's checksum"):
        read(stored(bytes(data)))


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
)
@pytest.mark.parametrize("pieces", [0, 1, 3, 60])
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str], pieces: int) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as output:
        for number in range(pieces):
            output.seek(number * 100_000)
            output.write(bytes([number + 1]) * 5000)
        output.truncate(10_000_000)
    tar = tmp_path / "archive.tar"
    (tmp_path / "after").write_bytes(b"after")
    subprocess.run(["tar", "-S", *options, "-C", tmp_path, "-cf", tar, "sparse", "after"], check=True)
    sparse, after = read(Extent(tar, 0, tar.stat().st_size))
    assert (sparse.name, after.name, after.size) == (b"sparse", b"after", 5)
    assert sparse.sparse is not None
    copy = tmp_path / "copy"
    descriptor = os.open(copy, os.O_RDWR | os.O_CREAT)
    start = materialise(Extent(tar, sparse.offset, sparse.size), sparse.sparse, descriptor)
    os.close(descriptor)
    assert start == 0
    assert copy.read_bytes() == file.read_bytes()
    assert copy.stat().st_blocks * 512 < 1_500_000


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,5,3,2"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,7,7"},
        {"GNU.sparse.size": "3", "GNU.sparse.map": "0,7"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,6"},
        {"GNU.sparse.size": "99999999999999", "GNU.sparse.map": "0,7"},
        {"GNU.sparse.map": "0,7"},
        {"GNU.sparse.major": "2", "GNU.sparse.minor": "0"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "7"},
    ],
)
def test_malformed_sparse_maps_are_refused(
    archive: Archiver, stored: Store, member: Maker, headers: dict[str, str]
) -> None:
    with pytest.raises(UntrustedDataError, match="sparse"):
        read(stored(archive([member("a", content=b"1234567", pax_headers=headers)])))
