"""How images of services are built and converted; the corpus tests them, and the benchmark measures them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.corpus.native import PROGRAMS, TOOLS, debian

LIBRARIES = "--plain=/usr/lib/x86_64-linux-gnu"
"""What programs need that are started by the converted one."""

POSTGRES_PROGRAMS = "/usr/lib/postgresql/15/bin"

NGINX_FILES = {"1k": 1 << 10, "64k": 1 << 16, "1m": 1 << 20, "100m": 100 << 20}
"""Sizes of the files that nginx serves, by name."""

BIG_NGINX_FILES = {"1g": 1 << 30}

PIECE = 1 << 16
"""Bytes of a piece of such a file; each tells its place."""

NGINX_CONFIGURATION = """
user www-data;
worker_processes 2;
error_log stderr;
pid /var/lib/nginx/nginx.pid;
daemon off;
events { worker_connections 128; }
http {
  include mime.types;
  access_log off;
  sendfile on;
  server {
    listen 8080; root /srv/www; autoindex on;
    location = /status { return 204; }
    location /kept/ { alias /srv/www/; open_file_cache max=100; }
  }
}
"""


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile, what it copies, and the converter's options."""

    name: str
    dockerfile: str
    options: tuple[str, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    user: str = "1000:0"
    """Who runs it when root must not."""


def pieces_of(name: str, size: int) -> Iterator[bytes]:
    """Yield the bytes of a file that nginx serves: noise now and then, patterns between, no two pieces alike."""
    noise = hashlib.shake_256(name.encode()).digest(PIECE)
    for number in range(-(-size // PIECE)):
        head = noise[:4] + number.to_bytes(4, "big")
        piece = head + noise[8:] if number % 16 == 0 else head * (PIECE // 8)
        yield piece[: size - number * PIECE]


def nginx(work: Path, sizes: Mapping[str, int] = NGINX_FILES) -> Recipe:
    """nginx with a master and two workers of another user. ``work`` is an empty directory."""
    www = work / "www"
    www.mkdir()
    for name, size in sizes.items():
        with (www / name).open("wb") as file:
            file.writelines(pieces_of(name, size))
    (www / "index.html").write_text("<h1>hello</h1>\n")
    configuration = work / "nginx.conf"
    configuration.write_text(NGINX_CONFIGURATION)
    dockerfile = (
        f"FROM {debian(TOOLS)}\nCOPY nginx.conf /etc/nginx/nginx.conf\nCOPY www /srv/www\n"
        "RUN chown www-data /var/lib/nginx /var/log/nginx\nVOLUME /var/lib/nginx /var/log/nginx\n"
        'EXPOSE 8080\nSTOPSIGNAL SIGQUIT\nCMD ["nginx"]\n'
    )
    options = ("--binary=nginx", "--dir=/etc/nginx", "--dir=/srv/www", "--plain=/usr/lib/nginx",
               "--plain=/usr/share/nginx")  # fmt: skip
    files = {"www": www, "nginx.conf": configuration}
    return Recipe("nginx" if sizes is NGINX_FILES else "nginx-big", dockerfile, options, files, user="www-data")


def redis() -> Recipe:
    """redis with an append-only file."""
    dockerfile = (
        f"FROM {debian(TOOLS)}\nWORKDIR /var/lib/redis\nVOLUME /var/lib/redis\n"
        'CMD ["redis-server", "--appendonly", "yes", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no", '
        '"--enable-debug-command", "yes"]\n'
    )
    return Recipe("redis", dockerfile, ("--binary=redis-server",), user="redis")


def postgres(*settings: str) -> Recipe:
    """PostgreSQL, which makes its cluster at its start. ``settings`` are like ``shared_buffers=16MB``."""
    command = ["/bin/sh", "/app/postgres.sh", *(word for setting in settings for word in ("-c", setting))]
    dockerfile = (
        f"FROM {debian(['postgresql-15'])}\nUSER postgres\nSTOPSIGNAL SIGINT\nWORKDIR /var/lib/postgresql\n"
        f"VOLUME /var/lib/postgresql\nCOPY postgres.sh /app/\nCMD {json.dumps(command)}\n"
    )
    options = ("--binary=/bin/sh", "--dir=/app", "--dir=/usr/lib/postgresql", LIBRARIES,
               "--plain=/usr/share/postgresql", "--plain=/usr/share/postgresql-common", "--plain=/usr/share/zoneinfo",
               "--plain-file=/usr/bin/locale")  # fmt: skip
    return Recipe("postgres", dockerfile, options, {"postgres.sh": PROGRAMS / "postgres.sh"}, user="postgres")


def mariadb() -> Recipe:
    """MariaDB, which makes its system tables at its start."""
    dockerfile = (
        f"FROM {debian(['mariadb-server'])}\n"
        "RUN rm -rf /var/lib/mysql/* && mkdir -p /run/mysqld && chown mysql /run/mysqld\n"
        'VOLUME /var/lib/mysql /run/mysqld\nCOPY mariadb.sh /app/\nCMD ["/bin/sh", "/app/mariadb.sh"]\n'
    )
    names = ("mariadb-install-db", "my_print_defaults", "resolveip", "dirname", "basename", "id")
    tools = ("hostname", "grep", "rm", "mkdir", "chown", "cat", "sed", "uname", "chmod")
    programs = ("/usr/sbin/mariadbd", *(f"/usr/bin/{name}" for name in names), *(f"/bin/{name}" for name in tools))
    options = ("--binary=/bin/sh", "--dir=/app", "--plain=/etc/mysql", "--plain=/usr/share/mysql", LIBRARIES,
               "--plain=/usr/lib/mysql", *(f"--plain-file={path}" for path in programs))  # fmt: skip
    return Recipe("mariadb", dockerfile, options, {"mariadb.sh": PROGRAMS / "mariadb.sh"}, user="mysql")
