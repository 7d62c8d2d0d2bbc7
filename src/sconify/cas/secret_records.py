"""Values of secrets as the store keeps them: JSON, which is sealed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sconify.policy.formats import SecretValue


def dump_secrets(values: Mapping[str, SecretValue], volume_keys: Mapping[str, bytes]) -> bytes:
    """Return the secrets of a session and the keys of its volumes as the store seals them."""
    secrets = {
        name: {
            "kind": value.kind,
            "data": value.data.hex(),
            "private_key": value.private_key.hex() if value.private_key is not None else None,
            "chain": [certificate.hex() for certificate in value.chain],
        }
        for name, value in values.items()
    }
    volumes = {name: key.hex() for name, key in volume_keys.items()}
    return json.dumps([2, secrets, volumes]).encode()


def load_secrets(data: bytes) -> tuple[dict[str, SecretValue], dict[str, bytes]]:
    """Return what ``dump_secrets`` was given."""
    document = json.loads(data)
    if isinstance(document, dict):  # as the first version of this program wrote it
        old = {name: SecretValue(kind=kind, data=bytes.fromhex(value)) for name, (kind, value) in document.items()}
        return old, {}
    _, secrets, volumes = document
    values = {
        name: SecretValue(
            kind=value["kind"],
            data=bytes.fromhex(value["data"]),
            private_key=bytes.fromhex(value["private_key"]) if value["private_key"] is not None else None,
            chain=tuple(bytes.fromhex(certificate) for certificate in value["chain"]),
        )
        for name, value in secrets.items()
    }
    return values, {name: bytes.fromhex(key) for name, key in volumes.items()}
