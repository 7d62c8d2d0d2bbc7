from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.program.trace import traced_paths

STRACE = r"""
execve("/usr/bin/python3", ["python3", "app.py"], 0x7ffd /* 3 vars */) = 0
access("/etc/ld.so.preload", R_OK)      = -1 ENOENT (No such file or directory)
openat(AT_FDCWD, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3
openat(AT_FDCWD, "/missing", O_RDONLY) = -1 ENOENT (No such file or directory)
stat("/only/looked/at", {st_mode=S_IFREG|0644, st_size=1, ...}) = 0
openat(AT_FDCWD, "app.py", O_RDONLY)    = 3
chdir("/srv")                           = 0
openat(AT_FDCWD, "x/../data.bin", O_RDONLY) = 4
openat(7, "unknown", O_RDONLY)          = 5
[pid 12] openat(AT_FDCWD, "/other/process", O_RDONLY <unfinished ...>
[pid 13] chdir("/var")                  = 0
[pid 12] <... openat resumed>)          = 6
[pid 13] open("log", O_RDONLY)          = 7
14 10:11:12.123456 openat(9</opt/dir>, "with \"quote\"\303\244", O_RDONLY) = 3</opt/dir/x>
--- SIGCHLD {si_signo=SIGCHLD} ---
+++ exited with 0 +++
"""


def test_strace() -> None:
    assert traced_paths(STRACE, working_dir="/app", source="t") == [
        "/app/app.py",
        "/etc/ld.so.cache",
        '/opt/dir/with "quote"ä',
        "/other/process",
        "/srv/data.bin",
        "/usr/bin/python3",
        "/var/log",
    ]


def test_a_list_of_paths() -> None:
    assert traced_paths("# files\n/b\n\n/a/../c\n/b\n", working_dir="/", source="t") == ["/b", "/c"]


@pytest.mark.parametrize("text", ["", "relative\n", "/a\nb\n", "\0\1\2"])
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="neither the output of strace") as caught:
        traced_paths(text, working_dir="/", source="--trace=x")
    assert "strace -f" in (caught.value.remedy or "")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        paths = traced_paths(text, working_dir="/", source="t")
    except UserError:
        return
    assert all(path.startswith("/") for path in paths)
