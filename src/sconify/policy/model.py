"""The session language: the only definition of what a policy may say.

A session is text in YAML (``sconify.policy.session`` parses it); this is its model after normalisation: short forms are
expanded, hex is lower case, certificates are key hashes. Unknown keys are errors. Its sections are in modules of their
own; here is the whole, and what must hold between the sections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self, TypeAlias

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from sconify.errors import UserError
from sconify.policy import fields, substitution
from sconify.policy.access import AccessPolicy, signing_key
from sconify.policy.part import OR_VARIABLE, Location, Part, Variable, invalid, invalid_at, variables
from sconify.policy.references import SecretImport, VolumeImport, resolve_name
from sconify.policy.secret import (
    AuthoritySecret,
    CertificateSecret,
    JwtSecret,
    PublicKeySecret,
    Secret,
    SecretKind,
)
from sconify.policy.security import Attestation, Security
from sconify.policy.service import Service
from sconify.policy.storage import Image, Volume

__all__ = ["Attestation", "Image", "Secret", "Security", "Service", "Session", "Volume"]

_VARIABLE_KINDS = (None, "ascii", "binary", "config-fragment", "x509", "x509-ca", "public-key")
_FRAGMENT_ONLY_IN = ("attestation", "access_policy", "security", "platforms")


def _creator(value: object) -> object:
    if not isinstance(value, dict):
        return fields.key_hash(value)
    if set(value) != {"signer"}:
        raise invalid("expected a key hash, a certificate, or a mapping with the key signer")
    return {"signer": signing_key(value["signer"])}


Creator: TypeAlias = Annotated[Any, BeforeValidator(_creator), WithJsonSchema({"type": ["string", "object"]})]


def _here(value: object) -> str:
    if isinstance(value, dict) or value not in ("!cas", "cas"):
        raise invalid("secrets are stored in the CAS only: !akv is for Azure, which this CAS does not support")
    return "!cas"


class SecretConfig(Part):
    """Where secrets are stored; in this CAS, there is no other place.

    Attributes:
        store_in: ``!cas``.
    """

    store_in: Annotated[str, BeforeValidator(_here)] = "!cas"


class Session(Part):
    """A session (policy).

    Parts of it may be variables until ``sconify.policy.part.resolve`` has put what they stand for in their place.

    Attributes:
        name: Its name; what stands before the last ``/`` is its namespace. ``/`` is the root namespace.
        version: The version of the language, ``0.3`` or ``0.3.N``.
        predecessor: The hash of the version that this one replaces; None creates the session.
        namespace_hash: The hash that the namespace's session must have when this one is created.
        salt: 16 bytes that make the hash unguessable, 32 hex digits.
        creator: Who created it, a key hash or the signer; the CAS fills it in.
        services: The programs.
        images: What programs of an image share.
        volumes: The volumes.
        secrets: The secrets.
        access_policy: Who may do what with it.
        security: What is demanded of platforms.
        secret_config: Where secrets are stored.
    """

    name: fields.SessionName
    version: fields.Version
    predecessor: fields.Digest | None = None
    namespace_hash: fields.Digest | None = None
    salt: fields.Bytes16 | None = None
    creator: Creator | None = None
    services: Annotated[tuple[Service, ...], fields.as_list] = ()
    images: Annotated[tuple[Image, ...], fields.as_list] = ()
    volumes: Annotated[tuple[Volume, ...], fields.as_list] = ()
    secrets: Annotated[tuple[Secret, ...], fields.as_list] = ()
    access_policy: Annotated[AccessPolicy, OR_VARIABLE] = AccessPolicy()
    security: Annotated[Security, OR_VARIABLE] = Security()
    secret_config: SecretConfig = SecretConfig()

    @property
    def namespace(self) -> str | None:
        """The name of the session in whose namespace this one is; None: it is the root."""
        if self.name == fields.ROOT:
            return None
        return self.name.rpartition("/")[0] or fields.ROOT

    @property
    def secret_kinds(self) -> dict[str, SecretKind | None]:
        """The kinds of the secrets by name; None: known only when it is imported."""
        return {secret.name: secret.kind for secret in self.secrets}

    def service(self, name: str) -> Service | None:
        """Return the service of that name."""
        return next((service for service in self.services if service.name == name), None)

    def image(self, name: str | None) -> Image | None:
        """Return the image of that name."""
        return next((image for image in self.images if image.name == name), None)

    def volume(self, name: str) -> Volume | None:
        """Return the volume of that name."""
        return next((volume for volume in self.volumes if volume.name == name), None)

    def secret(self, name: str) -> Secret | None:
        """Return the secret of that name."""
        return next((secret for secret in self.secrets if secret.name == name), None)

    @model_validator(mode="before")
    @classmethod
    def _without_old_keys(cls, data: object) -> object:
        """Drop what old sessions have and nothing uses."""
        return {key: value for key, value in data.items() if key != "digest"} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        sections: dict[str, Sequence[Any]] = {
            "services": self.services,
            "images": self.images,
            "volumes": self.volumes,
            "secrets": self.secrets,
        }
        for section, entries in sections.items():
            _refuse_twice([entry.name for entry in entries], at=(section,), what="name")
        for index, image in enumerate(self.images):
            _refuse_twice([file.path for file in image.injection_files], at=("images", index), what="path")
            _refuse_twice([volume.path for volume in image.volumes], at=("images", index), what="path")
            for at, volume in enumerate(image.volumes):
                if self.volume(volume.name) is None:
                    raise invalid_at(("images", index, "volumes", at, "name"), f"there is no volume {volume.name}")
            for at, name in enumerate(image.provide_secrets or ()):
                if name not in self.secret_kinds:
                    raise invalid_at(("images", index, "provide_secrets", at), f"there is no secret {name}")
        for index, service in enumerate(self.services):
            if service.image_name is not None and self.image(service.image_name) is None:
                raise invalid_at(("services", index, "image_name"), f"there is no image {service.image_name}")
        return self

    @model_validator(mode="after")
    def _check_lineage(self) -> Self:
        if self.predecessor is not None and self.namespace_hash is not None:
            raise invalid_at(("namespace_hash",), "namespace_hash and predecessor exclude each other")
        return self

    @model_validator(mode="after")
    def _check_attestation(self) -> Self:
        security = self.security
        hardware = isinstance(security, Variable) or isinstance(security.attestation, Variable)
        if hardware or security.attestation.mode != "none":
            for index, service in enumerate(self.services):
                if not service.attestation and not service.mrenclaves:
                    message = f"service {service.name} has no attestation factor: give attestation with mrenclave"
                    raise invalid_at(("services", index), message)
        return self

    @model_validator(mode="after")
    def _check_secrets(self) -> Self:
        for index, secret in enumerate(self.secrets):
            at: Location = ("secrets", index)
            if isinstance(secret, CertificateSecret | AuthoritySecret):
                self._check_reference((*at, "private_key"), secret.private_key, ("private-key",))
                self._check_reference((*at, "issuer"), secret.issuer, ("x509-ca",))
                self._check_issuers((*at, "issuer"), secret)
            elif isinstance(secret, PublicKeySecret):
                self._check_reference((*at, "private_key"), secret.private_key, ("private-key",))
            elif isinstance(secret, JwtSecret):
                self._check_reference((*at, "signer"), secret.signer, ("private-key",))
                signer = self.secret(secret.signer) if secret.signer else None
                if getattr(signer, "key_type", "P-384") != "P-384" and not signer.given:  # type: ignore[union-attr]
                    raise invalid_at((*at, "signer"), f"{secret.alg} needs a private key with key_type P-384")
        return self

    def _check_reference(self, at: Location, name: str | None, kinds: tuple[str, ...]) -> None:
        if name is None:
            return
        if name not in self.secret_kinds:
            raise invalid_at(at, f"there is no secret {name}")
        kind = self.secret_kinds[name]
        if kind is not None and kind not in kinds:
            raise invalid_at(at, f"secret {name} is of kind {kind}, expected {kinds[0]}")

    def _check_issuers(self, at: Location, secret: CertificateSecret | AuthoritySecret) -> None:
        seen = {secret.name}
        issuer = secret.issuer
        while issuer is not None:
            if issuer in seen:
                raise invalid_at(at, f"{issuer} would issue itself by way of {secret.name}")
            seen.add(issuer)
            issuer = getattr(self.secret(issuer), "issuer", None)

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for at, reference in self._references():
            try:
                target = resolve_name(reference, base=self.name)
            except UserError as error:
                raise invalid_at(at, error.what) from None
            if at[-1] == "session" and at[-2] == "import" and target == self.name:
                raise invalid_at(at, "a session can't import from itself")
        return self

    def _references(self) -> Iterator[tuple[Location, str]]:
        for section in ("secrets", "volumes"):
            for index, entry in enumerate(getattr(self, section)):
                imported: SecretImport | VolumeImport | None = entry.import_
                if imported is not None and imported.cas_url is None:
                    yield (section, index, "import", "session"), imported.session
                for export in entry.export:
                    for target in getattr(export, "to", (export,)):
                        if target.cas_url is None:
                            yield (section, index, "export"), target.session or target.namespace

    @model_validator(mode="after")
    def _check_variables(self) -> Self:
        kinds = self.secret_kinds
        for at, variable in variables(self):
            if variable.secret not in kinds:
                raise invalid_at(at, f"variable of secret {variable.secret}: the session has no such secret")
            kind = kinds[variable.secret]
            if kind not in _VARIABLE_KINDS:
                raise invalid_at(at, f"secret {variable.secret} is of kind {kind}, which can't stand here")
            if kind == "config-fragment" and not any(section in at for section in _FRAGMENT_ONLY_IN):
                raise invalid_at(at, f"secret {variable.secret} is a fragment, which can't stand here")
        return self

    @model_validator(mode="after")
    def _check_placeholders(self) -> Self:
        kinds = self.secret_kinds
        texts: list[tuple[Location, str, bool]] = []
        for index, service in enumerate(self.services):
            here = ("services", index)
            texts += [((*here, "command", at), text, False) for at, text in enumerate(service.command)]
            texts += [((*here, "environment", at), text, False) for at, text in service.environment.items()]
        for index, image in enumerate(self.images):
            for at, file in enumerate(image.injection_files):
                texts.append((("images", index, "injection_files", at, "content"), file.content or "", True))
        for index, secret in enumerate(self.secrets):
            if isinstance(secret, JwtSecret):
                for claim, text in secret.payload.items():
                    if text != JwtSecret.SELF:
                        texts.append((("secrets", index, "payload", claim), text, False))
        for location, text, raw in texts:
            try:
                substitution.check(text, secrets=kinds, raw=raw)
            except UserError as error:
                raise invalid_at(location, error.what + (f"; {error.remedy}" if error.remedy else "")) from None
        return self


def _refuse_twice(values: list[str], *, at: Location, what: str) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise invalid_at((*at, index), f"{what} {value} is given twice")
        seen.add(value)
