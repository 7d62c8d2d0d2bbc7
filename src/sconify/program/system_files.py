"""Files that libraries of nearly every program read by themselves: names, locales, certificates, time zones.

All of them are public data, and a program that lacks them misbehaves quietly: a host name that is not resolved, a wrong
character set, a certificate that nobody vouches for. What the image does not have is passed over.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sconify.image.model import EntryType
from sconify.program.elf import Libc
from sconify.program.view import RootView, Trail, absolute, find

_NAMES = "names of users, groups, hosts and services"
_FILES = (
    ("/etc/group", _NAMES),
    ("/etc/passwd", _NAMES),
    ("/etc/nsswitch.conf", _NAMES),
    ("/etc/host.conf", _NAMES),
    ("/etc/gai.conf", _NAMES),
    ("/etc/services", _NAMES),
    ("/etc/protocols", _NAMES),
    ("/etc/ld.so.cache", "tells the dynamic loader where shared objects are"),
    ("/etc/localtime", "time zone"),
    ("/etc/timezone", "time zone"),
    ("/etc/TZ", "time zone"),
    ("/etc/mime.types", "types of files"),
    ("/etc/os-release", "name of the distribution"),
    ("/usr/lib/os-release", "name of the distribution"),
    ("/etc/ssl/openssl.cnf", "configuration of OpenSSL"),
    ("/etc/pki/tls/openssl.cnf", "configuration of OpenSSL"),
    ("/usr/lib/ssl/openssl.cnf", "configuration of OpenSSL"),
    ("/etc/crypto-policies/back-ends/opensslcnf.config", "configuration of OpenSSL"),
)

_CERTIFICATES = (
    # What OpenSSL, GnuTLS, Go and Rust look for (Go: crypto/x509/root_linux.go). Never /etc/ssl/private.
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/usr/lib/ssl/certs",
    "/usr/lib/ssl/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
)

_ZONES = "/usr/share/zoneinfo"
_LOCALE_VARIABLES = (
    "LANG", "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT", "LC_MESSAGES",
    "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME",
)  # fmt: skip
_BUILT_IN_LOCALES = frozenset({"", "C", "POSIX"})
_COERCED = "C.UTF-8"
"""What programs choose by themselves when no locale is set (Python does, PEP 538)."""
_LOCALE_DIRECTORY = "/usr/lib/locale"
_CONVERSIONS = ("/usr/lib/x86_64-linux-gnu/gconv", "/usr/lib64/gconv", "/usr/lib/gconv")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFile:
    """A file, or a directory with everything below it."""

    trail: Trail
    reason: str


def system_files(view: RootView, *, libc: Libc | None, environment: Mapping[str, str]) -> list[SystemFile]:
    """Find what libraries read by themselves.

    Args:
        view: The root file system.
        libc: The C library of the program.
        environment: The program's environment: it names the locale, the time zone and certificates.

    Returns:
        What is there, each path once; where a link below a directory leads out of it, its end follows.
    """
    found: dict[str, SystemFile] = {}
    for path, reason in _wanted(libc, environment):
        _take(view, found, path, reason)
    return list(found.values())


def _wanted(libc: Libc | None, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield from _FILES
    for path in _CERTIFICATES:
        yield path, "certificates of authorities"
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        for path in environment.get(name, "").split(":"):
            if path.startswith("/"):
                yield path, f"certificates of authorities, named by {name}"
    yield _ZONES, "time zones"
    for name in ("TZ", "TZDIR"):
        path = environment.get(name, "").removeprefix(":")
        if path.startswith("/"):
            yield path, f"time zones, named by {name}"
    if libc is Libc.GLIBC:
        yield from _glibc_locales(environment)
    elif environment.get("MUSL_LOCPATH"):
        for path in environment["MUSL_LOCPATH"].split(":"):
            yield path, "locale, named by MUSL_LOCPATH"


def _glibc_locales(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what setlocale(3) opens: the archive, else directories by the spellings of a name (findlocale.c)."""
    names = {variable: environment.get(variable, "") for variable in _LOCALE_VARIABLES}
    wanted = {name: variable for variable, name in names.items() if name not in _BUILT_IN_LOCALES}
    wanted.setdefault(_COERCED, "programs themselves")
    directories = [_LOCALE_DIRECTORY]
    if environment.get("LOCPATH"):
        directories = [*environment["LOCPATH"].split(":"), *directories]
    if any(name.upper().replace("UTF8", "UTF-8") != _COERCED for name in wanted):
        yield f"{_LOCALE_DIRECTORY}/locale-archive", "locale"
        yield "/usr/share/locale/locale.alias", "locale"
    for name, chosen_by in wanted.items():
        for directory in directories:
            for spelling in _spellings(name):
                yield posixpath.join(directory, spelling), f"locale {name}, chosen by {chosen_by}"
    for directory in _CONVERSIONS:
        yield f"{directory}/gconv-modules.cache", "list of character sets"


def _spellings(name: str) -> Iterator[str]:
    """Yield the directories that a locale's name may stand for: ``de_DE.UTF-8@euro`` and its shorter forms."""
    base, _, modifier = name.partition("@")
    language, _, codeset = base.partition(".")
    normal = "".join(character for character in codeset.lower() if character.isalnum())
    if normal.isdigit():
        normal = f"iso{normal}"
    sets = [f".{one}" for one in (codeset, normal) if one] + [""]
    spellings = [f"{language}{one}{at}" for at in ([f"@{modifier}", ""] if modifier else [""]) for one in sets]
    for spelling in dict.fromkeys(spellings):
        if spelling not in _BUILT_IN_LOCALES and "/" not in spelling:
            yield spelling


def _take(view: RootView, found: dict[str, SystemFile], path: str, reason: str) -> None:
    trail = find(view, absolute(path, working_dir="/"))
    if trail is None or path in found or trail.entry.type not in (EntryType.FILE, EntryType.DIRECTORY):
        return
    if trail.entry.path == "/":
        return
    found[path] = SystemFile(trail=trail, reason=reason)
    if trail.entry.type is not EntryType.DIRECTORY:
        return
    top = trail.entry.path
    for entry in view.walk(top):
        end = find(view, entry.path) if entry.type is EntryType.SYMLINK else None
        if end is not None and end.entry.type is EntryType.FILE and not end.entry.path.startswith(f"{top}/"):
            found[entry.path] = SystemFile(trail=end, reason=f"a link in {top} leads there")
