"""Files and the memory of a container: what is not open makes room, and what can not fit is refused by name."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from tests.containers import Convert, run

NATIVE = "sconify-test/memory:native"
ENCRYPTED = "sconify-test/memory:encrypted"
SIZES = {"/data/small": 1_000_000, "/data/one": 100_000_000, "/data/two": 100_000_000, "/data/large": 200_000_000}
MODES = (("--dir=/data",), ("--binary-fs", "--fs-dir=/data"))
READER = """
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long read_file(const char *path) {
    static char buffer[1 << 16];
    int file = open(path, O_RDONLY);
    long size = file < 0 ? -errno : 0, length;
    while (file >= 0 && (length = read(file, buffer, sizeof buffer)) > 0) size += length;
    close(file);
    return size;
}

/* A megabyte in a millisecond. */
static long take(long wanted) {
    for (long taken = 0; taken < wanted; taken += 1 << 20) {
        memset(malloc(1 << 20), 1, 1 << 20);
        usleep(1000);
    }
    return wanted;
}

int main(int count, char **words) {
    for (int number = 1; number < count; number++) {
        printf("%ld\\n", words[number][0] == '/' ? read_file(words[number]) : take(atol(words[number])));
        fflush(stdout);
    }
}
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What images are built of."""
    directory = tmp_path_factory.mktemp("memory")
    (directory / "reader.c").write_text(READER)
    run("cc", "-O1", "-static", "-o", f"{directory}/reader", f"{directory}/reader.c")
    for path, size in SIZES.items():
        (directory / Path(path).name).write_bytes(bytes(size))
    return directory


def build(directory: Path, *words: str) -> None:
    """Make the native image: it reads the files, and takes the numbers of bytes, that the words name."""
    names = " ".join(Path(path).name for path in SIZES)
    command = json.dumps(["/reader", *words])
    (directory / "Dockerfile").write_text(f"FROM scratch\nCOPY reader /\nCOPY {names} /data/\nCMD {command}\n")
    run("docker", "build", "--quiet", f"--tag={NATIVE}", str(directory))


@pytest.mark.parametrize("options", MODES)
def test_what_does_not_fit_is_refused_by_name(options: tuple[str, ...], directory: Path, convert: Convert) -> None:
    paths = ("/data/small", "/data/one", "/data/two", "/data/large", "/data/one", "/data/small")
    build(directory, *paths)
    assert run("docker", "run", "--rm", "--memory=160m", NATIVE).stdout.split() == [str(SIZES[path]) for path in paths]
    convert(f"--from={NATIVE}", f"--to={ENCRYPTED}", "--binary=/reader", "--overwrite", *options)
    served = run("docker", "run", "--rm", "--memory=160m", ENCRYPTED)
    expected = {**SIZES, "/data/large": -errno.ENOMEM}
    assert served.stdout.split() == [str(expected[path]) for path in paths]
    assert "/data/large: it has 200000000 bytes, and the container has " in served.stderr
    assert "bytes of memory left: give it more" in served.stderr


@pytest.mark.parametrize("options", MODES)
def test_what_is_kept_for_later_is_given_up_for_the_program(
    options: tuple[str, ...], directory: Path, convert: Convert
) -> None:
    # 100 MB of files stay, being less than a quarter of the memory, until the program wants it.
    words = ("/data/one", "345000000", "/data/small")
    build(directory, *words)
    expected = ["100000000", "345000000", "1000000"]
    assert run("docker", "run", "--rm", "--memory=400m", NATIVE).stdout.split() == expected
    convert(f"--from={NATIVE}", f"--to={ENCRYPTED}", "--binary=/reader", "--overwrite", *options)
    assert run("docker", "run", "--rm", "--memory=400m", ENCRYPTED).stdout.split() == expected
