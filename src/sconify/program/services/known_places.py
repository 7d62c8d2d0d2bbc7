"""Interpreters whose libraries stand at known places: where upstream, Debian, Alpine and Red Hat install them.

The places are those that the interpreter has built in (``ruby -e 'puts $:'``, ``perl -V``, ``php -i``, ``R.home()``,
``nginx -V``, ``java -XshowSettings:properties``, Node.js' ``module.globalPaths``). What does not exist is passed over.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sconify.image.model import Entry, EntryType
from sconify.program.binary import Program
from sconify.program.services.service import ServiceLibraries, collect, names_of
from sconify.program.view import RootView, find


@dataclass(frozen=True, kw_only=True)
class KnownPlaces:
    """An interpreter that is known by its name, and its places."""

    name: str
    description: str
    pattern: re.Pattern[str]
    """Of its file name; the group ``usual`` is the name without a version, by which people call it."""
    places: tuple[str, ...]
    """Absolute paths; ``{prefix}`` is the directory above the one of the program, links followed."""
    variables: tuple[str, ...] = ()
    """Variables whose directories, separated by colons, belong to the installation."""
    programs: tuple[str, ...] = ()
    """Programs that the interpreter itself runs when it starts."""
    landmarks: tuple[str, ...] = ()
    """If there are any, one of them must exist, so that another program of that name is not taken for it."""

    def recognises(self, view: RootView, program: Program) -> bool:
        """True if the program is called, or is, what the pattern says, and a landmark is there."""
        if not any(self.pattern.fullmatch(posixpath.basename(path)) for path in names_of(program)):
            return False
        return not self.landmarks or any(find(view, path) for path in self._filled(self.landmarks, program))

    def libraries(self, view: RootView, program: Program, *, environment: Mapping[str, str]) -> ServiceLibraries:
        """Find the places that exist."""
        wanted = [(path, f"library of {self.name}") for path in self._filled(self.places, program)]
        for variable in self.variables:
            named = [part for part in environment.get(variable, "").split(":") if part.startswith("/")]
            wanted += [(path, f"library of {self.name}, named by {variable}") for path in named]
        wanted += [(path, f"run by {self.name} when it starts") for path in self.programs]
        libraries = collect(view, wanted, links=self._missing_link(view, program))
        run = [trail.entry for trail in (find(view, path) for path in self.programs) if trail is not None]
        return dataclasses.replace(libraries, modules=(*libraries.modules, *run))

    def _filled(self, places: tuple[str, ...], program: Program) -> list[str]:
        prefix = posixpath.dirname(posixpath.dirname(program.path)).rstrip("/")
        return list(dict.fromkeys(posixpath.normpath(place.format(prefix=prefix)) for place in places))

    def _missing_link(self, view: RootView, program: Program) -> tuple[Entry, ...]:
        """Return ``ruby`` beside ``ruby3.1`` if there is no program of that name."""
        directory, name = posixpath.split(program.path)
        match = self.pattern.fullmatch(name)
        if match is None or match["usual"] == name:
            return ()
        path = posixpath.join(directory, match["usual"])
        if view.lookup(path) is not None:
            return ()
        mtime = program.trail.entry.mtime
        return (Entry(path=path, type=EntryType.SYMLINK, mode=0o777, mtime=mtime, target=name),)


NODE = KnownPlaces(
    name="Node.js",
    description="built-in modules that the distribution keeps apart, globally installed packages",
    pattern=re.compile(r"(?P<usual>node)(?:js|-?\d+(?:\.\d+)*)?"),
    places=(
        "{prefix}/lib/node_modules",
        "/usr/share/nodejs",
        "/usr/lib/nodejs",
        "/usr/lib/x86_64-linux-gnu/nodejs",
        "/usr/share/node_modules",
        "/usr/share/nodejs-ca",
        "/etc/node_modules",
    ),
)

JAVA = KnownPlaces(
    name="Java",
    description="the whole run-time environment (lib, conf, jre), its certificates; not its sources, headers and jmods",
    pattern=re.compile(r"(?P<usual>java)"),
    landmarks=("{prefix}/lib/modules", "{prefix}/lib/rt.jar", "{prefix}/jre/lib/rt.jar"),
    places=("{prefix}/lib", "{prefix}/conf", "{prefix}/release", "{prefix}/jre", "{prefix}/../lib/tools.jar"),
)

RUBY = KnownPlaces(
    name="Ruby",
    description="standard library, gems and vendored libraries, what extensions need",
    pattern=re.compile(r"(?P<usual>ruby)-?(?:\d+(?:\.\d+)*)?"),
    places=(
        "{prefix}/lib/ruby",
        "{prefix}/lib64/ruby",
        "/usr/lib/x86_64-linux-gnu/ruby",
        "/usr/share/ruby",
        "/usr/share/gems",
        "/usr/share/rubygems",
        "/usr/share/rubygems-integration",
        "/usr/local/share/ruby",
        "/usr/local/lib/site_ruby",
        "/var/lib/gems",
        "/etc/gemrc",
    ),
    variables=("GEM_HOME", "GEM_PATH"),
)

PERL = KnownPlaces(
    name="Perl",
    description="core modules, modules of the distribution and of the site, what extensions need",
    pattern=re.compile(r"(?P<usual>perl)-?(?:\d+(?:\.\d+)*)?"),
    places=(
        "{prefix}/lib/perl5",
        "{prefix}/lib/perl",
        "{prefix}/share/perl",
        "/etc/perl",
        "/usr/lib/x86_64-linux-gnu/perl-base",
        "/usr/lib/x86_64-linux-gnu/perl",
        "/usr/lib/x86_64-linux-gnu/perl5",
        "/usr/share/perl",
        "/usr/share/perl5",
        "/usr/lib/perl5",
        "/usr/lib64/perl5",
        "/usr/local/lib/x86_64-linux-gnu/perl",
        "/usr/local/share/perl",
        "/usr/local/share/perl5",
        "/usr/local/lib64/perl5",
        "/usr/local/lib/site_perl",
    ),
)

PHP = KnownPlaces(
    name="PHP",
    description="extensions and their configuration, PEAR, what extensions need (php, php-fpm, php-cgi)",
    pattern=re.compile(r"(?P<usual>php|php-fpm|php-cgi)(?:-?\d+(?:\.\d+)*)?"),
    places=(
        "{prefix}/lib/php",
        "{prefix}/etc/php",
        "{prefix}/etc/php-fpm.conf",
        "{prefix}/etc/php-fpm.d",
        "/usr/lib/php",
        "/usr/lib64/php",
        *(f"/usr/lib/php{version}" for version in ("7", "8", "80", "81", "82", "83", "84")),
        "/usr/share/php",
        *(f"/etc/php{version}" for version in ("", "7", "8", "80", "81", "82", "83", "84")),
        "/etc/php.ini",
        "/etc/php.d",
        "/etc/php-fpm.conf",
        "/etc/php-fpm.d",
        "/var/lib/php/modules",
    ),
    variables=("PHP_INI_DIR", "PHP_INI_SCAN_DIR"),
)

R = KnownPlaces(
    name="R",
    description="R_HOME with base and recommended packages, site libraries, what their shared objects need",
    pattern=re.compile(r"(?P<usual>R)"),
    landmarks=("{prefix}/../library/base",),
    # Its utils package asks a shell where uname is.
    programs=("/bin/sh", "/usr/bin/which", "/usr/bin/uname", "/bin/uname", "/bin/rm", "/bin/sed"),
    places=("{prefix}/..", "/usr/share/R", "/usr/local/lib/R", "/usr/lib/R/site-library", "/etc/R"),
    variables=("R_HOME", "R_LIBS", "R_LIBS_SITE", "R_SHARE_DIR", "R_INCLUDE_DIR"),
)

NGINX = KnownPlaces(
    name="nginx",
    description="dynamic modules and what loads them; not its configuration, which is yours to choose",
    pattern=re.compile(r"(?P<usual>nginx|openresty|angie)(?:-debug)?"),
    places=(
        "{prefix}/modules",
        "{prefix}/lib/nginx/modules",
        "/usr/lib/nginx/modules",
        "/usr/lib64/nginx/modules",
        "/usr/share/nginx/modules",
        "/usr/share/nginx/modules-available",
        "/usr/local/nginx/modules",
        "/etc/nginx/modules-enabled",
    ),
)
