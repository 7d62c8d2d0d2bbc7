from __future__ import annotations

from dataclasses import replace

import pytest

from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.intel import VerifiedQuote, verify_quote
from sconify.attestation.judge import Mode, judge
from sconify.attestation.proof import PROOF
from sconify.attestation.quote import Quote, SgxReport, TdReport
from sconify.errors import UntrustedDataError
from sconify.policy.session import parse_session
from tests.intel_pki import NOW, IntelPki, sgx_body, td_body
from tests.policies import refusals, weighed

GOOD, OTHER = "ab" * 32, "cd" * 32
PKI = IntelPki()
TDX = {f"rtmr{number}": f"{0x40 + number:x}" * 48 for number in range(3)} | {"mrtd": "31" * 48}


def platform(body: bytes, *, test_root: bool = True) -> VerifiedQuote:
    quote = Quote.parse(PKI.quote(body))
    verified = verify_quote(quote, PKI.collateral(quote.tee), at=NOW, test_root=PKI.root)
    # As if the manufacturer had made it: nobody else can make one.
    return verified if test_root else VerifiedQuote(**{**verified.__dict__, "test_root": None, "proof": PROOF})


def evidence(kind: str, *, debug: bool = False, measurement: str = GOOD) -> VerifiedEvidence:
    hardware = None
    if kind != "simulated":
        body = td_body() if kind.startswith("tdx") else sgx_body(mrenclave=bytes.fromhex(measurement))
        hardware = platform(body, test_root=kind.endswith("of a test root"))
    return VerifiedEvidence(
        kind=kind.split(maxsplit=1)[0],
        measurement=bytes.fromhex(measurement),
        debug=debug,
        platform=hardware,
        proof=PROOF,
    )


def judged(
    *, kind: str, debug: bool, measurement: str = GOOD, tolerate: str = "", factors: str = GOOD, mode: Mode = Mode.DEBUG
) -> tuple[str, ...]:
    session = parse_session(
        f'name: a\nversion: "0.3"\nservices: [{{name: s, command: p, attestation: [{{mrenclave: [{factors}]}}]}}]\n'
        f"security: {{attestation: {{tolerate: [{tolerate}]}}}}"
    )
    proven = evidence(kind, debug=debug, measurement=measurement)
    return judge(proven, service=session.services[0], security=session.security, mode=mode, at=NOW).tolerated


@pytest.mark.parametrize(
    ("kind", "debug", "tolerate", "mode", "tolerated"),
    [
        ("simulated", True, "simulated-platform", Mode.DEBUG, ("simulated-platform",)),
        ("sgx of a test root", False, "simulated-platform", Mode.DEBUG, ("simulated-platform",)),
        ("sgx", False, "", Mode.DEBUG, ()),
        ("sgx", False, "", Mode.PRODUCTION, ()),
        ("sgx", False, "simulated-platform, debug-mode", Mode.PRODUCTION, ()),
    ],
)
def test_accepted(kind: str, debug: bool, tolerate: str, mode: Mode, tolerated: tuple[str, ...]) -> None:
    assert judged(kind=kind, debug=debug, tolerate=tolerate, mode=mode) == tolerated


@pytest.mark.parametrize(
    ("kind", "debug", "tolerate", "mode", "why"),
    [
        ("simulated", True, "", Mode.DEBUG, "does not tolerate simulated-platform"),
        ("simulated", True, "debug-mode", Mode.DEBUG, "does not tolerate simulated-platform"),
        ("simulated", False, "debug-mode", Mode.DEBUG, "does not tolerate simulated-platform"),
        ("simulated", True, "simulated-platform, debug-mode", Mode.PRODUCTION, "production mode"),
        ("simulated", False, "simulated-platform", Mode.PRODUCTION, "production mode"),
        ("sgx of a test root", False, "", Mode.DEBUG, "does not tolerate simulated-platform"),
        ("sgx of a test root", False, "simulated-platform", Mode.PRODUCTION, "production mode"),
        ("sgx", True, "simulated-platform", Mode.DEBUG, "expected a production platform"),
        ("sgx", True, "debug-mode", Mode.DEBUG, "expected a production platform"),
        ("sgx", True, "debug-mode", Mode.PRODUCTION, "expected a production platform"),
    ],
)
def test_refused_platforms(kind: str, debug: bool, tolerate: str, mode: Mode, why: str) -> None:
    with pytest.raises(UntrustedDataError, match=f"check platform: .*{why}"):
        judged(kind=kind, debug=debug, tolerate=tolerate, mode=mode)


def test_the_measurement_must_be_one_of_the_factors() -> None:
    judged(kind="sgx", debug=False, factors=f"{OTHER}, {GOOD}")
    with pytest.raises(UntrustedDataError, match=f"check measurement: got {GOOD}, expected {OTHER}"):
        judged(kind="sgx", debug=False, factors=OTHER)


def flow(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in members.items()) + "}"


SIGNER = {"mrsigner": "22" * 32, "isvprodid": "7", "isvsvn_min": "3"}
SGX_FACTOR = f"{{mrenclave: {GOOD}}}"
TDX_FACTOR = f"{{mrenclave: {GOOD}, tdx: {flow(TDX)}}}"
SNP_FACTOR = f"{{mrenclave: {GOOD}, snp: {{measurement: {'51' * 48}, minimum_tcb: {{milan: {{bootloader: 0, tee: 0, snp: 0, microcode: 0}}}}}}}}"  # fmt: skip # noqa: E501


@pytest.mark.parametrize(
    ("kind", "factors", "refused"),
    [
        ("sgx", SGX_FACTOR, []),
        ("sgx", f"{{signer: {flow(SIGNER)}}}", []),
        ("sgx", f"{{signer: {flow(SIGNER | {'isvsvn_min': '4'})}}}", ["version"]),
        ("sgx", f"{{signer: {flow(SIGNER | {'isvsvn_max': '3'})}}}", []),
        ("sgx", f"{{signer: {flow(SIGNER | {'isvsvn_min': '1', 'isvsvn_max': '2'})}}}", ["version"]),
        ("sgx", f"{{signer: {flow(SIGNER | {'isvprodid': '8'})}}}", ["product"]),
        ("sgx", f"{{signer: {flow(SIGNER | {'mrsigner': '23' * 32})}}}", ["signer"]),
        ("sgx", f"{{mrenclave: {OTHER}, signer: {flow(SIGNER)}}}", ["measurement"]),
        ("sgx", f"[{{mrenclave: {OTHER}}}, {{signer: {flow(SIGNER)}}}]", []),
        ("sgx", TDX_FACTOR, ["attestation factor"]),
        ("simulated", TDX_FACTOR, ["platform", "attestation factor"]),
        ("simulated", f"{{signer: {flow(SIGNER)}}}", ["platform", "attestation factor"]),
        ("tdx", SGX_FACTOR, ["attestation factor"]),
        ("tdx", SNP_FACTOR, ["attestation factor"]),
        ("tdx", TDX_FACTOR, []),
        ("tdx", f"[{SGX_FACTOR}, {TDX_FACTOR}, {SNP_FACTOR}]", []),
        ("sgx", f"[{SGX_FACTOR}, {TDX_FACTOR}, {SNP_FACTOR}]", []),
        ("tdx", f"{{mrenclave: any, tdx: {flow(TDX)}}}", []),
        ("tdx", f"{{mrenclave: {OTHER}, tdx: {flow(TDX)}}}", ["measurement"]),
        *(("tdx", f"{{mrenclave: {GOOD}, tdx: {flow(TDX | {name: '99' * 48})}}}", [name]) for name in TDX),
        ("tdx", f"{{mrenclave: {GOOD}, tdx: {flow(TDX | {'rtmr3': '99' * 48})}}}", ["rtmr3"]),
        ("tdx", f"{{mrenclave: {GOOD}, tdx: {flow(TDX | {'mrconfigid': '99' * 48})}}}", ["mrconfigid"]),
        ("tdx", f"{{mrenclave: {GOOD}, tdx: {flow(TDX | {'rtmr1': 'any', 'rtmr3': 'any'})}}}", []),
        ("tdx", f"{{mrenclave: {GOOD}, tdx: {flow(TDX | {'mrseam': '30' * 48})}}}", []),
        ("tdx", f"{{mrenclave: {GOOD}, tdx: {flow(TDX | {'mrseam': '31' * 48})}}}", ["mrseam"]),
        ("tdx", f"{{mrenclave: {GOOD}, tdx: {flow(TDX | {'xfam': 'e702060000000000'})}}}", []),
        ("tdx", f"{{mrenclave: {GOOD}, tdx: {flow(TDX | {'xfam': 'e700060000000000'})}}}", ["xfam"]),
    ],
)  # fmt: skip
def test_factors(kind: str, factors: str, refused: list[str]) -> None:
    assert refusals(weighed(evidence(kind), factors=factors, at=NOW)) == refused


def test_a_register_that_no_factor_names_must_be_zero() -> None:
    body = td_body(mrconfigid=b"\1" * 48, rtmrs=(b"\x40" * 48, b"\x41" * 48, b"\x42" * 48, b"\2" * 48))
    proven = VerifiedEvidence(
        kind="tdx",
        measurement=bytes.fromhex(GOOD),
        debug=False,
        platform=platform(body, test_root=False),
        proof=PROOF,
    )
    assert refusals(weighed(proven, factors=TDX_FACTOR, at=NOW)) == ["rtmr3", "mrconfigid"]


def test_trust_domains_that_can_be_migrated_or_are_not_known() -> None:
    genuine = platform(td_body(), test_root=False)
    assert isinstance(genuine.body, TdReport)
    for bit in (8, 16, 29, 40):  # the library refuses some of them before
        body = replace(genuine.body, td_attributes=1 << 28 | 1 << bit)
        changed = VerifiedQuote(**{**genuine.__dict__, "body": body, "proof": PROOF})
        proven = VerifiedEvidence(
            kind="tdx", measurement=bytes.fromhex(GOOD), debug=False, platform=changed, proof=PROOF
        )
        assert refusals(weighed(proven, factors=TDX_FACTOR, at=NOW)) == ["TD attributes"]


def test_what_is_measured_is_what_the_hardware_says() -> None:
    body = evidence("sgx").platform
    assert isinstance(body, VerifiedQuote)
    assert isinstance(body.body, SgxReport)
    assert body.body.mrenclave.hex() == GOOD


def quoting_enclave(kind: str, platforms: str) -> None:
    session = parse_session(
        'name: a\nversion: "0.3"\n'
        f"services: [{{name: s, command: p, attestation: {{mrenclave: {GOOD}}}, platforms: [{platforms}]}}]\n"
        "security: {attestation: {tolerate: [simulated-platform]}}"
    )
    judge(evidence(kind), service=session.services[0], security=session.security, mode=Mode.DEBUG, at=NOW)


def test_platforms_name_the_quoting_enclaves_that_count() -> None:
    quoting_enclave("sgx", f"INTEL_QE_ID:{'11' * 16}, INTEL_QE_ID:{'00' * 16}")
    with pytest.raises(UntrustedDataError, match=f"check quoting enclave: got INTEL_QE_ID:{'00' * 16}, expected"):
        quoting_enclave("sgx", f"INTEL_QE_ID:{'11' * 16}")
    with pytest.raises(UntrustedDataError, match="got simulated evidence, which has none"):
        quoting_enclave("simulated", f"INTEL_QE_ID:{'00' * 16}")


def test_the_id_of_a_quoting_enclave_is_the_first_half_of_what_the_header_has_of_the_user() -> None:
    quote = bytearray(PKI.quote(sgx_body()))
    quote[28:48] = bytes(range(20))
    assert Quote.parse(bytes(quote)).qe_id == bytes(range(16))
