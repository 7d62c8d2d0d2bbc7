"""The ``secrets`` section: one class for each kind."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from sconify.policy import fields
from sconify.policy.document import Number
from sconify.policy.part import ONE_OR_MORE, TAG, Part, Variable, invalid
from sconify.policy.references import ExportTarget, ImportedSecret

DEFAULT_SECRET_SIZE = 20
"""Characters (ascii) or bytes (binary) of a generated secret whose size is not given."""

KeyType = Literal["P-256", "P-384", "Ed25519", "RSA-2048", "RSA-3072"]
_SAN = re.compile(r"dns:[^\s,]{1,253}|ip:[0-9a-fA-F.:]{2,45}")
_DNS = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_MAX_COMMON_NAME = 64  # ub-common-name of RFC 5280
_RESERVED_CLAIMS = ("iat", "nbf", "exp")

NOT_SUPPORTED: Final[Mapping[str, str]] = {
    "aad-token": "aad-token is for Azure only, which this CAS does not support",
    "session-ca": "session-ca is of language 0.2: use x509-ca, and name it as the issuer of certificates",
}


class _SecretPart(Part):
    """What all kinds share.

    Attributes:
        name: What placeholders call it.
        export: The sessions that may import it.
        export_public: Whether anybody may read it, without authentication.
        import_: Where it comes from, if it is another session's.
        migrate: Whether a private key is kept by an update; ascii and binary secrets are anyway.
    """

    name: fields.Name
    export: Annotated[tuple[ExportTarget, ...], ONE_OR_MORE] = ()
    export_public: fields.Boolean = False
    import_: ImportedSecret | None = Field(default=None, alias="import")
    migrate: fields.Boolean = False

    @property
    def given(self) -> bool:
        """Whether its value stands in the session."""
        return getattr(self, "value", None) is not None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        kind = getattr(self, "kind", None)
        if self.export_public and kind in ("private-key", "config-fragment", "jwt"):
            raise invalid(f"a {kind} secret can't be public")
        if self.import_ is not None:
            own = sorted(self.model_fields_set - {"name", "kind", "import_", "export", "export_public", "migrate"})
            if own:
                raise invalid(f"import and {own[0]} exclude each other: an imported secret is as it is")
            if self.import_.cas_url is not None and self.export:
                raise invalid("a secret of another CAS can't be exported again")
        return self


class AsciiSecret(_SecretPart):
    """Text, given or made of printable ASCII characters.

    Attributes:
        value: The given text.
        size: Characters to generate.
    """

    MAX_SIZE: ClassVar[int] = 4096

    kind: Literal["ascii"]
    value: fields.Text | None = Field(default=None, repr=False)
    size: fields.Count = DEFAULT_SECRET_SIZE

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        _check_size(self.size, self.MAX_SIZE, "size" in self.model_fields_set and self.value is not None)
        if self.value is not None and "\0" in self.value:
            raise invalid("the value holds a NUL character")
        return self


class BinarySecret(_SecretPart):
    """Bytes, given as hex digits or random.

    Attributes:
        value: The given bytes as hex digits.
        size: Bytes to generate.
    """

    MAX_SIZE: ClassVar[int] = 4096

    kind: Literal["binary"]
    value: fields.Text | None = Field(default=None, repr=False)
    size: fields.Count = DEFAULT_SECRET_SIZE

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        _check_size(self.size, self.MAX_SIZE, "size" in self.model_fields_set and self.value is not None)
        if self.value is not None and not re.fullmatch(r"([0-9a-fA-F]{2})*", self.value):
            raise invalid("the value of a binary secret is no hex digits")
        return self


class PrivateKeySecret(_SecretPart):
    """A private key.

    Attributes:
        value: The given key, PKCS#8 in PEM.
        key_type: What is generated.
    """

    kind: Literal["private-key"]
    value: fields.Text | None = Field(default=None, repr=False)
    key_type: KeyType = "P-256"

    @field_validator("value", mode="after")
    @classmethod
    def _check_key(cls, value: str | None) -> str | None:
        if value is not None:
            load_private_key(value)
        return value


class PublicKeySecret(_SecretPart):
    """A public key.

    Attributes:
        value: The given key, SubjectPublicKeyInfo in PEM.
        private_key: The private-key secret whose public half it is.
    """

    kind: Literal["public-key"]
    value: fields.Text | None = None
    private_key: fields.Name | None = None

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.import_ is None and (self.value is None) == (self.private_key is None):
            raise invalid("give private_key, of which it is the public half, or value")
        if self.value is not None:
            load_public_key(self.value)
        return self


class _CertificatePart(_SecretPart):
    """What both kinds of certificates share.

    Attributes:
        value: The given certificate in PEM; those of its issuers may follow.
        private_key: The private-key secret that it certifies.
        issuer: The x509-ca secret that issues it; None: it signs itself.
        common_name: Its common name.
        valid_for: Seconds; it is issued anew in time. None: until the year 4096.
    """

    value: fields.Text | None = None
    private_key: fields.Name | None = None
    issuer: fields.Name | None = None
    common_name: Annotated[fields.Text, Field(min_length=1, max_length=_MAX_COMMON_NAME)] | None = None
    valid_for: fields.Duration | None = None

    @model_validator(mode="after")
    def _check_certificate(self) -> Self:
        if self.value is not None:
            load_certificates(self.value)
            generated = sorted(self.model_fields_set & {"issuer", "common_name", "valid_for", "endpoint", "dns", "san"})
            if generated:
                raise invalid(f"value and {generated[0]} exclude each other: a given certificate is as it is")
        elif self.import_ is None and self.private_key is None:
            raise invalid("private_key is missing: the name of the private-key secret that is certified")
        return self


class CertificateSecret(_CertificatePart):
    """A certificate of a server or client.

    Attributes:
        endpoint: What it is for; None: both.
        dns: Names of the server.
        san: Alternative names, ``dns:NAME`` or ``ip:ADDRESS``.
    """

    kind: Literal["x509"]
    endpoint: Literal["server", "client"] | None = None
    dns: Annotated[tuple[fields.Text, ...], ONE_OR_MORE] = ()
    san: Annotated[tuple[fields.Text, ...], ONE_OR_MORE] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.endpoint == "client" and (self.dns or self.san):
            raise invalid("dns and san are for servers, not for endpoint client")
        for name in self.dns:
            if not _DNS.fullmatch(name):
                raise invalid(f"got dns {name[:60]!r}, expected a host name")
        for name in self.san:
            if not _SAN.fullmatch(name):
                raise invalid(f"got san {name[:60]!r}, expected dns:NAME or ip:ADDRESS")
            if name.startswith("dns:") and not _DNS.fullmatch(name.removeprefix("dns:")):
                raise invalid(f"got san {name[:60]!r}, expected dns:NAME with a host name")
            if name.startswith("ip:"):
                _check_address(name.removeprefix("ip:"))
        return self


class AuthoritySecret(_CertificatePart):
    """A certificate that issues others."""

    kind: Literal["x509-ca"]


def _fragment(value: object) -> object:
    """Return a YAML structure as plain data: numbers that are whole as integers, others as they are spelled."""
    if isinstance(value, Number):
        return int(value.source) if re.fullmatch(r"-?[0-9]{1,15}", value.source) else value.source
    if isinstance(value, dict):
        return {key: _fragment(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_fragment(member) for member in value]
    if value is None:
        raise invalid("a fragment holds an empty value: leave the key out")
    if isinstance(value, str) and "$$SCONE::" in value:
        raise invalid("a fragment holds a variable: variables can't stand inside of variables")
    return value


class FragmentSecret(_SecretPart):
    """A piece of the session's own configuration, to stand where a variable stands.

    Attributes:
        value: Any YAML structure.
    """

    kind: Literal["config-fragment"]
    value: Annotated[Any, BeforeValidator(_fragment), WithJsonSchema({})] = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if self.import_ is None and self.value is None:
            raise invalid("value is missing: a config-fragment is given or imported")
        return self


class PgpKeySecret(_SecretPart):
    """An OpenPGP key: Ed25519 to certify and sign, Curve25519 to encrypt."""

    kind: Literal["pgp-key"]


class Validity(Part):
    """How long a token is valid.

    Attributes:
        for_: Seconds.
    """

    for_: fields.Duration = Field(alias="for")


class JwtSecret(_SecretPart):
    """A token that the CAS signs anew for each attestation.

    Attributes:
        signer: The private-key secret that signs it.
        alg: The algorithm.
        validity: How long it is valid.
        payload: Its claims; a value may be a variable, or ``$$SCONE::self::software_identity$$``.
    """

    SELF: ClassVar[str] = "$$SCONE::self::software_identity$$"

    kind: Literal["jwt"]
    signer: fields.Name | None = None
    alg: Literal["ES384"] = "ES384"
    validity: Validity | None = None
    payload: fields.Environment = Field(default={}, repr=False)

    @model_validator(mode="after")
    def _check_claims(self) -> Self:
        if self.import_ is None and (self.signer is None or self.validity is None):
            raise invalid(f"{'signer' if self.signer is None else 'validity'} is missing")
        for claim, value in self.payload.items():
            if claim in _RESERVED_CLAIMS:
                raise invalid(f"the claim {claim} is set by the CAS")
            if "$$SCONE::" in value and value != self.SELF and Variable.parse(value) is None:
                raise invalid(f"value of {claim[:60]}: a variable must be the whole value")
        return self


class ImportedAnySecret(_SecretPart):
    """A secret of another session whose kind is what it is there."""

    import_: ImportedSecret = Field(alias="import")

    @property
    def kind(self) -> None:
        """Unknown until it is imported."""
        return


_KINDS: Final[tuple[str, ...]] = (
    "ascii", "binary", "private-key", "public-key", "x509", "x509-ca", "config-fragment", "pgp-key", "jwt",
)  # fmt: skip
SecretKind: TypeAlias = Literal[
    "ascii", "binary", "private-key", "public-key", "x509", "x509-ca", "config-fragment", "pgp-key", "jwt"
]


def _known_kind(value: object) -> object:
    if not isinstance(value, dict):
        raise invalid("expected a mapping with the keys name, kind, ...")
    if "import_akv" in value:
        raise invalid("import_akv is for Azure only, which this CAS does not support")
    if "kind" not in value:
        if "import" in value or "import_" in value:
            return value
        raise invalid(f"kind is missing, expected one of {', '.join(_KINDS)}")
    kind = value["kind"]
    if isinstance(kind, str) and kind in NOT_SUPPORTED:
        raise invalid(NOT_SUPPORTED[kind])
    if kind not in _KINDS:
        raise invalid(f"got kind {str(kind)[:40]!r}, expected one of {', '.join(_KINDS)}")
    return value


def _tag(value: object) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return f"{TAG}{kind or 'import'}"


Secret: TypeAlias = Annotated[
    Annotated[AsciiSecret, Tag(f"{TAG}ascii")]
    | Annotated[BinarySecret, Tag(f"{TAG}binary")]
    | Annotated[PrivateKeySecret, Tag(f"{TAG}private-key")]
    | Annotated[PublicKeySecret, Tag(f"{TAG}public-key")]
    | Annotated[CertificateSecret, Tag(f"{TAG}x509")]
    | Annotated[AuthoritySecret, Tag(f"{TAG}x509-ca")]
    | Annotated[FragmentSecret, Tag(f"{TAG}config-fragment")]
    | Annotated[PgpKeySecret, Tag(f"{TAG}pgp-key")]
    | Annotated[JwtSecret, Tag(f"{TAG}jwt")]
    | Annotated[ImportedAnySecret, Tag(f"{TAG}import")],
    Discriminator(_tag),
    BeforeValidator(_known_kind),
]


def load_private_key(pem: str) -> Any:
    """Return the private key of a PEM text (``cryptography``'s object).

    Raises:
        PydanticCustomError: It is none, or of a type that the language does not have; nothing of it is shown.
    """
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise invalid("the value is no unencrypted PKCS#8 private key in PEM") from None
    return key


def load_public_key(pem: str) -> Any:
    """Return the public key of a PEM text.

    Raises:
        PydanticCustomError: It is none.
    """
    try:
        return serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise invalid("the value is no public key in PEM (SubjectPublicKeyInfo)") from None


def load_certificates(pem: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM text, in their order.

    Raises:
        PydanticCustomError: There is none, or one is broken.
    """
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise invalid("the value is no certificate in PEM") from None


def _check_size(size: int, largest: int, both: bool) -> None:
    if not 1 <= size <= largest:
        raise invalid(f"got size {size}, expected 1 to {largest}")
    if both:
        raise invalid("value and size exclude each other: a given value has its own size")


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise invalid(f"got san ip:{text[:60]}, expected an IP address") from None
