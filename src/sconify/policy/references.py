"""How sessions name one another: exports, imports, relative names and the short form of a URL."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from sconify.errors import UserError
from sconify.policy import fields
from sconify.policy.part import Part, invalid

_SHORT = re.compile(r"([A-Za-z0-9.:\[\]_-]*)/((?:[a-z_]+=[^,]*)(?:,[a-z_]+=[^,]*)*)")
_LEGACY = re.compile(r"([^:]+)(?::([0-9a-fA-F]{64}))?")


def resolve_name(name: str, *, base: str) -> str:
    """Return the absolute name of a session.

    Args:
        name: An absolute name, or one relative to ``base``: ``./child``, ``../sibling``, ``..``.
        base: The session in which it stands.

    Raises:
        UserError: It leads above the root.
    """
    elements = name.split("/")
    if elements[0] not in (".", ".."):
        return name
    path = [] if base == fields.ROOT else base.split("/")
    for element in elements:
        if element == "..":
            if not path:
                raise UserError(f"{name} leads above the root namespace")
            path.pop()
        elif element != ".":
            path.append(element)
    return "/".join(path) or fields.ROOT


def _reference(value: object) -> str:
    """Accept an absolute session name, or a relative one."""
    text = fields.text(value)
    head, _, rest = text.partition("/")
    if head not in (".", ".."):
        return fields.session_name(text)
    tail = text
    while tail.partition("/")[0] in (".", ".."):
        _, _, tail = tail.partition("/")
    if tail:
        fields.session_name(tail)
    if tail == fields.ROOT or text.endswith("/") or len(rest) > fields.MAX_SESSION_NAME:
        raise invalid(f"got {text[:80]!r}, expected a session such as team/app, ./child, ../sibling or ..")
    return text


SessionReference = Annotated[str, BeforeValidator(_reference), WithJsonSchema({"type": "string"})]


def parse_short_form(text: str) -> dict[str, object] | None:
    """Read ``HOST/cas_key=...,session=...,secret=...``, with nothing before the slash for this CAS.

    Returns:
        The members that the long form has, or None if the text has not this form.
    """
    match = _SHORT.fullmatch(text)
    if match is None:
        return None
    members: dict[str, object] = {}
    for pair in match[2].split(","):
        key, _, value = pair.partition("=")
        members[key] = value
    if match[1]:
        members["cas_url"] = match[1]
    return members


class _Reference(Part):
    """What exports and imports share.

    Attributes:
        session: The other session.
        session_hash: The only version of it that counts; None: any.
        cas_url: The CAS that keeps it; None: this one.
        cas_key: The key hash of that CAS.
        cas_software_key: The key hash of that CAS's software.
    """

    session: SessionReference | None = None
    session_hash: fields.Digest | None = None
    cas_url: fields.Text | None = None
    cas_key: fields.KeyHash | None = None
    cas_software_key: fields.KeyHash | None = None

    @model_validator(mode="after")
    def _whole_remote(self) -> Self:
        keys = (self.cas_key, self.cas_software_key)
        if self.cas_url is not None and not any(keys):
            raise invalid("cas_url needs cas_key or cas_software_key: which CAS is meant is known by its key")
        if self.cas_url is None and any(keys):
            raise invalid("cas_key and cas_software_key are for a remote CAS: cas_url is missing")
        if self.session is not None and self.cas_url is not None and self.session.startswith("."):
            raise invalid("a relative name can't be used for a session of another CAS")
        return self


class Target(_Reference):
    """To whom something is exported: one session, or a namespace with all that is below it.

    Attributes:
        namespace: The namespace; excludes ``session`` and ``session_hash``.
    """

    namespace: SessionReference | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.session is None) == (self.namespace is None):
            raise invalid("give session or namespace, one of them")
        if self.namespace is not None and self.session_hash is not None:
            raise invalid("a namespace has no session_hash")
        return self


def _target(value: object) -> object:
    if isinstance(value, str):
        short = parse_short_form(value)
        if short is not None:
            return short
        match = _LEGACY.fullmatch(value)
        if match is None:
            raise invalid("expected the name of a session, or NAME:HASH")
        return {"session": match[1]} | ({"session_hash": match[2]} if match[2] else {})
    return value


def _imported(value: object) -> object:
    if not isinstance(value, str):
        return value
    short = parse_short_form(value)
    if short is None:
        raise invalid("expected a mapping, or text such as /session=NAME,secret=NAME")
    return short


ExportTarget = Annotated[Target, BeforeValidator(_target)]


class SecretImport(_Reference):
    """A secret of another session.

    Attributes:
        secret: Its name there.
    """

    session: SessionReference
    secret: fields.Name


class VolumeImport(_Reference):
    """A volume of another session.

    Attributes:
        volume: Its name, or its alias, there.
    """

    session: SessionReference
    volume: fields.Name

    @model_validator(mode="after")
    def _local(self) -> Self:
        if self.cas_url is not None:
            raise invalid("a volume can be shared within one CAS only")
        return self


ImportedSecret = Annotated[SecretImport, BeforeValidator(_imported)]
ImportedVolume = Annotated[VolumeImport, BeforeValidator(_imported)]


def exports_to(target: Target, *, exporter: str, importer: str, importer_hash: str) -> bool:
    """Tell whether an export names the importing session.

    Args:
        target: One target of the export.
        exporter: The absolute name of the session that exports.
        importer: The absolute name of the session that imports.
        importer_hash: The hash of the importing version.
    """
    if target.cas_url is not None:
        return False
    if target.namespace is not None:
        namespace = resolve_name(target.namespace, base=exporter)
        return namespace in (fields.ROOT, importer) or importer.startswith(f"{namespace}/")
    assert target.session is not None
    if resolve_name(target.session, base=exporter) != importer:
        return False
    return target.session_hash is None or target.session_hash == importer_hash
