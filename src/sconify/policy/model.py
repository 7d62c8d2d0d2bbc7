"""The session language: the only definition of what a policy may say.

A session is text in YAML (``sconify.policy.session`` parses it); this is its model after normalisation: short forms are
expanded, hex is lower case, certificates are key hashes. Unknown keys are errors.
"""

from __future__ import annotations

import difflib
from collections import Counter
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from sconify.errors import UserError
from sconify.policy import fields, substitution
from sconify.policy.fields import invalid

Location: TypeAlias = tuple[str | int, ...]

Tolerance = Literal[
    "debug-mode",
    "hyperthreading",
    "insecure-igpu",
    "software-hardening-needed",
    "aepic-leak",
    "insecure-configuration",
    "outdated-tcb",
    "simulated-platform",
]
"""What a policy may put up with in a platform. ``simulated-platform`` is ours: no hardware at all."""

DEFAULT_SECRET_SIZE = 20
"""Characters (ascii) or bytes (binary) of a generated secret whose size is not given."""


class _Part(BaseModel):
    """A part of a session: frozen, strict, and an unknown key is answered with the nearest known one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise invalid(f"expected a mapping with the keys {', '.join(cls.model_fields)}")
        for key in data:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.5)
                hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(cls.model_fields)}"
                raise PydanticCustomError(
                    "session_key", "{message}", {"message": f'unknown key "{key[:60]}": {hint}', "key": key}
                )
        return data


class Factor(_Part):
    """One alternative of what a service must prove; all of its members must hold.

    Attributes:
        mrenclave: The accepted measurements, 64 hex digits each.
    """

    mrenclave: Annotated[tuple[fields.Digest, ...], fields.one_or_more, Field(min_length=1)]


class Service(_Part):
    """A program and what it gets when it proves to be it.

    Attributes:
        name: The last element of the configuration id.
        image_name: The entry of ``images`` whose files it gets.
        command: Its argv.
        environment: Its whole environment.
        pwd: Its working directory.
        attestation: The accepted factors; use ``factors``, which knows both forms.
        mrenclaves: The legacy form of ``attestation: {mrenclave: [...]}``.
        fspf_path: Where the index of its protected file system stands; set together with key and tag.
        fspf_key: The file system key, 64 hex digits.
        fspf_tag: The root tag of the index, 32 hex digits.
    """

    name: fields.Name
    image_name: fields.Name | None = None
    command: fields.Arguments = Field(repr=False)
    environment: fields.Environment = Field(default={}, repr=False)
    pwd: fields.Path = "/"  # noqa: S105 - a directory
    attestation: Annotated[tuple[Factor, ...], fields.one_or_more] = ()
    mrenclaves: Annotated[tuple[fields.Digest, ...], fields.as_list, Field(min_length=1)] = ()
    fspf_path: fields.Path | None = None
    fspf_key: fields.Digest | None = Field(default=None, repr=False)
    fspf_tag: fields.Bytes16 | None = None

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The accepted factors, in whichever form they are given; any of them suffices, none means none is accepted."""
        return (*self.attestation, Factor(mrenclave=self.mrenclaves)) if self.mrenclaves else self.attestation

    @model_validator(mode="after")
    def _one_form_of_factors(self) -> Self:
        if self.attestation and self.mrenclaves:
            raise invalid("mrenclaves and attestation exclude each other; mrenclaves is the old form")
        return self

    @model_validator(mode="after")
    def _whole_file_system(self) -> Self:
        parts = {"fspf_path": self.fspf_path, "fspf_key": self.fspf_key, "fspf_tag": self.fspf_tag}
        missing = [name for name, value in parts.items() if value is None]
        if missing and len(missing) < len(parts):
            raise invalid(f"{' and '.join(missing)} missing: fspf_path, fspf_key and fspf_tag go together")
        return self


class InjectionFile(_Part):
    """A file that exists only in the runtime's memory.

    Attributes:
        path: Its absolute path in the container.
        content: Its text, with placeholders.
        permission: Its mode bits.
    """

    path: fields.Path
    content: fields.Text = Field(repr=False)
    permission: fields.Permission = 0o700


class Image(_Part):
    """What services of an image share.

    Attributes:
        name: What ``image_name`` of a service refers to.
        injection_files: The files that it gets, each path once.
    """

    name: fields.Name
    injection_files: Annotated[tuple[InjectionFile, ...], fields.as_list] = ()


class Secret(_Part):
    """A secret: given, or generated by the CAS and kept when the session is updated.

    Attributes:
        name: What placeholders call it.
        kind: ``ascii`` (text) or ``binary`` (bytes).
        value: The given value: text, or hex digits. None: generated.
        size: Characters or bytes to generate.
    """

    MAX_SIZE: ClassVar[int] = 4096

    name: fields.Name
    kind: Literal["ascii", "binary"]
    value: fields.Text | None = Field(default=None, repr=False)
    size: fields.Count = DEFAULT_SECRET_SIZE

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        if not 1 <= self.size <= self.MAX_SIZE:
            raise invalid(f"got size {self.size}, expected 1 to {self.MAX_SIZE}")
        if self.value is None:
            return self
        if "size" in self.model_fields_set:
            raise invalid("value and size exclude each other: a given value has its own size")
        if self.kind == "ascii" and "\0" in self.value:
            raise invalid("the value holds a NUL character")
        if self.kind == "binary":
            try:
                bytes.fromhex(self.value)
            except ValueError:
                raise invalid("the value of a binary secret is no hex digits") from None
            if any(character.isspace() for character in self.value):
                raise invalid("the value of a binary secret is no hex digits")
        return self


def _key_hash_or(*words: str) -> BeforeValidator:
    def accept(value: object) -> object:
        return value if isinstance(value, str) and value in words else fields.key_hash(value)

    return BeforeValidator(accept)


Grant = Annotated[str, _key_hash_or("CREATOR", "ANY", "NONE")]
Grants = Annotated[tuple[Grant, ...], fields.one_or_more, Field(min_length=1)]


class AccessPolicy(_Part):
    """Who may do what with the session: CREATOR, ANY, NONE, key hashes, or certificates (kept as their key hash).

    Attributes:
        read: Who may read its text.
        update: Who may replace it.
        create_sessions: Who may create sessions below its name; None: those who may update.
    """

    read: Grants = ("CREATOR",)
    update: Grants = ("CREATOR",)
    create_sessions: Grants | None = None

    @model_validator(mode="after")
    def _any_and_none_stand_alone(self) -> Self:
        for grants in (self.read, self.update, self.create_sessions or ()):
            for word in ("ANY", "NONE"):
                if word in grants and len(grants) > 1:
                    raise invalid(f"{word} must be the only entry of its list")
        return self


class Attestation(_Part):
    """How services are attested.

    Attributes:
        mode: ``hardware``, or ``none``: whoever asks gets the configuration (CAS in debug mode only).
        tolerate: The weaknesses of a platform that are put up with.
    """

    mode: Literal["hardware", "none"] = "hardware"
    tolerate: Annotated[tuple[Tolerance, ...], fields.as_list] = ()


class Security(_Part):
    """The security section; its defaults are the secure ones."""

    attestation: Attestation = Attestation()


class Session(_Part):
    """A session (policy).

    Attributes:
        name: Its name; what stands before the last ``/`` is its namespace.
        version: The version of the language, ``0.3`` or ``0.3.N``.
        predecessor: The hash of the version that this one replaces; None creates the session.
        salt: 16 bytes that make the hash unguessable, 32 hex digits.
        creator: The key hash of who created it; the CAS fills it in.
        services: The programs.
        images: What programs of an image share.
        secrets: The secrets.
        access_policy: Who may do what with it.
        security: What is demanded of platforms.
    """

    name: fields.SessionName
    version: fields.Version
    predecessor: fields.Digest | None = None
    salt: fields.Bytes16 | None = None
    creator: fields.KeyHash | None = None
    services: Annotated[tuple[Service, ...], fields.as_list] = ()
    images: Annotated[tuple[Image, ...], fields.as_list] = ()
    secrets: Annotated[tuple[Secret, ...], fields.as_list] = ()
    access_policy: AccessPolicy = AccessPolicy()
    security: Security = Security()

    def service(self, name: str) -> Service | None:
        """Return the service of that name."""
        return next((service for service in self.services if service.name == name), None)

    def image(self, name: str | None) -> Image | None:
        """Return the image of that name."""
        return next((image for image in self.images if image.name == name), None)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        named: dict[str, tuple[Service, ...] | tuple[Image, ...] | tuple[Secret, ...]] = {
            "services": self.services,
            "images": self.images,
            "secrets": self.secrets,
        }
        for section, entries in named.items():
            _refuse_twice([entry.name for entry in entries], at=(section,), what="name")
        for index, image in enumerate(self.images):
            _refuse_twice([file.path for file in image.injection_files], at=("images", index), what="path")
        for index, service in enumerate(self.services):
            if service.image_name is not None and self.image(service.image_name) is None:
                raise _at(("services", index, "image_name"), f"there is no image {service.image_name}")
        return self

    @model_validator(mode="after")
    def _check_attestation(self) -> Self:
        if self.security.attestation.mode != "none":
            for index, service in enumerate(self.services):
                if not service.factors:
                    message = f"service {service.name} has no attestation factor: give attestation with mrenclave"
                    raise _at(("services", index), message)
        return self

    @model_validator(mode="after")
    def _check_placeholders(self) -> Self:
        kinds = {secret.name: secret.kind for secret in self.secrets}
        texts: list[tuple[Location, str, bool]] = []
        for index, service in enumerate(self.services):
            here = ("services", index)
            texts += [((*here, "command", at), text, False) for at, text in enumerate(service.command)]
            texts += [((*here, "environment", at), text, False) for at, text in service.environment.items()]
        for index, image in enumerate(self.images):
            files = enumerate(image.injection_files)
            texts += [(("images", index, "injection_files", at, "content"), file.content, True) for at, file in files]
        for location, text, raw in texts:
            try:
                substitution.check(text, secrets=kinds, raw=raw)
            except UserError as error:
                raise _at(location, error.what + (f"; {error.remedy}" if error.remedy else "")) from None
        return self


def _refuse_twice(values: list[str], *, at: Location, what: str) -> None:
    for index, value in enumerate(values):
        if Counter(values[:index])[value]:
            raise _at((*at, index), f"{what} {value} is given twice")


def _at(location: Location, message: str) -> PydanticCustomError:
    """Return an error of a check that spans parts, with the place where it is to be mended."""
    return PydanticCustomError("session_at", "{message}", {"message": message, "location": location})
