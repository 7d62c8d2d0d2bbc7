"""The ``volumes`` and ``images`` sections: what services of an image find in their file system."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sconify.policy import fields
from sconify.policy.part import ONE_OR_MORE, OR_VARIABLE, Part, invalid
from sconify.policy.references import ExportTarget, ImportedVolume

UpdatePolicy = Literal["rollback_protected", "ephemeral", "no_rollback_protection"]


class VolumeExport(Part):
    """To whom a volume is exported, and how they may use it.

    Attributes:
        to: The sessions.
        update_policy: ``ephemeral``: importers may only use it as ephemeral; else what an importer has by default.
        read_only: Whether importers may only read it, or use it as ephemeral.
        volume_alias: The only name by which importers may name it; None: its own name.
    """

    to: Annotated[tuple[ExportTarget, ...], Field(min_length=1), ONE_OR_MORE]
    update_policy: UpdatePolicy = "rollback_protected"
    read_only: fields.Boolean = False
    volume_alias: fields.Name | None = None

    @model_validator(mode="after")
    def _to_sessions_here(self) -> Self:
        for target in self.to:
            if target.namespace is not None:
                raise invalid("a volume is exported to sessions, not to a namespace")
            if target.cas_url is not None:
                raise invalid("a volume can be shared within one CAS only")
        return self


def _export(value: object) -> object:
    """Accept the target alone in place of ``to``."""
    return value if isinstance(value, dict) and "to" in value else {"to": value}


class Volume(Part):
    """A read-write file system that the host keeps, encrypted.

    Attributes:
        name: Its name in the session; where it is mounted is the image's business.
        fspf_key: The key of its content, 64 hex digits; None: the CAS makes one.
        fspf_tag: The root of its initial state, 64 hex digits; None: the first service that mounts it makes it.
        files: ``encrypted``, or ``authenticated-only``.
        export: Who may import it.
        import_: The volume of another session that it is.
    """

    name: fields.Name
    fspf_key: Annotated[fields.Digest, OR_VARIABLE] | None = Field(default=None, repr=False)
    fspf_tag: fields.Digest | None = None
    files: Literal["encrypted", "authenticated-only"] = "encrypted"
    export: Annotated[tuple[Annotated[VolumeExport, BeforeValidator(_export)], ...], ONE_OR_MORE] = ()
    import_: ImportedVolume | None = Field(default=None, alias="import")

    @model_validator(mode="after")
    def _own_or_imported(self) -> Self:
        own = sorted(self.model_fields_set - {"name", "import_"})
        if self.import_ is not None and own:
            raise invalid(f"import and {own[0]} exclude each other: an imported volume is as it is")
        if self.fspf_tag is not None and self.fspf_key is None:
            raise invalid("fspf_tag needs fspf_key: a state that exists was written under a key")
        return self


class ImageVolume(Part):
    """A volume at its place.

    Attributes:
        name: The volume.
        path: Where it is mounted.
        update_policy: Whether older states are refused, every state is taken, or changes are lost at the end.
        read_only: Whether nothing of it may be changed; any number of readers may use it at the same time.
        strict: Whether ``fsync`` waits until the CAS has recorded the new state; else that is a second late at most.
        cas_absence_seconds: How long writes go on while the CAS can't be told of them.
    """

    name: fields.Name
    path: fields.Directory
    update_policy: UpdatePolicy = "rollback_protected"
    read_only: fields.Boolean = False
    strict: fields.Boolean = False
    cas_absence_seconds: fields.Count = 3600

    @model_validator(mode="after")
    def _read_only_or_ephemeral(self) -> Self:
        if self.read_only and self.update_policy == "ephemeral":
            raise invalid("read_only and update_policy: ephemeral exclude each other: what can't change is not lost")
        return self


class InjectionFile(Part):
    """A file that exists only in the runtime's memory.

    Attributes:
        path: Its absolute path in the container.
        content: Its text, with placeholders; None: the runtime reads it from the disk and fills its placeholders in.
        permission: Its mode bits.
    """

    path: fields.Path
    content: fields.Text | None = Field(default=None, repr=False)
    permission: fields.Permission = 0o700


def _file(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class Image(Part):
    """What services of an image share.

    Attributes:
        name: What ``image_name`` of a service refers to.
        volumes: The volumes that it gets, each path once.
        injection_files: The files that it gets, each path once.
        provide_secrets: The secrets that files read from the disk may use; None: all.
    """

    name: fields.Name
    volumes: Annotated[tuple[ImageVolume, ...], fields.as_list] = ()
    injection_files: Annotated[tuple[Annotated[InjectionFile, BeforeValidator(_file)], ...], fields.as_list] = ()
    provide_secrets: Annotated[tuple[fields.Name, ...], fields.as_list] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_old_keys(cls, data: object) -> object:
        """Drop what old sessions have and nothing uses."""
        return {k: v for k, v in data.items() if k not in ("mrenclaves", "tags")} if isinstance(data, dict) else data
