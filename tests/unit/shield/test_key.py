from __future__ import annotations

from pathlib import Path

import pytest

from sconify.errors import UserError
from sconify.shield.key import file_system_key


def test_a_key_without_a_file_is_fresh() -> None:
    assert len(file_system_key(None)) == 32
    assert file_system_key(None) != file_system_key(None)


def test_a_key_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("ab" * 32 + "\n")
    file.chmod(0o600)
    assert file_system_key(file) == b"\xab" * 32


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "ab " * 31])
def test_other_content_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(UserError, match="holds no key: expected 64 hex digits") as caught:
        file_system_key(file)
    assert not text or text not in caught.value.diagnostics()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("ab" * 32)
    file.chmod(0o640)
    with pytest.raises(UserError, match="is open to other users: got mode 0640, expected 0600") as caught:
        file_system_key(file)
    assert caught.value.remedy == f"chmod 600 {file}"


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: No such file"):
        file_system_key(tmp_path / "none")
