"""One-time passwords, access tokens, and services that run once at a time, over the real protocol."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from sconify.attestation.evidence import service_report_data
from tests.cas_server import Answer, Client, RunningCas, decode, session_text

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
TOKEN = "an access token of some length"


def with_security(name: str, security: str) -> str:
    return session_text(name).replace("tolerate: [simulated-platform]}", f"tolerate: [simulated-platform]{security}")


def password(at: float) -> str:
    totp = TOTP(base64.b32decode(SECRET), 6, SHA1(), 30, enforce_key_length=False)
    return totp.generate(int(at)).decode()


def test_a_one_time_password_is_good_once(cas: RunningCas, client: Client, name: str) -> None:
    assert client.upload(with_security(name, f", one_time_password_shared_secret: {SECRET}}}")).status == 201

    def attest(suffix: str) -> Answer:
        return cas.enclave(f"{name}/web{suffix}").attest()

    assert "it is missing" in attest("").message
    assert "it is wrong" in attest(f"@{password(time.time() - 600)}").message
    now = password(time.time())
    enclave = cas.enclave(f"{name}/web@{now}")
    answer = enclave.attest()
    assert answer.status == 200
    assert enclave.open(answer.body["sealed"])["config_id"] == f"{name}/web@{now}"
    assert "it was used before" in attest(f"@{now}").message


def test_passwords_can_not_be_tried_out(cas: RunningCas, client: Client, name: str) -> None:
    assert client.upload(with_security(name, f", one_time_password_shared_secret: {SECRET}}}")).status == 201
    messages = [cas.enclave(f"{name}/web@{number:06d}").attest().message for number in range(25)]
    assert any("too many wrong ones" in message for message in messages)


def test_both_sides_prove_that_they_know_the_access_token(cas: RunningCas, client: Client, name: str) -> None:
    text = with_security(name, f"}}\n  service_access_token: {TOKEN}").replace("attestation: {tol", "attestation: {tol")
    assert client.upload(text).status == 201
    enclave = cas.enclave(f"{name}/web")
    assert "it is missing" in enclave.attest().message
    for token, status in (("another", 403), (TOKEN, 200)):
        nonce = enclave.challenge()
        data = service_report_data(nonce=decode(nonce), public_key=enclave.point, config_id=enclave.config_id)
        proof = hmac.digest(token.encode(), b"sconify service access v1\0" + data, hashlib.sha256).hex()
        answer = enclave.attest(nonce=nonce, access_proof=proof)
        assert answer.status == status
    mine = hmac.digest(TOKEN.encode(), b"sconify CAS access v1\0" + data, hashlib.sha256).hex()
    assert enclave.open(answer.body["sealed"])["access_proof"] == mine


def test_a_singleton_runs_once_at_a_time(cas: RunningCas, client: Client, name: str) -> None:
    text = with_security(name, "}\n  singleton_enclaves: true")
    assert client.upload(text).status == 201
    first, second = cas.enclave(f"{name}/web"), cas.enclave(f"{name}/web")
    answer = first.attest()
    assert first.open(answer.body["sealed"])["lease_seconds"] == 60
    assert "runs already" in second.attest().message
    token = answer.body["session_token"]
    assert first.post("/v1/renew", b"", token=token).body == {"expires_in": 60}
    assert first.post("/v1/exit", {"status": 0, "signal": None}, token=token).status == 204
    assert second.attest().status == 200
    assert first.post("/v1/renew", b"", token=token).status == 409


@pytest.mark.parametrize(
    ("tolerate", "debug"), [("simulated-platform", None), ("simulated-platform, debug-mode", True)]
)
def test_debugging_is_allowed_by_the_policy_alone(
    cas: RunningCas, client: Client, name: str, tolerate: str, debug: bool | None
) -> None:
    assert client.upload(session_text(name, tolerate=f"[{tolerate}]")).status == 201
    enclave = cas.enclave(f"{name}/web")
    assert enclave.open(enclave.attest().body["sealed"]).get("debug") is debug
