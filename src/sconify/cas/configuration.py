"""What an attested service gets: its part of the session with the secrets in it (docs/protocol.md, section 4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sconify.policy.model import Service, Session
from sconify.policy.substitution import SecretValue, substitute

FORMAT = "sconify-config/1"


@dataclass(frozen=True, kw_only=True)
class ServiceConfiguration:
    """The configuration of a service, without what belongs to one attestation.

    Attributes:
        members: The JSON members that are the same for each attestation.
    """

    members: Mapping[str, object] = field(repr=False)

    def payload(self, *, config_id: str, nonce: str) -> bytes:
        """Return the configuration for one attestation, as JSON.

        Args:
            config_id: As the runtime sent it.
            nonce: As the runtime sent it.
        """
        return json.dumps({**self.members, "config_id": config_id, "nonce": nonce}, ensure_ascii=False).encode()


def build_configuration(
    session: Session, service: Service, *, secrets: Mapping[str, SecretValue]
) -> ServiceConfiguration:
    """Put the secrets into a service's part of the session.

    Args:
        session: The session.
        service: One of its services.
        secrets: The values of its secrets by name.
    """

    def text(template: str) -> str:
        return substitute(template, secrets=secrets).decode()

    image = session.image(service.image_name)
    files = image.injection_files if image is not None else ()
    file_system = None
    if service.fspf_path is not None:
        file_system = {"path": service.fspf_path, "key": service.fspf_key, "tag": service.fspf_tag}
    return ServiceConfiguration(
        members={
            "format": FORMAT,
            "command": [text(argument) for argument in service.command],
            "environment": {name: text(value) for name, value in service.environment.items()},
            "pwd": service.pwd,
            "file_system": file_system,
            "injection_files": [
                {
                    "path": file.path,
                    "content": base64.b64encode(substitute(file.content, secrets=secrets)).decode(),
                    "mode": file.permission,
                }
                for file in files
            ],
        }
    )
