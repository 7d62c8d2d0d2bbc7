from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.errors import BugError, UntrustedDataError, UserError
from sconify.image.compression import Compression
from sconify.image.layer_writer import LayerWriter
from sconify.image.model import Entry, EntryType, Extent
from sconify.image.rootfs import RootFileSystem
from sconify.image.tar_writer import MemberHeader

Maker = Callable[..., tuple[tarfile.TarInfo, bytes]]

DECOMPRESS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: lambda data: data,
    Compression.GZIP: gzip.decompress,
    Compression.ZSTD: lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("compression", Compression)
def test_digests_and_content(tmp_path: Path, compression: Compression) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(1).randbytes(3_000_000))
    writer = LayerWriter(tmp_path / "layer", compression=compression, epoch=1234)
    writer.add_file("/a/b/file", source, mode=0o600, uid=7, gid=8)
    writer.add_bytes("/a/small", b"small")
    writer.add_symlink("/link", "a/b")
    layer = writer.finish()

    blob = (tmp_path / "layer").read_bytes()
    plain = DECOMPRESS[compression](blob)
    assert layer.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert (layer.size, layer.blob) == (len(blob), Extent(tmp_path / "layer", 0, len(blob)))
    assert layer.media_type == f"application/vnd.oci.image.layer.v1.tar{compression.value}"
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert tar.getnames() == ["a", "a/b", "a/b/file", "a/small", "link"]
        assert {info.mtime for info in tar} == {1234}
        info = tar.getmember("a/b/file")
        assert (info.mode, info.uid, info.gid) == (0o600, 7, 8)
        content = tar.extractfile(info)
        assert content is not None
        assert content.read() == source.read_bytes()
        assert (tar.getmember("a").mode, tar.getmember("link").linkname) == (0o755, "a/b")


@pytest.mark.parametrize("compression", Compression)
def test_the_order_of_calls_does_not_matter(tmp_path: Path, compression: Compression) -> None:
    digests = set()
    for seed in range(4):
        names = [f"/d{number % 3}/{number}" for number in range(30)]
        random.Random(seed).shuffle(names)
        writer = LayerWriter(tmp_path / str(seed), compression=compression, epoch=0)
        for name in names:
            writer.add_bytes(name, name.encode())
        digests.add(writer.finish().digest)
    assert len(digests) == 1


names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=80).filter(
    lambda name: name not in {".", ".."} and not name.startswith(".wh.") and len(name.encode()) < 256
)
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from([kind for kind in EntryType if kind is not EntryType.FILE]))
    return Entry(
        path=draw(paths),
        type=kind,
        mode=0o777 if kind is EntryType.SYMLINK else draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 1)),
        gid=draw(st.integers(0, 2**32 - 1)),
        mtime=draw(st.integers(-(2**33), 2**40)),
        target=draw(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150)
        )
        if kind is EntryType.SYMLINK
        else "",
        device=draw(st.tuples(st.integers(0, 4095), st.integers(0, 2**20)))
        if kind in {EntryType.CHARACTER, EntryType.BLOCK}
        else (0, 0),
        xattrs=draw(st.dictionaries(st.sampled_from(["user.x", "security.capability"]), st.binary(max_size=40))),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries(), max_size=6, unique_by=lambda entry: entry.path))
def test_what_is_written_is_read_back(tmp_path: Path, chosen: list[Entry]) -> None:
    directories = {entry.path for entry in chosen if entry.type is EntryType.DIRECTORY}
    others = {entry.path for entry in chosen} - directories
    chosen = [entry for entry in chosen if not any(entry.path.startswith(f"{other}/") for other in others)]
    writer = LayerWriter(tmp_path / "layer", epoch=0)
    for entry in chosen:
        writer.add(entry)
    layer = writer.finish()
    root = RootFileSystem.from_layers([("layer", layer.blob)], workdir=tmp_path)
    for entry in chosen:
        assert root.lookup(entry.path) == entry


def test_entries_of_an_image_keep_their_links_and_content(
    merged: Callable[..., RootFileSystem], member: Maker, tmp_path: Path
) -> None:
    root = merged([member("a/1", content=b"abc", mtime=5), member("2", tarfile.LNKTYPE, linkname="a/1"), member("3")])
    writer = LayerWriter(tmp_path / "layer", epoch=0)
    for entry in root.walk():
        writer.add(entry)
    copy = RootFileSystem.from_layers([("layer", writer.finish().blob)], workdir=tmp_path)
    assert copy.paths() == root.paths()
    one, two = copy.resolve("/a/1"), copy.resolve("/2")
    assert one.link_group == two.link_group != 0
    assert one.content == two.content
    assert copy.read(two, 10) == b"abc"
    assert two.mtime == 5


def test_names_at_the_limits_of_ustar_are_read_by_gnu_tar(tmp_path: Path) -> None:
    lengths = [99, 100, 101, 155, 200, 255]
    writer = LayerWriter(tmp_path / "layer", epoch=0)
    for length in lengths:
        writer.add_bytes("/" + "x" * length, b"x")
    layer = writer.finish()
    with tarfile.open(layer.blob.source) as tar:
        assert [len(name) for name in tar.getnames()] == lengths


def test_huge_sizes_have_a_pax_record() -> None:
    header = MemberHeader(name=b"a", size=2**40).encode()
    assert b"size=1099511627776\n" in header


def test_what_is_added_twice_or_below_a_file_is_refused(tmp_path: Path) -> None:
    writer = LayerWriter(tmp_path / "layer")
    writer.add_bytes("/a", b"")
    with pytest.raises(BugError, match="/a was added twice"):
        writer.add_directory("/a")
    writer.add_bytes("/a/b", b"")
    with pytest.raises(BugError, match="below /a"):
        writer.finish()


def test_nothing_stays_after_a_failure(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100)
    writer = LayerWriter(tmp_path / "layer")
    writer.add_file("/a", source)
    source.write_bytes(b"x" * 50)
    with pytest.raises(UntrustedDataError, match="ends 50 bytes early"):
        writer.finish()
    with pytest.raises(UserError, match="missing"):
        LayerWriter(tmp_path / "layer").add_file("/a", tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_without_an_epoch_it_is_now(tmp_path: Path) -> None:
    writer = LayerWriter(tmp_path / "layer")
    writer.add_bytes("/a", b"")
    [entry] = RootFileSystem.from_layers([("layer", writer.finish().blob)], workdir=tmp_path).walk("/a")
    assert abs(entry.mtime - (tmp_path / "layer").stat().st_mtime) < 60
