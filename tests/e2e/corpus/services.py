"""How images of services are built and converted; the corpus tests them, and the benchmark measures them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.corpus.native import PROGRAMS, TOOLS, debian

LIBRARIES = "--plain=/usr/lib/x86_64-linux-gnu"
"""What programs need that are started by the converted one."""

POSTGRES_PROGRAMS = "/usr/lib/postgresql/15/bin"

NGINX_FILES = {"1k": 1 << 10, "64k": 1 << 16, "1m": 1 << 20, "100m": 100 << 20}
"""Sizes of the files that nginx serves, by name."""

NGINX_CONFIGURATION = """
user www-data;
worker_processes 2;
error_log stderr;
pid /run/nginx.pid;
daemon off;
events { worker_connections 128; }
http {
  include mime.types;
  access_log off;
  sendfile on;
  server { listen 8080; root /srv/www; autoindex on; location = /status { return 204; } }
}
"""


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile, what it copies, and the converter's options."""

    name: str
    dockerfile: str
    options: tuple[str, ...]
    files: Mapping[str, Path] = field(default_factory=dict)


def block_of(name: str) -> bytes:
    """The bytes, at most 1 MiB, that a file of ``NGINX_FILES`` repeats."""
    return hashlib.shake_256(name.encode()).digest(min(NGINX_FILES[name], 1 << 20))


def nginx(work: Path) -> Recipe:
    """nginx with a master and two workers of another user. ``work`` is an empty directory."""
    www = work / "www"
    www.mkdir()
    for name, size in NGINX_FILES.items():
        block = block_of(name)
        (www / name).write_bytes(block * (size // len(block)))
    (www / "index.html").write_text("<h1>hello</h1>\n")
    configuration = work / "nginx.conf"
    configuration.write_text(NGINX_CONFIGURATION)
    dockerfile = (
        f"FROM {debian(TOOLS)}\nCOPY nginx.conf /etc/nginx/nginx.conf\nCOPY www /srv/www\n"
        'EXPOSE 8080\nSTOPSIGNAL SIGQUIT\nCMD ["nginx"]\n'
    )
    trees = ("--dir=/etc/nginx", "--dir=/srv/www", "--plain=/usr/lib/nginx", "--plain=/usr/share/nginx")
    writable = ("--host-path=/var/lib/nginx", "--host-path=/var/log/nginx")
    options = ("--binary=nginx", *trees, *writable)
    return Recipe("nginx", dockerfile, options, {"www": www, "nginx.conf": configuration})


def redis() -> Recipe:
    """redis with an append-only file."""
    dockerfile = (
        f"FROM {debian(TOOLS)}\nWORKDIR /var/lib/redis\n"
        'CMD ["redis-server", "--appendonly", "yes", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no"]\n'
    )
    return Recipe("redis", dockerfile, ("--binary=redis-server", "--host-path=/var/lib/redis"))


def postgres() -> Recipe:
    """PostgreSQL, which makes its cluster at its first start."""
    dockerfile = (
        f"FROM {debian(['postgresql-15'])}\nUSER postgres\nSTOPSIGNAL SIGINT\nWORKDIR /var/lib/postgresql\n"
        'COPY postgres.sh /app/\nCMD ["/bin/sh", "/app/postgres.sh"]\n'
    )
    options = ("--binary=/bin/sh", "--dir=/app", "--dir=/usr/lib/postgresql", LIBRARIES,
               "--plain=/usr/share/postgresql", "--plain=/usr/share/postgresql-common", "--plain=/usr/share/zoneinfo",
               "--plain-file=/usr/bin/locale", "--host-path=/var/lib/postgresql", "--host-path=/tmp")  # fmt: skip
    return Recipe("postgres", dockerfile, options, {"postgres.sh": PROGRAMS / "postgres.sh"})


def mariadb() -> Recipe:
    """MariaDB, which makes its system tables at its first start."""
    dockerfile = (
        f"FROM {debian(['mariadb-server'])}\n"
        "RUN rm -rf /var/lib/mysql/* && mkdir -p /run/mysqld && chown mysql /run/mysqld\n"
        'COPY mariadb.sh /app/\nCMD ["/bin/sh", "/app/mariadb.sh"]\n'
    )
    names = ("mariadb-install-db", "my_print_defaults", "resolveip", "dirname", "basename", "id")
    tools = ("hostname", "grep", "rm", "mkdir", "chown", "cat", "sed", "uname", "chmod")
    programs = ("/usr/sbin/mariadbd", *(f"/usr/bin/{name}" for name in names), *(f"/bin/{name}" for name in tools))
    options = ("--binary=/bin/sh", "--dir=/app", "--plain=/etc/mysql", "--plain=/usr/share/mysql", LIBRARIES,
               "--plain=/usr/lib/mysql", "--host-path=/var/lib/mysql", "--host-path=/run/mysqld", "--host-path=/tmp",
               *(f"--plain-file={path}" for path in programs))  # fmt: skip
    return Recipe("mariadb", dockerfile, options, {"mariadb.sh": PROGRAMS / "mariadb.sh"})
