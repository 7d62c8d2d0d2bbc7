"""Compilers, interpreters, tools and servers in one container, as in images that people did not write."""

from __future__ import annotations

import pytest

from tests.e2e.corpus.conftest import MakePair, Pair
from tests.e2e.corpus.engines import Way, ways
from tests.e2e.corpus.native import PROGRAMS, debian
from tests.e2e.corpus.services import Recipe

pytestmark = pytest.mark.corpus

PACKAGES = (
    *("gcc", "libc6-dev", "make", "ruby", "php-cli", "lua5.4", "tcl", "erlang-base", "sbcl", "guile-3.0", "ocaml-nox"),
    *("imagemagick", "rsync", "zip", "unzip", "gawk", "curl", "apache2", "haproxy", "lighttpd", "memcached"),
)
TREES = ("/bin", "/etc", "/lib", "/sbin", "/usr", "/var/lib")


@pytest.fixture(scope="module")
def workshop(pair: MakePair) -> Pair:
    dockerfile = f'FROM {debian(PACKAGES)}\nCOPY workshop.sh /app/\nCMD ["bash", "/app/workshop.sh"]\n'
    options = ("--binary=/bin/bash", "--dir=/app", *(f"--plain={tree}" for tree in TREES))
    return pair(Recipe("workshop", dockerfile, options, {"workshop.sh": PROGRAMS / "workshop.sh"}, user="nobody"))


@pytest.mark.parametrize("way", ways(), indirect=True)
@pytest.mark.usefixtures("mode")
def test_each_tool_does_what_it_does_natively(workshop: Pair, way: Way) -> None:
    native, encrypted = workshop.outcomes(way, timeout=300)
    assert "through" in native.output
    assert native.output.count("hello") == 3
    assert encrypted == native
