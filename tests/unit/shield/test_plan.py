from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.image.model import Entry, EntryType, Extent
from sconify.image.rootfs import RootFileSystem
from sconify.image.tree import Tree
from sconify.program.view import trace
from sconify.shield.plan import Plan, Planner
from sconify.shield.regions import RegionKind, ancestors

ENCRYPTED, AUTHENTICATED, HOST = RegionKind.ENCRYPTED, RegionKind.AUTHENTICATED, RegionKind.HOST
EPHEMERAL = RegionKind.EPHEMERAL


def root_of(contents: Mapping[str, str | int | None]) -> RootFileSystem:
    """A root file system: an int is the size of a file, a str the target of a link, None a directory."""
    tree = Tree()
    for path, content in contents.items():
        for above in reversed(list(ancestors(path))[1:]):
            if above != "/" and tree.entries.get(above) is None:
                tree.put(Entry(path=above, type=EntryType.DIRECTORY, mode=0o750))
        if isinstance(content, int):
            extent = Extent(Path("unused"), 0, content)
            tree.put(Entry(path=path, type=EntryType.FILE, mode=0o644, content=extent))
        elif content is None:
            tree.put(Entry(path=path, type=EntryType.DIRECTORY, mode=0o755))
        else:
            tree.put(Entry(path=path, type=EntryType.SYMLINK, mode=0o777, target=content))
    return RootFileSystem(tree)


NATIVE: dict[str, str | int | None] = {
    "/app/main.py": 10,
    "/app/static/logo": 20,
    "/app/link": "/opt/outside",
    "/opt/outside": 5,
    "/lib": "usr/lib",
    "/usr/lib/libc.so.6": 100,
    "/usr/lib/python/os.py": 30,
    "/etc/hosts": 1,
    "/etc/shadow": 7,
    "/bin/tool": 50,
}


def kinds(plan: Plan) -> dict[str, RegionKind]:
    return {
        path: planned.kind for path, planned in plan.entries.items() if planned.entry.type is not EntryType.DIRECTORY
    }


def test_a_directory_is_taken_with_all_below_it_and_nothing_else() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    plan = planner.plan()
    assert kinds(plan) == {
        "/app/main.py": ENCRYPTED,
        "/app/static/logo": ENCRYPTED,
        "/app/link": ENCRYPTED,
        "/etc/hosts": HOST,
        "/etc/hostname": HOST,
        "/etc/resolv.conf": HOST,
    }
    assert plan.content_size == 30
    assert plan.omitted == (
        "/bin/tool", "/etc/shadow", "/lib", "/opt/outside", "/usr/lib/libc.so.6", "/usr/lib/python/os.py"
    )  # fmt: skip
    assert plan.warnings == ("/app/link is a link to /opt/outside, which is in no region",)


def test_the_longest_prefix_wins() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    planner.declare_directory("/app/static", AUTHENTICATED, flag="--plain")
    planner.declare_host_path("/app/link")
    found = kinds(planner.plan())
    assert found["/app/main.py"] is ENCRYPTED
    assert found["/app/static/logo"] is AUTHENTICATED
    assert "/app/link" not in found


def test_what_the_program_needs_joins_the_users_region() -> None:
    """With --dir=/usr/lib the libraries are encrypted, although they would be plain by default."""
    root = root_of(NATIVE)
    planner = Planner(root)
    planner.declare_directory("/usr/lib", ENCRYPTED, flag="--dir")
    planner.need(trace(root, "/lib/libc.so.6"), "shared object")
    planner.need(trace(root, "/lib/python"), "library")
    found = kinds(planner.plan())
    assert found["/usr/lib/libc.so.6"] is ENCRYPTED
    assert found["/usr/lib/python/os.py"] is ENCRYPTED
    assert found["/lib"] is AUTHENTICATED


def test_what_the_program_needs_is_authenticated_by_default() -> None:
    root = root_of(NATIVE)
    planner = Planner(root)
    planner.need(trace(root, "/lib/python"), "library")
    plan = planner.plan()
    assert plan.entries["/usr/lib/python/os.py"].kind is AUTHENTICATED
    assert "/usr/lib/libc.so.6" not in plan.entries
    assert plan.entries["/usr"].entry.mode == 0o750


def test_a_link_is_followed_to_the_directory_that_is_declared() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_directory("/lib/python", ENCRYPTED, flag="--dir")
    plan = planner.plan()
    assert plan.entries["/usr/lib/python/os.py"].kind is ENCRYPTED
    assert plan.entries["/lib"].entry.target == "usr/lib"


@pytest.mark.parametrize(
    ("path", "message", "remedy"),
    [
        ("/none", "--dir=/none", "correct --dir"),
        ("app", "--dir=app is not absolute", "give --dir=/app"),
        ("/bin/tool", "--dir=/bin/tool is no directory", "give --dir a directory"),
    ],
)
def test_a_directory_that_is_none_is_refused(path: str, message: str, remedy: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Planner(root_of(NATIVE)).declare_directory(path, ENCRYPTED, flag="--dir")
    assert caught.value.remedy == remedy


def test_a_file_that_is_a_directory_is_refused() -> None:
    with pytest.raises(UserError, match="--plain-file=/app is a directory"):
        Planner(root_of(NATIVE)).declare_file("/app", AUTHENTICATED, flag="--plain-file")


def test_two_protections_for_one_path_are_refused() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    with pytest.raises(UserError, match=r"/app would be both encrypted \(--dir=/app\) and authenticated"):
        planner.declare_directory("/app", AUTHENTICATED, flag="--plain")


def test_everything_of_the_base_image_is_authenticated() -> None:
    planner = Planner(root_of({"/app/main.py": 10}))
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    plan = planner.plan(root_of({"/bin/sh": 3, "/app/main.py": 4}))
    assert plan.entries["/bin/sh"].kind is AUTHENTICATED
    assert plan.entries["/app/main.py"].entry.size == 10


def test_what_cannot_stand_on_the_base_image_is_refused() -> None:
    planner = Planner(root_of({"/app/main.py": 10}))
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    with pytest.raises(
        UserError, match="/app is a directory in the native image, but a symlink in the base image"
    ) as caught:
        planner.plan(root_of({"/app": "opt"}))
    assert caught.value.remedy == "give another --base"


def test_a_directory_of_the_base_stays_where_the_native_image_has_a_link() -> None:
    """Debian's /lib is a link, Alpine's is a directory with the base image's own loader."""
    root = root_of(NATIVE)
    planner = Planner(root)
    planner.need(trace(root, "/lib/libc.so.6"), "shared object")
    plan = planner.plan(root_of({"/lib/ld-musl-x86_64.so.1": 9}))
    assert plan.entries["/lib"].entry.type is EntryType.DIRECTORY
    assert plan.entries["/usr/lib/libc.so.6"].kind is AUTHENTICATED


def test_wildcards_in_host_paths_are_warned_of() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_host_path("/data/*")
    assert any("--host-path=/data/*" in warning for warning in planner.plan().warnings)


@given(
    st.lists(st.sampled_from(sorted(NATIVE)), unique=True), st.lists(st.sampled_from(["/app", "/usr", "/etc", "/opt"]))
)
def test_every_path_has_its_directories_and_is_either_in_or_left_out(needed: list[str], directories: list[str]) -> None:
    root = root_of(NATIVE)
    planner = Planner(root)
    for directory in directories:
        planner.declare_directory(directory, ENCRYPTED, flag="--dir")
    for path in needed:
        planner.need_alone(path, "needed")
    plan = planner.plan()
    paths = list(plan.entries)
    assert paths == sorted(paths)
    assert all(above in plan.entries for path in paths for above in ancestors(path))
    files = {entry.path for entry in root.walk("/") if entry.type is not EntryType.DIRECTORY}
    assert files - {"/etc/hosts"} == (set(plan.omitted) | (set(paths) & files)) - {"/etc/hosts"}
    assert not set(plan.omitted) & set(paths)


def test_what_may_be_loaded_or_run() -> None:
    tree = Tree()
    for path in ("/app", "/bin"):
        tree.put(Entry(path=path, type=EntryType.DIRECTORY, mode=0o755))
    files = {"/app/x.so.1": 0o644, "/app/addon.node": 0o644, "/app/tool": 0o755, "/app/text": 0o644, "/bin/sh": 0o755}
    for path, mode in files.items():
        tree.put(Entry(path=path, type=EntryType.FILE, mode=mode, content=Extent(Path("unused"), 0, 1)))
    planner = Planner(RootFileSystem(tree))
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    assert [entry.path for entry in planner.shared_objects()] == ["/app/addon.node", "/app/tool", "/app/x.so.1"]


def test_what_is_embedded_is_all_encrypted_and_nothing_else_is_the_hosts() -> None:
    root = root_of(NATIVE)
    planner = Planner(root, embedded=True)
    planner.declare_directory("/app", ENCRYPTED, flag="--fs-dir")
    planner.declare_file("/opt/outside", ENCRYPTED, flag="--fs-file")
    planner.all_shared_objects("all")
    planner.need(trace(root, "/lib/python"), "service library")
    planner.need_alone("/bin/tool", "tool")
    plan = planner.plan(root_of({"/etc/base": 1}))
    assert kinds(plan) == dict.fromkeys(
        ["/app/main.py", "/app/static/logo", "/app/link", "/bin/tool", "/lib", "/opt/outside", "/usr/lib/libc.so.6",
         "/usr/lib/python/os.py"],
        ENCRYPTED,
    )  # fmt: skip


def test_what_is_beside_is_not_embedded() -> None:
    planner = Planner(root_of(NATIVE), embedded=True)
    planner.declare_beside("/app", flag="--plain")
    planner.declare_host_path("/app/static")
    plan = planner.plan()
    assert "/app/main.py" not in plan.entries
    assert set(plan.beside) == {"/app", "/app/link", "/app/main.py", "/app/static", "/app/static/logo"}
    assert any("--host-path" in warning for warning in plan.warnings)


def test_what_is_beside_and_the_hosts_needs_no_warning() -> None:
    planner = Planner(root_of(NATIVE), embedded=True)
    planner.declare_beside("/app/static", flag="--plain")
    planner.declare_host_path("/app/static")
    assert planner.plan().warnings == ()


def test_a_missing_directory_to_embed_names_its_flag() -> None:
    planner = Planner(root_of(NATIVE), embedded=True)
    with pytest.raises(UserError, match="--fs-dir=/nowhere"):
        planner.declare_directory("/nowhere", ENCRYPTED, flag="--fs-dir")
    planner.declare_directory("/app", ENCRYPTED, flag="--fs-dir")
    with pytest.raises(UserError, match="would be both encrypted"):
        planner.declare_host_path("/app")


def test_a_writable_directory_is_ephemeral_with_what_the_image_has_there() -> None:
    planner = Planner(root_of({**NATIVE, "/run/app/seed": 3, "/var/data": "/srv/data", "/srv/data/db": 9}))
    assert planner.declare_writable("/run", reason="test") == "/run"
    assert planner.declare_writable("/var/data", reason="VOLUME") == "/srv/data"
    assert planner.declare_writable("/tmp", reason="test", mode=0o1777) == "/tmp"
    plan = planner.plan()
    assert {path for path, planned in plan.entries.items() if planned.kind is EPHEMERAL} == {
        "/run", "/run/app", "/run/app/seed", "/srv/data", "/srv/data/db", "/tmp"
    }  # fmt: skip
    assert (plan.entries["/tmp"].entry.type, plan.entries["/tmp"].entry.mode) == (EntryType.DIRECTORY, 0o1777)
    assert "/var/data" in plan.entries
    assert not {"/run/app/seed", "/srv/data/db"} & set(plan.omitted)


def test_what_the_engine_mounts_is_for_everybody_whatever_the_image_has_there() -> None:
    planner = Planner(root_of({**NATIVE, "/dev/shm": None}))
    planner.declare_writable("/dev/shm", reason="test", mode=0o1777)
    assert planner.plan().entries["/dev/shm"].entry.mode == 0o1777


def test_what_the_user_declared_stays_as_declared() -> None:
    planner = Planner(root_of({**NATIVE, "/tmp/kept": 4, "/run": 5, "/var/run": "/nowhere"}))
    planner.declare_directory("/tmp", ENCRYPTED, flag="--dir")
    planner.declare_host_path("/var/tmp")
    for path in ("/tmp", "/var/tmp", "/run", "/var/run"):
        assert planner.declare_writable(path, reason="test") is None
    assert not any(region.kind is EPHEMERAL for region in planner.plan().regions)


def test_all_may_write_to_shared_memory_whatever_the_image_says() -> None:
    planner = Planner(root_of({**NATIVE, "/dev/shm": None, "/tmp": None}))
    for path in ("/dev/shm", "/tmp"):
        planner.declare_writable(path, reason="a test", mode=0o1777)
    modes = {path: planned.entry.mode for path, planned in planner.plan().entries.items()}
    assert (modes["/dev/shm"], modes["/tmp"]) == (0o1777, 0o755)


def test_what_is_chosen_must_not_lie_within_a_volume() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_directory("/app/static", ENCRYPTED, flag="--dir")
    planner.declare_volume("/app", name="data")
    with pytest.raises(UserError) as caught:
        planner.plan()
    assert caught.value.what == "/app/static (--dir=/app/static) lies within the volume at /app"
    assert caught.value.remedy == "give the volume another PATH, or leave the other option out"


def test_what_the_program_needs_must_not_be_covered_by_a_volume() -> None:
    root = root_of(NATIVE)
    planner = Planner(root)
    planner.declare_volume("/usr/lib/python", name="data")
    planner.need(trace(root, "/usr/lib/python/os.py"), "library of Python")
    with pytest.raises(UserError) as caught:
        planner.plan()
    assert "would be covered by the volume at /usr/lib/python, which begins empty" in caught.value.what
    assert caught.value.remedy == "give the volume another PATH"


def test_a_volume_that_is_reached_through_a_dangling_link() -> None:
    planner = Planner(root_of({"/data": "/nowhere"}))
    with pytest.raises(UserError) as caught:
        planner.declare_volume("/data", name="v")
    assert caught.value.what == "--volume=v:/data is a dangling link in the native image"
    assert "give a directory's path" in (caught.value.remedy or "")


def test_a_volume_takes_nothing_of_the_image_but_its_directory() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_volume("/app/static", name="data")
    planner.declare_volume("/new", name="other")
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    plan = planner.plan()
    assert "/app/static/logo" not in plan.entries
    assert plan.entries["/app/main.py"].kind is ENCRYPTED
    for path, mode in (("/app/static", 0o750), ("/new", 0o755)):
        assert (plan.entries[path].kind, plan.entries[path].entry.mode) == (RegionKind.VOLUME, mode)
    assert {region.prefix for region in plan.regions if region.kind is RegionKind.VOLUME} == {"/app/static", "/new"}
    assert [warning for warning in plan.warnings if "begins empty" in warning] != []
    assert "/app/static/logo" not in plan.omitted


@pytest.mark.parametrize(("path", "reason"), [("/lib", "a link to /usr/lib"), ("/bin/tool", "no directory")])
def test_a_volume_needs_a_directory(path: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Planner(root_of(NATIVE)).declare_volume(path, name="data")


def test_a_volume_is_nothing_else_and_covers_nothing() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_directory("/app", ENCRYPTED, flag="--dir")
    with pytest.raises(UserError, match=r"both encrypted \(--dir=/app\) and volume"):
        planner.declare_volume("/app", name="data")
    beneath = Planner(root_of(NATIVE))
    beneath.declare_volume("/app", name="data")
    beneath.declare_directory("/app/static", ENCRYPTED, flag="--dir")
    with pytest.raises(UserError, match="within the volume at /app"):
        beneath.plan()
    needed = Planner(root_of(NATIVE))
    needed.declare_volume("/usr/lib", name="data")
    needed.need(trace(root_of(NATIVE), "/usr/lib/libc.so.6"), "the C library")
    with pytest.raises(UserError, match="would be covered by the volume at /usr/lib"):
        needed.plan()


def test_a_volume_takes_the_place_of_what_the_image_declares_writable() -> None:
    planner = Planner(root_of(NATIVE))
    planner.declare_volume("/app", name="data")
    assert planner.declare_writable("/app", reason="VOLUME /app") is None
