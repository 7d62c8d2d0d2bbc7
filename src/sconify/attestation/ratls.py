"""Evidence in TLS certificates: interoperable RA-TLS, as the CCC Attestation SIG defines it.

A certificate carries a quote in the extension 2.23.133.5.4.9 (TCG DICE *tagged evidence*): CBOR
``60000([quote, claims])``, where ``claims`` is a CBOR map that has the hash of the certificate's public key, and the
quote's report data is the SHA-256 of ``claims``, then zeros.

Such evidence has no nonce of ours: who holds the private key can show it for ever. Accept it only where a replay does
no harm, and only from a peer that has proven, by TLS, to hold the key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from dataclasses import dataclass, field

from sconify.attestation import cbor, der
from sconify.attestation.quote import Quote
from sconify.errors import UntrustedDataError

TAGGED_EVIDENCE = "2.23.133.5.4.9"

_QUOTE_TAG = 60000  # 60001 and 60002 are local reports, which prove nothing to others
_HASHES = {1: hashlib.sha256, 7: hashlib.sha384, 8: hashlib.sha512}  # IANA: Named Information Hash Algorithms
_MAX_CERTIFICATE = 128 * 1024
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_VERSION_3 = b"\xa0\x03\x02\x01\x02"
_EXTENSIONS = 0xA3


@dataclass(frozen=True, kw_only=True)
class RaTlsCertificate:
    """A certificate whose quote is bound to its public key; the quote itself nobody has verified yet.

    Attributes:
        quote: The quote.
        spki: The public key as SubjectPublicKeyInfo in DER.
        nonce: The nonce among the claims, if there is one; whose it is, only who gave it can tell.
    """

    quote: Quote
    spki: bytes = field(repr=False)
    nonce: bytes | None

    @classmethod
    def parse(cls, data: bytes) -> RaTlsCertificate:
        """Parse a certificate in PEM or DER, and check that its quote is bound to its public key.

        The certificate's own signature, names and dates say nothing, and are not looked at.

        Raises:
            UntrustedDataError: It is malformed, carries no evidence or another kind of it, or its evidence is for
                another key.
        """
        if len(data) > _MAX_CERTIFICATE:
            raise UntrustedDataError(f"certificate: got {len(data)} bytes, expected at most {_MAX_CERTIFICATE}")
        spki, evidence = _key_and_evidence(_to_der(data))
        quote, claims_text = _evidence(evidence)
        claims = cbor.decode(claims_text)
        if not isinstance(claims, dict):
            raise UntrustedDataError("certificate: the claims of its evidence are no map")
        _check_key(claims.get("pubkey-hash"), spki)
        expected = hashlib.sha256(claims_text).digest() + bytes(32)
        if not hmac.compare_digest(quote.body.report_data, expected):
            raise UntrustedDataError("check report data: the quote was made for other claims than the certificate's")
        nonce = claims.get("nonce")
        if not isinstance(nonce, bytes | None):
            raise UntrustedDataError("certificate: the nonce of its evidence is no byte string")
        return cls(quote=quote, spki=spki, nonce=nonce)

    def require_peer(self, spki: bytes) -> None:
        """Make sure that the TLS peer holds the key that the evidence is for.

        Args:
            spki: The key that the peer has proven to hold, as SubjectPublicKeyInfo in DER.

        Raises:
            UntrustedDataError: It is another one: the evidence is relayed.
        """
        if not hmac.compare_digest(self.spki, spki):
            raise UntrustedDataError("check TLS key: the peer holds another key than the evidence is for")


def _to_der(data: bytes) -> bytes:
    if data[:1] == b"\x30":
        return data
    blocks = _PEM.findall(data)
    if len(blocks) != 1:
        raise UntrustedDataError(f"certificate: got {len(blocks)} PEM certificates, expected one")
    try:
        return b64decode(re.sub(rb"\s", b"", blocks[0]), validate=True)
    except ValueError:
        raise UntrustedDataError("certificate: its PEM is malformed") from None


def _key_and_evidence(certificate: bytes) -> tuple[bytes, bytes]:
    """Return public key and evidence of a certificate (RFC 5280, section 4.1).

    Certificates of this kind are made by small libraries that don't follow RFC 5280 to the letter, so that strict
    parsers refuse the whole; these two parts are read strictly.
    """
    parts = der.parse(certificate).expect(der.SEQUENCE).children()
    fields = parts[0].expect(der.SEQUENCE).children() if parts else ()
    if len(fields) < 8 or fields[0].encoding != _VERSION_3:
        raise UntrustedDataError("certificate: it is no X.509 certificate of version 3 with extensions")
    wrappers = [element for element in fields[7:] if element.tag == _EXTENSIONS]
    if len(wrappers) != 1:
        raise UntrustedDataError("certificate: it has no extensions")
    wanted = der.oid(TAGGED_EVIDENCE)
    found = []
    for extension in der.parse(wrappers[0].content).expect(der.SEQUENCE).children():
        parts = extension.expect(der.SEQUENCE).children()
        if len(parts) < 2:
            raise UntrustedDataError("certificate: an extension has no value")
        if parts[0].expect(der.OBJECT_IDENTIFIER).content == wanted:
            found.append(parts[-1].expect(der.OCTET_STRING).content)
    if len(found) != 1:
        raise UntrustedDataError(f"certificate: got {len(found)} extensions {TAGGED_EVIDENCE}, expected one")
    return fields[6].expect(der.SEQUENCE).encoding, found[0]


def _evidence(encoded: bytes) -> tuple[Quote, bytes]:
    match cbor.decode(encoded):
        case cbor.Tagged(tag, [bytes(quote), bytes(claims)]) if tag == _QUOTE_TAG:
            return Quote.parse(quote), claims
    raise UntrustedDataError(f"certificate: its evidence is not a quote with claims (CBOR tag {_QUOTE_TAG})")


def _check_key(claim: object, spki: bytes) -> None:
    decoded = cbor.decode(claim) if isinstance(claim, bytes) else claim
    match decoded:
        case [int(algorithm), bytes(digest)] if algorithm in _HASHES:
            if hmac.compare_digest(_HASHES[algorithm](spki).digest(), digest):
                return
            raise UntrustedDataError("check public key: the evidence is for another key than the certificate's")
    raise UntrustedDataError("check public key: the evidence has no hash of the key by SHA-256, SHA-384 or SHA-512")
