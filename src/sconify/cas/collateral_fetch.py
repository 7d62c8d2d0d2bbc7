"""Fetch collateral: from Intel's PCS or a PCCS that mirrors it (API version 4), and from AMD's KDS.

What comes back is not trusted; ``sconify.cas.collateral`` verifies it before it is kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import unquote

import requests

from sconify.attestation.collateral import MAX_COLLATERAL
from sconify.attestation.snp_report import Product, SigningKey, SnpTcb
from sconify.errors import ServiceError, UserError

INTEL_PCS = "https://api.trustedservices.intel.com"
AMD_KDS = "https://kdsintf.amd.com"

_INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
_TIMEOUT = (5.0, 10.0)  # seconds to connect, and between two parts of the answer
_TCB_INFO = re.compile(
    r'\s*\{\s*"tcbInfo"\s*:\s*(\{.*\})\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*', re.DOTALL
)
_QE_IDENTITY = re.compile(
    r'\s*\{\s*"enclaveIdentity"\s*:\s*(\{.*\})\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*', re.DOTALL
)


@dataclass(frozen=True)
class _Answer:
    url: str
    content: bytes
    headers: requests.structures.CaseInsensitiveDict[str]


class HttpFetcher:
    """Fetches from the services that the CAS is configured to use.

    Args:
        pcs: URL of Intel's PCS or of a PCCS, without path; None: Intel's collateral is not fetched.
        kds: URL of AMD's KDS or of a mirror, without path; None: AMD's is not fetched.

    Raises:
        UserError: A URL is none.
    """

    def __init__(self, *, pcs: str | None, kds: str | None) -> None:
        self._pcs = _checked_url(pcs, "--pcs")
        self._kds = _checked_url(kds, "--kds")

    def intel(self, tee: str, fmspc: bytes, ca: str) -> bytes:
        """Return collateral for an Intel platform as JSON: the form of ``dcap_qvl.QuoteCollateralV3``.

        Raises:
            ServiceError: The service can't be reached, or answers something else.
        """
        base = _configured(self._pcs, "Intel", "--pcs")
        here = f"{base}/{tee}/certification/v4"
        info = _get(f"{here}/tcb?fmspc={fmspc.hex()}")
        identity = _get(f"{here}/qe/identity")
        pck_crl = _get(f"{base}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der")
        root_crl = _get(_INTEL_ROOT_CRL if base == INTEL_PCS else f"{base}/sgx/certification/v4/rootcacrl")
        info_text, info_signature = _signed_text(info, _TCB_INFO)
        identity_text, identity_signature = _signed_text(identity, _QE_IDENTITY)
        return json.dumps(
            {
                "pck_crl_issuer_chain": _issuers(pck_crl, "SGX-PCK-CRL-Issuer-Chain"),
                "root_ca_crl": _der(root_crl).hex(),
                "pck_crl": _der(pck_crl).hex(),
                "tcb_info_issuer_chain": _issuers(info, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"),
                "tcb_info": info_text,
                "tcb_info_signature": info_signature,
                "qe_identity_issuer_chain": _issuers(identity, "SGX-Enclave-Identity-Issuer-Chain"),
                "qe_identity": identity_text,
                "qe_identity_signature": identity_signature,
            }
        ).encode()

    def amd_chain(self, product: Product, key: SigningKey) -> bytes:
        """Return intermediate and root in PEM.

        Raises:
            ServiceError: The service can't be reached, or has none.
        """
        return self._amd(f"{key}/v1/{product}/cert_chain")

    def amd_crl(self, product: Product) -> bytes:
        """Return the revocation list in DER.

        Raises:
            ServiceError: The service can't be reached, or has none.
        """
        return self._amd(f"vcek/v1/{product}/crl")

    def amd_vcek(self, product: Product, hwid: bytes, tcb: SnpTcb) -> bytes:
        """Return the certificate of a chip's key for a TCB in DER.

        Raises:
            ServiceError: The service can't be reached, or has none.
        """
        fmc = "" if tcb.fmc is None else f"fmcSPL={tcb.fmc}&"
        query = f"{fmc}blSPL={tcb.bootloader}&teeSPL={tcb.tee}&snpSPL={tcb.snp}&ucodeSPL={tcb.microcode}"
        return self._amd(f"vcek/v1/{product}/{hwid.hex()}?{query}")

    def _amd(self, path: str) -> bytes:
        return _get(f"{_configured(self._kds, 'AMD', '--kds')}/{path}").content


def _checked_url(url: str | None, flag: str) -> str | None:
    if url is not None and not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", url):
        raise UserError(f"{flag}={url} is no URL", remedy=f"give {flag}=https://HOST[:PORT]")
    return None if url is None else url.rstrip("/")


def _configured(url: str | None, whose: str, flag: str) -> str:
    if url is None:
        raise ServiceError(f"this CAS fetches no collateral of {whose}", remedy=f"start it with {flag}=URL")
    return url


def _get(url: str) -> _Answer:
    """Fetch at most ``MAX_COLLATERAL`` bytes, without following redirects to elsewhere."""
    try:
        with requests.get(url, timeout=_TIMEOUT, stream=True, allow_redirects=False) as response:
            if response.status_code != 200:
                raise ServiceError(f"{url} answered with status {response.status_code}, expected 200")
            content = bytearray()
            for block in response.iter_content(65536):
                content += block
                if len(content) > MAX_COLLATERAL:
                    raise ServiceError(f"{url} answered with more than {MAX_COLLATERAL} bytes")
            return _Answer(url, bytes(content), response.headers)
    except requests.RequestException as error:
        raise ServiceError(f"{url} can't be reached: {type(error).__name__}", remedy="check the URL") from None


def _signed_text(answer: _Answer, form: re.Pattern[str]) -> tuple[str, str]:
    """Return the signed text to the letter, and its signature."""
    match = form.fullmatch(answer.content.decode("utf-8", "replace"))
    if match is None:
        raise ServiceError(f"{answer.url} answered something else than a signed document")
    return match[1], match[2]


def _issuers(answer: _Answer, *headers: str) -> str:
    for header in headers:
        if header in answer.headers:
            return unquote(answer.headers[header])
    raise ServiceError(f"{answer.url} answered without the header {headers[0]}")


def _der(answer: _Answer) -> bytes:
    """Return a revocation list, which some services give in hex digits."""
    if answer.content[:1] != b"\x30":
        try:
            return bytes.fromhex(answer.content.decode("ascii", "replace").strip().strip('"'))
        except ValueError:
            raise ServiceError(f"{answer.url} answered something else than a revocation list") from None
    return answer.content
