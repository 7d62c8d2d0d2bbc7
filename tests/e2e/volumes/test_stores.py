"""What a volume's store may be kept on: volumes of the engine, directories, and file systems of every kind."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.containers import run
from tests.e2e.volumes.conftest import MakeNotes, MakeRecorder
from tests.e2e.volumes.disks import disk
from tests.e2e.volumes.programs import LAUNCH, Notes, Recorder

pytestmark = pytest.mark.docker

FILE_SYSTEMS = {
    "ext4": "mkfs.ext4 -q -F",
    "ext4 without a journal": "mkfs.ext4 -q -F -O ^has_journal",
    "ext2": "mkfs.ext2 -q -F",
    "xfs": "mkfs.xfs -q -f",
    "btrfs": "mkfs.btrfs -q -f",
}


@pytest.fixture(scope="module")
def stored(recorder: MakeRecorder) -> Recorder:
    # Every store here is a volume of its own to the CAS, which remembers one.
    return recorder("stored", "update_policy: no_rollback_protection")


def keeps_records(program: Recorder) -> None:
    """It is made, used, killed, and has what was acknowledged."""
    _, acknowledged = program.crash(0.4)
    assert acknowledged > 0
    found, acknowledged = program.crash(0.2, "TERM")
    assert found > 0
    assert program.crash(0)[0] >= acknowledged


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_file_system_of_its_own(stored: Recorder, tmp_path: Path, kind: str) -> None:
    with disk(tmp_path, make=FILE_SYSTEMS[kind]) as made:
        keeps_records(Recorder(stored.image, made.store))


def test_memory(stored: Recorder, tmp_path: Path) -> None:
    with disk(tmp_path) as made:
        store = made.memory / "store"
        store.mkdir()
        keeps_records(Recorder(stored.image, store))


@pytest.fixture
def engine_volume() -> Iterator[Callable[..., str]]:
    """Make volumes of the engine."""
    with ExitStack() as stack:

        def make(*options: str) -> str:
            name = f"sconify-test-{uuid.uuid4().hex[:12]}"
            run("docker", "volume", "create", *options, name)
            stack.callback(run, "docker", "volume", "rm", "--force", name)
            return name

        yield make


def test_a_volume_of_the_engine(stored: Recorder, engine_volume: Callable[..., str]) -> None:
    keeps_records(Recorder(stored.image, Path(engine_volume())))


def test_a_volume_of_the_engine_in_memory(stored: Recorder, engine_volume: Callable[..., str]) -> None:
    """It is gone with the container: what was stored must not be taken for lost, where nothing protects from that."""
    options = ("--driver=local", "--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size=100m")
    program = Recorder(stored.image, Path(engine_volume(*options)))
    assert program.crash(0.3)[1] > 0
    assert program.crash(0.3)[0] == 0


def test_a_user_who_may_not_write_the_store_is_told_so(notes: MakeNotes, tmp_path: Path) -> None:
    program = notes("stored-user", mount="update_policy: no_rollback_protection")
    store = tmp_path / "store"
    store.mkdir()
    code, log = program.refusal("--user=1000:1000", store=store)
    assert (code, "volume data at /data" in log) == (LAUNCH, True), log
    assert "mount a directory there that the container's user may write" in log
    store.chmod(0o777)
    with program.talk("--user=1000:1000", store=store) as running:
        assert running.ask("list") == ""
        assert running.end()[0] == 0


def test_a_full_path_of_kubernetes(notes: MakeNotes, tmp_path: Path) -> None:
    """A PersistentVolume has ``lost+found`` beside the store, and may be mounted by ``subPath``."""
    program: Notes = notes("stored-claim")
    with disk(tmp_path) as made:
        assert (made.path / "lost+found").is_dir()
        assert program.said("put a text", store=made.path) == ["ok"]
        assert program.said("get a", "list", store=made.path) == ["text", "a"]
        assert (made.path / "lost+found").is_dir()
