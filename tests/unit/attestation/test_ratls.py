from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from sconify.attestation import cbor, der
from sconify.attestation.intel import verify_quote
from sconify.attestation.ratls import TAGGED_EVIDENCE, RaTlsCertificate
from sconify.errors import UntrustedDataError
from tests import ratls_certificate as made
from tests.intel_pki import NOW, IntelPki, encoded, new_key, sgx_body

PKI = IntelPki()
KEY = new_key()


def quote(report_data: bytes) -> bytes:
    return PKI.quote(sgx_body(report_data=report_data))


@pytest.mark.parametrize("pem", [False, True])
def test_a_genuine_certificate(pem: bool) -> None:
    data = made.certificate(KEY, quote, claims=made.claims_for(KEY, nonce=b"a nonce"))
    if pem:
        data = x509.load_der_x509_certificate(data).public_bytes(Encoding.PEM)
    parsed = RaTlsCertificate.parse(data)
    assert parsed.nonce == b"a nonce"
    assert parsed.spki == made.spki(KEY)
    parsed.require_peer(made.spki(KEY))
    assert verify_quote(parsed.quote, PKI.collateral("sgx"), at=NOW, test_root=PKI.root).status == "UpToDate"


def test_evidence_that_is_relayed() -> None:
    """A relay shows another's certificate, or puts another's evidence into its own."""
    relay = new_key()
    parsed = RaTlsCertificate.parse(made.certificate(KEY, quote))
    with pytest.raises(UntrustedDataError, match="check TLS key"):
        parsed.require_peer(made.spki(relay))
    with pytest.raises(UntrustedDataError, match="check public key: the evidence is for another key"):
        RaTlsCertificate.parse(made.certificate(relay, quote, claims=made.claims_for(KEY)))
    forged = made.certificate(relay, lambda _: quote(bytes(64)))
    with pytest.raises(UntrustedDataError, match="check report data"):
        RaTlsCertificate.parse(forged)


def test_the_rest_of_the_report_data_is_zero() -> None:
    with pytest.raises(UntrustedDataError, match="check report data"):
        RaTlsCertificate.parse(made.certificate(KEY, lambda data: quote(data[:63] + b"\1")))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tag": 60001}, "not a quote with claims"),
        ({"tag": 60002}, "not a quote with claims"),
        ({"evidence": b""}, "CBOR"),
        ({"evidence": made.cbor([b"", b""])}, "not a quote with claims"),
        ({"evidence": made.cbor((60000, [b"quote"]))}, "not a quote with claims"),
        ({"evidence": made.cbor((60000, [b"quote", made.cbor({})]))}, "quote: it ends within its header"),
        ({"evidence": made.cbor((60000, [b"", b""])) + b"\0"}, "1 bytes stand behind"),
        ({"claims": made.cbor([])}, "no map"),
        ({"claims": made.cbor({})}, "no hash of the key"),
        ({"claims": made.cbor({"pubkey-hash": made.cbor([2, bytes(32)])})}, "no hash of the key"),
        ({"claims": made.cbor({"pubkey-hash": made.cbor([1, bytes(32)])})}, "another key"),
        ({"claims": made.claims_for(KEY, nonce="text")}, "nonce"),
        ({"extensions": 0}, "got 0 extensions"),
    ],
)
def test_certificates_without_usable_evidence(changes: dict[str, object], why: str) -> None:
    with pytest.raises(UntrustedDataError, match=why):
        RaTlsCertificate.parse(made.certificate(KEY, quote, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", b"x" * 200_000]
)
def test_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(UntrustedDataError):
        RaTlsCertificate.parse(data)


@pytest.mark.parametrize("extension", [b"", encoded(der.OBJECT_IDENTIFIER, der.oid(TAGGED_EVIDENCE))])
def test_an_extension_without_value(extension: bytes) -> None:
    extensions = encoded(0xA3, encoded(der.SEQUENCE, encoded(der.SEQUENCE, extension)))
    fields = b"\xa0\x03\x02\x01\x02" + encoded(der.SEQUENCE, b"") * 6 + extensions
    with pytest.raises(UntrustedDataError, match="an extension has no value"):
        RaTlsCertificate.parse(encoded(der.SEQUENCE, encoded(der.SEQUENCE, fields)))


def test_every_truncation_and_every_appendix_is_refused() -> None:
    data = made.certificate(KEY, quote)
    for size in range(0, len(data), 3):
        with pytest.raises(UntrustedDataError):
            RaTlsCertificate.parse(data[:size])
    with pytest.raises(UntrustedDataError):
        RaTlsCertificate.parse(data + b"\0")


VALUES = st.recursive(
    st.integers(0, 2**32 - 1) | st.binary(max_size=300) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(VALUES)
def test_cbor_round_trip(value: object) -> None:
    try:
        assert cbor.decode(made.cbor(value)) == value
    except UntrustedDataError as error:
        assert "nested deeper" in str(error)  # noqa: PT017 - the only reason there may be


@given(VALUES, st.binary(min_size=1, max_size=3))
def test_cbor_has_one_spelling(value: object, appendix: bytes) -> None:
    encoding = made.cbor(value)
    with pytest.raises(UntrustedDataError):
        cbor.decode(encoding + appendix)
    with pytest.raises(UntrustedDataError):
        cbor.decode(encoding[:-1])


@pytest.mark.parametrize(
    "encoding",
    ["1800", "190018", "1a00000018", "1b0000000000000018", "5f41004100ff", "9fff", "bfff",
     "f4", "f97e00", "20", "a200000000", "c0", "a1410000"],
)  # fmt: skip
def test_cbor_that_is_not_deterministic_or_not_used(encoding: str) -> None:
    with pytest.raises(UntrustedDataError):
        cbor.decode(bytes.fromhex(encoding))


def test_cbor_is_not_nested_without_end() -> None:
    with pytest.raises(UntrustedDataError, match="nested"):
        cbor.decode(b"\x81" * 10_000 + b"\0")
    with pytest.raises(UntrustedDataError):
        cbor.decode(b"\x9b" + b"\xff" * 8)


@given(st.binary(max_size=60))
def test_parsers_of_encodings_never_crash(data: bytes) -> None:
    for parse in (cbor.decode, RaTlsCertificate.parse, lambda data: der.parse(data).children()):
        try:
            parse(data)
        except UntrustedDataError:
            continue


@pytest.mark.parametrize(
    "encoding",
    ["", "30", "3080", "308100", "30817f" + "00" * 127, "30820001", "3f0100", "020100ff", "3085000000000100"],
)
def test_der_that_is_not_der(encoding: str) -> None:
    with pytest.raises(UntrustedDataError):
        der.parse(bytes.fromhex(encoding))


@pytest.mark.parametrize(("content", "value"), [("00", 0), ("7f", 127), ("0080", 128), ("00ff", 255), ("0100", 256)])
def test_der_integers(content: str, value: int) -> None:
    raw = bytes.fromhex(content)
    assert der.Element(der.INTEGER, raw, b"").unsigned() == value
    for wrong in (b"", b"\x80", b"\0" + raw if raw[0] < 128 else b"\x80"):
        with pytest.raises(UntrustedDataError):
            der.Element(der.INTEGER, wrong, b"").unsigned()


def test_oids() -> None:
    assert der.oid("1.2.840.113741.1.13.1").hex() == "2a864886f84d010d01"
    assert der.oid("2.23.133.5.4.9").hex() == "6781050504 09".replace(" ", "")
