"""The messages of the enclave API (docs/protocol.md, section 4)."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sconify.cas.volumes import MAX_COUNTER
from sconify.policy.fields import MAX_NAME, MAX_SESSION_NAME

_OTP = 7  # "@123456"
ConfigId = Annotated[
    str, Field(min_length=3, max_length=MAX_SESSION_NAME + 1 + MAX_NAME + _OTP, pattern=r"^[^\x00-\x20]+$")
]
_Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _bytes32(value: object) -> bytes:
    if isinstance(value, str) and len(value) == 43:
        try:
            raw = base64.b64decode(value + "=", altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        if base64url(raw) == value:
            return raw
    raise ValueError("expected 32 bytes in base64url without padding")


def base64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


Bytes32 = Annotated[bytes, BeforeValidator(_bytes32)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class ChallengeRequest(_Message):
    """Body of ``POST /v1/challenge``."""

    config_id: ConfigId


class PublicKey(_Message):
    """The runtime's ephemeral key as JWK."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: Bytes32
    y: Bytes32

    @property
    def point(self) -> bytes:
        """The key as an uncompressed point, 65 bytes."""
        return b"\x04" + self.x + self.y


class AttestRequest(_Message):
    """Body of ``POST /v1/attest``; ``evidence`` is parsed by its kind's own parser."""

    config_id: ConfigId
    nonce: Bytes32
    public_key: PublicKey
    evidence: dict[str, object]
    access_proof: _Hex32 | None = None


class ExitRequest(_Message):
    """Body of ``POST /v1/exit``: how the program ended."""

    status: Annotated[int, Field(ge=0, le=255)] | None
    signal: Annotated[int, Field(ge=1, le=64)] | None


class AdvanceRequest(_Message):
    """Body of ``POST /v1/volumes/NAME``: the newest state of a volume."""

    root: _Hex32
    counter: Annotated[int, Field(ge=1, le=MAX_COUNTER)]


class ProvisionRequest(_Message):
    """Body of ``POST /v1/provision`` of the client API."""

    token: Annotated[str, Field(min_length=1, max_length=64)]
    root_session: str | None = None
