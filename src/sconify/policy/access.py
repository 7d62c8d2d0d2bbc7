"""The ``access_policy`` section: who may do what with the session."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializationInfo,
    Tag,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from sconify.policy import fields
from sconify.policy.keyhash import key_hash, spki_der
from sconify.policy.part import ONE_OR_MORE, OR_VARIABLE, TAG, Part, Variable, invalid
from sconify.policy.secret import load_public_key

WORDS = ("CREATOR", "ANY", "NONE")
Operation: TypeAlias = Literal["read", "update", "create_sessions", "list_sessions"]
_QUORUM = re.compile(r"require-(all|at-least-([1-9][0-9]?))")


def _key(value: object) -> str:
    return value if isinstance(value, str) and value in WORDS else fields.key_hash(value)


def signing_key(value: object) -> str:
    """Accept the public key of a signer in PEM (Ed25519 or P-384); return it in the one spelling that is kept."""
    key = load_public_key(fields.text(value))
    p384 = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1"
    if not p384 and not isinstance(key, ed25519.Ed25519PublicKey):
        raise invalid("the key of a signer is of another type, expected Ed25519 or P-384")
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


class SignerGrant(Part):
    """Whoever holds the key that signed the request's session.

    Attributes:
        signer: The public key in PEM.
    """

    signer: Annotated[str, BeforeValidator(signing_key), WithJsonSchema({"type": "string"}), OR_VARIABLE]

    @property
    def key_hash(self) -> str:
        """The key hash of the signer."""
        return signer_key_hash(self.signer)


def signer_key_hash(pem: str) -> str:
    """Return the key hash of a public key in PEM."""
    return key_hash(spki_der(load_public_key(pem)))


class Quorum(Part):
    """Several at once: ``require-all: [...]`` or ``require-at-least-N: [...]``.

    Attributes:
        least: How many of the entries must be met.
        entries: Who; nested freely.
    """

    least: int
    entries: tuple[Grant, ...]

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: object) -> object:
        if isinstance(data, cls):
            return data
        if not isinstance(data, dict) or len(data) != 1:
            raise invalid("expected one key: signer, require-all or require-at-least-N")
        ((key, entries),) = data.items()
        match = _QUORUM.fullmatch(key)
        if match is None:
            raise invalid(f"got {key[:40]!r}, expected signer, require-all or require-at-least-N")
        if not isinstance(entries, list | tuple) or not entries:
            raise invalid(f"{key}: expected a list")
        if isinstance(entries, list | tuple) and match[2] and int(match[2]) > len(entries):
            raise invalid(f"{key} has {len(entries)} entries: it could never be met")
        return {"least": int(match[2]) if match[2] else len(entries), "entries": tuple(entries)}

    def members(self) -> dict[str, object]:
        """Return the one member as it is written."""
        word = "all" if self.least == len(self.entries) else f"at-least-{self.least}"
        return {f"require-{word}": self.entries}

    @model_serializer(mode="plain")
    def _as_written(self, info: SerializationInfo) -> dict[str, Any]:
        ((key, _),) = self.members().items()
        return {key: [_dump(entry, info.mode) for entry in self.entries]}


def _dump(entry: object, mode: str) -> object:
    if isinstance(entry, Part):
        return entry.model_dump(mode=mode)
    return str(entry) if isinstance(entry, Variable) and mode == "json" else entry


def _tag(value: object) -> str:
    if isinstance(value, str):
        return f"{TAG}key"
    if isinstance(value, SignerGrant) or (isinstance(value, dict) and "signer" in value):
        return f"{TAG}signer"
    return f"{TAG}quorum"


Grant: TypeAlias = Annotated[
    Annotated[
        str,
        BeforeValidator(_key),
        WithJsonSchema({"type": "string", "description": "CREATOR, ANY, NONE, a key hash or a PEM certificate"}),
        Tag(f"{TAG}key"),
    ]
    | Annotated[SignerGrant, Tag(f"{TAG}signer")]
    | Annotated[
        Quorum,
        WithJsonSchema(
            {"type": "object", "maxProperties": 1, "patternProperties": {f"^{_QUORUM.pattern}$": {"type": "array"}}}
        ),
        Tag(f"{TAG}quorum"),
    ],
    Discriminator(_tag),
    OR_VARIABLE,
]
Grants: TypeAlias = Annotated[tuple[Grant, ...], Field(min_length=1), ONE_OR_MORE, OR_VARIABLE]
Quorum.model_rebuild()


class AccessPolicy(Part):
    """Who may do what: CREATOR, ANY, NONE, key hashes, certificates (kept as their key hash), signers, quorums.

    Attributes:
        read: Who may read its text.
        update: Who may replace it.
        create_sessions: Who may create sessions below its name; None: those who may update.
        list_sessions: Who may list the sessions below its name; None: those who may read.
    """

    read: Grants = ("CREATOR",)
    update: Grants = ("CREATOR",)
    create_sessions: Grants | None = None
    list_sessions: Grants | None = None

    def grants(self, operation: Operation) -> tuple[Grant, ...]:
        """Return who may do this."""
        if operation == "create_sessions" and self.create_sessions is not None:
            return self.create_sessions
        if operation == "list_sessions" and self.list_sessions is not None:
            return self.list_sessions
        return self.read if operation in ("read", "list_sessions") else self.update

    @model_validator(mode="after")
    def _words_and_places(self) -> Self:
        for operation in ("read", "update", "create_sessions", "list_sessions"):
            grants = getattr(self, operation)
            if grants is None or isinstance(grants, Variable):
                continue
            for word in ("ANY", "NONE"):
                if word in grants and len(grants) > 1:
                    raise invalid(f"{word} must be the only entry of its list")
            if operation in ("read", "list_sessions") and any(
                isinstance(grant, SignerGrant | Quorum) for grant in grants
            ):
                raise invalid(f"{operation} takes no signer and no require-...: nothing is signed to read")
            for grant in grants:
                if isinstance(grant, Quorum) and any(word in _words(grant) for word in ("ANY", "NONE")):
                    raise invalid("ANY and NONE can't stand in require-...")
        return self


def _words(quorum: Quorum) -> set[str]:
    found: set[str] = set()
    for entry in quorum.entries:
        if isinstance(entry, Quorum):
            found |= _words(entry)
        elif isinstance(entry, str):
            found.add(entry)
    return found
