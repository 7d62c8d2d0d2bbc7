"""What an attested service gets: its part of the session with the secrets in it (docs/protocol.md, section 4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sconify.cas.mounts import Mount
from sconify.policy.formats import FORMATS, SecretValue
from sconify.policy.model import Image, Service
from sconify.policy.substitution import substitute

FORMAT = "sconify-config/1"


@dataclass(frozen=True, kw_only=True)
class ServiceConfiguration:
    """The configuration of a service, without what belongs to one attestation.

    Attributes:
        members: The JSON members that are the same for each attestation.
    """

    members: Mapping[str, object] = field(repr=False)

    def payload(self, *, config_id: str, nonce: str, extra: Mapping[str, object]) -> bytes:
        """Return the configuration for one attestation, as JSON.

        Args:
            config_id: As the runtime sent it.
            nonce: As the runtime sent it.
            extra: Members of this attestation.
        """
        document = {**self.members, **extra, "config_id": config_id, "nonce": nonce}
        return json.dumps(document, ensure_ascii=False).encode()


def build_configuration(
    service: Service, image: Image | None, *, secrets: Mapping[str, SecretValue]
) -> ServiceConfiguration:
    """Put the secrets into a service's part of the session.

    Args:
        service: The service, without variables.
        image: Its image.
        secrets: The values of the session's secrets by name.

    Raises:
        UserError: A secret has no value in the form that is asked for.
    """

    def text(template: str) -> str:
        return substitute(template, secrets=secrets, raw=False).decode()

    hosts = service.host_arguments
    members: dict[str, object] = {
        "format": FORMAT,
        "command": ["" if at in hosts else text(argument) for at, argument in enumerate(service.command)],
        "environment": {name: text(value) for name, value in service.own_environment.items()},
        "pwd": service.pwd,
        "file_system": None,
        "injection_files": [],
    }
    if service.fspf_path is not None:
        members["file_system"] = {"path": service.fspf_path, "key": service.fspf_key, "tag": service.fspf_tag}
    if hosts or service.host_variables:
        members["host"] = {
            "arguments": [{"at": at, "argument": number} for at, number in hosts.items()],
            "environment": list(service.host_variables),
        }
    if image is not None:
        members["injection_files"] = [
            {
                "path": file.path,
                "content": base64.b64encode(substitute(file.content, secrets=secrets)).decode(),
                "mode": file.permission,
            }
            for file in image.injection_files
            if file.content is not None
        ]
        on_disk = [file for file in image.injection_files if file.content is None]
        if on_disk:
            members["disk_injection_files"] = {
                "files": [{"path": file.path, "mode": file.permission} for file in on_disk],
                "placeholders": placeholder_values(image, secrets),
            }
    return ServiceConfiguration(members=members)


def placeholder_values(image: Image, secrets: Mapping[str, SecretValue]) -> dict[str, str]:
    """Return every placeholder that files on the disk of an image may hold, with its value in base64."""
    allowed = secrets.keys() if image.provide_secrets is None else set(image.provide_secrets)
    values: dict[str, str] = {}
    for name, secret in secrets.items():
        for form, encoding in FORMATS[secret.kind].items() if name in allowed else ():
            if secret.private_key is None and _is_private(form):
                continue
            separator = "" if not form or form.startswith(".") else ":"
            placeholder = f"$$SCONE::{name}{separator}{form}$$"
            value = encoding.encode(secret)
            values[placeholder] = base64.b64encode(value).decode()
            if not encoding.raw:
                escaped = json.dumps(value.decode(), ensure_ascii=False)[1:-1].encode()
                values[f"{placeholder[:-2]}|escape(json)$$"] = base64.b64encode(escaped).decode()
    return values


def volume_members(mounts: Sequence[Mount]) -> dict[str, object]:
    """Return the ``volumes`` of a configuration; nothing when there are none."""
    if not mounts:
        return {}
    return {
        "volumes": [
            {
                "name": mount.name,
                "path": mount.path,
                "key": mount.key.hex(),
                "update_policy": mount.update_policy,
                **({"read_only": True} if mount.read_only else {}),
                "root": mount.state.root.hex() if mount.state.root is not None else None,
                "counter": mount.state.counter,
                "strict": mount.strict,
                "cas_absence_seconds": mount.cas_absence,
            }
            for mount in mounts
        ]
    }


def _is_private(form: str) -> bool:
    return form.startswith("privatekey") or form in (".key", "pkcs12-with-private-key")
