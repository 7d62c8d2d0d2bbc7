"""Sessions that are encrypted to a CAS: who uploads them can neither read nor change them."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from joserfc.jwk import ECKey

from sconify.policy.encrypted import encrypt_session
from sconify.policy.signed import sign_session
from tests.cas_server import Answer, Client, session_text

JOSE = ("-H", "Content-Type: application/jose")


@pytest.fixture
def key(client: Client) -> dict[str, Any]:
    answer = client.request("/v1/encryption_key", identify=False)
    assert answer.status == 200
    return dict(answer.body["key"])


@pytest.fixture(scope="module")
def signer() -> str:
    return subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True, text=True
    ).stdout


def put(client: Client, body: str, *, identify: bool = False) -> Answer:
    return client.request("/v1/encrypted_sessions", "-X", "PUT", body=body, identify=identify)


def test_anybody_may_upload_what_its_author_has_signed_and_encrypted(
    client: Client, key: dict[str, Any], signer: str, name: str
) -> None:
    text = session_text(name, extra="access_policy: {read: ANY}\nsecrets: [{name: s, kind: ascii, value: hunter2}]")
    body = encrypt_session(sign_session(text, [signer]), key)
    assert "hunter2" not in body
    assert put(client, body).status == 201
    assert "signer" in client.read(name).body["session"]
    assert put(client, body).status == 409  # once


def test_what_is_only_encrypted_needs_a_certificate(client: Client, key: dict[str, Any], name: str) -> None:
    body = encrypt_session(session_text(name), key)
    assert put(client, body).status == 401
    assert client.request("/v1/sessions", *JOSE, body=body).status == 201
    assert client.read(name).status == 200


def test_what_is_for_another_cas_or_was_changed_is_refused(client: Client, key: dict[str, Any], name: str) -> None:
    other = ECKey.generate_key("P-256").as_dict(private=False)
    for body in (
        encrypt_session(session_text(name), other),
        encrypt_session(session_text(name), key)[:-5] + "AAAA",
        session_text(name),
        "a.b.c.d.e",
        "....",
        "",
    ):
        answer = put(client, body, identify=True)
        assert answer.status == 400, answer
        assert "no encrypted session for this CAS" in answer.message
    assert client.read(name).status == 404


def test_a_signed_session_that_was_changed_inside_is_refused(
    client: Client, key: dict[str, Any], signer: str, name: str
) -> None:
    bad = sign_session(session_text(name), [signer]).replace('"signature": "', '"signature": "AAAA', 1)
    assert put(client, encrypt_session(bad, key)).status == 403


def test_what_the_cas_can_not_do_is_refused_at_upload(client: Client, name: str) -> None:
    answer = client.upload(
        session_text(name).replace("attestation: {tol", "attestation: {must_be_sgx_local: true, tol")
    )
    assert answer.status == 400
    assert "must_be_sgx_local" in answer.message
