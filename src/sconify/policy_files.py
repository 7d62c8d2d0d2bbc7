"""What a conversion puts into the policy: what it found out, and what the user's files add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sconify.cas.authority import Authority
from sconify.policy.sections import parse_section
from sconify.policy.template import ConvertedService, SessionTemplate
from sconify.request import Request, read_policy_file
from sconify.shield.choose import Choice
from sconify.shield.protect import INDEX


@dataclass(frozen=True, kw_only=True)
class PolicyFiles:
    """What the user's files add to the policy."""

    template: SessionTemplate | None
    secrets: Sequence[object] = field(repr=False)
    injection_files: Sequence[object] = field(repr=False)

    @classmethod
    def read(cls, request: Request) -> PolicyFiles:
        """Read the files that a request names.

        Raises:
            UserError: If one can't be read, or is not what its option expects.
        """
        template = None
        if request.template is not None:
            text = read_policy_file(request.template, flag="--template")
            template = SessionTemplate(text=text, source=str(request.template))
        return cls(
            template=template,
            secrets=_section(request.secrets, flag="--secrets", key="secrets"),
            injection_files=_section(request.injected_files, flag="--injectedfiles", key="injection_files"),
        )


def _section(path: Path | None, *, flag: str, key: str) -> list[object]:
    if path is None:
        return []
    return parse_section(read_policy_file(path, flag=flag), key=key, source=f"{flag}={path}")


def converted_service(
    request: Request, choice: Choice, authority: Authority, policy: PolicyFiles, measurement: str
) -> ConvertedService:
    """Return what the policy will say; key and tag of the file system are zeros until they are known."""
    return ConvertedService(
        name=authority.session,
        service=request.service,
        measurement=measurement,
        command=choice.command,
        environment=choice.environment,
        policy_command=choice.policy_command,
        policy_variables=frozenset(name for name, _ in request.environment),
        pwd=choice.working_directory,
        fspf_path=INDEX,
        fspf_key="0" * 64,
        fspf_tag="0" * 32,
        secrets=policy.secrets,
        injection_files=policy.injection_files,
        volumes=tuple(volume.volume_entry() for volume in request.volumes),
        mounts=tuple(volume.image_entry() for volume in request.volumes),
        attested=request.attest_service,
        tolerate=authority.tolerate,
        ignore_advisories=("*",) if request.allow_tcb_vulnerabilities else (),
    )
