from __future__ import annotations

from pathlib import Path

import pytest

from sconify.assemble import PackLayers, source_date_epoch
from sconify.errors import UserError
from sconify.image.layer_writer import LayerWriter
from sconify.shield.protect import BuiltFile


def test_the_time_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert source_date_epoch() == 0
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert source_date_epoch() == 1_700_000_000


@pytest.mark.parametrize("text", ["", "now", "-1", "1.5", "\u0661"])
def test_what_is_no_time(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(UserError) as caught:
        source_date_epoch()
    assert caught.value.what == f"SOURCE_DATE_EPOCH={text} is no number of seconds"
    assert caught.value.remedy == "unset it or give a number"


def test_layers_of_packs_are_those_of_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    expected, packs = [], []
    for number in range(6):
        content = bytes([number]) * 100_000
        writer = LayerWriter(tmp_path / "expected.tar", epoch=0)
        writer.add_bytes(f"/.sconify/pack{number}", content, mode=0o444)
        expected.append(writer.finish().digest)
        # Some have room for the headers of the layer, others don't.
        gap = 4096 if number % 2 else 0
        (tmp_path / f"pack{number}").write_bytes(bytes(gap) + content)
        packs.append(BuiltFile(f"/.sconify/pack{number}", tmp_path / f"pack{number}", gap=gap))
    with PackLayers(tmp_path) as layers:
        for pack in packs:
            layers.make(pack)
        assert [layers.layer(pack).digest for pack in packs] == expected


def test_a_pack_that_can_not_be_read_is_an_error_when_it_is_needed(tmp_path: Path) -> None:
    gone = BuiltFile("/.sconify/pack0", tmp_path / "gone")
    with PackLayers(tmp_path) as layers:
        layers.make(gone)
        with pytest.raises(OSError, match="gone"):
            layers.layer(gone)
