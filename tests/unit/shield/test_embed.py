"""The embedded file system: what its measurement covers, how files are packed, and what is remembered."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sconify import _shield
from sconify.errors import UserError
from sconify.image.compression import iterate
from sconify.image.layer_around import layer_around
from sconify.image.model import Entry, EntryType, Extent
from sconify.program.embedded import embedded_entries
from sconify.program.launch import LaunchManifest, embedding_binary, measurement
from sconify.program.measure import measure_binary
from sconify.shield import cache as caching
from sconify.shield import embed as embedding
from sconify.shield.cache import CompressionCache, compression_cache
from sconify.shield.embed import PUBLIC_KEY, EmbeddedFileSystem, check_embeddable, embed
from sconify.shield.plan import Plan, PlannedEntry
from sconify.shield.regions import Region, RegionKind

RUNTIME = Path(__file__).parents[2] / "vectors" / "launch" / "runtime.elf"
KEY = bytes(range(32))

Contents = dict[str, bytes | str | None]
"""Files by path; a str is the target of a link, None a directory."""

SAMPLE: Contents = {
    "/": None,
    "/app": None,
    "/app/big": bytes(range(256)) * 2000,
    "/app/link": "big",
    "/app/main.py": b"print()",
    "/bin": None,
    "/bin/tool": b"\x7fELF",
}


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[..., Plan]:
    """Make a plan of contents; ``change`` gives each entry its last form."""

    def make(contents: Contents, change: Callable[[Entry], Entry] = lambda entry: entry) -> Plan:
        entries = {}
        source = tmp_path / f"source{len(list(tmp_path.iterdir()))}"
        with source.open("wb") as file:
            for path, content in sorted(contents.items()):
                entry = Entry(path=path, type=EntryType.DIRECTORY, mode=0o755)
                if isinstance(content, bytes):
                    extent = Extent(source, file.tell(), len(content))
                    entry = Entry(path=path, type=EntryType.FILE, mode=0o644, content=extent)
                    file.write(content)
                elif content is not None:
                    entry = Entry(path=path, type=EntryType.SYMLINK, mode=0o777, target=content)
                entries[path] = PlannedEntry(change(entry), RegionKind.ENCRYPTED, "test")
        regions = (Region("/app", RegionKind.ENCRYPTED, "--fs-dir=/app"), Region("/proc", RegionKind.HOST, "kernel"))
        return Plan(regions=regions, entries=entries, omitted=("/etc/shadow",), warnings=())

    return make


@pytest.fixture
def embedded(tmp_path: Path) -> Callable[..., EmbeddedFileSystem]:
    def make(
        plan: Plan, *, key: bytes = KEY, key_is_fresh: bool = False, cache: CompressionCache | None = None
    ) -> EmbeddedFileSystem:
        work = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        return embed(
            plan, key=key, key_is_fresh=key_is_fresh, runtime=RUNTIME, manifest=launched(), work=work, cache=cache,
            progress=lambda _: None,
        )  # fmt: skip

    return make


def packs_of(made: EmbeddedFileSystem) -> bytes:
    return b"".join(iterate(made.packs))


def launched() -> LaunchManifest:
    return LaunchManifest.for_runtime(RUNTIME, program="/bin/tool", cas_key=None, variables={})


def measured(made: EmbeddedFileSystem) -> str:
    return measurement(embedding_binary(RUNTIME, launched(), made.files)[0])


def replaced(path: str, **changes: object) -> Callable[[Entry], Entry]:
    return lambda entry: dataclasses.replace(entry, **changes) if entry.path == path else entry  # type: ignore[arg-type]


def test_every_change_of_a_file_changes_the_measurement(
    plan_of: Callable[..., Plan], embedded: Callable[..., EmbeddedFileSystem]
) -> None:
    renamed = {path.replace("main.py", "main.pz"): content for path, content in SAMPLE.items()}
    big = SAMPLE["/app/big"]
    assert isinstance(big, bytes)
    plans = [
        plan_of(SAMPLE),
        plan_of({**SAMPLE, "/app/main.py": b"print(1)"}),
        plan_of({**SAMPLE, "/app/big": big[:-1] + b"x"}),
        plan_of(renamed),
        plan_of({**SAMPLE, "/app/link": "main.py"}),
        plan_of({**SAMPLE, "/app/empty": b""}),
        plan_of({**SAMPLE, "/app/directory": None}),
        plan_of(SAMPLE, replaced("/app/main.py", mode=0o645)),
        plan_of(SAMPLE, replaced("/app/main.py", uid=1)),
        plan_of(SAMPLE, replaced("/app/main.py", mtime=1)),
        plan_of(SAMPLE, replaced("/app/main.py", xattrs={"user.a": b""})),
        plan_of(SAMPLE, replaced("/app", mode=0o700)),
    ]
    measurements = [measured(embedded(plan)) for plan in plans]
    measurements.append(measured(embedded(plan_of(SAMPLE), key=bytes(reversed(KEY)))))
    assert len(set(measurements)) == len(measurements)


def test_the_packs_stand_where_they_belong_in_the_layer(
    plan_of: Callable[..., Plan], embedded: Callable[..., EmbeddedFileSystem]
) -> None:
    """The layer is made around them, and published by one more name for the file, not by a copy."""
    made = embedded(plan_of(SAMPLE))
    head = embedding_binary(RUNTIME, launched(), made.files)[1]
    assert made.packs.offset + made.packs.size == made.packs.source.stat().st_size
    layer = layer_around(made.packs, path="/bin/tool", mode=0o755, epoch=0, head=head)
    assert layer is not None
    assert layer.blob == Extent(made.packs.source, 0, made.packs.source.stat().st_size)


def test_regions_that_are_not_the_hosts_are_one(
    plan_of: Callable[..., Plan], embedded: Callable[..., EmbeddedFileSystem], tmp_path: Path
) -> None:
    """Everything may be changed, and moved from everywhere to everywhere; what stands in the host's part is apart."""
    plan = plan_of({**SAMPLE, "/tmp": None, "/proc": None, "/proc/own": None})
    ephemeral = [Region(path, RegionKind.EPHEMERAL, "writable") for path in ("/tmp", "/proc/own")]
    made = embedded(dataclasses.replace(plan, regions=(*plan.regions, *ephemeral)))
    (tmp_path / "index").write_bytes(made.files.index)
    index = _shield.Index.open(str(tmp_path / "index"), KEY, made.tag)
    regions = [(os.fsdecode(prefix), kind) for prefix, kind, _ in index.regions()]
    assert regions == [("/", "ephemeral"), ("/proc", "host"), ("/proc/own", "ephemeral")]


def test_the_same_input_gives_the_same_binary(
    plan_of: Callable[..., Plan], embedded: Callable[..., EmbeddedFileSystem]
) -> None:
    one, other = embedded(plan_of(SAMPLE)), embedded(plan_of(SAMPLE))
    assert one.files == other.files
    assert packs_of(one) == packs_of(other)


def test_a_file_that_grows_leaves_other_packs_as_they_are(
    plan_of: Callable[..., Plan], embedded: Callable[..., EmbeddedFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "FILES_IN_A_PACK", 4)
    contents: Contents = {"/": None, "/app": None}
    contents |= {f"/app/{number:03}": os.urandom(3000) for number in range(200)}
    before = embedded(plan_of(contents)).files.digests
    contents["/app/100"] = os.urandom(5000)
    after = embedded(plan_of(contents)).files.digests
    pieces = [{digests[at : at + 32] for at in range(0, len(digests), 32)} for digests in (before, after)]
    assert len(pieces[1] - pieces[0]) <= 2
    assert len(pieces[0]) > 20


def test_links_of_one_file_share_its_content(
    plan_of: Callable[..., Plan], embedded: Callable[..., EmbeddedFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "FILES_IN_A_PACK", 1)
    content = os.urandom(10_000)
    contents: Contents = {"/": None, "/a": content, "/b": content, "/c": content}
    plan = plan_of(contents, lambda entry: dataclasses.replace(entry, link_group=7) if entry.content else entry)
    first = plan.entries["/a"].entry.content
    linked = {
        path: dataclasses.replace(planned, entry=dataclasses.replace(planned.entry, content=first))
        if planned.entry.content
        else planned
        for path, planned in plan.entries.items()
    }
    made = embedded(dataclasses.replace(plan, entries=linked))
    assert made.files.packs_size < 2 * len(content)


def test_the_cache_changes_nothing_and_is_used(
    plan_of: Callable[..., Plan], embedded: Callable[..., EmbeddedFileSystem], tmp_path: Path
) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    cache = CompressionCache(directory, bytes(32))
    expected = embedded(plan_of(SAMPLE))
    made = embedded(plan_of(SAMPLE), cache=cache)
    kept = sorted(directory.iterdir())
    again = embedded(plan_of(SAMPLE), cache=cache)
    assert kept
    assert sorted(directory.iterdir()) == kept
    assert expected.files == made.files == again.files
    assert not [file for file in kept if b"print" in file.read_bytes()]
    for file in kept:
        file.write_bytes(b"damaged")
    assert embedded(plan_of(SAMPLE), cache=cache).files == expected.files


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = CompressionCache(tmp_path, bytes(32))
    for number in range(10):
        (tmp_path / str(number)).write_bytes(bytes(100))
        os.utime(tmp_path / str(number), (number, number))
    cache.trim(limit=350)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["7", "8", "9"]


def test_the_cache_has_one_key_which_others_can_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    first, second = compression_cache(), compression_cache()
    assert first is not None
    assert first == second
    assert len(first.key) == 32
    assert first.key.hex() not in repr(first)
    assert str(first.key) not in repr(first)
    assert (tmp_path / "data/sconify/cache.key").stat().st_mode & 0o777 == 0o600
    assert first.directory.stat().st_mode & 0o777 == 0o700


def test_without_a_home_there_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert caching.compression_cache() is None


def test_what_is_embedded_is_read_back(
    plan_of: Callable[..., Plan], embedded: Callable[..., EmbeddedFileSystem], tmp_path: Path
) -> None:
    mount_point = Entry(path="/proc/hosts", type=EntryType.FILE, mode=0o644)
    host = {
        "/proc": PlannedEntry(Entry(path="/proc", type=EntryType.DIRECTORY, mode=0o755), RegionKind.HOST, "kernel"),
        "/proc/hosts": PlannedEntry(mount_point, RegionKind.HOST, "kernel"),
    }
    plan = plan_of(SAMPLE)
    plan = dataclasses.replace(plan, entries={**plan.entries, **host})
    for key in (KEY, PUBLIC_KEY):
        made = embedded(plan, key=key)
        binary = embedding_binary(RUNTIME, launched(), made.files)[1] + packs_of(made)
        (tmp_path / "binary").write_bytes(binary)
        found = measure_binary(io.BytesIO(binary), environment={})
        given = None if key == PUBLIC_KEY else key
        entries = {entry.path: entry for entry in embedded_entries(tmp_path / "binary", found, key=given)}
        assert set(entries) == {*SAMPLE, *host}
        assert entries["/proc/hosts"].sha256 == ""
        assert entries["/app/link"].target == "big"
        assert entries["/app/main.py"].size == 7


@pytest.mark.parametrize(
    ("volume", "refused"), [("/app", True), ("/", True), ("/app/data", False), ("/application", False)]
)
def test_what_a_volume_would_hide_is_not_embedded(volume: str, refused: bool, plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(SAMPLE)
    if not refused:
        check_embeddable(plan, "/bin/tool", volumes=[volume])
        return
    with pytest.raises(UserError, match=f"--fs-dir=/app would be hidden by the volume at {volume}"):
        check_embeddable(plan, "/bin/tool", volumes=[volume])


def test_too_much_is_refused_before_anything_is_built(
    plan_of: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "MAX_CONTENT", 1000)
    with pytest.raises(UserError, match="would have 512011 bytes, expected at most 1000"):
        check_embeddable(plan_of(SAMPLE), "/bin/tool", volumes=())
