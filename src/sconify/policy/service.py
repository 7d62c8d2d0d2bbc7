"""The ``services`` section: a program, what it must prove, and what it gets."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sconify.policy import fields
from sconify.policy.factors import Factor, Factors, Platform
from sconify.policy.part import OR_VARIABLE, Part, invalid
from sconify.policy.security import OtpSecret

_HOST_ARGUMENT = re.compile(r"@@([0-9]+)")
_HOST_VARIABLE = "\\@\\@"
_IGNORED = ("tags", "persistency")


class Service(Part):
    r"""A program and what it gets when it proves to be it.

    Attributes:
        name: The last element of the configuration id.
        image_name: The entry of ``images`` whose volumes and files it gets.
        command: Its argv; ``@@N`` is the N-th argument that the host gives.
        environment: Its whole environment; a name that begins with ``\@\@`` takes the host's value of the rest.
        pwd: Its working directory.
        attestation: The accepted factors; use ``factors``, which knows both forms.
        mrenclaves: The legacy form of ``attestation: {mrenclave: [...]}``.
        platforms: The quoting enclaves whose evidence counts; empty: any.
        fspf_path: Where the index of its protected file system stands; set together with key and tag.
        fspf_key: The file system key, 64 hex digits.
        fspf_tag: The root tag of the index, 32 hex digits.
        fspf_update_policy: What states of it are accepted; a protected file system of an image never changes.
        one_time_password_shared_secret: Goes before that of the security section.
    """

    name: fields.Name
    image_name: fields.Name | None = None
    command: fields.Arguments = Field(repr=False)
    environment: fields.Environment = Field(default={}, repr=False)
    pwd: fields.Path = "/"  # noqa: S105 - a directory
    attestation: Factors = ()
    mrenclaves: Annotated[tuple[Annotated[fields.Digest, OR_VARIABLE], ...], Field(min_length=1), fields.as_list] = ()
    platforms: Annotated[tuple[Platform, ...], fields.as_list, OR_VARIABLE] = ()
    fspf_path: fields.Path | None = None
    fspf_key: Annotated[fields.Digest, OR_VARIABLE] | None = Field(default=None, repr=False)
    fspf_tag: fields.Bytes16 | None = None
    fspf_update_policy: Literal["rollback_protected_reinitializable", "no_rollback_protection"] = (
        "rollback_protected_reinitializable"
    )
    one_time_password_shared_secret: OtpSecret | None = Field(default=None, repr=False)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The accepted factors, in whichever form they are given; any of them suffices, none means none is accepted."""
        return (*self.attestation, Factor(mrenclave=self.mrenclaves)) if self.mrenclaves else self.attestation

    @property
    def host_arguments(self) -> dict[int, int]:
        """Which of the host's arguments (from 1) stands at which place of ``command`` (from 0)."""
        matches = ((at, _HOST_ARGUMENT.fullmatch(text)) for at, text in enumerate(self.command))
        return {at: int(match[1]) for at, match in matches if match}

    @property
    def host_variables(self) -> tuple[str, ...]:
        """The names of the variables whose values the host gives."""
        return tuple(name.removeprefix(_HOST_VARIABLE) for name in self.environment if name.startswith(_HOST_VARIABLE))

    @property
    def own_environment(self) -> dict[str, str]:
        """The variables whose values the session gives."""
        return {name: value for name, value in self.environment.items() if not name.startswith(_HOST_VARIABLE)}

    @model_validator(mode="before")
    @classmethod
    def _without_old_keys(cls, data: object) -> object:
        """Drop what old sessions have and nothing uses."""
        return {k: v for k, v in data.items() if k not in _IGNORED} if isinstance(data, dict) else data

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

    @model_validator(mode="after")
    def _host_gives_each_once(self) -> Self:
        numbers = list(self.host_arguments.values())
        for number in numbers:
            if number == 0 or numbers.count(number) > 1:
                raise invalid(f"@@{number} is given {'twice' if number else 'but the first is @@1'}")
        for name in self.host_variables:
            if not name or name in self.environment:
                raise invalid(
                    f"{_HOST_VARIABLE}{name[:40]}: it has no name, or the session gives this variable as well"
                )
        return self
