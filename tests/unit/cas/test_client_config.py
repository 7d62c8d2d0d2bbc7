from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from sconify.attestation.judge import Mode
from sconify.cas.attested import AttestedCas, CasAddress
from sconify.cas.client_config import PATH_VARIABLE, ClientConfig
from sconify.cas.identity import Identity
from sconify.errors import ServiceError, UntrustedDataError, UserError


def attested(where: str = "cas.example", *, identity: Identity | None = None) -> AttestedCas:
    identity = identity or Identity.generate()
    return AttestedCas(
        CasAddress.parse(where), identity.certificate, Mode.DEBUG, "simulated", "ab" * 32, "2026-01-01T00:00:00+00:00"
    )


@pytest.fixture
def config(tmp_path: Path) -> ClientConfig:
    return ClientConfig(tmp_path / "cas" / "config.json")


def test_first_use_makes_an_identity_that_stays(config: ClientConfig) -> None:
    first = config.identity()
    assert ClientConfig(config.path).identity().key_hash == first.key_hash
    assert config.path.stat().st_mode & 0o777 == 0o600
    assert config.path.parent.stat().st_mode & 0o777 == 0o700


def test_path_is_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "other.json"))
    assert ClientConfig.default().path == tmp_path / "other.json"
    monkeypatch.delenv(PATH_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ClientConfig.default().path == tmp_path / ".cas" / "config.json"


def test_reading_makes_no_file(config: ClientConfig) -> None:
    assert config.all_attested() == []
    assert config.default_cas() is None
    assert not config.path.exists()


def test_record_is_read_back_and_the_first_is_the_default(config: ClientConfig) -> None:
    first, second = attested("b.example:1"), attested("a.example")
    config.record(first)
    config.record(second)
    assert config.attested(first.address) == first
    assert config.all_attested() == [second, first]
    assert config.default_cas() == first.address
    assert config.attested(CasAddress.parse("c.example")) is None


def test_unknown_members_are_kept(config: ClientConfig) -> None:
    config.path.parent.mkdir()
    config.path.write_text(json.dumps({"session_signing_keypair_ed25519_seed": "s", "cas_db": {"x:1": {"y": 1}}}))
    config.path.chmod(0o600)
    config.identity()
    config.record(attested())
    document = json.loads(config.path.read_text())
    assert document["session_signing_keypair_ed25519_seed"] == "s"
    assert document["cas_db"]["x:1"] == {"y": 1}


def test_another_key_is_refused_until_forgotten(config: ClientConfig) -> None:
    known, other = attested(), attested()
    config.record(known)
    with pytest.raises(UntrustedDataError, match="another key") as caught:
        config.record(other)
    assert known.key_hash in caught.value.what
    assert other.key_hash in caught.value.what
    assert config.attested(known.address) == known
    assert config.forget(known.address)
    assert not config.forget(known.address)
    assert config.default_cas() is None
    config.record(other)
    assert config.attested(known.address) == other


def test_a_key_that_the_caller_knows_replaces_the_record(config: ClientConfig) -> None:
    known, other = attested(), attested()
    config.record(known)
    config.record(other, replace=True)
    assert config.attested(known.address) == other


USES: dict[str, Callable[[ClientConfig], object]] = {
    "identity": ClientConfig.identity,
    "default_cas": ClientConfig.default_cas,
    "cas_db": lambda config: config.record(attested()),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_damaged_file_is_refused_and_left_alone(
    config: ClientConfig, content: bytes, use: Callable[[ClientConfig], object]
) -> None:
    config.path.parent.mkdir()
    config.path.write_bytes(content)
    config.path.chmod(0o600)
    with pytest.raises(UserError, match="damaged"):
        use(config)
    assert config.path.read_bytes() == content


@pytest.mark.parametrize("member", USES)
def test_member_of_a_wrong_type_is_refused(config: ClientConfig, member: str) -> None:
    config.path.parent.mkdir()
    config.path.write_text(json.dumps({member: 7}))
    config.path.chmod(0o600)
    with pytest.raises(UserError, match=f'damaged: "{member}"'):
        USES[member](config)


@pytest.mark.parametrize(
    "change",
    [
        {"certificate": "x"},
        {"certificate": None},
        {"mode": "other"},
        {"mode": None},
        {"key_sha256": "00" * 32},
        {"key_hash": "x"},
        {"measurement": 5},
    ],
)
def test_damaged_record_is_refused(config: ClientConfig, change: dict[str, object]) -> None:
    cas = attested()
    config.record(cas)
    document = json.loads(config.path.read_text())
    document["cas_db"][str(cas.address)] |= change
    config.path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"damaged: the record of the CAS cas\.example:8081"):
        config.attested(cas.address)


def test_a_record_without_a_member_is_refused(config: ClientConfig) -> None:
    cas = attested()
    config.record(cas)
    for member in json.loads(config.path.read_text())["cas_db"][str(cas.address)]:
        document = json.loads(config.path.read_text())
        record = document["cas_db"][str(cas.address)]
        value = record.pop(member)
        config.path.write_text(json.dumps(document))
        with pytest.raises(UserError, match="damaged"):
            config.attested(cas.address)
        record[member] = value
        config.path.write_text(json.dumps(document))


def test_world_readable_file_is_refused(config: ClientConfig) -> None:
    config.identity()
    config.path.chmod(0o644)
    with pytest.raises(UserError, match="other users"):
        config.identity()


def test_unwritable_directory_is_a_service_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="can't be written"):
        ClientConfig(tmp_path / "file" / "config.json").identity()


def _record_one(path: Path, number: int) -> str:
    config = ClientConfig(path)
    config.record(attested(f"cas{number}.example"))
    return config.identity().key_hash


def test_concurrent_first_uses_agree_and_lose_nothing(config: ClientConfig) -> None:
    # A pool that ends its workers by signals may wait for one of them forever.
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        hashes = list(pool.map(_record_one, [config.path] * 24, range(24)))
    assert len(set(hashes)) == 1
    assert len(config.all_attested()) == 24
    assert sorted(path.name for path in config.path.parent.iterdir()) == ["config.json", "config.json.lock"]
