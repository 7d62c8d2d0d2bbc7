"""Programs with loaders, libraries and helpers: Perl, sqlite3, git, Node.js, Java; with and without a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.corpus.conftest import MakePair, Pair
from tests.e2e.corpus.engines import Way, ways
from tests.e2e.corpus.native import PROGRAMS, TOOLS, debian
from tests.e2e.corpus.services import LIBRARIES, Recipe

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def perl(pair: MakePair, data: Path) -> Pair:
    dockerfile = (
        f'FROM {debian(TOOLS)}\nCOPY data /data\nCOPY everything.pl /app/\nCMD ["perl", "/app/everything.pl", "a b"]\n'
    )
    trees = ("--dir=/data", "--dir=/app", LIBRARIES, "--plain=/usr/share/perl", "--plain-file=/bin/sh")
    files = {"data": data, "everything.pl": PROGRAMS / "everything.pl"}
    return pair(
        Recipe(
            "perl",
            dockerfile,
            (
                "--binary=/usr/bin/perl",
                *trees,
            ),
            files,
        )
    )


@pytest.fixture(scope="module")
def sqlite(pair: MakePair, data: Path) -> Pair:
    """An image with no shell: the program, its libraries and its data, nothing else."""
    fill = (
        "CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE visit (person INTEGER, day INTEGER); "
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 20000) "
        "INSERT INTO person SELECT x, printf('name%d', x * 7919 % 20011) FROM n; "
        "INSERT INTO visit SELECT id * id % 977 + 1, id FROM person;"
    )
    dockerfile = (
        f"FROM {debian(TOOLS)} AS build\n"
        f'RUN mkdir -p /out/app && sqlite3 /out/app/people.db "{fill}"\n'
        "RUN ldd /usr/bin/sqlite3 | grep -o '/[^ ]*' | xargs -I{} cp --parents -L {} /out\n"
        "FROM scratch\nCOPY --from=build /out /\nCOPY --from=build /usr/bin/sqlite3 /usr/bin/\n"
        "COPY data /data\nCOPY sqlite.sql /app/\n"
        'ENTRYPOINT ["/usr/bin/sqlite3", "-readonly", "-bail", "/app/people.db", ".read /app/sqlite.sql"]\n'
    )
    files = {"data": data, "sqlite.sql": PROGRAMS / "sqlite.sql"}
    return pair(
        Recipe(
            "sqlite",
            dockerfile,
            (
                "--binary=sqlite3",
                "--dir=/data",
                "--dir=/app",
            ),
            files,
        )
    )


@pytest.fixture(scope="module")
def git(pair: MakePair) -> Pair:
    commits = " && ".join(
        f"for n in 1 2 3; do seq -f 'line %g of {number}' {number * 40} > file$n.txt; done && git add -A && "
        f"export GIT_COMMITTER_DATE=2024-01-0{number}T00:00Z && "
        f"git commit -q --date=$GIT_COMMITTER_DATE -m 'commit {number}'"
        for number in range(1, 6)
    )
    dockerfile = (
        f"FROM {debian(TOOLS)}\nRUN mkdir /repository && cd /repository && git init -q && "
        f"git config user.name Somebody && git config user.email some@body && {commits} && git gc -q\n"
        'COPY git.sh /app/\nCMD ["/bin/sh", "/app/git.sh"]\n'
    )
    found = ("/usr/bin/git", "/usr/bin/perl", "/bin/tar", "/usr/bin/sha256sum", "/usr/bin/sort", "/bin/cat",
             "/usr/bin/head", "/usr/bin/wc", "/bin/uname", "/bin/sed", "/usr/bin/basename")  # fmt: skip
    trees = ("--dir=/repository", "--dir=/app", LIBRARIES, "--plain=/usr/lib/git-core", "--plain=/usr/share/git-core")
    options = (*trees, *(f"--plain-file={path}" for path in found))
    return pair(
        Recipe(
            "git",
            dockerfile,
            (
                "--binary=/bin/sh",
                *options,
            ),
            {"git.sh": PROGRAMS / "git.sh"},
        )
    )


@pytest.fixture(scope="module")
def node(pair: MakePair, data: Path) -> Pair:
    files = {"data": data, "server.js": PROGRAMS / "server.js"}
    dockerfile = (
        f'FROM {debian(["nodejs"])}\nCOPY data /data\nCOPY server.js /app/\nCMD ["node", "/app/server.js", "a"]\n'
    )
    return pair(
        Recipe(
            "node",
            dockerfile,
            (
                "--binary=node",
                "--dir=/data",
                "--dir=/app",
                "--plain=/usr/share/nodejs",
            ),
            files,
        )
    )


@pytest.fixture(scope="module")
def java(pair: MakePair, data: Path) -> Pair:
    jdk = debian(["openjdk-17-jdk-headless"])
    dockerfile = (
        f"FROM {jdk}\nCOPY Main.java /tmp/\nCOPY data /data\nWORKDIR /app\n"
        "RUN javac -d /tmp/classes /tmp/Main.java && jar --create --file main.jar --main-class Main -C /tmp/classes .\n"
        'CMD ["java", "-jar", "main.jar", "a b"]\n'
    )
    trees = ("--dir=/data", "--dir=/app", LIBRARIES, "--plain=/usr/lib/jvm", "--plain=/etc/java-17-openjdk",
             "--plain-file=/bin/sh")  # fmt: skip
    files = {"data": data, "Main.java": PROGRAMS / "Main.java"}
    return pair(
        Recipe(
            "java",
            dockerfile,
            (
                "--binary=java",
                *trees,
            ),
            files,
        )
    )


@pytest.mark.parametrize(
    "program",
    ["sqlite", *(pytest.param(name, marks=pytest.mark.corpus) for name in ("perl", "git", "node", "java"))],
)
@pytest.mark.parametrize("way", ways("docker-plain", "docker-restricted"), indirect=True)
@pytest.mark.usefixtures("mode")
def test_it_does_what_the_native_one_does(program: str, way: Way, request: pytest.FixtureRequest) -> None:
    native, encrypted = request.getfixturevalue(program).outcomes(way)
    assert native.output
    assert encrypted == native
