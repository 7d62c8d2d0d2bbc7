"""``sconify attest``: judge evidence offline."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from sconify.attestation.authorities import Authorities, parse_test_roots
from sconify.attestation.checks import Check
from sconify.attestation.collateral import parse_certificate
from sconify.attestation.verdict import Verdict, give_verdict
from sconify.cas.collateral import Collateral
from sconify.cas.collateral_files import MAX_FILE, import_file
from sconify.cas.collateral_memory import MemoryDocuments
from sconify.cli.evidence_file import read_evidence
from sconify.cli.policy_file import read_policy
from sconify.errors import UntrustedDataError, UserError


@click.group()
def attest() -> None:
    """Evidence of hardware: what a quote or report is worth."""


@attest.command()
@click.option(
    "--collateral",
    "collateral_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What it is verified against: bundles, Intel collateral in JSON, AMD certificates in PEM, lists in DER.",
)
@click.option("--certificate", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="VCEK or VLEK of an SNP report, in DER.")  # fmt: skip
@click.option("--policy", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Session that judges.  [default: the strict policy, any program]")  # fmt: skip
@click.option("--service", metavar="NAME", help="Service of the session whose factors count.  [default: the first]")
@click.option(
    "--at", metavar="TIME", help="Judge as at this time: seconds since 1970, or 2026-06-01T12:00:00Z.  [default: now]"
)
@click.option("--test-root", "test_root_files", multiple=True, metavar="FILE", help="Root to trust besides; for tests.",
              type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify(
    *,
    file: Path,
    collateral_files: tuple[Path, ...],
    certificate: Path | None,
    policy: Path | None,
    service: str | None,
    at: str | None,
    test_root_files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Judge the quote, report, evidence or certificate in FILE, offline; show each check.

    Exits with 0 if it is accepted, and with 3 if it is not. Whether it was made for a fresh request, only who asked
    for it can tell: that is not judged here.
    """
    roots = [root for name in test_root_files for root in parse_test_roots(name.read_bytes(), name=str(name))]
    kept = Collateral(MemoryDocuments(), test_roots=roots)
    for name in collateral_files:
        with name.open("rb") as opened:
            import_file(kept, opened.read(MAX_FILE + 1), name=str(name))
    evidence = read_evidence(file)
    key = certificate.read_bytes() if certificate is not None else evidence.certificate
    if certificate is not None:
        parse_certificate(key, str(certificate))
    security, factors = read_policy(policy, service)
    verdict = give_verdict(
        evidence.platform,
        certificate=key,
        program=evidence.program,
        authorities=Authorities(kept, test_roots=roots),
        security=security,
        factors=factors,
        at=int(time.time()) if at is None else _time(at),
    )
    click.echo(json.dumps(_document(verdict), indent=2) if as_json else _text(verdict))
    if not verdict.accepted:
        first = next(check for check in verdict.checks if not check.passed)
        raise UntrustedDataError(f"{file} is refused: {first.error().what}", remedy=first.remedy)


def _time(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--at={text} is no time", remedy="give seconds since 1970, or 2026-06-01T12:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _document(verdict: Verdict) -> dict[str, object]:
    return {
        "accepted": verdict.accepted,
        "kind": verdict.kind,
        "judged_at": datetime.fromtimestamp(verdict.at, UTC).isoformat(),
        "tolerated": list(verdict.tolerated),
        "claims": verdict.claims,
        "checks": [
            {"name": check.name, "passed": check.passed, "got": check.got, "expected": check.expected}
            | ({"remedy": check.remedy} if check.remedy and not check.passed else {})
            for check in verdict.checks
        ],
    }


def _text(verdict: Verdict) -> str:
    lines = [f"{verdict.kind} evidence: {'ACCEPTED' if verdict.accepted else 'REFUSED'}", ""]
    if verdict.claims:
        width = max(len(name) for name in verdict.claims)
        lines += [f"  {name:{width}}  {value}" for name, value in verdict.claims.items()]
        lines.append("")
    lines += [_line(check) for check in verdict.checks]
    if verdict.tolerated:
        lines += ["", f"  tolerated by the policy: {', '.join(verdict.tolerated)}"]
    return "\n".join(lines)


def _line(check: Check) -> str:
    if check.passed:
        return f"  ok      {check.name}: {check.got}"
    return f"  FAILED  {check.name}: got {check.got}, expected {check.expected}"
