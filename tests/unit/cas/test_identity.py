from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from sconify.cas.identity import Identity, PrivateKey, load_identity
from sconify.errors import UserError
from sconify.policy.keyhash import decode_key_hash, encode_key_hash


def private_file(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def key_pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_generated_identity_is_p256_self_signed_and_always_valid() -> None:
    certificate = Identity.generate().certificate
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    certificate.verify_directly_issued_by(certificate)
    assert certificate.not_valid_before_utc.year == 1975
    assert certificate.not_valid_after_utc.year == 4096


def test_identities_differ() -> None:
    assert Identity.generate().key_hash != Identity.generate().key_hash


def test_pem_round_trip_keeps_key_and_certificate() -> None:
    identity = Identity.generate()
    again = Identity.from_pem(identity.private_pem(), source="test")
    assert again.certificate == identity.certificate
    assert again.private_pem() == identity.private_pem()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_key_alone_gets_a_certificate(key: PrivateKey) -> None:
    identity = Identity.from_pem(key_pem(key), source="test")
    assert identity.certificate.public_key() == key.public_key()
    identity.certificate.verify_directly_issued_by(identity.certificate)


def test_key_hash_is_over_the_spki() -> None:
    identity = Identity.generate()
    key = identity.certificate.public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert identity.spki == spki
    assert encode_key_hash(decode_key_hash(identity.key_hash)) == identity.key_hash


def test_repr_has_no_key_material() -> None:
    identity = Identity.generate()
    body = identity.private_pem().split(b"-----")[2].decode().replace("\n", "")
    assert "PRIVATE" not in repr(identity)
    assert body[40:60] not in repr(identity).replace("\n", "")


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "no readable PEM private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no readable PEM private key"),
        (Identity.generate().certificate.public_bytes(serialization.Encoding.PEM), "no readable PEM private key"),
        (key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"), "encrypted with a passphrase"),
        (
            key_pem(ec.generate_private_key(ec.SECP256R1()))
            + Identity.generate().certificate.public_bytes(serialization.Encoding.PEM),
            "another key",
        ),
        (
            key_pem(ec.generate_private_key(ec.SECP256R1()))
            + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "certificate in test can't be read",
        ),
        (
            x25519.X25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            "of a kind that TLS can't use",
        ),
    ],
)
def test_unusable_pem_is_refused(pem: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Identity.from_pem(pem, source="test")
    assert caught.value.remedy


def test_load_from_pem_file_and_from_config_json(tmp_path: Path) -> None:
    identity = Identity.generate()
    pem = private_file(tmp_path / "identity.pem", identity.private_pem())
    config = private_file(
        tmp_path / "config.json", json.dumps({"identity": identity.private_pem().decode(), "cas_db": {}})
    )
    assert load_identity(pem, warn=silent).key_hash == identity.key_hash == load_identity(config, warn=silent).key_hash


@pytest.mark.parametrize("content", ["{", "{}", '{"identity": 7}', '{"identity": "x"}', '{"a":' * 100_000])
def test_config_json_without_identity_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError):
        load_identity(private_file(tmp_path / "config.json", content), warn=silent)


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_file_that_others_may_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = private_file(tmp_path / "identity.pem", Identity.generate().private_pem(), mode)
    with pytest.raises(UserError, match="other users read or change") as caught:
        load_identity(path, warn=silent)
    assert "chmod 600" in str(caught.value.remedy)


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, False), (0o604, True), (0o644, True)])
def test_file_that_others_may_read_is_read_and_the_user_told(tmp_path: Path, mode: int, told: bool) -> None:
    identity = Identity.generate()
    path = private_file(tmp_path / "identity.pem", identity.private_pem(), mode)
    warnings: list[str] = []
    assert load_identity(path, warn=warnings.append).key_hash == identity.key_hash
    assert [f"`chmod 600 {path}`" in warning for warning in warnings] == [True] * told


def silent(_: str) -> None:
    pytest.fail("there is nothing to warn of")


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_identity(tmp_path / "none.pem", warn=silent)
    with pytest.raises(UserError, match="directory"):
        load_identity(tmp_path, warn=silent)


def test_errors_never_quote_the_key(tmp_path: Path) -> None:
    pem = Identity.generate().private_pem()
    damaged = pem.replace(b"-----END PRIVATE KEY-----", b"-----END PRIVATE KEX-----")
    with pytest.raises(UserError) as caught:
        load_identity(private_file(tmp_path / "identity.pem", damaged), warn=silent)
    assert pem.split(b"\n")[1].decode() not in caught.value.diagnostics()


def test_certificate_can_be_parsed_by_others() -> None:
    pem = Identity.generate().private_pem()
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert len(x509.load_pem_x509_certificates(pem)) == 1
