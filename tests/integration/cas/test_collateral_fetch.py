"""Collateral over HTTP: from a PCS, from a PCCS that mirrors it, from a KDS; and from services that answer nonsense."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote as url_quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation.authorities import Authorities
from sconify.attestation.quote import Quote
from sconify.attestation.snp_report import SnpReport
from sconify.attestation.tcb import TcbStatus
from sconify.cas.collateral import Collateral
from sconify.cas.collateral_fetch import HttpFetcher
from sconify.cas.collateral_memory import MemoryDocuments
from sconify.errors import SconifyError, ServiceError, UserError
from tests.amd_pki import AmdPki, Tcb
from tests.intel_pki import NOW, IntelPki, sgx_body, td_body

INTEL = IntelPki()
AMD = {name: AmdPki(product=name, tcb=Tcb(snp=20 + at)) for at, name in enumerate(("Milan", "Turin"))}

Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Service:
    """Answers as Intel's and AMD's services do."""

    hex_crl: bool = False
    change: Callable[[str, Answer], Answer] = lambda _path, answer: answer
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> Answer:
        self.asked.append(path)
        return self.change(path, self._answer(path))

    def _answer(self, path: str) -> Answer:
        tee = path.split("/")[1]
        if path.startswith(("/sgx/", "/tdx/")):
            document = INTEL.collateral_document(tee)
            rest = path.split("/certification/v4/")[1]
            if rest == "tcb?fmspc=b0c06f000000":
                body = f'{{"tcbInfo":{document["tcb_info"]},"signature":"{document["tcb_info_signature"]}"}}'
                return 200, body.encode(), {"TCB-Info-Issuer-Chain": url_quote(document["tcb_info_issuer_chain"])}
            if rest == "qe/identity":
                body = (
                    f'{{"enclaveIdentity":{document["qe_identity"]},"signature":"{document["qe_identity_signature"]}"}}'
                )
                chain = url_quote(document["qe_identity_issuer_chain"])
                return 200, body.encode(), {"SGX-Enclave-Identity-Issuer-Chain": chain}
            if rest == "pckcrl?ca=platform&encoding=der":
                chain = url_quote(document["pck_crl_issuer_chain"])
                return 200, self._crl(document["pck_crl"]), {"SGX-PCK-CRL-Issuer-Chain": chain}
            if rest == "rootcacrl":
                return 200, self._crl(document["root_ca_crl"]), {}
        for name, pki in AMD.items():
            tcb = pki.tcb
            query = f"blSPL={tcb.bootloader}&teeSPL={tcb.tee}&snpSPL={tcb.snp}&ucodeSPL={tcb.microcode}"
            chip = pki.chip.hex()
            if name == "Turin":
                query, chip = f"fmcSPL={tcb.fmc}&{query}", pki.chip[:8].hex()
            found = {
                f"/vcek/v1/{name}/cert_chain": pki.chain_pem(),
                f"/vlek/v1/{name}/cert_chain": pki.chain_pem("VLEK"),
                f"/vcek/v1/{name}/crl": pki.crl(),
                f"/vcek/v1/{name}/{chip}?{query}": pki.vek().public_bytes(Encoding.DER),
            }
            if path in found:
                return 200, found[path], {}
        return 404, b"", {}

    def _crl(self, hex_digits: str) -> bytes:
        return hex_digits.encode() if self.hex_crl else bytes.fromhex(hex_digits)


@contextmanager
def serving(service: Service) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = service.answer(self.path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def authorities(url: str) -> Authorities:
    roots = [INTEL.root, *(pki.ark for pki in AMD.values())]
    fetcher = HttpFetcher(pcs=url, kds=url)
    return Authorities(Collateral(MemoryDocuments(), fetcher=fetcher, test_roots=roots), test_roots=roots)


@pytest.mark.parametrize("hex_crl", [False, True], ids=["PCS", "PCCS"])
def test_intel_collateral(hex_crl: bool) -> None:
    service = Service(hex_crl=hex_crl)
    with serving(service) as url:
        trusted = authorities(url)
        for body in (sgx_body(), td_body()):
            assert trusted.verify_quote(Quote.parse(INTEL.quote(body)), at=NOW).status is TcbStatus.UP_TO_DATE
        asked = len(service.asked)
        trusted.verify_quote(Quote.parse(INTEL.quote(sgx_body())), at=NOW)
        assert len(service.asked) == asked == 8


@pytest.mark.parametrize("product", AMD)
def test_amd_certificates(product: str) -> None:
    pki = AMD[product]
    with serving(Service()) as url:
        trusted = authorities(url)
        # The tests' certificates end within a day, so that each is fetched anew.
        report = trusted.verify_report(SnpReport.parse(pki.report()), certificate=b"", at=NOW)
        assert report.revocation_checked
        vlek = SnpReport.parse(pki.report(key_info=1 << 2, chip=bytes(64)))
        given = pki.vek("VLEK").public_bytes(Encoding.DER)
        assert trusted.verify_report(vlek, certificate=given, at=NOW).cloud


def test_a_forged_quote_makes_nobody_fetch() -> None:
    service = Service()
    forged = bytearray(INTEL.quote(sgx_body()))
    forged[100] ^= 1
    with serving(service) as url:
        for raw in (bytes(forged), IntelPki().quote(sgx_body())):
            with pytest.raises(SconifyError):
                authorities(url).verify_quote(Quote.parse(raw), at=NOW)
    assert service.asked == []


UNSIGNED = b'{"enclaveIdentity":{},"signature":"' + b"0" * 128 + b'"}'


def replaced(part: str, answer: Answer) -> Service:
    return Service(change=lambda path, genuine: answer if part in path else genuine)


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (replaced("/tcb?", (500, b"", {})), "status 500"),
        (replaced("/tcb?", (302, b"", {"Location": "http://127.0.0.1:1/"})), "status 302"),
        (replaced("/tcb?", (200, b"", {})), "something else than a signed document"),
        (replaced("/tcb?", (200, b"<html>", {})), "something else than a signed document"),
        (replaced("/tcb?", (200, b"x" * (2 << 20), {})), "more than 1048576 bytes"),
        (replaced("/qe/", (200, UNSIGNED, {})), "without the header"),
        (replaced("/qe/", (200, UNSIGNED, {"SGX-Enclave-Identity-Issuer-Chain": "x"})), "QE identity"),
        (replaced("/pckcrl", (200, b"nonsense", {"SGX-PCK-CRL-Issuer-Chain": "x"})), "than a revocation list"),
        (replaced("/rootcacrl", (200, b"\x30\0", {})), "revocation list"),
    ],
)
def test_services_that_answer_something_else(service: Service, why: str) -> None:
    with serving(service) as url, pytest.raises(ServiceError, match=why):
        authorities(url).verify_quote(Quote.parse(INTEL.quote(sgx_body())), at=NOW)


def test_services_that_are_not_there() -> None:
    with pytest.raises(ServiceError, match="can't be reached: ConnectionError"):
        authorities("http://127.0.0.1:1").verify_quote(Quote.parse(INTEL.quote(sgx_body())), at=NOW)
    with pytest.raises(ServiceError, match="fetches no collateral of Intel"):
        HttpFetcher(pcs=None, kds=None).intel("sgx", bytes(6), "platform")


@pytest.mark.parametrize("url", ["", "pcs", "ftp://pcs", "https://", "https://pcs?x=1", "https://pcs#x", "https://p c"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UserError, match="is no URL"):
        HttpFetcher(pcs=url, kds=None)
