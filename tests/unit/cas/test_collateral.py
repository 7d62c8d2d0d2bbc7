from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation.collateral import IntelCollateral
from sconify.attestation.intel import GenuineQuote, verify_origin
from sconify.attestation.quote import Quote
from sconify.attestation.snp import verify_report
from sconify.attestation.snp_report import Product, SigningKey, SnpReport, SnpTcb
from sconify.cas.collateral import PREFETCH, RENEWAL, RETRY, Collateral, Fetcher
from sconify.cas.collateral_files import dump_bundle, import_file
from sconify.cas.collateral_memory import MemoryDocuments
from sconify.cas.master_key import FileMasterKey
from sconify.cas.store import Store
from sconify.errors import SconifyError, ServiceError, UntrustedDataError, UserError
from tests.amd_pki import AmdPki, Tcb
from tests.intel_pki import NOW, IntelPki, State, sgx_body

INTEL, AMD = IntelPki(), AmdPki()
ROOTS = [INTEL.root, AMD.ark]
NAME = "intel/sgx/b0c06f000000/platform"
DAY = 86400


def document(**state: Any) -> bytes:
    return json.dumps(INTEL.collateral_document("sgx", State(**state))).encode()


def genuine() -> GenuineQuote:
    return verify_origin(Quote.parse(INTEL.quote(sgx_body())), test_root=INTEL.root)


def offline() -> Collateral:
    return Collateral(MemoryDocuments(), test_roots=ROOTS)


class Services:
    """Intel's and AMD's services, as far as a test lets them answer."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def _answer(self, what: str) -> bytes:
        self.asked.append(what)
        if what not in self.answers:
            raise ServiceError(f"no {what} today")
        return self.answers[what]

    def intel(self, tee: str, fmspc: bytes, ca: str) -> bytes:
        assert (tee, fmspc.hex(), ca) == ("sgx", "b0c06f000000", "platform")
        return self._answer("intel")

    def amd_chain(self, product: Product, key: SigningKey) -> bytes:
        assert (product, key) == (Product.MILAN, SigningKey.VCEK)
        return self._answer("chain")

    def amd_crl(self, product: Product) -> bytes:
        assert product is Product.MILAN
        return self._answer("crl")

    def amd_vcek(self, product: Product, hwid: bytes, tcb: SnpTcb) -> bytes:
        assert (product, hwid, tcb.snp) == (Product.MILAN, AMD.chip, AMD.tcb.snp)
        return self._answer("vcek")


def fetching(services: Fetcher) -> Collateral:
    return Collateral(MemoryDocuments(), fetcher=services, test_roots=ROOTS)


def test_what_is_missing_is_fetched_once() -> None:
    services = Services(intel=document())
    collateral = fetching(services)
    for _ in range(3):
        assert collateral.intel(genuine(), at=NOW).evaluation_data_number == 20
    assert services.asked == ["intel"]


def test_what_ends_soon_is_fetched_anew_and_serves_to_its_end_if_that_fails() -> None:
    services = Services(intel=document(expires=NOW + DAY))
    collateral = fetching(services)
    collateral.intel(genuine(), at=NOW - RENEWAL)
    del services.answers["intel"]
    assert collateral.intel(genuine(), at=NOW + 10).valid_until.timestamp() == NOW + DAY
    assert services.asked == ["intel", "intel"]
    services.answers["intel"] = document(issued=NOW, expires=NOW + 9 * DAY)
    assert collateral.intel(genuine(), at=NOW + 10 + RETRY).valid_until.timestamp() == NOW + 9 * DAY


def test_a_service_whose_collateral_ends_soon_is_not_asked_for_each_request() -> None:
    services = Services(intel=document(expires=NOW + 3600))
    collateral = fetching(services)
    for at in (NOW, NOW + 1, NOW + RETRY - 1):
        assert collateral.intel(genuine(), at=at)
    assert services.asked == ["intel"]
    assert collateral.intel(genuine(), at=NOW + RETRY)
    assert services.asked == ["intel", "intel"]


def test_failures_are_not_repeated_at_once() -> None:
    services = Services()
    collateral = fetching(services)
    for at in (NOW, NOW + 1, NOW + RETRY - 1):
        with pytest.raises(ServiceError, match=f"there is no collateral {NAME}: no intel today"):
            collateral.intel(genuine(), at=at)
    assert services.asked == ["intel"]
    services.answers["intel"] = document()
    assert collateral.intel(genuine(), at=NOW + RETRY)


def test_without_a_network_imported_collateral_serves() -> None:
    collateral = offline()
    with pytest.raises(ServiceError, match="none is fetched") as caught:
        collateral.intel(genuine(), at=NOW)
    assert "sconify cas collateral import" in str(caught.value.remedy)
    assert import_file(collateral, document(), name="file") == [NAME]
    assert collateral.intel(genuine(), at=NOW)


@pytest.mark.parametrize(
    ("newer", "older", "why"),
    [
        ({"evaluation": 21}, {"evaluation": 20}, "tcbEvaluationDataNumber of the TCB information 20, expected 21"),
        ({"issued": NOW - 5}, {"issued": NOW - 6}, "time of issue of the TCB information"),
    ],
)
def test_nothing_goes_back(newer: dict[str, Any], older: dict[str, Any], why: str) -> None:
    collateral = offline()
    collateral.add_intel(document(**newer))
    for _ in range(2):
        with pytest.raises(UntrustedDataError, match=f"collateral {NAME} goes back: got {why}"):
            collateral.add_intel(document(**older))
    collateral.add_intel(document(**newer))  # the same is no step back
    assert collateral.intel(genuine(), at=NOW).tcb_info.evaluation_data_number == newer.get("evaluation", 20)


def test_parts_do_not_go_back_alone() -> None:
    """What is newer in one part may not bring an older other one."""
    collateral = offline()
    collateral.add_intel(document(evaluation=21))
    new, old = json.loads(document(evaluation=22)), json.loads(document(evaluation=20))
    for names in (("qe_identity", "qe_identity_signature"), ("pck_crl",), ("root_ca_crl",)):
        mixed = {**new, **{name: old[name] for name in names}}
        with pytest.raises(UntrustedDataError, match="goes back"):
            collateral.add_intel(json.dumps(mixed).encode())


def test_a_service_that_gives_older_collateral_is_not_believed() -> None:
    services = Services(intel=document(evaluation=21, expires=NOW + DAY))
    collateral = fetching(services)
    collateral.intel(genuine(), at=NOW - RENEWAL)
    services.answers["intel"] = document(evaluation=20)
    assert collateral.intel(genuine(), at=NOW).evaluation_data_number == 21


def test_what_intel_did_not_sign_is_never_kept() -> None:
    """Else a forger's number could stand for the newest, and lock out what is genuine."""
    stranger = IntelPki()
    collateral = offline()
    forged = json.loads(document(evaluation=10**6))
    theirs = stranger.collateral_document("sgx")
    changes: list[dict[str, str]] = [
        dict(theirs),
        {"tcb_info": forged["tcb_info"].replace("1000000", "1000001")},
        {"qe_identity": forged["qe_identity"].replace("1000000", "1000001")},
        {"tcb_info_issuer_chain": theirs["tcb_info_issuer_chain"]},
        {"qe_identity_issuer_chain": theirs["qe_identity_issuer_chain"]},
        {"pck_crl": theirs["pck_crl"]},
        {"root_ca_crl": theirs["root_ca_crl"]},
        {"pck_crl_issuer_chain": theirs["pck_crl_issuer_chain"]},
        {"tcb_info_signature": "00" * 64},
        {"tcb_info_signature": ""},
        {"tcb_info_issuer_chain": ""},
    ]
    for change in changes:
        with pytest.raises(UntrustedDataError):
            collateral.add_intel(json.dumps({**forged, **change}).encode())
    assert collateral.items() == []
    with pytest.raises(UntrustedDataError, match="don't end at a trusted root"):
        Collateral(MemoryDocuments()).add_intel(document())


@pytest.mark.parametrize("data", [b"", b"{}", b"[", b"null", b'{"tcb_info": 1}', b"{" * 100_000])
def test_what_is_no_collateral(data: bytes) -> None:
    with pytest.raises(UntrustedDataError):
        IntelCollateral.parse(data)
    with pytest.raises((UntrustedDataError, UserError)):
        import_file(offline(), data, name="file")


def test_amd_certificates_come_from_the_host_or_the_service() -> None:
    services = Services(chain=AMD.chain_pem(), crl=AMD.crl(), vcek=AMD.vek().public_bytes(Encoding.DER))
    collateral = fetching(services)
    report = SnpReport.parse(AMD.report())
    vek, chain = collateral.amd(report, certificate=AMD.vek().public_bytes(Encoding.DER), at=NOW - 5 * DAY)
    assert services.asked == ["chain", "crl"]
    vek, chain = collateral.amd(report, certificate=b"", at=NOW - 5 * DAY)
    assert services.asked == ["chain", "crl", "vcek"]
    assert verify_report(report, vek, chain, at=NOW, test_root=AMD.ark).revocation_checked


def test_without_a_revocation_list_the_report_says_so() -> None:
    services = Services(chain=AMD.chain_pem(), vcek=AMD.vek(ends=NOW + 90 * DAY).public_bytes(Encoding.DER))
    report = SnpReport.parse(AMD.report())
    vek, chain = fetching(services).amd(report, certificate=b"", at=NOW)
    assert not verify_report(report, vek, chain, at=NOW, test_root=AMD.ark).revocation_checked


def test_what_amd_did_not_sign_is_never_kept() -> None:
    stranger = AmdPki(number=1)
    collateral = offline()
    with pytest.raises(ServiceError, match="there are no certificates of AMD for Milan"):
        collateral.add_amd_crl(AMD.crl(), Product.MILAN)
    with pytest.raises(ServiceError, match="there are no certificates of AMD for Milan"):
        collateral.add_amd_vcek(AMD.vek().public_bytes(Encoding.DER))
    with pytest.raises(UntrustedDataError, match="not AMD's"):
        collateral.add_amd_chain(stranger.chain_pem(), Product.MILAN)
    foreign = stranger.ask.public_bytes(Encoding.PEM) + AMD.ark.public_bytes(Encoding.PEM)
    with pytest.raises(UntrustedDataError, match="not signed by AMD's root"):
        collateral.add_amd_chain(foreign, Product.MILAN)
    collateral.add_amd_chain(AMD.chain_pem(), Product.MILAN)
    with pytest.raises(UntrustedDataError, match="not signed by AMD's root"):
        collateral.add_amd_crl(stranger.crl(), Product.MILAN)
    with pytest.raises(UntrustedDataError, match="is not AMD's"):
        collateral.add_amd_vcek(stranger.vek().public_bytes(Encoding.DER))
    assert [item.name for item in collateral.items()] == ["amd/milan/chain/vcek"]


def test_a_certificate_of_another_chip_serves_nobody() -> None:
    services = Services(chain=AMD.chain_pem(), crl=AMD.crl(), vcek=AMD.vek(tcb=Tcb(snp=9)).public_bytes(Encoding.DER))
    with pytest.raises(ServiceError, match="there is no collateral amd/milan/vcek/"):
        fetching(services).amd(SnpReport.parse(AMD.report()), certificate=b"", at=NOW)


def test_amd_lists_do_not_go_back() -> None:
    collateral = offline()
    collateral.add_amd_chain(AMD.chain_pem(), Product.MILAN)
    collateral.add_amd_crl(AMD.crl(number=7), Product.MILAN)
    with pytest.raises(UntrustedDataError, match="goes back: got CRL number 6, expected 7"):
        collateral.add_amd_crl(AMD.crl(number=6), Product.MILAN)
    with pytest.raises(UntrustedDataError, match="goes back: got time of issue"):
        collateral.add_amd_crl(AMD.crl(number=7, issued=NOW - 2 * DAY), Product.MILAN)


def test_reports_that_tell_no_product() -> None:
    report = SnpReport.parse(AMD.report(version=2))
    with pytest.raises(UntrustedDataError, match="does not name its product"):
        offline().amd(report, certificate=b"", at=NOW)
    with pytest.raises(UntrustedDataError, match="malformed"):
        offline().amd(report, certificate=b"x", at=NOW)


def test_bundles_go_from_one_cas_to_another() -> None:
    first = offline()
    for data in (document(), AMD.chain_pem(), AMD.crl(), AMD.vek().public_bytes(Encoding.DER)):
        import_file(first, data, name="file")
    bundle = dump_bundle(first.export()).encode()
    second = offline()
    assert sorted(import_file(second, bundle, name="bundle")) == sorted(item.name for item in first.items())
    assert second.export() == first.export()
    assert second.items() == first.items()
    changed = json.loads(bundle)
    # The names in a bundle say nothing: what a document is for, it says itself.
    changed["documents"] = {f"amd/genoa/{at}": value for at, value in enumerate(changed["documents"].values())}
    third = offline()
    import_file(third, json.dumps(changed).encode(), name="bundle")
    assert third.export() == first.export()
    for broken in (
        {**changed, "format": "other/1"},
        {**changed, "documents": 1},
        {**changed, "more": 1},
        {"format": "x"},
    ):
        with pytest.raises(UserError, match="is no bundle"):
            import_file(third, json.dumps(broken).encode(), name="bundle")
    with pytest.raises(UserError, match="not in hex digits"):
        import_file(third, json.dumps({**changed, "documents": {"a": "xyz"}}).encode(), name="bundle")


def test_what_ends_within_days_is_fetched_in_the_background() -> None:
    services = Services(intel=document(expires=NOW + DAY), chain=AMD.chain_pem(), crl=AMD.crl(expires=NOW + DAY))
    collateral = fetching(services)
    collateral.intel(genuine(), at=NOW - RENEWAL - 1)
    collateral.amd(
        SnpReport.parse(AMD.report()), certificate=AMD.vek().public_bytes(Encoding.DER), at=NOW - RENEWAL - 1
    )
    services.asked.clear()
    collateral.renew(at=NOW + DAY - PREFETCH - 1)
    assert services.asked == []
    services.answers["intel"] = document(issued=NOW, expires=NOW + 30 * DAY)
    services.answers["crl"] = AMD.crl(issued=NOW, expires=NOW + 30 * DAY, number=6)
    collateral.renew(at=NOW + DAY - PREFETCH + 1)
    assert sorted(services.asked) == ["crl", "intel"]
    ends = {item.name: item.valid_until.timestamp() for item in collateral.items() if item.valid_until}
    assert ends[NAME] == ends["amd/milan/crl"] == NOW + 30 * DAY


def test_a_fetch_that_hangs_does_not_hold_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sconify.cas.collateral._FETCH_WAIT", 0.05)
    started, go_on = threading.Event(), threading.Event()

    class Slow(Services):
        def intel(self, tee: str, fmspc: bytes, ca: str) -> bytes:
            started.set()
            assert go_on.wait(20)
            return super().intel(tee, fmspc, ca)

    collateral = fetching(Slow(intel=document()))
    thread = threading.Thread(target=collateral.intel, args=[genuine()], kwargs={"at": NOW})
    thread.start()
    assert started.wait(20)
    with pytest.raises(ServiceError, match="other collateral is being fetched"):
        collateral.intel(genuine(), at=NOW)
    go_on.set()
    thread.join()
    assert collateral.intel(genuine(), at=NOW)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state", master_key=FileMasterKey(tmp_path / "key"))


def test_collateral_outlives_the_process(tmp_path: Path, store: Store) -> None:
    Collateral(store, test_roots=ROOTS).add_intel(document(evaluation=21))
    store.close()
    again = Store(tmp_path / "state", master_key=FileMasterKey(tmp_path / "key"))
    collateral = Collateral(again, test_roots=ROOTS)
    assert collateral.intel(genuine(), at=NOW).evaluation_data_number == 21
    with pytest.raises(UntrustedDataError, match="goes back"):
        collateral.add_intel(document(evaluation=20))


def test_of_two_who_replace_one_sees_the_other(store: Store) -> None:
    assert store.replace_document("a", old=None, new=b"1")
    assert not store.replace_document("a", old=None, new=b"2")
    assert store.replace_document("a", old=b"1", new=b"2")
    assert not store.replace_document("a", old=b"1", new=b"3")
    assert (store.document("a"), store.document("b"), store.documents()) == (b"2", None, ["a"])


def test_racing_writers_never_go_back(store: Store) -> None:
    collateral = Collateral(store, test_roots=ROOTS)
    documents = [document(evaluation=number) for number in range(20, 32)]
    refused: list[str] = []

    def write(data: bytes) -> None:
        try:
            collateral.add_intel(data)
        except SconifyError as error:
            refused.append(error.what)

    threads = [threading.Thread(target=write, args=[data]) for data in documents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert collateral.intel(genuine(), at=NOW).evaluation_data_number == 31
    assert all("goes back" in reason for reason in refused)
