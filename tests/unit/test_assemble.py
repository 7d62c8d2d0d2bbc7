from __future__ import annotations

import pytest

from sconify.assemble import source_date_epoch
from sconify.errors import UserError


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
