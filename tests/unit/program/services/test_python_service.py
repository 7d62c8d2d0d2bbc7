from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from sconify.program.binary import load_program
from sconify.program.services import SUPPORTED, ServiceLibraries, service_of
from sconify.program.view import RootView

MakeView = Callable[..., RootView]
MakeElf = Callable[..., bytes]
LOADER = "/lib64/ld-linux-x86-64.so.2"


@pytest.fixture
def elf(make_elf: MakeElf) -> bytes:
    return make_elf(interpreter=LOADER)


def libraries(view: RootView, binary: str, environment: Mapping[str, str] | None = None) -> ServiceLibraries:
    program = load_program(view, binary, environment={}, working_dir="/")
    service = service_of(view, program)
    assert service is not None
    assert service.name == "Python"
    return service.libraries(view, program, environment=environment or {})


def paths(found: ServiceLibraries) -> list[str]:
    return [inclusion.trail.path for inclusion in found.inclusions]


def test_debian(make_view: MakeView, elf: bytes) -> None:
    view = make_view(
        {
            "/bin": "usr/bin",
            "/usr/bin/python3.11": elf,
            "/usr/bin/python3": "python3.11",
            "/usr/lib/python3.11/os.py": b"",
            "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so": elf,
            "/usr/lib/python3.11/sitecustomize.py": "/etc/python3.11/sitecustomize.py",
            "/usr/lib/python3.11/link.py": "os.py",
            "/usr/lib/python3.11/broken": "/nowhere",
            "/etc/python3.11/sitecustomize.py": b"",
            "/usr/lib/python3/dist-packages/flask/__init__.py": b"",
            "/usr/lib/python3/dist-packages/numpy.libs/libopenblas64_.so.0": elf,
            "/usr/local/lib/python3.11/dist-packages/x.py": b"",
            "/usr/lib/python3.9/os.py": b"",
            "/usr/lib/ruby/r.rb": b"",
        }
    )
    found = libraries(view, "/bin/python3")
    assert paths(found) == [
        "/usr/lib/python3.11",
        "/usr/lib/python3.11/sitecustomize.py",
        "/usr/lib/python3",
        "/usr/local/lib/python3.11",
    ]
    reasons = [inclusion.reason for inclusion in found.inclusions]
    assert reasons == [
        "library of Python",
        "a link in /usr/lib/python3.11 leads there",
        "Python packages of the distribution",
        "installed Python packages",
    ]
    assert found.inclusions[1].trail.entry.path == "/etc/python3.11/sitecustomize.py"
    assert [module.path for module in found.modules] == [
        "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so",
        "/usr/lib/python3/dist-packages/numpy.libs/libopenblas64_.so.0",
    ]
    assert found.links == ()


def test_own_prefix(make_view: MakeView, elf: bytes) -> None:
    view = make_view(
        {
            "/usr/local/bin/python3.12": elf,
            "/usr/local/lib/python3.12/os.py": b"",
            "/usr/local/lib/python3.12/site-packages/x.py": b"",
            "/usr/lib/python3/dist-packages/y.py": b"",
            "/root/.local/lib/python3.12/site-packages/z.py": b"",
            "/home/me/.local/lib/python3.12/site-packages/z.py": b"",
        }
    )
    found = libraries(view, "python3.12")
    assert paths(found) == ["/usr/local/lib/python3.12", "/root/.local/lib/python3.12"]
    assert [(link.path, link.target) for link in found.links] == [("/usr/local/bin/python3", "python3.12")]
    assert paths(libraries(view, "python3.12", {"HOME": "/home/me"}))[1:] == ["/home/me/.local/lib/python3.12"]


def test_an_existing_python3_is_left_alone(make_view: MakeView, elf: bytes) -> None:
    view = make_view({"/usr/bin/python3.11": elf, "/usr/bin/python3": b"other", "/usr/bin/python": elf})
    assert libraries(view, "/usr/bin/python3.11").links == ()
    assert libraries(view, "/usr/bin/python").links == ()


@pytest.mark.parametrize("copied", [False, True])
def test_virtual_environment_with_its_base(make_view: MakeView, elf: bytes, copied: bool) -> None:
    view = make_view(
        {
            "/opt/python/bin/python3.11": elf,
            "/opt/python/lib/python3.11/os.py": b"",
            "/venv/pyvenv.cfg": b"home = /opt/python/bin\ninclude-system-site-packages = false\n",
            "/venv/bin/python": elf if copied else "/opt/python/bin/python3.11",
            "/venv/lib/python3.11/site-packages/flask.py": b"",
            "/venv/lib64": "lib",
        }
    )
    found = libraries(view, "/venv/bin/python")
    assert paths(found) == [
        "/opt/python/lib/python3.11",
        "/venv/pyvenv.cfg",
        "/venv/lib/python3.11",
        "/venv/lib64/python3.11",
    ]
    assert [link.path for link in found.inclusions[3].trail.links] == ["/venv/lib64"]


def test_fedora_has_two_library_directories(make_view: MakeView, elf: bytes) -> None:
    view = make_view(
        {
            "/usr/bin/python3.12": elf,
            "/usr/lib64/python3.12/os.py": b"",
            "/usr/lib/python3.12/site-packages/x.py": b"",
            "/usr/local/lib64/python3.12/site-packages/x.py": b"",
        }
    )
    assert paths(libraries(view, "/usr/bin/python3.12")) == [
        "/usr/lib/python3.12",
        "/usr/lib64/python3.12",
        "/usr/local/lib64/python3.12",
    ]


def test_version_comes_from_the_linked_library(make_view: MakeView, make_elf: MakeElf) -> None:
    view = make_view(
        {
            "/opt/bin/python": make_elf(interpreter=LOADER, needed=("libpython3.13t.so.1.0",)),
            "/opt/lib/python3.12/os.py": b"",
            "/opt/lib/python3.13t/os.pyc": b"",
        }
    )
    assert paths(libraries(view, "/opt/bin/python")) == ["/opt/lib/python3.13t"]


def test_without_a_version_all_that_are_there_are_taken(make_view: MakeView, elf: bytes) -> None:
    view = make_view({"/opt/bin/python3": elf, "/opt/lib/python3.12/os.py": b"", "/opt/lib/python3.9/os.py": b""})
    assert paths(libraries(view, "/opt/bin/python3")) == ["/opt/lib/python3.12", "/opt/lib/python3.9"]


def test_pythonhome_replaces_the_prefix(make_view: MakeView, elf: bytes) -> None:
    view = make_view({"/opt/bin/python3": elf, "/opt/lib/python3.12/os.py": b"", "/home/py/lib/python3.12/os.py": b""})
    assert paths(libraries(view, "/opt/bin/python3", {"PYTHONHOME": "/home/py"})) == ["/home/py/lib/python3.12"]


def test_links_out_of_a_tree_are_followed_once_and_never_upwards(make_view: MakeView, elf: bytes) -> None:
    view = make_view(
        {
            "/opt/bin/python3.12": elf,
            "/opt/lib/python3.12/os.py": b"",
            "/opt/lib/python3.12/up": "/opt",
            "/opt/lib/python3.12/root": "/",
            "/opt/lib/python3.12/shared": "/srv/shared",
            "/srv/shared/m.so": elf,
            "/srv/shared/back": "/opt/lib/python3.12",
            "/srv/shared/more": "/srv/more",
            "/srv/more/x.py": b"",
        }
    )
    found = libraries(view, "/opt/bin/python3.12")
    assert paths(found) == ["/opt/lib/python3.12", "/opt/lib/python3.12/shared", "/srv/shared/more"]
    assert [module.path for module in found.modules] == ["/srv/shared/m.so"]


def test_other_programs_are_no_service(make_view: MakeView, elf: bytes) -> None:
    view = make_view({"/bin/pythonista": elf, "/bin/nodejsx": elf})
    for path in ("/bin/pythonista", "/bin/nodejsx"):
        assert service_of(view, load_program(view, path, environment={}, working_dir="/")) is None


def test_help_names_every_service_in_a_line() -> None:
    assert SUPPORTED.startswith("Python: standard library")
    assert all(": " in line for line in SUPPORTED.splitlines())
