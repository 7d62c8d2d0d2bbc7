"""The protected file system's packs: when each is complete."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from sconify import _shield
from sconify.errors import UntrustedDataError
from sconify.image.model import Entry, EntryType, Extent
from sconify.shield.plan import Plan, PlannedEntry
from sconify.shield.protect import BuiltFile, protect
from sconify.shield.regions import Region, RegionKind

SIZE = 24 << 20
REGIONS = ("/a", "/b", "/c")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three regions, each with a file large enough for the progress to be told meanwhile."""
    source = tmp_path / "source"
    source.write_bytes(random.Random(1).randbytes(SIZE) * len(REGIONS))
    entries = {"/": PlannedEntry(Entry(path="/", type=EntryType.DIRECTORY, mode=0o755), RegionKind.ENCRYPTED, "test")}
    for number, region in enumerate(REGIONS):
        directory = Entry(path=region, type=EntryType.DIRECTORY, mode=0o755)
        file = Entry(
            path=f"{region}/file", type=EntryType.FILE, mode=0o644, content=Extent(source, number * SIZE, SIZE)
        )
        for entry in (directory, file):
            entries[entry.path] = PlannedEntry(entry, RegionKind.ENCRYPTED, "test")
    regions = tuple(Region(region, RegionKind.ENCRYPTED, "test") for region in REGIONS)
    return Plan(regions=regions, entries=entries, omitted=(), warnings=())


def test_a_pack_that_is_said_to_be_complete_does_not_change_any_more(plan: Plan, tmp_path: Path) -> None:
    seen: dict[BuiltFile, str] = {}
    done: list[int] = []

    def complete(pack: BuiltFile) -> None:
        seen[pack] = hashlib.sha256(pack.file.read_bytes()).hexdigest()

    made = protect(
        plan, key=bytes(32), key_is_fresh=False, work=tmp_path, progress=done.append, complete=complete
    )  # fmt: skip
    assert tuple(seen) == made.packs
    assert len(seen) == len(REGIONS)
    assert seen == {pack: hashlib.sha256(pack.file.read_bytes()).hexdigest() for pack in made.packs}
    assert done[-1] == SIZE * len(REGIONS)


def test_a_pack_is_complete_while_the_next_one_is_written(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a builder that tells its progress at the worst moments."""
    seen: list[str] = []
    told: list[list[str]] = []

    def finish(_builder: object, index: Path, *, gap: int, progress: object) -> object:
        assert callable(progress)
        for content in (b"", b"x"):
            for number in range(len(REGIONS)):
                (tmp_path / f"pack{number}").write_bytes(bytes(gap) * bool(content) + content)
                progress(0)
                told.append(list(seen))
        index.write_bytes(b"")
        return type("Built", (), {"tag": bytes(16)})

    monkeypatch.setattr("sconify.shield.protect.finish", finish)
    protect(
        plan, key=bytes(32), key_is_fresh=False, work=tmp_path, progress=lambda _: None,
        complete=lambda pack: seen.append(pack.file.name),
    )  # fmt: skip
    assert told == [[], [], [], [], ["pack0"], ["pack0", "pack1"]]
    assert seen == ["pack0", "pack1", "pack2"]


def test_nothing_is_complete_after_a_failure_but_what_was(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(SIZE))
    seen: list[BuiltFile] = []
    with pytest.raises(UntrustedDataError, match="can't be protected"):
        protect(
            plan, key=bytes(32), key_is_fresh=False, work=tmp_path, progress=lambda _: None, complete=seen.append
        )  # fmt: skip
    assert len(seen) < len(REGIONS)
    assert not list(tmp_path.glob("pack*"))


def test_what_engines_add_users_to_is_read_from_a_pack(tmp_path: Path) -> None:
    """podman and CRI-O write to these files of a container, whose program must not end for that."""
    source = tmp_path / "source"
    source.write_bytes(b"root:x:0:\n")
    entries = {
        path: PlannedEntry(Entry(path=path, type=EntryType.DIRECTORY, mode=0o755), RegionKind.AUTHENTICATED, "test")
        for path in ("/", "/etc")
    }
    for path in ("/etc/group", "/etc/other", "/etc/passwd"):
        file = Entry(path=path, type=EntryType.FILE, mode=0o644, content=Extent(source, 0, 10))
        entries[path] = PlannedEntry(file, RegionKind.AUTHENTICATED, "test")
    made = protect(
        Plan(regions=(Region("/etc", RegionKind.AUTHENTICATED, "test"),), entries=entries, omitted=(), warnings=()),
        key=bytes(32), key_is_fresh=False, work=tmp_path, progress=lambda _: None,
    )  # fmt: skip
    index = _shield.Index.open(str(made.index.file), bytes(32), made.tag)
    packed = {path for path in entries if "pack" in index.entry(path.encode())}
    assert packed == {"/etc/group", "/etc/passwd"}
    root = tmp_path / "root/.sconify"
    root.mkdir(parents=True)
    for pack in made.packs:
        content = pack.content
        data = content.source.read_bytes()[content.offset : content.offset + content.size]
        (root / Path(pack.image_path).name).write_bytes(data)
    assert index.read(b"/etc/passwd", str(root.parent)) == b"root:x:0:\n"
