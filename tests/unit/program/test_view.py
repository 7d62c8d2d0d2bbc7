from __future__ import annotations

from collections.abc import Callable

import pytest

from sconify.program.view import RootView, TrailError, absolute, find, trace

MakeView = Callable[..., RootView]


def test_every_link_on_the_way_is_reported_in_order(make_view: MakeView) -> None:
    view = make_view(
        {
            "/usr/lib/x/libz.so.1.2": b"z",
            "/usr/lib/x/libz.so.1": "libz.so.1.2",
            "/usr/lib/x/libz.so": "/lib/x/libz.so.1",
            "/lib": "usr/lib",
        }
    )
    trail = trace(view, "/lib/x/libz.so")
    assert trail.path == "/lib/x/libz.so"
    assert [link.path for link in trail.links] == ["/lib", "/usr/lib/x/libz.so", "/usr/lib/x/libz.so.1"]
    assert trail.entry.path == "/usr/lib/x/libz.so.1.2"


def test_dot_dot_goes_up_from_where_a_link_led(make_view: MakeView) -> None:
    view = make_view({"/a/b/c": None, "/a/f": b"", "/link": "/a/b", "/f": b""})
    assert trace(view, "/link/../f").entry.path == "/a/f"
    assert trace(view, "/../../f").entry.path == "/f"
    assert trace(view, "//a/.//f").entry.path == "/a/f"
    assert trace(view, "/").entry.path == "/"


def test_messages_of_paths_that_lead_nowhere(make_view: MakeView) -> None:
    view = make_view({"/bin/a": "/opt/a", "/x": "y", "/y": "x", "/file": b""})

    def message(path: str) -> str:
        with pytest.raises(TrailError) as error:
            trace(view, path)
        assert find(view, path) is None
        return error.value.what

    assert message("/bin/b") == "/bin/b is not in the image"
    assert message("/bin/a") == "/bin/a is a broken link: /bin/a -> /opt/a leads to /opt, which is not in the image"
    assert message("/x") == "/x: more than 40 symbolic links on the way, probably a circle"
    assert message("/file/b") == "/file/b: /file is not a directory"


def test_as_many_links_as_the_kernel_follows(make_view: MakeView) -> None:
    view = make_view({**{f"/l{number}": f"l{number + 1}" for number in range(41)}, "/l41": b""})
    assert len(trace(view, "/l1").links) == 40
    assert find(view, "/l0") is None


def test_absolute() -> None:
    assert absolute("a/./b//c/", working_dir="/app") == "/app/a/b/c"
    assert absolute("/a", working_dir="/app") == "/a"
    assert absolute("a/../b", working_dir="") == "/a/../b"
