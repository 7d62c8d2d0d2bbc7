from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sconify.program.elf import Libc
from sconify.program.system_files import system_files

IMAGE: dict[str, Any] = {
    "/etc/passwd": b"root",
    "/etc/shadow": b"secret",
    "/etc/localtime": "/usr/share/zoneinfo/Europe/Berlin",
    "/usr/share/zoneinfo/Europe/Berlin": b"zone",
    "/etc/ssl/certs/a.pem": "/usr/share/ca-certificates/mozilla/a.crt",
    "/etc/ssl/certs/b.pem": "/opt/company.crt",
    "/etc/ssl/private/key.pem": b"secret",
    "/usr/share/ca-certificates/mozilla/a.crt": b"cert",
    "/opt/company.crt": b"cert",
    "/usr/lib/locale/C.utf8/LC_CTYPE": b"",
    "/usr/lib/locale/locale-archive": b"",
    "/usr/lib/locale/de_DE.utf8/LC_CTYPE": b"",
    "/usr/lib/locale/fr_FR/LC_CTYPE": b"",
    "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache": b"",
    "/usr/lib/x86_64-linux-gnu/gconv/UTF-16.so": b"",
}

MakeView = Callable[[Mapping[str, Any]], Any]


def found(view: Any, environment: Mapping[str, str], libc: Libc = Libc.GLIBC) -> dict[str, str]:
    return {file.trail.entry.path: file.reason for file in system_files(view, libc=libc, environment=environment)}


def test_names_zones_and_certificates_but_no_keys(make_view: MakeView) -> None:
    paths = found(make_view(IMAGE), {}, Libc.MUSL)
    assert set(paths) == {
        "/etc/passwd", "/usr/share/zoneinfo/Europe/Berlin", "/usr/share/zoneinfo", "/etc/ssl/certs",
        "/usr/share/ca-certificates", "/usr/share/ca-certificates/mozilla/a.crt", "/opt/company.crt",
    }  # fmt: skip
    assert paths["/opt/company.crt"] == "a link in /etc/ssl/certs leads there"


def test_the_locale_that_programs_choose_by_themselves(make_view: MakeView) -> None:
    paths = found(make_view(IMAGE), {"LANG": "C"})
    assert "/usr/lib/locale/C.utf8" in paths
    assert "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache" in paths
    assert "/usr/lib/locale/locale-archive" not in paths
    assert "/usr/lib/locale/de_DE.utf8" not in paths


def test_the_locale_of_the_environment(make_view: MakeView) -> None:
    paths = found(make_view(IMAGE), {"LANG": "C.UTF-8", "LC_TIME": "de_DE.UTF-8@euro", "LC_ALL": "fr_FR.ISO8859-1"})
    assert paths["/usr/lib/locale/de_DE.utf8"] == "locale de_DE.UTF-8@euro, chosen by LC_TIME"
    assert {"/usr/lib/locale/C.utf8", "/usr/lib/locale/fr_FR", "/usr/lib/locale/locale-archive"} <= set(paths)


def test_certificates_and_zones_that_variables_name(make_view: MakeView) -> None:
    view = make_view({"/x/ca.pem": b"", "/x/zone": b"", "/y": b""})
    paths = found(view, {"SSL_CERT_FILE": "/x/ca.pem", "TZ": ":/x/zone", "SSL_CERT_DIR": "relative:/"})
    assert set(paths) == {"/x/ca.pem", "/x/zone"}
