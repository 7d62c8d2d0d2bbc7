"""Attestation and release over the enclave API of a real CAS."""

from __future__ import annotations

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric import ec

from sconify.policy import template
from sconify.policy.keyhash import key_hash, spki_der
from tests.cas_server import MEASUREMENT, Client, RunningCas, decode, session_text


def test_a_genuine_service_gets_its_configuration(cas: RunningCas, client: Client, name: str) -> None:
    extra = """
images: [{name: image, injection_files: [{path: /etc/app.key, content: "k=$$SCONE::key$$", permission: 0o400}]}]
secrets: [{name: key, kind: binary, value: 00ff}]
"""
    text = session_text(name, environment="{PORT: 8443, RATIO: 1.10, NO: no}", extra=extra)
    assert client.upload(text.replace("- name: web", "- name: web\n    image_name: image")).status == 201
    enclave = cas.enclave(f"{name}/web")
    nonce = enclave.challenge()
    answer = enclave.attest(nonce=nonce)
    assert answer.status == 200
    configuration = enclave.open(answer.body["sealed"])
    configuration.pop("jwk")
    assert configuration == {
        "format": "sconify-config/1",
        "config_id": f"{name}/web",
        "nonce": nonce,
        "command": ["python3", "/app/server.py"],
        "environment": {"PORT": "8443", "RATIO": "1.10", "NO": "no"},
        "pwd": "/app",
        "file_system": {"path": "/.sconify/index", "key": "0123456789abcdef" * 4, "tag": "fedcba9876543210" * 2},
        "injection_files": [{"path": "/etc/app.key", "content": base64.b64encode(b"k=\0\xff").decode(), "mode": 0o400}],
    }


def test_the_configuration_is_signed_by_the_key_that_the_cas_prints(cas: RunningCas, client: Client, name: str) -> None:
    client.upload(session_text(name))
    enclave = cas.enclave(f"{name}/web")
    jwk = enclave.open(enclave.attest().body["sealed"])["jwk"]
    x, y = (int.from_bytes(decode(jwk[name])) for name in ("x", "y"))
    spki = spki_der(ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
    assert f"CAS key hash: {key_hash(spki)}" in cas.output
    assert f"CAS key: {hashlib.sha256(spki).hexdigest()}" in cas.output


def test_a_literal_placeholder_in_a_native_environment_comes_back_as_it_was(
    cas: RunningCas, client: Client, name: str
) -> None:
    nasty = {"A": "$$SCONE::x$$", "B": "a\nb'\"\\ $$$SCONE::", "C": "é\u2028$$"}
    service = template.ConvertedService(
        name=name,
        service="web",
        measurement=MEASUREMENT,
        command=["$$SCONE::x:hex$$", "{{ x }}", "${X}"],
        environment=nasty,
        pwd="/",
        fspf_path="/.sconify/index",
        fspf_key="00" * 32,
        fspf_tag="00" * 16,
        tolerate=["simulated-platform"],
    )
    assert client.upload(template.session_text(service)).status == 201
    enclave = cas.enclave(f"{name}/web")
    configuration = enclave.open(enclave.attest().body["sealed"])
    assert configuration["environment"] == nasty
    assert configuration["command"] == ["$$SCONE::x:hex$$", "{{ x }}", "${X}"]


def test_the_end_of_a_program_is_recorded(cas: RunningCas, client: Client, name: str) -> None:
    client.upload(session_text(name))
    enclave = cas.enclave(f"{name}/web")
    token = enclave.attest().body["session_token"]
    assert enclave.post("/v1/exit", {"status": 3, "signal": None}, token=token).status == 204
    events = [json.loads(line) for line in (cas.state_dir / "audit.jsonl").read_text().splitlines()]
    mine = [event for event in events if event.get("config_id") == f"{name}/web"]
    assert [event["event"] for event in mine] == ["service attested", "service exited"]
    assert mine[1]["status"] == 3
    assert mine[0]["run"] == mine[1]["run"]


def test_a_policy_without_attestation_needs_no_evidence_in_debug_mode(
    cas: RunningCas, client: Client, name: str
) -> None:
    text = session_text(name).replace("{tolerate: [simulated-platform]}", "{mode: none}")
    assert client.upload(text).status == 201
    assert cas.enclave(f"{name}/web").attest(evidence={}).status == 200


def test_an_update_is_what_the_next_attestation_gets(cas: RunningCas, client: Client, name: str) -> None:
    first = client.upload(session_text(name, environment="{V: one}")).body["hash"]
    enclave = cas.enclave(f"{name}/web")
    assert enclave.open(enclave.attest().body["sealed"])["environment"] == {"V": "one"}
    client.upload(session_text(name, environment="{V: two}", extra=f'predecessor: "{first}"'))
    assert enclave.open(enclave.attest().body["sealed"])["environment"] == {"V": "two"}
