"""What must not get a configuration."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sconify.attestation import simulated
from sconify.attestation.evidence import service_report_data
from tests.cas_server import (
    MEASUREMENT,
    OTHER_MEASUREMENT,
    Client,
    Enclave,
    RunningCas,
    decode,
    encode,
    running_cas,
    session_text,
)


@pytest.fixture
def enclave(cas: RunningCas, client: Client, name: str) -> Enclave:
    assert client.upload(session_text(name)).status == 201
    enclave = cas.enclave(f"{name}/web")
    assert enclave.attest().status == 200  # so that what follows fails for its own reason only
    return enclave


def refused(answer: Any, why: str) -> None:
    assert answer.status == 403, answer
    assert why in answer.message
    assert "sealed" not in answer.body


def test_a_nonce_serves_once(enclave: Enclave) -> None:
    nonce = enclave.challenge()
    assert enclave.attest(nonce=nonce).status == 200
    refused(enclave.attest(nonce=nonce), "check nonce: it was used before")


def test_a_nonce_is_used_up_by_a_refused_attempt(enclave: Enclave) -> None:
    nonce = enclave.challenge()
    refused(enclave.attest(nonce=nonce, evidence=enclave.evidence(nonce, measurement=OTHER_MEASUREMENT)), "measurement")
    refused(enclave.attest(nonce=nonce), "check nonce: it was used before")


def test_a_nonce_of_another_config_id(cas: RunningCas, client: Client, enclave: Enclave, name: str) -> None:
    assert client.upload(session_text(f"{name}-other")).status == 201
    nonce = cas.enclave(f"{name}-other/web").challenge()
    refused(enclave.attest(nonce=nonce), "check nonce: this CAS did not give it")


def test_an_invented_nonce(enclave: Enclave) -> None:
    refused(enclave.attest(nonce=encode(bytes(32))), "check nonce: this CAS did not give it")


@pytest.mark.parametrize("position", range(32))
def test_a_changed_nonce(enclave: Enclave, position: int) -> None:
    nonce = bytearray(decode(enclave.challenge()))
    nonce[position] ^= 1
    refused(enclave.attest(nonce=encode(bytes(nonce))), "check nonce")


@pytest.mark.parametrize("member", ["measurement", "report_data", "issued_at", "signature"])
def test_a_changed_member_of_the_evidence(enclave: Enclave, member: str) -> None:
    nonce = enclave.challenge()
    evidence = enclave.evidence(nonce)
    if member == "issued_at":
        evidence[member] += 1
    else:
        evidence[member] = ("b" if evidence[member][0] != "b" else "c") + evidence[member][1:]
    refused(enclave.attest(nonce=nonce, evidence=evidence), "check signature")


def test_evidence_of_another_nonce(enclave: Enclave) -> None:
    old = enclave.evidence(enclave.challenge())
    refused(enclave.attest(evidence=old), "check report data")


def test_evidence_of_another_key(cas: RunningCas, enclave: Enclave) -> None:
    """One who relays a genuine service's evidence puts his own key in its place."""
    relay = cas.enclave(enclave.config_id)
    nonce = relay.challenge()
    refused(relay.attest(nonce=nonce, evidence=enclave.evidence(nonce)), "check report data")


def test_evidence_of_another_config_id(cas: RunningCas, client: Client, enclave: Enclave, name: str) -> None:
    assert client.upload(session_text(f"{name}-other")).status == 201
    other = cas.enclave(f"{name}-other/web")
    nonce = other.challenge()
    report_data = service_report_data(nonce=decode(nonce), public_key=other.point, config_id=enclave.config_id)
    evidence = simulated.issue(measurement=bytes.fromhex(MEASUREMENT), report_data=report_data, issued_at=0)
    refused(other.attest(nonce=nonce, evidence=evidence), "check report data")


def test_evidence_for_a_cas_identity_is_none_for_a_service(cas: RunningCas, client: Client, enclave: Enclave) -> None:
    evidence = client.request(f"/v1/attest?nonce={'00' * 32}", identify=False).body["evidence"]
    refused(enclave.attest(evidence=evidence), "check report data")


def test_a_wrong_measurement_is_named(enclave: Enclave) -> None:
    nonce = enclave.challenge()
    answer = enclave.attest(nonce=nonce, evidence=enclave.evidence(nonce, measurement=OTHER_MEASUREMENT))
    refused(answer, f"check measurement: got {OTHER_MEASUREMENT}, expected {MEASUREMENT}")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "sgx"},
        {"kind": None},
        {"version": 2},
        {"version": True},
        {"debug": False},
        {"debug": 1},
        {"extra": 1},
        {"measurement": "AB" * 32},
        {"measurement": "ab" * 31},
        {"report_data": ""},
        {"issued_at": -1},
        {"issued_at": 1.5},
        {"issued_at": "1"},
        {"signature": "A" * 85},
        {"signature": None},
    ],
    ids=json.dumps,
)
def test_malformed_evidence(enclave: Enclave, change: dict[str, Any]) -> None:
    nonce = enclave.challenge()
    answer = enclave.attest(nonce=nonce, evidence={**enclave.evidence(nonce), **change})
    assert answer.status == 403


@pytest.mark.parametrize("member", ["kind", "version", "measurement", "report_data", "debug", "issued_at", "signature"])
def test_a_missing_member_of_the_evidence(enclave: Enclave, member: str) -> None:
    nonce = enclave.challenge()
    evidence = enclave.evidence(nonce)
    del evidence[member]
    refused(enclave.attest(nonce=nonce, evidence=evidence), member if member != "kind" else "check kind")


def test_a_key_that_is_no_point_of_the_curve(enclave: Enclave) -> None:
    refused(enclave.attest(public_key={**enclave.public_key, "y": encode(bytes(32))}), "check public key")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"\xff"',
        b"[" * 100_000,
        b'{"config_id": "a/b"}',
        b'{"config_id": 1, "nonce": "", "public_key": {}, "evidence": {}}',
    ],
    ids=range(8),
)
def test_bodies_that_are_no_request(enclave: Enclave, body: bytes) -> None:
    answer = enclave.post("/v1/attest", body)
    assert answer.status == 400
    assert "the body is not as the protocol demands" in answer.message


def test_unknown_and_missing_members_of_a_request(enclave: Enclave) -> None:
    assert enclave.attest(extra=1).status == 400
    assert enclave.attest(public_key={**enclave.public_key, "d": encode(bytes(32))}).status == 400
    assert enclave.attest(evidence=None).status == 400
    assert enclave.post("/v1/challenge", {}).status == 400


def test_services_that_do_not_exist(cas: RunningCas, enclave: Enclave) -> None:
    session = enclave.config_id.removesuffix("/web")
    for config_id in (f"{session}/other", "nobody/web", "/web", "a//web"):
        assert cas.enclave(config_id).attest().status == 404


@pytest.mark.parametrize("token", ["", "AAAA", "é".encode().decode("latin-1"), "A" * 200])
def test_an_invented_session_token(enclave: Enclave, token: str) -> None:
    assert enclave.post("/v1/exit", {"status": 0, "signal": None}, token=token).status == 401


def test_a_policy_that_does_not_tolerate_the_simulated_platform(cas: RunningCas, client: Client, name: str) -> None:
    assert client.upload(session_text(name, tolerate="[debug-mode]")).status == 201
    answer = cas.enclave(f"{name}/web").attest()
    refused(answer, "the policy does not tolerate simulated-platform")
    assert "simulated-platform" in answer.body["remedy"]


def test_a_proxy_learns_nothing_and_can_forge_nothing(enclave: Enclave) -> None:
    sealed = enclave.attest().body["sealed"]
    other = Enclave(0, enclave.config_id)
    with pytest.raises(Exception, match=r"decrypt|tag|decod"):
        enclave.open(sealed, key=other.key)
    parts = sealed.split(".")
    cipher = bytearray(decode(parts[3]))
    cipher[0] ^= 1
    parts[3] = encode(bytes(cipher))
    with pytest.raises(Exception, match=r"decrypt|tag|decod"):
        enclave.open(".".join(parts))


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCas]:
    with running_cas(tmp_path_factory.mktemp("production") / "state", mode="--production") as server:
        yield server


def test_production_refuses_simulated_evidence_whatever_the_policy_says(
    production: RunningCas, tmp_path: Path, name: str
) -> None:
    client = Client.make(tmp_path / "c", production.client_port)
    assert client.upload(session_text(name, tolerate="[simulated-platform, debug-mode]")).status == 201
    refused(production.enclave(f"{name}/web").attest(), "this CAS does not accept the attestation")
    assert "this CAS is in production mode" in last_reason(production)
    assert client.request(f"/v1/attest?nonce={'00' * 32}").body["mode"] == "production"


def test_production_releases_nothing_for_a_policy_without_attestation(
    production: RunningCas, tmp_path: Path, name: str
) -> None:
    client = Client.make(tmp_path / "c", production.client_port)
    text = session_text(name).replace("{tolerate: [simulated-platform]}", "{mode: none}")
    assert client.upload(text).status == 201
    refused(production.enclave(f"{name}/web").attest(evidence={}), "this CAS does not accept the attestation")
    assert "this CAS is in production mode" in last_reason(production)


def test_production_tells_all_refusals_alike_and_records_each(
    production: RunningCas, tmp_path: Path, name: str
) -> None:
    client = Client.make(tmp_path / "c", production.client_port)
    assert client.upload(session_text(name)).status == 201
    enclave = production.enclave(f"{name}/web")
    nonce = enclave.challenge()
    attempts: list[tuple[dict[str, Any], str]] = [
        ({"nonce": nonce}, "check platform"),
        ({"nonce": nonce}, "check nonce: it was used before"),
        ({"nonce": encode(bytes(32))}, "check nonce: this CAS did not give it"),
        ({"public_key": {**enclave.public_key, "y": encode(bytes(32))}}, "check public key"),
        ({"evidence": {}}, "check kind"),
        ({"evidence": {"kind": "tdx"}}, "tdx evidence: member"),
        ({"evidence": {**enclave.evidence(nonce), "kind": "tdx"}}, "tdx evidence: member"),
        ({"evidence": {**enclave.evidence(nonce), "kind": "snp"}}, "snp evidence: member"),
        ({"evidence": {**enclave.evidence(nonce), "kind": "sgx"}}, "sgx evidence: member"),
    ]
    answers = set()
    for changes, reason in attempts:
        answer = enclave.attest(**changes)
        refused(answer, "this CAS does not accept the attestation")
        answers.add(json.dumps(answer.body))
        assert reason in last_reason(production)
    assert len(answers) == 1


def test_production_tells_a_stranger_nothing(production: RunningCas, name: str) -> None:
    refused(production.enclave(f"{name}/web").attest(), "this CAS does not accept the attestation")
    assert "there is no service" in last_reason(production)


def last_reason(cas: RunningCas) -> str:
    """The reason of the last refusal in the audit log."""
    events = [json.loads(line) for line in (cas.state_dir / "audit.jsonl").read_text().splitlines()]
    return str([event for event in events if event["event"] == "service refused"][-1]["reason"])


def test_two_processes_on_one_store_accept_a_nonce_once(
    tmp_path: Path, new_client: Callable[[], Client], name: str
) -> None:
    with running_cas(tmp_path / "state") as one, running_cas(tmp_path / "state") as two:
        assert one.output[:2] == two.output[:2]  # the same CAS key
        client = new_client()
        created = client.at(one.client_port).upload(session_text(name))
        assert created.status == 201
        assert client.at(two.client_port).read(name).body["hash"] == created.body["hash"]
        here, there = one.enclave(f"{name}/web"), two.enclave(f"{name}/web")
        nonce = here.challenge()
        evidence = here.evidence(nonce)
        request = {"nonce": nonce, "evidence": evidence, "public_key": here.public_key}
        assert there.attest(**request).status == 200
        refused(here.attest(**request), "check nonce: it was used before")
        update = session_text(name, extra=f'predecessor: "{created.body["hash"]}"')
        assert client.at(two.client_port).upload(update).status == 201
        assert client.at(one.client_port).upload(update).status == 409
        assert here.attest().status == 200


def test_attestation_goes_on_after_all_of_this(enclave: Enclave) -> None:
    begin = time.monotonic()
    assert enclave.attest().status == 200
    assert time.monotonic() - begin < 5
