from __future__ import annotations

import pytest

from sconify.errors import UserError
from sconify.volume.state import VolumeState


def test_states_are_written_as_they_are_read() -> None:
    text = f"17:{'0a' * 32}"
    state = VolumeState.parse(text, flag="--expect")
    assert state == VolumeState(17, bytes([10] * 32))
    assert str(state) == text


@pytest.mark.parametrize("text", ["", "17", ":" + "0a" * 32, "0:" + "0a" * 32, "1:" + "0a" * 31, "1:" + "0g" * 32])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--expect={text} is no state"):
        VolumeState.parse(text, flag="--expect")
