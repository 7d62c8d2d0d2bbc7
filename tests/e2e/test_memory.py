"""Files and the memory of a container: what is not open makes room, and what can not fit is refused by name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.containers import Convert, run

NATIVE = "sconify-test/memory:native"
ENCRYPTED = "sconify-test/memory:encrypted"
LIMIT = "--memory=160m"
READER = """
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int count, char **paths) {
    static char buffer[1 << 16];
    for (int number = 1; number < count; number++) {
        int file = open(paths[number], O_RDONLY);
        long size = file < 0 ? -errno : 0, length;
        while (file >= 0 && (length = read(file, buffer, sizeof buffer)) > 0) size += length;
        close(file);
        printf("%ld\\n", size);
    }
}
"""
SIZES = {"/data/small": 1_000_000, "/data/one": 100_000_000, "/data/two": 100_000_000, "/data/large": 200_000_000}
ORDER = ("/data/small", "/data/one", "/data/two", "/data/large", "/data/one", "/data/small")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("memory")
    (directory / "reader.c").write_text(READER)
    run("cc", "-O1", "-static", "-o", f"{directory}/reader", f"{directory}/reader.c")
    for path, size in SIZES.items():
        (directory / Path(path).name).write_bytes(bytes(size))
    names = " ".join(Path(path).name for path in SIZES)
    command = ", ".join(f'"{word}"' for word in ("/reader", *ORDER))
    (directory / "Dockerfile").write_text(f"FROM scratch\nCOPY reader /\nCOPY {names} /data/\nCMD [{command}]\n")
    run("docker", "build", "--quiet", f"--tag={NATIVE}", str(directory))
    return NATIVE


@pytest.mark.parametrize("mode", ["--dir=/data", "--binary-fs"])
def test_what_does_not_fit_into_memory_is_refused_by_name(mode: str, native: str, convert: Convert) -> None:
    assert run("docker", "run", "--rm", LIMIT, native).stdout.split() == [str(SIZES[path]) for path in ORDER]
    options = ("--binary-fs", "--fs-dir=/data") if mode == "--binary-fs" else (mode,)
    convert(f"--from={native}", f"--to={ENCRYPTED}", "--binary=/reader", "--overwrite", *options)
    served = run("docker", "run", "--rm", LIMIT, ENCRYPTED)
    expected = {**SIZES, "/data/large": -errno.ENOMEM}
    assert served.stdout.split() == [str(expected[path]) for path in ORDER]
    assert "/data/large: it has 200000000 bytes, and the container has " in served.stderr
    assert "bytes of memory left: give it more" in served.stderr
