from __future__ import annotations

import errno
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import ServiceError
from sconify.las.tsm import ConfigfsDirectory, Tsm, vek_certificate
from tests.tsm import KernelTsm

VCEK = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")
ASK = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")


def table(*entries: tuple[bytes, bytes]) -> bytes:
    """A certificate table: entries, an empty one, then the certificates."""
    head, body, offset = b"", b"", 24 * (len(entries) + 1)
    for name, certificate in entries:
        head += name + (offset + len(body)).to_bytes(4, "little") + len(certificate).to_bytes(4, "little")
        body += certificate
    return head + bytes(24) + body


@pytest.mark.parametrize(("provider", "kind"), [("tdx_guest", "tdx"), ("sev_guest", "snp")])
def test_a_report_binds_what_was_written(provider: str, kind: str) -> None:
    kernel = KernelTsm(provider, lambda bound: b"report of " + bound, table((VCEK.bytes, b"certificate")))
    tsm = Tsm(kernel)
    assert tsm.kind() == kind
    report = tsm.report(b"d" * 64)
    assert (report.kind, report.report) == (kind, b"report of " + b"d" * 64)
    assert report.certificate == (b"certificate" if kind == "snp" else b"")
    assert kernel.requests == [b"d" * 64]
    assert kernel.reports == {}  # nothing is left behind


def test_somebody_who_writes_in_between_is_seen() -> None:
    def other(kernel: KernelTsm, name: str) -> None:
        kernel.interfere = lambda _kernel, _name: None
        kernel.write(name, "inblob", b"other")

    kernel = KernelTsm("tdx_guest", lambda bound: bound, interfere=other)
    with pytest.raises(ServiceError, match="somebody else has written"):
        Tsm(kernel).report(b"d" * 64)
    assert kernel.reports == {}


@pytest.mark.parametrize(("size", "why"), [(0, "has 0 bytes"), (32 * 1024, None), (32 * 1024 + 1, "it is too large")])
def test_sizes_of_reports(size: int, why: str | None) -> None:
    tsm = Tsm(KernelTsm("tdx_guest", lambda _: bytes(size)))
    if why is None:
        assert len(tsm.report(b"d" * 64).report) == size
        return
    with pytest.raises(ServiceError, match=why):
        tsm.report(b"d" * 64)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EIO, errno.ENXIO, errno.EINVAL])
def test_hardware_that_fails(number: int) -> None:
    def fail(_bound: bytes) -> bytes:
        raise OSError(number, "")

    kernel = KernelTsm("sev_guest", fail)
    with pytest.raises(ServiceError, match="the kernel does not give a report"):
        Tsm(kernel).report(b"d" * 64)
    assert kernel.reports == {}


def test_hosts_without_configfs_tsm(tmp_path: Path) -> None:
    for tsm in (Tsm(ConfigfsDirectory(tmp_path / "none")), Tsm(KernelTsm("tdx_guest", bytes, refused=errno.ENOENT))):
        assert tsm.kind() is None
        with pytest.raises(ServiceError, match="this is no confidential VM"):
            tsm.report(b"d" * 64)
    with pytest.raises(ServiceError, match="only root may"):
        Tsm(KernelTsm("tdx_guest", bytes, refused=errno.EACCES)).report(b"d" * 64)


def test_a_provider_that_is_not_known() -> None:
    tsm = Tsm(KernelTsm("arm_cca_guest", bytes))
    assert tsm.kind() is None
    with pytest.raises(ServiceError, match="by 'arm_cca_guest', expected one of"):
        tsm.report(b"d" * 64)


def test_the_real_directory_is_used_as_files(tmp_path: Path) -> None:
    directory = ConfigfsDirectory(tmp_path)
    directory.make("one")
    with pytest.raises(FileExistsError):
        directory.make("one")
    with pytest.raises(FileNotFoundError):  # the kernel makes attributes, nobody else
        directory.write("one", "inblob", b"x")
    (tmp_path / "one/inblob").touch()
    directory.write("one", "inblob", b"d" * 64)
    assert directory.read("one", "inblob") == b"d" * 64
    (tmp_path / "one/inblob").unlink()
    directory.remove("one")
    assert not (tmp_path / "one").exists()


def test_certificate_tables() -> None:
    assert vek_certificate(table((ASK.bytes, b"ask"), (VCEK.bytes, b"vcek"))) == b"vcek"
    assert vek_certificate(table((ASK.bytes, b"ask"), (VCEK.bytes_le, b"vcek"))) == b"vcek"
    assert vek_certificate(table((ASK.bytes, b"ask"))) == b""
    assert vek_certificate(b"") == b""
    assert vek_certificate(table((VCEK.bytes, b"vcek"))[:-1]) == b""


@given(st.binary(max_size=200))
def test_any_table_gives_a_hint_or_none(data: bytes) -> None:
    assert len(vek_certificate(VCEK.bytes + data)) <= len(data) + 16
