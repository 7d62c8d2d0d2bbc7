"""Every kind of secret over the real protocol: made, given, placed in every format, kept, renewed, shared."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.cas_server import MEASUREMENT, Client, RunningCas, session_text

KEYS = """
  - {name: p256, kind: private-key}
  - {name: p384, kind: private-key, key_type: P-384}
  - {name: ed, kind: private-key, key_type: Ed25519}
  - {name: rsa, kind: private-key, key_type: RSA-2048}
  - {name: public, kind: public-key, private_key: p256, export_public: true}
  - {name: root, kind: x509-ca, private_key: p384, common_name: Root, export_public: true}
  - {name: middle, kind: x509-ca, private_key: ed, issuer: root}
  - name: leaf
    kind: x509
    private_key: rsa
    issuer: middle
    endpoint: server
    dns: [app.example, "*.app.example"]
    san: ["ip:192.0.2.1", "dns:other.example"]
    valid_for: 90 days
  - {name: client, kind: x509, private_key: p256, endpoint: client, common_name: me}
"""


class Service:
    """A session with one service whose injected files hold what is asked for."""

    def __init__(self, cas: RunningCas, client: Client, name: str) -> None:
        self.cas, self.client, self.name = cas, client, name
        self.hash: str | None = None

    def upload(self, secrets: str, *placeholders: str, extra: str = "", environment: str = "{}") -> None:
        files = "".join(f"\n      - {{path: /f{at}, content: '{text}'}}" for at, text in enumerate(placeholders))
        text = session_text(
            self.name,
            environment=environment,
            extra=f"secrets:{secrets}\nimages:\n  - name: image\n    injection_files:{files or ' []'}\n{extra}"
            + (f'\npredecessor: "{self.hash}"' if self.hash else ""),
        ).replace("- name: web", "- name: web\n    image_name: image")
        answer = self.client.upload(text)
        assert answer.status == 201, answer
        self.hash = answer.body["hash"]

    def configuration(self) -> dict[str, Any]:
        enclave = self.cas.enclave(f"{self.name}/web")
        answer = enclave.attest()
        assert answer.status == 200, answer
        return enclave.open(answer.body["sealed"])

    def files(self) -> list[bytes]:
        return [base64.b64decode(file["content"]) for file in self.configuration()["injection_files"]]


@pytest.fixture
def service(cas: RunningCas, client: Client, name: str) -> Service:
    return Service(cas, client, name)


def test_keys_are_of_the_type_that_was_asked_for(service: Service) -> None:
    names = ["p256", "p384", "ed", "rsa"]
    service.upload(KEYS, *(f"$$SCONE::{name}$$" for name in names), "$$SCONE::p256:der$$", "$$SCONE::public$$")
    *pems, der, public = service.files()
    keys = [serialization.load_pem_private_key(pem, None) for pem in pems]
    curves = [key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else None for key in keys]
    assert curves == ["secp256r1", "secp384r1", None, None]
    assert isinstance(keys[2], ed25519.Ed25519PrivateKey)
    assert isinstance(keys[3], rsa.RSAPrivateKey)
    assert keys[3].key_size == 2048
    assert serialization.load_der_private_key(der, None).public_key() == keys[0].public_key()
    assert serialization.load_pem_public_key(public) == keys[0].public_key()


def test_a_certificate_has_its_chain_and_openssl_verifies_it(service: Service, tmp_path: Path) -> None:
    formats = [":crt", ":chain", ".crt", ".key", ".chain", ":privatekey", ":crt:der", ":pkcs12-with-private-key"]
    service.upload(KEYS, *(f"$$SCONE::leaf{form}$$" for form in formats), "$$SCONE::root:crt$$")
    leaf, chain, old_leaf, old_key, old_chain, key, der, p12, root = service.files()
    assert old_leaf == leaf
    assert old_key == key
    certificates = x509.load_pem_x509_certificates(chain)
    assert [c.subject.rfc4514_string() for c in certificates] == ["CN=middle", "CN=Root"]
    names = [c.subject.rfc4514_string() for c in x509.load_pem_x509_certificates(old_chain)]
    assert names == ["CN=Root", "CN=middle", "CN=app.example"]
    certificate = x509.load_der_x509_certificate(der)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime.days == 90
    loaded, with_chain, others = pkcs12.load_key_and_certificates(p12, None)
    assert loaded is not None
    assert with_chain == certificate
    assert others == certificates
    for file, content in (("leaf", leaf), ("chain", chain), ("root", root), ("key", key)):
        (tmp_path / file).write_bytes(content)
    command = ["openssl", "verify", "-CAfile", "root", "-untrusted", "chain", "-purpose", "sslserver"]
    for host in ("app.example", "x.app.example", "other.example"):
        done = subprocess.run(
            [*command, "-verify_hostname", host, "leaf"], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [*command, "-verify_hostname", "evil.example", "leaf"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode != 0


def test_a_pgp_key_encrypts_and_signs_for_gnupg(service: Service, tmp_path: Path) -> None:
    halves = ["privatekey:asciiarmored", "publickey:asciiarmored", "privatekey:binary", "publickey:base64"]
    service.upload("\n  - {name: signer, kind: pgp-key}", *(f"$$SCONE::signer:{half}$$" for half in halves))
    private, public, binary, encoded = service.files()
    assert public.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert binary[:1] == b"\xc5"
    assert base64.b64decode(encoded)[:1] == b"\xc6"

    def gpg(home: str, *arguments: str, data: bytes) -> bytes:
        (tmp_path / home).mkdir(mode=0o700, exist_ok=True)
        command = ["gpg", "--homedir", str(tmp_path / home), "--batch", "--quiet", "--trust-model", "always"]
        return subprocess.run([*command, *arguments], input=data, capture_output=True, check=True).stdout

    gpg("a", "--import", data=public)
    gpg("b", "--import", data=private)
    sealed = gpg("a", "--armor", "--encrypt", "--recipient", "signer", data=b"text")
    assert gpg("b", "--decrypt", data=sealed) == b"text"
    signed = gpg("b", "--armor", "--sign", data=b"signed")
    assert gpg("a", "--decrypt", data=signed) == b"signed"


def test_a_token_says_what_runs_and_is_new_each_time(service: Service) -> None:
    token = """
  - {name: p384, kind: private-key, key_type: P-384}
  - {name: t, kind: ascii, value: given}
  - name: id
    kind: jwt
    signer: p384
    validity: {for: 24h}
    payload: {sub: app, who: $$SCONE::self::software_identity$$, t: $$SCONE::t$$}
"""
    service.upload(token, "$$SCONE::p384$$", "$$SCONE::id$$")
    key, first = service.files()
    _, second = service.files()
    assert first != second
    decoded = jwt.decode(second.decode(), ECKey.import_key(key), algorithms=["ES384"])
    assert decoded.header["alg"] == "ES384"
    assert (decoded.claims["sub"], decoded.claims["who"], decoded.claims["t"]) == ("app", MEASUREMENT, "given")
    assert decoded.claims["exp"] - decoded.claims["iat"] == 86400


def test_json_escapes_and_all_binary_formats(service: Service) -> None:
    secrets = "\n  - {name: t, kind: ascii, value: 'a\"b\\é'}\n  - {name: b, kind: binary, value: 00ff10}"
    forms = ["", ":bin", ":hex", ".hex", ":base64", ":base64url", ":base32", ":base32nopad"]
    service.upload(
        secrets, '{"x": "$$SCONE::t|escape(json)$$"}', *(f"$$SCONE::b{form}$$" for form in forms), "$$SCONE::t$$"
    )
    escaped, *binary, plain = service.files()
    assert json.loads(escaped)["x"] == 'a"b\\é' == plain.decode()
    raw = b"\0\xff\x10"
    assert binary == [
        raw, raw, b"00ff10", b"00ff10", b"AP8Q", b"AP8Q", base64.b32encode(raw), base64.b32encode(raw).rstrip(b"="),
    ]  # fmt: skip


def test_an_update_keeps_what_it_must_and_makes_the_rest_anew(service: Service) -> None:
    secrets = """
  - {name: t, kind: ascii}
  - {name: kept, kind: private-key, migrate: true}
  - {name: new, kind: private-key}
  - {name: p, kind: pgp-key}
  - {name: c, kind: x509, private_key: kept}
"""
    asked = ["$$SCONE::t$$", "$$SCONE::kept$$", "$$SCONE::p:privatekey:base64$$", "$$SCONE::new$$", "$$SCONE::c$$"]
    service.upload(secrets, *asked)
    before = service.files()
    service.upload(secrets + "  - {name: more, kind: ascii}\n", *asked)
    after = service.files()
    assert before[:3] == after[:3]
    assert before[3] != after[3]
    assert before[4] != after[4]


def test_fragments_stand_for_parts_of_the_configuration(service: Service, cas: RunningCas) -> None:
    secrets = f"""
  - {{name: factors, kind: config-fragment, value: [{{mrenclave: ["{MEASUREMENT}"]}}]}}
  - {{name: tolerated, kind: config-fragment, value: [simulated-platform]}}
  - {{name: fs, kind: binary, value: "{"ab" * 32}"}}
"""
    text = session_text(service.name, tolerate="$$SCONE::tolerated$$", extra=f"secrets:{secrets}")
    text = text.replace(f'{{mrenclave: ["{MEASUREMENT}"]}}', "$$SCONE::factors$$", 1)
    text = text.replace('"' + "0123456789abcdef" * 4 + '"', "$$SCONE::fs$$")
    assert service.client.upload(text).status == 201
    assert service.configuration()["file_system"]["key"] == "ab" * 32
    assert cas.enclave(f"{service.name}/web").attest(evidence={}).status == 403


def test_host_arguments_variables_and_files_on_disk_are_left_to_the_runtime(service: Service) -> None:
    text = session_text(
        service.name,
        environment="{A: x, '\\@\\@HOSTNAME': ''}",
        extra="""
secrets: [{name: t, kind: ascii, value: 'a"'}, {name: hidden, kind: ascii}]
images: [{name: image, injection_files: [/etc/app.conf], provide_secrets: [t]}]
""",
    ).replace("- name: web", "- name: web\n    image_name: image")
    text = text.replace("[python3, /app/server.py]", "[python3, '@@2', x, '@@1']")
    assert service.client.upload(text).status == 201
    configuration = service.configuration()
    assert configuration["command"] == ["python3", "", "x", ""]
    assert configuration["environment"] == {"A": "x"}
    assert configuration["host"] == {
        "arguments": [{"at": 1, "argument": 2}, {"at": 3, "argument": 1}],
        "environment": ["HOSTNAME"],
    }
    assert configuration["injection_files"] == []
    disk = configuration["disk_injection_files"]
    assert disk["files"] == [{"path": "/etc/app.conf", "mode": 0o700}]
    values = {name: base64.b64decode(value) for name, value in disk["placeholders"].items()}
    assert values == {"$$SCONE::t$$": b'a"', "$$SCONE::t|escape(json)$$": b'a\\"'}


def importer(name: str, exporter: str, secrets: str, environment: str) -> str:
    return session_text(name, environment=environment, extra=f"secrets: {secrets}".replace("EXPORTER", exporter))


def test_a_secret_is_shared_when_both_sides_say_so(cas: RunningCas, client: Client, name: str) -> None:
    environment = "{X: $$SCONE::x$$}"
    mine = importer(f"{name}-b", f"{name}-a", "[{name: x, import: {session: EXPORTER, secret: s}}]", environment)
    assert client.upload(mine).status == 201
    enclave = cas.enclave(f"{name}-b/web")
    assert "is not there" in enclave.attest().message
    exporter = f"name: {name}-a\nversion: '0.3'\nsecrets: [{{name: s, kind: ascii, value: one, export: [EXPORT]}}]\n"
    first = client.upload(exporter.replace("EXPORT", "{session: somebody-else}")).body["hash"]
    refused = enclave.attest()
    assert (refused.status, "does not export" in refused.message) == (403, True)
    second = client.upload(exporter.replace("EXPORT", f"{{session: ./x}}, {name}-b") + f"predecessor: {first}")
    assert second.status == 201
    assert enclave.open(enclave.attest().body["sealed"])["environment"] == {"X": "one"}
    text = exporter.replace("EXPORT", f"{name}-b").replace("one", "two") + f"predecessor: {second.body['hash']}"
    third = client.upload(text)
    assert enclave.open(enclave.attest().body["sealed"])["environment"] == {"X": "two"}
    text = exporter.replace("EXPORT", f"'{name}-b:{'0' * 64}'") + f"predecessor: {third.body['hash']}"
    assert client.upload(text).status == 201
    assert enclave.attest().status == 403


def test_a_namespace_shares_with_all_below_it_and_relative_names_are_found(
    cas: RunningCas, client: Client, name: str
) -> None:
    text = f"name: {name}\nversion: '0.3'\nsecrets: [{{name: s, kind: ascii, value: v, export: {{namespace: .}}}}]\n"
    assert client.upload(text.replace("namespace: .", f"namespace: {name}")).status == 201
    assert client.upload(f"name: {name}/deep\nversion: '0.3'").status == 201
    environment = "{X: $$SCONE::x$$}"
    for below, up in (("app", ".."), ("deep/app", "../..")):
        secrets = "[{name: x, import: {session: EXPORTER, secret: s}}]"
        assert client.upload(importer(f"{name}/{below}", up, secrets, environment)).status == 201
        enclave = cas.enclave(f"{name}/{below}/web")
        assert enclave.open(enclave.attest().body["sealed"])["environment"] == {"X": "v"}
    assert client.upload(importer(f"{name}-x", name, secrets, environment)).status == 201
    assert cas.enclave(f"{name}-x/web").attest().status == 403


def test_an_imported_certificate_brings_its_key_only_if_that_is_exported_too(
    cas: RunningCas, client: Client, name: str
) -> None:
    exporter = f"""
name: {name}-a
version: "0.3"
secrets:
  - {{name: k, kind: private-key, migrate: true, export: NOBODY}}
  - {{name: c, kind: x509, private_key: k, export: {name}-b}}
"""
    first = client.upload(exporter.replace("NOBODY", "nobody")).body["hash"]
    secrets = "[{name: x, kind: x509, import: {session: EXPORTER, secret: c}}]"
    text = importer(f"{name}-b", f"{name}-a", secrets, "{C: $$SCONE::x:crt$$, K: $$SCONE::x:privatekey$$}")
    assert client.upload(text).status == 201
    enclave = cas.enclave(f"{name}-b/web")
    assert "private key" in enclave.attest().message
    client.upload(exporter.replace("NOBODY", f"{name}-b") + f"predecessor: {first}")
    got = enclave.open(enclave.attest().body["sealed"])["environment"]
    key = serialization.load_pem_private_key(got["K"].encode(), None)
    assert x509.load_pem_x509_certificate(got["C"].encode()).public_key() == key.public_key()


def test_public_values_are_for_anybody_and_nothing_else_is(
    client: Client, new_client: Callable[[], Client], name: str
) -> None:
    secrets = f"secrets:{KEYS}" + "  - {name: t, kind: ascii, value: hidden}\n"
    secrets += "  - {name: open, kind: ascii, value: shown, export_public: true}\n"
    assert client.upload(f"name: {name}\nversion: '0.3'\n{secrets}").status == 201
    one = client.request(f"/v1/values/session={name},secret=open", identify=False)
    assert one.body == {"kind": "string", "value": "shown", "expires": None, "renew": None}
    every = client.request(f"/v1/values/session={name}", identify=False).body["values"]
    assert set(every) == {"open", "public", "root"}
    certificate = x509.load_pem_x509_certificate(every["root"]["value"].encode())
    assert certificate.subject.rfc4514_string() == "CN=Root"
    assert "PRIVATE" not in json.dumps(every)
    for query in (f"session={name},secret=t", f"session={name},secret=leaf", "session=nothing", f"session={name}-x"):
        assert client.request(f"/v1/values/{query}", identify=False).status == 404
    assert client.request("/v1/values/nonsense", identify=False).status == 400


def test_short_certificates_are_renewed_in_time(service: Service) -> None:
    secrets = "\n  - {name: k, kind: private-key}\n  - {name: c, kind: x509, private_key: k, valid_for: 1s}"
    service.upload(secrets, "$$SCONE::c$$", "$$SCONE::k$$")
    seen = set()
    for _ in range(3):
        seen.add(service.files()[0])
        time.sleep(0.7)
    # Two thirds of its second are over each time.
    assert len(seen) > 1
