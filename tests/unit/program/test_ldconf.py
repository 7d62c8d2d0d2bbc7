from __future__ import annotations

from collections.abc import Callable

import pytest

from sconify.errors import UntrustedDataError
from sconify.program.ldconf import MAX_FILE_SIZE, MAX_FILES, MAX_MATCHES, expand_pattern, system_directories
from sconify.program.view import RootView

MakeView = Callable[..., RootView]


def test_directories_come_in_order_with_includes_in_place(make_view: MakeView) -> None:
    view = make_view(
        {
            "/etc/ld.so.conf": b"/first # note\ninclude ld.so.conf.d/*.conf /opt/*/ld.conf\n\nhwcap 1 x\n/last=libc6\n",
            "/etc/ld.so.conf.d/b.conf": b"/b\n/first\n",
            "/etc/ld.so.conf.d/a.conf": b"  /a/../x/\nrelative\n",
            "/etc/ld.so.conf.d/.hidden.conf": b"/hidden\n",
            "/etc/ld.so.conf.d/other": b"/other\n",
            "/opt/z/ld.conf": "/etc/real.conf",
            "/etc/real.conf": b"/z\n",
        }
    )
    assert system_directories(view) == ("/first", "/a/../x", "/b", "/z", "/last")


def test_no_configuration(make_view: MakeView) -> None:
    assert system_directories(make_view({})) == ()
    assert system_directories(make_view({"/etc/ld.so.conf": None})) == ()


def test_a_file_that_includes_itself_is_read_once(make_view: MakeView) -> None:
    view = make_view({"/etc/ld.so.conf": b"/a\ninclude /etc/*.conf\n/b\n"})
    assert system_directories(view) == ("/a", "/b")


def test_configuration_beyond_any_real_size_is_refused(make_view: MakeView) -> None:
    with pytest.raises(UntrustedDataError, match=rf"^/etc/ld\.so\.conf: got more than {MAX_FILE_SIZE} bytes"):
        system_directories(make_view({"/etc/ld.so.conf": b"#" * (MAX_FILE_SIZE + 1)}))
    many = {f"/etc/c/{number}": b"/x\n" for number in range(MAX_FILES)}
    with pytest.raises(UntrustedDataError, match=rf"includes more than {MAX_FILES} files$"):
        system_directories(make_view({"/etc/ld.so.conf": b"include /etc/c/*\n", **many}))
    with pytest.raises(UntrustedDataError, match=rf"^/etc/ld\.so\.conf: more than {MAX_FILES} includes$"):
        system_directories(make_view({"/etc/ld.so.conf": b"include /nope\n" * (MAX_FILES + 1)}))
    crowd = {f"/c/{number}": None for number in range(MAX_MATCHES + 1)}
    with pytest.raises(UntrustedDataError, match=rf"the pattern /c/\* matches more than {MAX_MATCHES} paths$"):
        expand_pattern(make_view(crowd), "/c/*")


def test_patterns_match_within_components(make_view: MakeView) -> None:
    view = make_view({"/a/x1/f": b"", "/a/x2/f": b"", "/a/y/f": b"", "/a/x3": "y", "/a/.x4/f": b""})
    assert expand_pattern(view, "/a/x?/f") == ["/a/x1/f", "/a/x2/f", "/a/x3/f"]
    assert expand_pattern(view, "/a/[xy]*") == ["/a/x1", "/a/x2", "/a/x3", "/a/y"]
    assert expand_pattern(view, "/a/.*/f") == ["/a/.x4/f"]
    assert expand_pattern(view, "/a/y/f/*") == []
    assert expand_pattern(view, "/a/nope") == []
