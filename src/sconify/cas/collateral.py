"""The collateral of a CAS: kept in its store, fetched when it is missing or ends soon, and never older than before.

Names of documents in the store: ``intel/TEE/FMSPC/CA`` (TEE is sgx or tdx, CA is platform or processor),
``amd/PRODUCT/chain/KEY`` (KEY is vcek or vlek), ``amd/PRODUCT/crl``, ``amd/PRODUCT/vcek/HWID/TCB``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation.collateral import (
    AmdCollateral,
    IntelCollateral,
    crl_number,
    next_update,
    parse_certificate,
    parse_crl,
)
from sconify.attestation.endorsements import verify_amd_collateral, verify_intel_collateral, verify_vek
from sconify.attestation.intel import GenuineQuote
from sconify.attestation.snp import certified_chip, certified_product, hardware_id
from sconify.attestation.snp_report import Product, SigningKey, SnpReport, SnpTcb
from sconify.errors import SconifyError, ServiceError, UntrustedDataError

RENEWAL = 24 * 3600
"""Seconds before its end from which on collateral is fetched anew; if that fails, what is there serves to its end."""
PREFETCH = 7 * 24 * 3600
"""Seconds before its end from which on kept collateral is fetched anew in the background."""
RETRY = 60
"""Seconds within which the same is not fetched again, whether it was got or not."""

_FETCH_WAIT = 10.0
_RENEWAL_INTERVAL = 3600.0
_MAX_KEPT = 256
_OFFLINE = "import it with `sconify cas collateral import`, or let the CAS fetch it (--pcs, --kds)"

_log = logging.getLogger("sconify.cas")
_T = TypeVar("_T")


class Documents(Protocol):
    """Where collateral is kept."""

    def document(self, name: str) -> bytes | None:
        """Return a document, or None."""

    def documents(self) -> list[str]:
        """Return the names of all documents."""

    def replace_document(self, name: str, *, old: bytes | None, new: bytes) -> bool:
        """Keep a document if what is kept is ``old``; False if it is something else by now."""


class Fetcher(Protocol):
    """Gets collateral from the manufacturers, or from a cache of theirs. What it returns is not verified."""

    def intel(self, tee: str, fmspc: bytes, ca: str) -> bytes:
        """Return collateral for an Intel platform as JSON."""

    def amd_chain(self, product: Product, key: SigningKey) -> bytes:
        """Return intermediate and root in PEM."""

    def amd_crl(self, product: Product) -> bytes:
        """Return the revocation list in DER."""

    def amd_vcek(self, product: Product, hwid: bytes, tcb: SnpTcb) -> bytes:
        """Return the certificate of a chip's key in DER."""


@dataclass(frozen=True)
class Item:
    """One document of collateral, for people.

    Attributes:
        name: Its name in the store.
        valid_until: When it ends; None: it does not.
        evaluation_data_number: How new Intel's evaluation is; None for AMD's.
        number: The number of the revocation list; None: it has none.
    """

    name: str
    valid_until: datetime | None
    evaluation_data_number: int | None
    number: int | None


class Collateral:
    """Gives collateral from the store, and keeps it there; a ``sconify.attestation.authorities.CollateralSource``.

    Args:
        documents: The store.
        fetcher: Gets what is missing; None: nothing is fetched, what is there has been imported.
        test_roots: Roots that are trusted besides the manufacturers'.
    """

    def __init__(
        self,
        documents: Documents,
        *,
        fetcher: Fetcher | None = None,
        test_roots: Sequence[x509.Certificate] = (),
    ) -> None:
        self._documents = documents
        self._fetcher = fetcher
        self._test_roots = test_roots
        self._fetching = threading.Lock()
        self._asked: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._parsed: OrderedDict[bytes, IntelCollateral] = OrderedDict()

    def intel(self, genuine: GenuineQuote, *, at: int) -> IntelCollateral:
        """Return the collateral for the platform of a quote.

        Raises:
            ServiceError: There is none, and none can be fetched.
        """
        ca = _certification_authority(genuine.issuer)
        tee, fmspc = genuine.quote.tee, genuine.platform.fmspc
        name = _intel_name(tee, fmspc, ca)

        def load() -> IntelCollateral | None:
            data = self._documents.document(name)
            return None if data is None else self._parse_intel(data)

        fetch = partial(self._fetch_intel, tee=tee, fmspc=fmspc, ca=ca)
        return self._get(name, load, fetch, lambda found: found.valid_until, at=at)

    def amd(self, report: SnpReport, *, certificate: bytes, at: int) -> tuple[x509.Certificate, AmdCollateral]:
        """Return the certificate of the key that signed a report, and what stands above it.

        The certificate that the host gives saves a fetch, no more: it is verified as any other.

        Raises:
            UntrustedDataError: The certificate is malformed, or the report does not tell its product.
            ServiceError: There is none, and none can be fetched.
        """
        given = parse_certificate(certificate, "certificate of the report's key") if certificate else None
        product = certified_product(given) if given is not None else report.product
        if product is None:
            raise UntrustedDataError(
                "check product: a report of version 2 does not name its product, and the host gave no certificate",
                remedy="give the certificate with the report, or update the firmware",
            )
        collateral = self._amd_chain(product, report.signing_key, at=at)
        return given if given is not None else self._amd_vcek(report, product, at=at), collateral

    def add_intel(self, data: bytes) -> str:
        """Keep Intel collateral (JSON as ``dcap_qvl.QuoteCollateralV3`` has it), if it is not older than what is kept.

        Returns:
            Its name.

        Raises:
            UntrustedDataError: It is malformed, not Intel's, or older.
        """
        new = self._parse_intel(data)
        verify_intel_collateral(new, test_roots=self._test_roots)
        issuers = new.pck_crl.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        ca = _certification_authority(str(issuers[0].value) if issuers else "")
        name = _intel_name(new.tcb_info.id.lower(), new.tcb_info.fmspc, ca)
        text = new.to_json().encode()
        return self._keep(name, text, _ages(new), lambda kept: _ages(self._parse_intel(kept)))

    def add_amd_chain(self, data: bytes, product: Product) -> str:
        """Keep a product's certificates (PEM: intermediate, then root).

        Raises:
            UntrustedDataError: They are malformed, or not AMD's.
        """
        chain = AmdCollateral.parse(data, crl=None)
        verify_amd_collateral(chain, product, test_roots=self._test_roots)
        names = chain.intermediate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        shared = bool(names) and str(names[0].value).startswith("SEV-VLEK-")
        name = _chain_name(product, SigningKey.VLEK if shared else SigningKey.VCEK)
        certificates = (chain.intermediate, chain.ark)
        return self._keep(name, b"".join(one.public_bytes(Encoding.PEM) for one in certificates))

    def add_amd_crl(self, data: bytes, product: Product) -> str:
        """Keep a product's revocation list (DER), if it is not older than what is kept; its chain must be there.

        Raises:
            UntrustedDataError: It is malformed, not AMD's, or older.
            ServiceError: The certificates that it is verified by are not there.
        """
        crl = parse_crl(data, "AMD revocation list")
        chain = self._load_chain(product, SigningKey.VCEK) or self._load_chain(product, SigningKey.VLEK)
        if chain is None:
            raise ServiceError(f"there are no certificates of AMD for {product}", remedy="import them first")
        with_crl = AmdCollateral(ark=chain.ark, intermediate=chain.intermediate, crl=crl)
        verify_amd_collateral(with_crl, product, test_roots=self._test_roots)
        return self._keep(
            _crl_name(product), data, _crl_ages(crl), lambda kept: _crl_ages(parse_crl(kept, "kept revocation list"))
        )

    def add_amd_vcek(self, data: bytes) -> str:
        """Keep the certificate (DER) of a chip's key; its chain must be there.

        Raises:
            UntrustedDataError: It is malformed, or not AMD's.
            ServiceError: The certificates that it is verified by are not there.
        """
        vek = parse_certificate(data, "certificate of the report's key")
        product, hwid, tcb = certified_chip(vek)
        chain = self._load_chain(product, SigningKey.VCEK)
        if chain is None:
            raise ServiceError(f"there are no certificates of AMD for {product}", remedy="import them first")
        verify_vek(vek, chain)
        return self._keep(_vcek_name(product, hwid, tcb), data)

    def renew(self, *, at: int) -> None:
        """Fetch anew what ends within ``PREFETCH``, so that nobody waits for it; what fails is logged and stays."""
        for item in self.items():
            kind, group, *rest = item.name.split("/")
            if item.valid_until is None or item.valid_until.timestamp() - at > PREFETCH:
                continue
            if kind == "intel":
                fmspc, ca = rest
                self._fetch(item.name, partial(self._fetch_intel, tee=group, fmspc=bytes.fromhex(fmspc), ca=ca), at)
            elif rest == ["crl"]:
                product = next(product for product in Product if product.lower() == group)
                self._fetch(item.name, partial(self._fetch_crl, product=product), at)

    def items(self) -> list[Item]:
        """Return all documents, for people."""
        return [self._item(name) for name in sorted(self._documents.documents())]

    def export(self) -> dict[str, bytes]:
        """Return all documents by their names."""
        return {name: self._documents.document(name) or b"" for name in sorted(self._documents.documents())}

    def _keep(
        self,
        name: str,
        data: bytes,
        ages: Mapping[str, int] | None = None,
        ages_of: Callable[[bytes], Mapping[str, int]] | None = None,
    ) -> str:
        """Keep a document that is not older than the kept one, whoever else keeps one at the same time."""
        while True:
            old = self._documents.document(name)
            if old is not None and ages is not None and ages_of is not None:
                _refuse_older(name, ages_of(old), ages)
            if self._documents.replace_document(name, old=old, new=data):
                return name

    def _amd_chain(self, product: Product, key: SigningKey, *, at: int) -> AmdCollateral:
        def fetch_chain(fetcher: Fetcher) -> None:
            self.add_amd_chain(fetcher.amd_chain(product, key), product)

        def load_crl() -> x509.CertificateRevocationList | None:
            data = self._documents.document(_crl_name(product))
            return None if data is None else parse_crl(data, "AMD revocation list")

        chain = self._get(
            _chain_name(product, key),
            lambda: self._load_chain(product, key),
            fetch_chain,
            lambda found: found.intermediate.not_valid_after_utc,
            at=at,
        )
        try:
            crl = self._get(_crl_name(product), load_crl, partial(self._fetch_crl, product=product), next_update, at=at)
        except ServiceError:
            # Whether a policy puts up with that is its own matter: the verified report says that there was none.
            return chain
        return AmdCollateral(ark=chain.ark, intermediate=chain.intermediate, crl=crl)

    def _amd_vcek(self, report: SnpReport, product: Product, *, at: int) -> x509.Certificate:
        if report.signing_key is SigningKey.VLEK:
            raise ServiceError("the host gave no certificate of the VLEK, and AMD does not publish it")
        hwid, tcb = hardware_id(report, product), SnpTcb.parse(report.reported_tcb, product)
        name = _vcek_name(product, hwid, tcb)

        def load() -> x509.Certificate | None:
            data = self._documents.document(name)
            return None if data is None else parse_certificate(data, "certificate of the report's key")

        def fetch(fetcher: Fetcher) -> None:
            self.add_amd_vcek(fetcher.amd_vcek(product, hwid, tcb))

        return self._get(name, load, fetch, lambda found: found.not_valid_after_utc, at=at)

    def _load_chain(self, product: Product, key: SigningKey) -> AmdCollateral | None:
        data = self._documents.document(_chain_name(product, key))
        return None if data is None else AmdCollateral.parse(data, crl=None)

    def _fetch_intel(self, fetcher: Fetcher, *, tee: str, fmspc: bytes, ca: str) -> None:
        self.add_intel(fetcher.intel(tee, fmspc, ca))

    def _fetch_crl(self, fetcher: Fetcher, *, product: Product) -> None:
        self.add_amd_crl(fetcher.amd_crl(product), product)

    def _get(
        self,
        name: str,
        load: Callable[[], _T | None],
        fetch: Callable[[Fetcher], None],
        end: Callable[[_T], datetime],
        *,
        at: int,
    ) -> _T:
        """Return what is kept; if it is missing or ends soon, what can be fetched."""
        found = load()
        if found is not None and end(found).timestamp() - at > RENEWAL:
            return found
        reason = self._fetch(name, fetch, at)
        newer = load()
        found = newer if newer is not None else found  # a revocation list that revokes nothing is false
        if found is None:
            raise ServiceError(f"there is no collateral {name}: {reason}", remedy=_OFFLINE)
        return found

    def _fetch(self, name: str, fetch: Callable[[Fetcher], None], at: int) -> str:
        """Fetch, and return why it did not work; one fetch at a time, and none for what was just asked for."""
        if self._fetcher is None:
            return "none is fetched"
        if not self._fetching.acquire(timeout=_FETCH_WAIT):
            return "other collateral is being fetched"
        try:
            asked_at, reason = self._asked.get(name, (0, ""))
            if asked_at <= at < asked_at + RETRY:
                return reason
            reason = ""
            try:
                fetch(self._fetcher)
            except SconifyError as error:
                _log.warning("collateral %s was not fetched: %s", name, error.what)
                reason = error.what
            self._asked[name] = (at, reason)
            self._asked.move_to_end(name)
            if len(self._asked) > _MAX_KEPT:
                self._asked.popitem(last=False)
            return reason
        finally:
            self._fetching.release()

    def _parse_intel(self, data: bytes) -> IntelCollateral:
        """Parse collateral, or return what was parsed from the same bytes before."""
        found = self._parsed.get(data)
        if found is None:
            found = self._parsed[data] = IntelCollateral.parse(data)
            if len(self._parsed) > _MAX_KEPT:
                self._parsed.popitem(last=False)
        return found

    def _item(self, name: str) -> Item:
        data = self._documents.document(name) or b""
        kind = name.split("/")
        if kind[0] == "intel":
            intel = self._parse_intel(data)
            return Item(name, intel.valid_until, intel.evaluation_data_number, crl_number(intel.pck_crl))
        if kind[2] == "crl":
            crl = parse_crl(data, name)
            return Item(name, next_update(crl), None, crl_number(crl))
        if kind[2] == "chain":
            return Item(name, AmdCollateral.parse(data, crl=None).intermediate.not_valid_after_utc, None, None)
        return Item(name, parse_certificate(data, name).not_valid_after_utc, None, None)


def renew_for_ever(collateral: Collateral, stop: threading.Event) -> None:
    """Fetch collateral that ends soon, each hour, until it is told to stop."""
    while True:
        try:
            collateral.renew(at=int(time.time()))
        except SconifyError as error:
            _log.warning("collateral can't be renewed: %s", error.what)
        if stop.wait(_RENEWAL_INTERVAL):
            return


def _ages(collateral: IntelCollateral) -> dict[str, int]:
    """Return what must not become less."""
    return {
        "tcbEvaluationDataNumber of the TCB information": collateral.tcb_info.evaluation_data_number,
        "tcbEvaluationDataNumber of the QE identity": collateral.qe_identity.evaluation_data_number,
        "CRL number of the PCK certificates": crl_number(collateral.pck_crl),
        "CRL number of the root": crl_number(collateral.root_crl),
        "time of issue of the TCB information": int(collateral.tcb_info.issued.timestamp()),
        "time of issue of the QE identity": int(collateral.qe_identity.issued.timestamp()),
        "time of issue of the PCK revocation list": int(collateral.pck_crl.last_update_utc.timestamp()),
        "time of issue of the root revocation list": int(collateral.root_crl.last_update_utc.timestamp()),
    }


def _crl_ages(crl: x509.CertificateRevocationList) -> dict[str, int]:
    return {"CRL number": crl_number(crl), "time of issue": int(crl.last_update_utc.timestamp())}


def _refuse_older(name: str, kept: Mapping[str, int], new: Mapping[str, int]) -> None:
    for what, number in kept.items():
        if new[what] < number:
            raise UntrustedDataError(
                f"collateral {name} goes back: got {what} {_shown(what, new[what])}, expected "
                f"{_shown(what, number)} or later",
                remedy="get newer collateral",
            )


def _shown(what: str, number: int) -> str:
    return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if "time" in what else str(number)


def _certification_authority(common_name: str) -> str:
    """Return the name by which Intel's service knows the issuer of PCK certificates."""
    for ca in ("platform", "processor"):
        if f"PCK {ca}".lower() in common_name.lower():
            return ca
    raise UntrustedDataError(f"check PCK chain: {common_name[:60]!r} is no issuer of PCK certificates")


def _intel_name(tee: str, fmspc: bytes, ca: str) -> str:
    return f"intel/{tee}/{fmspc.hex()}/{ca}"


def _chain_name(product: Product, key: SigningKey) -> str:
    return f"amd/{product.lower()}/chain/{key}"


def _crl_name(product: Product) -> str:
    return f"amd/{product.lower()}/crl"


def _vcek_name(product: Product, hwid: bytes, tcb: SnpTcb) -> str:
    parts = (tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)
    return f"amd/{product.lower()}/vcek/{hwid.hex()}/{'-'.join(str(part) for part in parts if part is not None)}"
