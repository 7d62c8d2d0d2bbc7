from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

import sconify.program.closure as closure_module
from sconify.errors import UntrustedDataError, UserError
from sconify.program.binary import load_program
from sconify.program.closure import Closure, shared_objects
from sconify.program.view import RootView

MakeView = Callable[..., RootView]
MakeElf = Callable[..., bytes]
GLIBC = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"


def close(
    view: RootView, environment: Mapping[str, str] | None = None, modules: tuple[str, ...] = (), working_dir: str = "/"
) -> Closure:
    environment = environment or {}
    program = load_program(view, "/bin/app", environment=environment, working_dir="/")
    entries = [entry for path in modules if (entry := view.lookup(path)) is not None]
    assert len(entries) == len(modules)
    return shared_objects(view, program, environment=environment, working_dir=working_dir, modules=entries)


def found(closure: Closure) -> list[str]:
    """Return what was found besides the loader."""
    assert not closure.missing
    return [dependency.trail.path for dependency in closure.dependencies][1:]


@pytest.fixture
def library(make_elf: MakeElf) -> bytes:
    return make_elf(soname=None)


def test_static_program_needs_nothing(make_view: MakeView, make_elf: MakeElf) -> None:
    assert close(make_view({"/bin/app": make_elf(static=True, elf_type=2)})) == Closure(dependencies=(), missing=())


def test_links_of_directories_and_files_are_part_of_a_dependency(make_view: MakeView, make_elf: MakeElf) -> None:
    library = make_elf(soname="libz.so.1")
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("libz.so.1", "ld-linux-x86-64.so.2")),
            "/lib": "usr/lib",
            "/lib64": "usr/lib64",
            "/usr/lib64/ld-linux-x86-64.so.2": make_elf(),
            "/usr/lib/x86_64-linux-gnu/libz.so.1.2": library,
            "/usr/lib/x86_64-linux-gnu/libz.so.1": "libz.so.1.2",
        }
    )
    loader, zlib = close(view).dependencies
    assert loader.paths == ("/lib64", "/usr/lib64/ld-linux-x86-64.so.2")
    assert loader.reason == "dynamic loader of /bin/app"
    assert zlib.paths == ("/lib", "/usr/lib/x86_64-linux-gnu/libz.so.1", "/usr/lib/x86_64-linux-gnu/libz.so.1.2")
    assert (zlib.name, zlib.reason, zlib.needed_by) == ("libz.so.1", "shared object needed by /bin/app", "/bin/app")


def test_no_loader_no_program(make_view: MakeView, make_elf: MakeElf) -> None:
    with pytest.raises(UserError) as error:
        close(make_view({"/bin/app": make_elf(interpreter=GLIBC)}))
    assert error.value.what == f"/bin/app is started by the dynamic loader {GLIBC}, which is not in the image"
    assert error.value.remedy == (
        "add the C library of the program to the image, or give --binary=PATH with a static program"
    )


def test_missing_objects_are_named_with_where_they_were_searched(make_view: MakeView, make_elf: MakeElf) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("liba.so",), runpath="/opt"),
            GLIBC: make_elf(),
            "/opt/liba.so": make_elf(needed=("libb.so",), flags_1=0x800, rpath="/r"),
            "/m.so": make_elf(needed=("libc.so", "libb.so")),
        }
    )
    (first,) = close(view).missing
    assert first.required
    assert first.message() == "libb.so, needed by /opt/liba.so, is not in the image (searched: /r)"
    _, second, third = close(view, modules=("/m.so",)).missing
    assert (second.name, second.needed_by, second.required) == ("libc.so", "/m.so", False)
    assert (third.name, third.needed_by, third.required) == ("libb.so", "/m.so", False)
    assert second.searched[0] == "/lib/x86_64-linux-gnu"


def test_a_search_without_end_is_refused(
    make_view: MakeView, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closure_module, "MAX_PROBES", 10_000)
    names = tuple(f"lib{number}.so" for number in range(200))
    everything = make_elf(interpreter=GLIBC, needed=names, rpath=":".join(f"/d{number}" for number in range(2000)))
    with pytest.raises(UntrustedDataError) as error:
        close(make_view({"/bin/app": everything, GLIBC: make_elf()}))
    assert error.value.what == "/bin/app: the search for shared objects takes over 10000 steps"


def test_what_one_object_does_not_find_another_may(make_view: MakeView, make_elf: MakeElf, library: bytes) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("libx.so", "liba.so")),
            GLIBC: make_elf(),
            "/lib/liba.so": make_elf(needed=("libx.so",), runpath="/opt"),
            **everywhere(library, "/opt"),
        }
    )
    closure = close(view)
    assert [dependency.trail.path for dependency in closure.dependencies][1:] == ["/lib/liba.so", "/opt/libx.so"]
    assert [missing.needed_by for missing in closure.missing] == ["/bin/app"]


def everywhere(library: bytes, *directories: str) -> dict[str, bytes]:
    return {f"{directory}/libx.so": library for directory in directories}


def test_glibc_order(make_view: MakeView, make_elf: MakeElf, library: bytes) -> None:
    places = ["/rpath", "/env", "/conf", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"]
    places += ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    while places:
        view = make_view(
            {
                "/bin/app": make_elf(interpreter=GLIBC, needed=("libx.so",), rpath="/rpath"),
                GLIBC: make_elf(),
                "/etc/ld.so.conf": b"/conf\n",
                **everywhere(library, *places),
            }
        )
        assert found(close(view, {"LD_LIBRARY_PATH": "/nope:/env"})) == [f"{places.pop(0)}/libx.so"]


def test_glibc_runpath_comes_after_the_environment_and_hides_rpath(
    make_view: MakeView, make_elf: MakeElf, library: bytes
) -> None:
    contents = {
        "/bin/app": make_elf(interpreter=GLIBC, needed=("libx.so",), rpath="/rpath", runpath="/runpath"),
        GLIBC: make_elf(),
        **everywhere(library, "/rpath", "/env", "/runpath", "/lib"),
    }
    assert found(close(make_view(contents), {"LD_LIBRARY_PATH": "/env"})) == ["/env/libx.so"]
    assert found(close(make_view(contents))) == ["/runpath/libx.so"]


@pytest.mark.parametrize(
    ("interpreter", "tag", "inherited"),
    [(GLIBC, "rpath", True), (GLIBC, "runpath", False), (MUSL, "rpath", True), (MUSL, "runpath", True)],
)
def test_inheritance_of_search_paths(
    make_view: MakeView, make_elf: MakeElf, library: bytes, interpreter: str, tag: str, inherited: bool
) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=interpreter, needed=("liba.so",), **{tag: "/opt"}),
            interpreter: make_elf(),
            "/opt/liba.so": make_elf(needed=("libx.so",)),
            **everywhere(library, "/opt"),
        }
    )
    closure = close(view)
    names = [dependency.name for dependency in closure.dependencies]
    assert ("libx.so" in names) is inherited
    assert [missing.name for missing in closure.missing] == ([] if inherited else ["libx.so"])


def test_glibc_rpath_of_the_program_is_not_asked_for_objects_with_runpath(
    make_view: MakeView, make_elf: MakeElf, library: bytes
) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("liba.so",), rpath="/opt"),
            GLIBC: make_elf(),
            "/opt/liba.so": make_elf(needed=("libx.so",), runpath="/elsewhere"),
            **everywhere(library, "/opt"),
        }
    )
    assert [missing.name for missing in close(view).missing] == ["libx.so"]


def test_tokens(make_view: MakeView, make_elf: MakeElf, library: bytes) -> None:
    def directory_found(runpath: str, directory: str) -> bool:
        contents: dict[str, bytes | str] = {
            "/opt/app/bin/app": make_elf(interpreter=GLIBC, needed=("libx.so",), runpath=runpath),
            "/bin/app": "/opt/app/bin/app",
            GLIBC: make_elf(),
            **everywhere(library, directory),
        }
        return not close(make_view(contents)).missing

    assert directory_found("$ORIGIN/../lib", "/opt/app/lib")
    assert directory_found("${ORIGIN}", "/opt/app/bin")
    assert directory_found("/a/$LIB/b", "/a/lib64/b")
    assert directory_found("/a/${LIB}", "/a/lib/x86_64-linux-gnu")
    assert directory_found("/a/$PLATFORM:/b", "/a/x86_64")
    assert not directory_found("/a/$ORIGINAL", "/a//opt/app/binAL")


def test_origin_of_a_shared_object_is_where_it_was_found(
    make_view: MakeView, make_elf: MakeElf, library: bytes
) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("liba.so",), runpath="/found"),
            GLIBC: make_elf(),
            "/found/liba.so": "/real/liba.so",
            "/real/liba.so": make_elf(needed=("libx.so",), runpath="$ORIGIN"),
            **everywhere(library, "/found", "/real"),
        }
    )
    assert found(close(view)) == ["/found/liba.so", "/found/libx.so"]


def test_all_builds_for_better_cpus_are_included(make_view: MakeView, make_elf: MakeElf, library: bytes) -> None:
    v3, v4 = "glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v4"
    contents = {
        "/bin/app": make_elf(interpreter=GLIBC, needed=("libx.so",)),
        GLIBC: make_elf(),
        f"/lib64/{v4}/libx.so": make_elf(needed=("liby.so",)),
        f"/lib/{v3}/libx.so": library,
        "/lib/libx.so": library,
        "/usr/lib/libx.so": library,
        "/lib/liby.so": library,
    }
    assert found(close(make_view(contents))) == [
        f"/lib64/{v4}/libx.so",
        f"/lib/{v3}/libx.so",
        "/lib/libx.so",
        "/lib/liby.so",
    ]
    del contents["/lib/libx.so"], contents["/usr/lib/libx.so"]
    assert [missing.name for missing in close(make_view(contents)).missing] == ["libx.so"]


def test_files_that_no_loader_would_take_are_passed_over(
    make_view: MakeView, make_elf: MakeElf, library: bytes
) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("libx.so",), runpath="/a:/b:/c:/d:/e"),
            GLIBC: make_elf(),
            "/a/libx.so": b"INPUT(-lx)",
            "/b/libx.so": make_elf(machine=183),
            "/c/libx.so": None,
            "/d/libx.so": make_elf()[:70],
            "/e/libx.so": library,
        }
    )
    assert found(close(view)) == ["/e/libx.so"]


def test_the_first_object_of_a_name_serves_all(make_view: MakeView, make_elf: MakeElf) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("liba.so", "liby-alias.so"), runpath="/1"),
            GLIBC: make_elf(),
            "/1/liba.so": make_elf(needed=("liby.so",), runpath="/2"),
            "/1/liby-alias.so": make_elf(soname="liby.so"),
            "/2/liby.so": make_elf(soname="liby.so"),
        }
    )
    assert found(close(view)) == ["/1/liba.so", "/1/liby-alias.so"]


def test_names_with_a_slash_are_paths(make_view: MakeView, make_elf: MakeElf, library: bytes) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("/opt/libx.so", "./libx.so", "$ORIGIN/liby.so", "a/no.so")),
            GLIBC: make_elf(),
            "/bin/liby.so": library,
            **everywhere(library, "/opt", "/work"),
        }
    )
    closure = close(view, working_dir="/work")
    paths = [dependency.trail.path for dependency in closure.dependencies][1:]
    assert paths == ["/opt/libx.so", "/work/libx.so", "/bin/liby.so"]
    assert [missing.message() for missing in closure.missing] == [
        "a/no.so, needed by /bin/app, is not in the image (searched: /work/a)"
    ]


def test_preloaded_objects_come_first_and_may_be_missing(
    make_view: MakeView, make_elf: MakeElf, library: bytes
) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("libx.so",)),
            GLIBC: make_elf(),
            "/lib/libjemalloc.so.2": make_elf(needed=("liby.so",)),
            "/lib/liby.so": library,
            "/lib/libx.so": library,
        }
    )
    closure = close(view, {"LD_PRELOAD": "libjemalloc.so.2:/gone.so"})
    assert found(closure) == ["/lib/libjemalloc.so.2", "/lib/libx.so", "/lib/liby.so"]
    assert closure.dependencies[1].reason == "preloaded by LD_PRELOAD"


def test_what_glibc_opens_at_run_time_and_its_cache_are_included_if_they_exist(
    make_view: MakeView, make_elf: MakeElf, library: bytes
) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC),
            GLIBC: make_elf(),
            "/etc/ld.so.cache": (b"glibc-ld.so.cache1.1", 0o644),
            "/lib/libnss_dns.so.2": make_elf(needed=("libresolv.so.2",)),
            "/lib/libresolv.so.2": library,
            "/lib/libgcc_s.so.1": library,
        }
    )
    closure = close(view)
    assert not closure.missing
    assert {dependency.trail.path: dependency.reason for dependency in closure.dependencies[1:]} == {
        "/etc/ld.so.cache": "tells the dynamic loader where shared objects are",
        "/lib/libnss_dns.so.2": "opened by glibc to resolve host names",
        "/lib/libresolv.so.2": "shared object needed by /lib/libnss_dns.so.2",
        "/lib/libgcc_s.so.1": "opened by glibc to end or unwind threads",
    }


def test_each_module_is_loaded_on_its_own_after_the_program(make_view: MakeView, make_elf: MakeElf) -> None:
    own = make_elf(soname="libown.so")
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC, needed=("libapp.so",)),
            GLIBC: make_elf(),
            "/lib/libapp.so": make_elf(soname="libapp.so"),
            "/m/1/a.so": make_elf(needed=("libown.so", "libapp.so"), runpath="$ORIGIN"),
            "/m/1/libown.so": own,
            "/m/1/libapp.so": make_elf(soname="libapp.so"),
            "/m/2/b.so": make_elf(needed=("libown.so",), runpath="$ORIGIN"),
            "/m/2/libown.so": own,
            "/m/text.so": b"no ELF",
        }
    )
    closure = close(view, modules=("/m/1/a.so", "/m/2/b.so", "/m/text.so"))
    assert found(closure) == ["/lib/libapp.so", "/m/1/libown.so", "/m/2/libown.so"]


def test_a_module_that_its_own_libraries_need(make_view: MakeView, make_elf: MakeElf) -> None:
    view = make_view(
        {
            "/bin/app": make_elf(interpreter=GLIBC),
            GLIBC: make_elf(),
            "/m/a.so": make_elf(soname="liba.so", needed=("libb.so",), runpath="$ORIGIN"),
            "/m/libb.so": make_elf(soname="libb.so", needed=("liba.so",)),
        }
    )
    assert found(close(view, modules=("/m/a.so",))) == ["/m/libb.so"]


def test_musl_order(make_view: MakeView, make_elf: MakeElf, library: bytes) -> None:
    places = ["/env", "/run", "/lib", "/usr/local/lib", "/usr/lib"]
    while places:
        view = make_view(
            {
                "/bin/app": make_elf(interpreter=MUSL, needed=("libx.so", "libc.musl-x86_64.so.1"), runpath="/run"),
                MUSL: make_elf(),
                "/etc/ld.so.conf": b"/conf\n",
                "/etc/ld.so.cache": b"",
                **everywhere(library, "/conf", "/lib64", *places),
            }
        )
        assert found(close(view, {"LD_LIBRARY_PATH": "/env"})) == [f"{places.pop(0)}/libx.so"]


def test_musl_path_file_replaces_the_default_directories(
    make_view: MakeView, make_elf: MakeElf, library: bytes
) -> None:
    path_file = "/etc/ld-musl-x86_64.path"
    contents = {
        "/bin/app": make_elf(interpreter=MUSL, needed=("libx.so",)),
        MUSL: make_elf(),
        path_file: (b"/one:/two\n/three\n", 0o644),
        **everywhere(library, "/three", "/lib"),
    }
    assert found(close(make_view(contents))) == [path_file, "/three/libx.so"]
    contents[path_file] = (b"/nope\n", 0o644)
    assert [missing.name for missing in close(make_view(contents)).missing] == ["libx.so"]


def test_musl_knows_origin_only(make_view: MakeView, make_elf: MakeElf, library: bytes) -> None:
    def missing(rpath: str) -> bool:
        view = make_view(
            {
                "/bin/app": make_elf(interpreter=MUSL, needed=("libx.so",), rpath=rpath),
                MUSL: make_elf(),
                **everywhere(library, "/bin/sub", "/opt"),
            }
        )
        return bool(close(view).missing)

    assert not missing("$ORIGIN/sub")
    assert not missing("/opt")
    assert missing("/opt:/a/$LIB")


def test_musl_has_all_parts_of_the_c_library_in_the_loader(make_view: MakeView, make_elf: MakeElf) -> None:
    names = ("libc.so", "libc.musl-x86_64.so.1", "libpthread.so.0", "libm.so.6", "libdl.so.2", "ld-musl-x86_64.so.1")
    view = make_view({"/bin/app": make_elf(interpreter=MUSL, needed=names), MUSL: make_elf()})
    assert found(close(view)) == []
    view = make_view({"/bin/app": make_elf(interpreter=MUSL, needed=("libcrypto.so.3",)), MUSL: make_elf()})
    assert [missing.name for missing in close(view).missing] == ["libcrypto.so.3"]
