from __future__ import annotations

from functools import cache

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from sconify.attestation.quote import MAX_QUOTE, Quote, SgxReport, TdReport
from sconify.errors import UntrustedDataError
from tests.intel_pki import IntelPki, sgx_body, td_body

BODIES = {"sgx": sgx_body(), "tdx 1.0": td_body(), "tdx 1.5": td_body(mrservicetd=bytes(48))}


@cache
def raw(kind: str) -> bytes:
    return IntelPki().quote(BODIES[kind])


def test_fields_of_an_enclave() -> None:
    body = sgx_body(mrenclave=b"e" * 32, mrsigner=b"s" * 32, isv_prod_id=0x1234, isv_svn=0x5678, report_data=b"d" * 64)
    quote = Quote.parse(IntelPki().quote(body))
    assert isinstance(quote.body, SgxReport)
    assert (quote.version, quote.tee, quote.key_type) == (3, "sgx", 2)
    assert (quote.body.mrenclave, quote.body.mrsigner, quote.body.report_data) == (b"e" * 32, b"s" * 32, b"d" * 64)
    assert (quote.body.isv_prod_id, quote.body.isv_svn, quote.body.debug) == (0x1234, 0x5678, False)
    assert quote.signed == quote.encoding[: 48 + 384]
    assert len(quote.chain) == 3
    assert SgxReport.parse(sgx_body(flags=0b111)).debug


def test_fields_of_a_trust_domain() -> None:
    rtmrs = tuple(bytes([number]) * 48 for number in range(1, 5))
    body = td_body(mrtd=b"m" * 48, rtmrs=rtmrs, mrconfigid=b"c" * 48, report_data=b"d" * 64)
    quote = Quote.parse(IntelPki().quote(body))
    assert isinstance(quote.body, TdReport)
    assert (quote.version, quote.tee) == (4, "tdx")
    assert (quote.body.mrtd, quote.body.rtmrs, quote.body.mrconfigid) == (b"m" * 48, rtmrs, b"c" * 48)
    assert quote.body.report_data == b"d" * 64
    assert (quote.body.mrservicetd, quote.body.tee_tcb_svn2) == (None, None)
    newer = Quote.parse(IntelPki().quote(td_body(mrservicetd=b"s" * 48)))
    assert isinstance(newer.body, TdReport)
    assert (newer.version, newer.body.mrservicetd) == (5, b"s" * 48)
    for bit in range(8):
        assert TdReport.parse(td_body(attributes=1 << 28 | 1 << bit)).debug


@pytest.mark.parametrize("kind", BODIES)
def test_every_truncation_is_refused(kind: str) -> None:
    data = raw(kind)
    for size in range(len(data)):
        with pytest.raises(UntrustedDataError):
            Quote.parse(data[:size])


@pytest.mark.parametrize("kind", BODIES)
def test_what_stands_behind_is_zero_and_no_part_of_it(kind: str) -> None:
    data = raw(kind)
    padded = Quote.parse(data + bytes(1000))
    assert (padded.encoding, padded.signed) == (data, Quote.parse(data).signed)
    for trailing in (b"\1", bytes(999) + b"\1"):
        with pytest.raises(UntrustedDataError, match="bytes stand behind it that are not zero"):
            Quote.parse(data + trailing)
    with pytest.raises(UntrustedDataError, match=f"expected at most {MAX_QUOTE}"):
        Quote.parse(data + bytes(MAX_QUOTE))


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (0, 2, "version 2"),
        (0, 6, "version 6"),
        (4, 0x81, "TEE type"),  # version 3 with the type of TDX
        (4, 0x01, "TEE type"),
        (7, 0x80, "TEE type"),
    ],
)
def test_unknown_headers(offset: int, value: int, why: str) -> None:
    data = bytearray(raw("sgx"))
    data[offset] = value
    with pytest.raises(UntrustedDataError, match=why):
        Quote.parse(bytes(data))


def test_a_report_type_that_does_not_fit_the_tee() -> None:
    data = bytearray(raw("tdx 1.5"))
    for value in (0, 1, 2, 4):
        data[48] = value
        with pytest.raises(UntrustedDataError, match="which no TDX quote has"):
            Quote.parse(bytes(data))


def test_certification_data_of_other_kinds() -> None:
    data = raw("sgx")
    at = data.index(b"-----BEGIN") - 6
    for kind in (0, 1, 2, 3, 4, 6, 7):
        changed = data[:at] + kind.to_bytes(2, "little") + data[at + 2 :]
        with pytest.raises(UntrustedDataError, match=f"type {kind}, expected 5"):
            Quote.parse(changed)


@given(st.sampled_from(sorted(BODIES)), st.data())
def test_changed_bytes_give_a_quote_or_a_refusal(kind: str, data: st.DataObject) -> None:
    content = bytearray(raw(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        quote = Quote.parse(bytes(content))
    except UntrustedDataError:
        return
    assert all(isinstance(certificate, x509.Certificate) for certificate in quote.chain)


@given(st.binary(max_size=2000), st.integers(3, 5), st.sampled_from([0, 0x81]))
def test_any_bytes_give_a_quote_or_a_refusal(content: bytes, version: int, tee: int) -> None:
    for data in (content, bytes([version, 0, 2, 0, tee, 0, 0, 0]) + content):
        try:
            Quote.parse(data)
        except UntrustedDataError:
            continue
