"""Makes the vector of a sealed configuration, by joserfc and cryptography: ``python tests/vectors/make_sealed.py``.

The content key is in the vector, for the Rust test can't import a private key: ring makes ephemeral keys only.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwe, jws
from joserfc.jwk import ECKey

FILE = Path(__file__).parent / "protocol" / "sealed.json"
CONFIG_ID = "example/flask/service"
NONCE = bytes(range(32))


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return the four members of a public JWK."""
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}


def lp(data: bytes) -> bytes:
    """Return the data with its length before it, as docs/protocol.md has it."""
    return len(data).to_bytes(4, "big") + data


def main() -> None:
    """Write the vector."""
    cas, runtime = (ec.derive_private_key(seed, ec.SECP256R1()) for seed in (0xCA5, 0x5EA1))
    payload = {
        "format": "sconify-config/1",
        "config_id": CONFIG_ID,
        "nonce": encode(NONCE),
        "command": ["python3", "-B", "/app/rest_api.py"],
        "environment": {"GREETING": 'h\u00e9llo "world"', "PATH": "/usr/bin:/bin", "EMPTY": ""},
        "pwd": "/app",
        "file_system": {"path": "/.sconify/index", "key": "0f" * 32, "tag": "a0" * 16},
        "injection_files": [
            {"path": "/etc/secret", "content": base64.b64encode(b"\0secret\xff").decode(), "mode": 0o400}
        ],
    }
    signed = jws.serialize_compact(
        {"alg": "ES256", "jwk": public_jwk(cas.public_key())},
        json.dumps(payload, ensure_ascii=False).encode(),
        ECKey.import_key(cas),
        algorithms=["ES256"],
    )
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "typ": "sconify-config"}
    sealed = jwe.encrypt_compact(
        header, signed.encode(), ECKey.import_key(runtime.public_key()), algorithms=["ECDH-ES", "A256GCM"]
    )
    epk = json.loads(base64.urlsafe_b64decode(sealed.split(".")[0] + "=="))["epk"]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(epk[name] + "=")) for name in ("x", "y"))
    sender = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    point = runtime.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    spki = cas.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    parts = (b"sconify attestation v1", NONCE, point, CONFIG_ID.encode())
    vector = {
        "config_id": CONFIG_ID,
        "nonce": encode(NONCE),
        "public_key": point.hex(),
        "report_data": hashlib.sha512(b"".join(map(lp, parts))).hexdigest(),
        "sender": sender.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex(),
        "shared_secret": runtime.exchange(ec.ECDH(), sender).hex(),
        "cas_key": hashlib.sha256(spki).hexdigest(),
        "sealed": sealed,
        "payload": payload,
    }
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(vector, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
