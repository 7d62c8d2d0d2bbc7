"""The session of a converted image, as text to read and to edit."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

import jinja2
import jinja2.sandbox

from sconify.errors import UserError
from sconify.policy import substitution
from sconify.policy.sections import section_yaml
from sconify.policy.session import parse_session

_DOLLARS = "literal-dollars"
_AT = "literal-at"
_LITERALS = {_DOLLARS: "$$", _AT: "@"}
_HOST_ARGUMENT = re.compile(r"@@[0-9]+")
_HOST_VARIABLE = "\\@\\@"
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
_HIDDEN = "<not shown>"


@dataclass(frozen=True, kw_only=True)
class ConvertedService:
    """What a policy says of a converted image.

    Attributes:
        name: The session's name.
        service: The service's name.
        measurement: The measurement of the sconified binary, 64 hex digits.
        command: The argv of the program. Literal, unless ``policy_command``.
        environment: The whole environment of the program. Literal, but for ``policy_variables``.
        policy_command: Whether placeholders in ``command`` count: it was written for the policy.
        policy_variables: The names of variables in whose values placeholders count.
        pwd: Its working directory.
        fspf_path: Where the index of the protected file system stands in the image.
        fspf_key: The file system key, 64 hex digits.
        fspf_tag: The root tag of the index, 32 hex digits.
        secrets: Entries of the ``secrets`` section, as ``sections.parse_section`` gives them.
        injection_files: Entries of ``injection_files``, likewise.
        volumes: Entries of ``volumes``, likewise: what the volumes are.
        mounts: Entries of ``volumes`` of the image: where they are.
        attested: Whether the service must prove its measurement; if not, anybody gets the configuration.
        tolerate: What is put up with in a platform: ``security.attestation.tolerate``.
        ignore_advisories: The advisories that such a platform may have; ``*`` alone means every one.
        predecessor: The hash of the session that this one replaces; None creates it.
    """

    name: str
    service: str
    measurement: str
    command: Sequence[str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    policy_command: bool = False
    policy_variables: frozenset[str] = frozenset()
    pwd: str
    fspf_path: str
    fspf_key: str = field(repr=False)
    fspf_tag: str
    secrets: Sequence[object] = field(default=(), repr=False)
    injection_files: Sequence[object] = field(default=(), repr=False)
    volumes: Sequence[object] = ()
    mounts: Sequence[object] = ()
    attested: bool = True
    tolerate: Sequence[str] = ()
    ignore_advisories: Sequence[str] = ()
    predecessor: str | None = None

    @property
    def image_name(self) -> str:
        """Name of the entry of ``images`` that has the injected files and the volumes."""
        return f"{self.service}_image"


@dataclass(frozen=True, kw_only=True)
class SessionTemplate:
    """A template of a session: Jinja as in ``session.yml``, or YAML with ``$NAME`` variables, or both.

    The variables are SESSION (without its namespace), NAMESPACE, SERVICE, MRENCLAVE, CMD (a list on one line), PWD,
    SCONE_FSPF_PATH, SCONE_FSPF_KEY, SCONE_FSPF_TAG, and five that stand on a line of their own: ENVVARS, below
    ``environment:`` (it brings ``pwd:`` along unless the template has one), INJECTED_FILES and MOUNTS (of volumes),
    below an entry of ``images``, and the sections SECRETS and VOLUMES. ``$$`` stands for itself, so placeholders of the
    CAS pass unchanged.
    """

    text: str = field(repr=False)
    source: str
    """Where the text is from, for messages."""

    @classmethod
    @functools.cache
    def default(cls) -> SessionTemplate:
        """Return the template of this package."""
        text = resources.files("sconify.policy").joinpath("session.yml").read_text("utf-8")
        return cls(text=text, source="the built-in template")


def session_text(session: ConvertedService, *, template: SessionTemplate | None = None) -> str:
    """Return the session as YAML.

    A literal ``$$SCONE::`` in the command or the environment of the native image must not become a placeholder: it is
    written with a placeholder of a secret whose value is ``$$``, so the program gets it back as it was. Likewise an
    argument ``@@1``, which would be the host's.

    Raises:
        UserError: A name, path, argument or value can't stand in a session (such as bytes that are no UTF-8), or the
            template is malformed, or what it makes is not a session of this image.
    """
    for name in session.environment:
        if name.startswith(_HOST_VARIABLE) and name not in session.policy_variables:
            raise UserError(
                f"the variable {name[:40]} would take its value from the host", remedy="leave it out of the image"
            )
    if template is None:
        text = _render(session, SessionTemplate.default())
        parse_session(text)
        return text
    text = _render(session, template)
    try:
        _check(text, session)
    except UserError as error:
        raise UserError(
            f"the template {template.source} makes no session of this image: {error.what}",
            remedy=error.remedy or f"mend {template.source}, or leave --template out",
        ) from None
    return text


def shown_text(session: ConvertedService, *, template: SessionTemplate | None = None) -> str:
    """Return the session without its secrets: the key, arguments, and the values of variables are left out."""
    hidden = dataclasses.replace(
        session,
        command=[*session.command[:1], *(_HIDDEN for _ in session.command[1:])],
        environment=dict.fromkeys(session.environment, _HIDDEN),
        fspf_key=_HIDDEN,
        secrets=_without(session.secrets, "value"),
        injection_files=_without(session.injection_files, "content"),
    )
    return _render(hidden, template or SessionTemplate.default())


def _without(entries: Sequence[object], key: str) -> list[object]:
    return [
        {name: _HIDDEN if name == key else value for name, value in entry.items()} if isinstance(entry, dict) else entry
        for entry in entries
    ]


def _check(text: str, session: ConvertedService) -> None:
    made = parse_session(text)
    if made.name != session.name:
        raise UserError(
            f"its name is {made.name}, expected {session.name}", remedy="write name: $NAMESPACE/$SESSION in it"
        )
    service = made.service(session.service)
    if service is None:
        raise UserError(
            f"it has no service {session.service}", remedy=f"name one {session.service}, or give --service-name"
        )
    if service.fspf_key != session.fspf_key or service.fspf_tag != session.fspf_tag:
        raise UserError(
            f"its service {session.service} has another file system key or tag",
            remedy="write fspf_path: $SCONE_FSPF_PATH, fspf_key: $SCONE_FSPF_KEY and fspf_tag: $SCONE_FSPF_TAG in it",
        )
    image = made.image(service.image_name)
    mounted = {(mount.name, mount.path) for mount in image.volumes} if image is not None else set()
    for mount in session.mounts:
        name, path = (mount["name"], mount["path"]) if isinstance(mount, dict) else ("", "")
        if (name, path) not in mounted:
            raise UserError(
                f"its service {session.service} has no volume {name} at {path}",
                remedy=f"write $VOLUMES, image_name: {session.image_name}, and $MOUNTS below that image, in it",
            )
    attested = made.security.attestation.mode != "none"
    if attested and not any(session.measurement in factor.mrenclave for factor in service.factors):
        raise UserError(
            f"its service {session.service} does not accept the measurement of this image",
            remedy="write attestation: {mrenclave: [$MRENCLAVE]} in it",
        )


def _render(session: ConvertedService, template: SessionTemplate) -> str:
    view = _View(session)
    try:
        compiled = _environment().from_string(_VARIABLE.sub(functools.partial(_as_jinja, template), template.text))
        return compiled.render(session=session, escapes=view.escapes, view=view, secrets_section=view.secrets_section())
    except jinja2.TemplateError as error:
        line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise UserError(
            f"the template {template.source}{line} is malformed: {error}", remedy=f"mend {template.source}"
        ) from None


class _View:
    """What a template may write of a session."""

    def __init__(self, session: ConvertedService) -> None:
        self._session = session
        self.command = [self._argument(argument, session.policy_command) for argument in session.command]
        self.environment = {
            name: self._text(value, name in session.policy_variables) for name, value in session.environment.items()
        }
        texts = (*self.command, *self.environment.values())
        self.escapes = {
            name: value for name, value in _LITERALS.items() if any(f"$$SCONE::{name}$$" in text for text in texts)
        }

    @classmethod
    def _argument(cls, text: str, placeholders_count: bool) -> str:
        if not placeholders_count and _HOST_ARGUMENT.fullmatch(text):
            return f"$$SCONE::{_AT}$${text[1:]}"
        return cls._text(text, placeholders_count)

    @staticmethod
    def _text(text: str, placeholders_count: bool) -> str:
        return text if placeholders_count else substitution.escape(text, dollars=_DOLLARS)

    def secrets_section(self) -> str:
        """The whole ``secrets`` section, or nothing."""
        entries = list(self._session.secrets)
        entries += [{"name": name, "kind": "ascii", "value": value} for name, value in self.escapes.items()]
        return f"secrets:\n{_indented(section_yaml(entries), 2)}" if entries else ""

    def volumes_section(self) -> str:
        """The whole ``volumes`` section, or nothing."""
        volumes = self._session.volumes
        return f"volumes:\n{_indented(section_yaml(volumes), 2)}" if volumes else ""

    def injection_files(self, indent: int) -> str:
        """The ``injection_files`` key of an image."""
        return self._key("injection_files", self._session.injection_files, indent)

    def mounts(self, indent: int) -> str:
        """The ``volumes`` key of an image."""
        return self._key("volumes", self._session.mounts, indent)

    @staticmethod
    def _key(name: str, entries: Sequence[object], indent: int) -> str:
        return f"{' ' * indent}{name}:\n{_indented(section_yaml(entries), indent + 2)}" if entries else ""

    def variables(self, indent: int, pwd_indent: int | None) -> str:
        """The lines below ``environment:``, and after them ``pwd:`` unless its column is None."""
        lines = [f"{' ' * indent}{_quoted(name)}: {_quoted(value)}" for name, value in sorted(self.environment.items())]
        if pwd_indent is not None:
            lines.append(f"{' ' * pwd_indent}pwd: {_quoted(self._session.pwd)}")
        return "\n".join(lines)

    def value(self, name: str) -> str:
        """A ``$NAME`` variable that stands within a line."""
        session = self._session
        namespace, _, own = session.name.rpartition("/")
        return {
            "SESSION": own,
            "NAMESPACE": namespace,
            "SERVICE": session.service,
            "MRENCLAVE": session.measurement,
            "CMD": f"[{', '.join(_quoted(argument) for argument in self.command)}]",
            "PWD": _quoted(session.pwd),
            "SCONE_FSPF_PATH": _quoted(session.fspf_path),
            "SCONE_FSPF_KEY": session.fspf_key,
            "SCONE_FSPF_TAG": session.fspf_tag,
        }[name]


_INLINE = ("SESSION", "NAMESPACE", "SERVICE", "MRENCLAVE", "CMD", "PWD", "SCONE_FSPF_PATH", "SCONE_FSPF_KEY",
           "SCONE_FSPF_TAG")  # fmt: skip
_BLOCKS = ("ENVVARS", "INJECTED_FILES", "MOUNTS", "SECRETS", "VOLUMES")
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE = re.compile(
    rf"(?P<itself>\$\$)"
    rf"|^(?P<indent>[ ]*)\$(?:\{{(?P<b1>{'|'.join(_BLOCKS)})\}}|(?P<b2>{'|'.join(_BLOCKS)})(?![A-Za-z0-9_]))[ \t]*$"
    rf"|\$(?:\{{(?P<n1>{_NAME})\}}|(?P<n2>{_NAME}))",
    re.MULTILINE,
)


def _as_jinja(template: SessionTemplate, match: re.Match[str]) -> str:
    """Return the Jinja expression that a ``$NAME`` variable stands for."""
    if match["itself"]:
        return match[0]
    block = match["b1"] or match["b2"]
    if block is None:
        name = match["n1"] or match["n2"]
        if name not in _INLINE:
            line = template.text.count("\n", 0, match.start()) + 1
            how = "must stand on a line of its own" if name in _BLOCKS else "is no variable of templates"
            raise UserError(
                f"{template.source}, line {line}: ${name} {how}",
                remedy=f"use one of {', '.join((*_INLINE, *_BLOCKS))}; a literal dollar sign is {{{{ '$' }}}}",
            )
        return f"{{{{ view.value({name!r}) }}}}"
    if block == "SECRETS":
        return "{{ secrets_section }}"
    if block == "VOLUMES":
        return "{{ view.volumes_section() }}"
    above = [
        line for line in template.text[: match.start()].splitlines() if line.strip(" ") and line.lstrip()[0] != "#"
    ]
    indent = len(match["indent"])
    if block in ("INJECTED_FILES", "MOUNTS"):
        return f"{{{{ view.{block.lower().replace('injected', 'injection')}({indent or _column(above[-1:])}) }}}}"
    siblings = []
    while above and not above[-1].lstrip(" -").startswith("environment:"):
        siblings.append(above.pop())
    parent = _column(above[-1:])
    has_pwd = re.search(r"^ *(?:- *)?pwd *:", template.text, re.MULTILINE) is not None
    indent = indent or (_column(siblings[-1:]) if siblings else parent + 2)
    return f"{{{{ view.variables({indent}, {None if has_pwd else parent}) }}}}"


def _column(lines: Sequence[str]) -> int:
    """Return the column of the key in a line, of which there may be none; ``- `` counts as white space."""
    return len(lines[0]) - len(lines[0].lstrip(" -")) if lines else 0


def _indented(text: str, columns: int) -> str:
    return "\n".join(" " * columns + line if line else line for line in text.removesuffix("\n").split("\n"))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # YAML, and every value passes through a filter
    )
    environment.filters["yaml"] = _quoted
    return environment


def _quoted(text: str) -> str:
    """Return text as a double-quoted YAML scalar on one line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(
            "an argument, variable or path of the image holds bytes that are no UTF-8",
            remedy="set it with --command or --env",
        ) from None
    return '"' + "".join(_ESCAPES.get(character) or _printable(character) for character in text) + '"'


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
