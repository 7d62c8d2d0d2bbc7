"""The Python bindings of the protected-file format: what is built is read, and what was changed is refused."""

from __future__ import annotations

import os
import resource
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify import _shield

KEY = bytes(range(32))
CHUNK = 65_536


@dataclass
class Workplace:
    """A directory with one container of contents, a builder, and the root that stands for the image's."""

    base: Path
    builder: _shield.Builder = field(default_factory=lambda: _shield.Builder(KEY))
    inode: int = 0
    stored: int = 0

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.container.touch()
        self.builder.add_region(b"/app", "encrypted", "a reason")
        self.builder.add_region(b"/lib", "authenticated", "another")
        self.pack = self.builder.add_pack(b"/app", b"/app.pack", str(self.root / "app.pack"))
        for directory in (b"/", b"/app", b"/lib"):
            self.add(directory, type="d", mode=0o755)

    @property
    def root(self) -> Path:
        return self.base / "root"

    @property
    def container(self) -> Path:
        return self.base / "container"

    @property
    def index(self) -> Path:
        return self.base / "index"

    def add(
        self,
        path: bytes,
        *,
        type: str = "-",  # noqa: A002
        mode: int = 0o644,
        inode: int | None = None,
        content: bytes | None = None,
        pack: int | None = None,
        target: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        self.inode += 1
        offset = self.stored
        if content is not None:
            with self.container.open("ab") as container:
                container.write(content)
            self.stored += len(content)
        self.builder.add_entry(
            path,
            type=type,
            mode=mode,
            uid=1,
            gid=2,
            mtime=-3,
            mtime_nsec=4,
            inode=inode or self.inode,
            source=None if content is None else str(self.container),
            offset=offset,
            size=len(content or b""),
            pack=pack,
            target=target,
            device=device,
            xattrs=xattrs,
        )

    def finish(self, **options: object) -> _shield.Built:
        return self.builder.finish(str(self.index), **options)  # type: ignore[arg-type]

    def open(self, built: _shield.Built) -> _shield.Index:
        return _shield.Index.open(str(self.index), KEY, built.tag)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def test_contents_and_metadata_come_back(place: Workplace) -> None:
    big = os.urandom(150_000) + bytes(200_000)
    place.add(b"/app/big", content=big, pack=place.pack, xattrs={b"user.b": b"", b"user.a": b"\0\1"})
    place.add(b"/app/empty", pack=place.pack)
    place.add(b"/app/one", content=b"shared", pack=place.pack, inode=99)
    place.add(b"/app/two", content=b"shared", pack=place.pack, inode=99)
    place.add(b"/lib/x.so", content=b"plain", mode=0o4755)
    place.add(b"/app/link", type="l", mode=0o777, target=b"big")
    place.add(b"/app/null", type="c", device=(1, 3))
    place.builder.add_omitted(b"/root")
    (place.root / "lib").mkdir()
    (place.root / "lib/x.so").write_bytes(b"plain")

    index_size, digests_size = place.builder.bounds()
    built = place.finish(gap=1000)
    assert place.index.stat().st_size <= index_size < 2 * place.index.stat().st_size
    assert digests_size == len(built.digests) == 0
    with (place.root / "app.pack").open("rb") as pack:
        assert pack.read(1000) == bytes(1000)
        (place.root / "pack").write_bytes(pack.read())
    (place.root / "pack").rename(place.root / "app.pack")
    assert len(built.tag) == 16
    assert built.entries == 10
    ((name, stored, plain, files, chunks),) = built.packs
    assert (name, plain, files, chunks) == (b"/app", len(big) + 6, 3, -(-(len(big) + 6) // CHUNK))
    assert stored == (place.root / "app.pack").stat().st_size < 200_000

    index = place.open(built)
    assert index.paths() == sorted(index.paths())
    assert len(index.paths()) == 10
    assert index.regions() == [(b"/app", "encrypted", "a reason"), (b"/lib", "authenticated", "another")]
    assert index.omitted() == [b"/root"]
    assert index.read(b"/app/big", str(place.root)) == big
    assert index.read(b"/app/empty", str(place.root)) == b""
    assert index.read(b"/app/two", str(place.root)) == b"shared"
    assert index.read(b"/lib/x.so", str(place.root)) == b"plain"
    entry = index.entry(b"/app/big")
    assert entry["xattrs"] == {b"user.a": b"\0\1", b"user.b": b""}
    assert (entry["type"], entry["size"], entry["pack"], entry["region"]) == ("-", len(big), 0, "encrypted")
    assert (entry["uid"], entry["gid"], entry["mtime"], entry["mtime_nsec"]) == (1, 2, -3, 4)
    assert index.entry(b"/app/one")["nlink"] == 2
    assert index.entry(b"/app/link")["target"] == b"big"
    assert index.entry(b"/app/null")["device"] == (1, 3)
    assert index.entry(b"/")["region"] is None
    plain_entry = index.entry(b"/lib/x.so")
    assert (plain_entry["mode"], plain_entry["size"]) == (0o4755, 5)
    assert isinstance(plain_entry["sha256"], bytes)
    with pytest.raises(KeyError, match="/nothing"):
        index.entry(b"/nothing")
    with pytest.raises(_shield.ShieldError, match="/app/link"):
        index.read(b"/app/link", str(place.root))


@given(contents=st.lists(st.binary(max_size=300), max_size=8), repeat=st.sampled_from([1, 500]))
@settings(max_examples=25, deadline=None)
def test_any_contents_come_back(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], repeat: int) -> None:
    place = Workplace(tmp_path_factory.mktemp("any"))
    for number, content in enumerate(contents):
        place.add(b"/app/%d" % number, content=content * repeat, pack=place.pack)
    index = place.open(place.finish())
    for number, content in enumerate(contents):
        assert index.read(b"/app/%d" % number, str(place.root)) == content * repeat


def test_changed_files_are_refused(place: Workplace) -> None:
    place.add(b"/app/a", content=b"secret", pack=place.pack)
    place.add(b"/lib/x", content=b"plain")
    built = place.finish()
    pack = place.root / "app.pack"
    pack.write_bytes(pack.read_bytes()[:-1] + bytes([pack.read_bytes()[-1] ^ 1]))
    (place.root / "lib").mkdir()
    (place.root / "lib/x").write_bytes(b"plaiN")
    index = place.open(built)
    with pytest.raises(_shield.ShieldError, match=r"/app/a: chunk 0 of /app.pack: it does not authenticate"):
        index.read(b"/app/a", str(place.root))
    with pytest.raises(_shield.ShieldError, match="/lib/x: its SHA-256"):
        index.read(b"/lib/x", str(place.root))
    pack.unlink()
    with pytest.raises(FileNotFoundError):
        index.read(b"/app/a", str(place.root))


def test_other_keys_and_tags_are_refused(place: Workplace) -> None:
    built = place.finish()
    with pytest.raises(_shield.ShieldError, match="does not authenticate"):
        _shield.Index.open(str(place.index), bytes(32), built.tag)
    with pytest.raises(_shield.ShieldError, match=f"{built.tag.hex()}, expected {'00' * 16}"):
        _shield.Index.open(str(place.index), KEY, bytes(16))
    with pytest.raises(ValueError, match="31 bytes, expected 32"):
        _shield.Builder(bytes(31))
    with pytest.raises(ValueError, match="3 bytes, expected 16"):
        _shield.Index.open(str(place.index), KEY, b"tag")
    with pytest.raises(FileNotFoundError):
        _shield.Index.open(str(place.base / "none"), KEY, built.tag)


def test_what_the_format_can_not_express_is_refused(place: Workplace) -> None:
    with pytest.raises(_shield.ShieldError, match="/app: it was added twice"):
        place.add(b"/app", type="d")
    with pytest.raises(_shield.ShieldError, match="component"):
        place.add(b"/app/../x", type="d")
    with pytest.raises(ValueError, match='unknown type: "s"'):
        place.add(b"/app/s", type="s")
    with pytest.raises(ValueError, match="secret"):
        place.builder.add_region(b"/x", "secret", "")
    place.add(b"/none/x", type="d")
    with pytest.raises(_shield.ShieldError, match="/none/x has no directory above it"):
        place.finish()
    assert not place.index.exists()
    assert list(place.root.iterdir()) == []
    with pytest.raises(_shield.ShieldError, match="finished already"):
        place.finish()


def test_a_source_that_ends_early_is_refused(place: Workplace) -> None:
    place.add(b"/app/a", content=b"x" * 1000, pack=place.pack)
    os.truncate(place.container, 999)
    with pytest.raises(_shield.ShieldError, match="/app/a: its source has 999 bytes, expected 1000"):
        place.finish()
    assert list(place.root.iterdir()) == []


def test_a_source_that_is_written_meanwhile_is_refused(place: Workplace) -> None:
    for number in range(200):
        place.add(b"/app/%d" % number, content=os.urandom(500_000), pack=place.pack)
    calls: list[int] = []

    def change(done: int) -> None:
        calls.append(done)
        with place.container.open("r+b") as container:
            container.write(b"changed")

    with pytest.raises(_shield.ShieldError, match="changed while it was read"):
        place.finish(progress=change)
    assert calls
    assert list(place.root.iterdir()) == []


def test_progress_counts_up_and_may_stop_the_work(place: Workplace, tmp_path: Path) -> None:
    place.add(b"/app/a", content=os.urandom(100_000), pack=place.pack)
    place.add(b"/lib/b", content=bytes(50_000))
    seen: list[int] = []
    place.finish(progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 150_000

    (tmp_path / "second").mkdir()
    second = Workplace(tmp_path / "second")
    second.add(b"/app/a", content=os.urandom(100_000), pack=second.pack)

    def stop(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        second.finish(progress=stop)
    assert not second.index.exists()
    assert list(second.root.iterdir()) == []


def test_a_signal_stops_the_work_and_other_threads_run_meanwhile(place: Workplace) -> None:
    with place.container.open("wb") as container:
        container.truncate(6_000_000_000)
    place.builder.add_entry(
        b"/lib/big", type="-", mode=0o644, uid=0, gid=0, mtime=0, mtime_nsec=0, inode=50,
        source=str(place.container), size=6_000_000_000,
    )  # fmt: skip
    timer = threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        place.finish()
    timer.join()
    assert list(place.root.iterdir()) == []


def test_outputs_that_can_not_be_written_are_os_errors(place: Workplace) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        place.builder.finish(str(place.base / "nowhere" / "index"))
    assert list(place.root.iterdir()) == []


def test_thousands_of_files_need_few_descriptors(place: Workplace) -> None:
    for number in range(300):
        file = place.base / f"source{number}"
        file.write_bytes(b"%d" % number)
        place.builder.add_entry(
            b"/app/%d" % number, type="-", mode=0o644, uid=0, gid=0, mtime=0, mtime_nsec=0, inode=1000 + number,
            source=str(file), size=file.stat().st_size, pack=place.pack,
        )  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 80, hard))
    try:
        built = place.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert place.open(built).read(b"/app/299", str(place.root)) == b"299"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    results = []
    for name, threads in (("first", 1), ("second", 3)):
        (tmp_path / name).mkdir()
        place = Workplace(tmp_path / name)
        place.add(b"/app/a", content=b"abc" * 100_000, pack=place.pack)
        built = place.finish(threads=threads)
        results.append((built.tag, place.index.read_bytes(), (place.root / "app.pack").read_bytes()))
    assert results[0] == results[1]
