from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import pkcs12

from sconify.cas.client_config import ClientConfig
from sconify.cli.own_identity import own
from sconify.errors import UserError
from sconify.policy.keyhash import key_hash, spki_der


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCONE_CLI_CONFIG", str(tmp_path / "config.json"))


def export(tmp_path: Path, passphrase: str) -> Path:
    word, file = tmp_path / "passphrase", tmp_path / "me.p12"
    word.write_text(passphrase)
    word.chmod(0o600)
    CliRunner().invoke(own, ["export", f"--passphrase-file={word}", str(file)], catch_exceptions=False)
    return file


def test_the_identity_is_exported_under_its_passphrase_and_for_its_owner_only(tmp_path: Path) -> None:
    file = export(tmp_path, "correct horse\n")
    assert file.stat().st_mode & 0o777 == 0o600
    key, certificate, _ = pkcs12.load_key_and_certificates(file.read_bytes(), b"correct horse")
    assert certificate is not None
    assert key is not None
    assert key_hash(spki_der(certificate.public_key())) == ClientConfig.default().identity().key_hash
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_key_and_certificates(file.read_bytes(), b"wrong")


def test_nothing_is_written_over_and_no_passphrase_is_no_export(tmp_path: Path) -> None:
    export(tmp_path, "correct horse")
    with pytest.raises(UserError, match="exists"):
        export(tmp_path, "correct horse")
    (tmp_path / "me.p12").unlink()
    with pytest.raises(UserError, match="empty"):
        export(tmp_path, "\n")
    assert not (tmp_path / "me.p12").exists()
