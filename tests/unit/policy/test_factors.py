from __future__ import annotations

import pytest

from sconify.errors import UserError
from sconify.policy.attestation import PUBLIC_SIGNERS
from sconify.policy.model import Session
from sconify.policy.session import parse_session, session_hash
from tests import policies

M, REGISTER = "ab" * 32, "cd" * 48
TDX = f"mrtd: {REGISTER}, rtmr0: {REGISTER}, rtmr1: {REGISTER}, rtmr2: {REGISTER}"
TCB = "{bootloader: 1, tee: 2, snp: 3, microcode: 4}"
SNP = f"measurement: {REGISTER}, minimum_tcb: {{milan: {TCB}}}"
SIGNER = f"mrsigner: {M}, isvprodid: 1"


def session(factors: str, attestation: str = "") -> Session:
    return policies.session(factors=factors, attestation=attestation)


def test_one_service_on_every_platform() -> None:
    factors = (
        session(
            f"[{{mrenclave: {M}}}, {{signer: {{{SIGNER}, isvsvn_min: 2}}}}, "
            f"{{mrenclave: [{M}], tdx: {{{TDX}, mrconfigid: [any]}}}}, {{mrenclave: any, snp: {{{SNP}}}}}]"
        )
        .services[0]
        .factors
    )
    assert factors[0].mrenclave == (M,)
    assert factors[1].signer is not None
    assert (factors[1].signer.mrsigner, factors[1].signer.isvsvn_min) == (M, 2)
    tdx, snp = factors[2].tdx, factors[3].snp
    assert tdx is not None
    assert (tdx.mrtd, tdx.rtmr3, tdx.mrconfigid) == ((REGISTER,), ("00" * 48,), ("any",))
    assert snp is not None
    assert (snp.vmpl, snp.signing_keys, snp.host_data) == ((0,), ("vcek",), ("00" * 32,))
    assert snp.minimum_tcb.milan is not None
    assert snp.minimum_tcb.milan.microcode == 4


def test_hex_is_normalised_and_hashes_are_those_of_before() -> None:
    upper, lower = session(f"{{mrenclave: {M.upper()}}}"), session(f"{{mrenclave: {M}}}")
    assert session_hash(upper) == session_hash(lower)
    legacy = parse_session(f'name: a\nversion: "0.3"\nservices: [{{name: s, command: p, mrenclaves: [{M}]}}]')
    assert legacy.services[0].factors == lower.services[0].factors


@pytest.mark.parametrize(
    ("factors", "why"),
    [
        ("{}", "it names nothing"),
        ("[]", "no attestation factor"),
        ("{mrenclave: []}", "at least 1"),
        ("{mrenclave: any}", "only for a program in a VM"),
        (f"{{mrenclave: [any, {M}], tdx: {{{TDX}}}}}", "must be the only entry"),
        (f"{{mrenclave: {M[2:]}}}", "got 62 characters, expected 32 bytes as 64 hex digits"),
        (f"{{tdx: {{{TDX}}}}}", "mrenclave is missing"),
        (f"{{snp: {{{SNP}}}}}", "mrenclave is missing"),
        (f"{{mrenclave: {M}, tdx: {{{TDX}}}, snp: {{{SNP}}}}}", "exclude each other"),
        (f"{{mrenclave: {M}, tdx: {{{TDX}}}, signer: {{{SIGNER}, isvsvn: 1}}}}", "exclude each other"),
        (f"{{mrenclave: {M}, tdx: {{mrtd: {REGISTER}}}}}", "this key is missing"),
        (f"{{mrenclave: {M}, tdx: {{{TDX.replace('mrtd: ' + REGISTER, 'mrtd: any')}}}}}", "mrtd can't be any"),
        (f"{{mrenclave: {M}, tdx: {{{TDX}, rtmr4: any}}}}", 'unknown key.*did you mean "rtmr3"'),
        (f"{{mrenclave: {M}, tdx: {{{TDX}, xfam: any}}}}", "8 bytes as 16 hex digits"),
        (f"{{mrenclave: {M}, snp: {{minimum_tcb: {{milan: {TCB}}}}}}}", "names no guest"),
        (f"{{mrenclave: {M}, snp: {{measurement: any, minimum_tcb: {{milan: {TCB}}}}}}}", "every guest"),
        (f"{{mrenclave: {M}, snp: {{measurement: {REGISTER}}}}}", "this key is missing"),
        (f"{{mrenclave: {M}, snp: {{measurement: {REGISTER}, minimum_tcb: {{}}}}}}", "names no processor family"),
        (f"{{mrenclave: {M}, snp: {{measurement: {REGISTER}, minimum_tcb: {{turin: {TCB}}}}}}}", "turin has no fmc"),
        (f"{{mrenclave: {M}, snp: {{{SNP.replace('4}', '4, fmc: 1}')}}}}}", "fmc is turin's only"),
        (f"{{mrenclave: {M}, snp: {{{SNP}, guest_svn_min: 1}}}}", "go together"),
        (f"{{mrenclave: {M}, snp: {{{SNP}, vmpl: 4}}}}", "less than or equal to 3"),
        (f"{{mrenclave: {M}, snp: {{{SNP}, signing_keys: [none]}}}}", "vcek"),
        (f"{{signer: {{{SIGNER}}}}}", "isvsvn_min is missing"),
        (f"{{signer: {{{SIGNER}, isvsvn_max: 1}}}}", "isvsvn_min is missing"),
        (f"{{signer: {{{SIGNER}, isvsvn: 1, isvsvn_min: 1}}}}", "exclude each other"),
        (f"{{signer: {{{SIGNER}, isvsvn_min: 3, isvsvn_max: 2}}}}", "no version is from 3 to 2"),
        (f"{{signer: {{mrsigner: {M}, isvsvn: 1}}}}", "this key is missing"),
        (f"{{signer: {{{SIGNER}, isvsvn: 70000}}}}", "less than or equal to 65535"),
        *((f"{{signer: {{mrsigner: {key}, isvprodid: 0, isvsvn: 0}}}}", "is public") for key in sorted(PUBLIC_SIGNERS)),
    ],
)  # fmt: skip
def test_factors_that_would_accept_anything_or_nothing(factors: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        session(factors)


@pytest.mark.parametrize(
    ("attestation", "why"),
    [
        ("tolerate: [anything]", "software-hardening-needed"),
        ("ignore_advisories: [INTEL-SA-1]", "the name of an advisory"),
        ("ignore_advisories: ['*', INTEL-SA-00615]", "must be the only entry"),
        ("tolerate: [outdated-tcb], outdated_tcb_until: tomorrow", "a date such as"),
        ("tolerate: [outdated-tcb], outdated_tcb_until: 2026-02-30", "a date such as"),
        ("outdated_tcb_until: 2026-12-31", "says nothing without outdated-tcb"),
        ("require: [everything]", "smt-disabled"),
        ("tolerate: [hyperthreading], require: [smt-disabled]", "contradict each other"),
        ("min_tcb_evaluation_data_number: -1", "whole number"),
        ("minimum_tcb: 1", "unknown key"),
    ],
)
def test_security_sections_that_say_nothing_sensible(attestation: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        session(f"{{mrenclave: {M}}}", attestation)


def test_security_defaults_are_the_strict_ones() -> None:
    found = session(f"{{mrenclave: {M}}}").security.attestation
    assert (found.mode, found.tolerate, found.ignore_advisories, found.require) == ("hardware", (), (), ())
    assert (found.outdated_until, found.min_tcb_evaluation_data_number) == (None, None)
