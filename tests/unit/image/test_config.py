from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import BugError, UntrustedDataError
from sconify.image.config import HistoryEntry, ImageConfig

texts = st.text(min_size=1, max_size=10)
variables = st.dictionaries(st.from_regex(r"\A[A-Z_]{1,8}\Z"), st.text(max_size=10), max_size=4)
configs = st.builds(
    ImageConfig,
    entrypoint=st.lists(texts, max_size=3).map(tuple),
    cmd=st.lists(texts, max_size=3).map(tuple),
    env=variables,
    working_dir=texts,
    user=texts,
    labels=variables,
    exposed_ports=st.lists(st.sampled_from(["80/tcp", "9/udp"]), unique=True).map(sorted).map(tuple),
    volumes=st.lists(texts, unique=True).map(sorted).map(tuple),
    stop_signal=st.sampled_from(["", "SIGINT"]),
    healthcheck=st.sampled_from([None, {"Test": ["CMD", "true"]}]),
    created=st.none() | st.integers(0, 2**33),
    history=st.just((HistoryEntry(created_by="one"), HistoryEntry(created_by="two", empty_layer=True))),
    diff_ids=st.just(("sha256:" + "a" * 64,)),
)


@given(configs)
def test_what_is_written_is_read_back(config: ImageConfig) -> None:
    document = config.to_oci(diff_ids=config.diff_ids)
    again = ImageConfig.parse(document, label="x")
    assert again == ImageConfig(
        **{name: getattr(config, name) for name in config.__dataclass_fields__ if name != "raw"},
        raw=json.loads(document),
    )
    assert again.to_oci(diff_ids=config.diff_ids) == document


def test_null_and_missing_mean_empty() -> None:
    nulls = {"config": {"Entrypoint": None, "Cmd": None, "Env": None, "Labels": None, "Volumes": None}, "rootfs": None}
    for document in (nulls, {}):
        config = ImageConfig.parse(json.dumps(document).encode(), label="x")
        assert (config.entrypoint, config.cmd, config.env, config.volumes, config.diff_ids) == ((), (), {}, (), ())
        assert config.created is None


def test_a_command_may_be_one_string_and_variables_may_lack_a_value() -> None:
    document = {
        "config": {"Cmd": "run", "Env": ["A=1=2", "B", "A=3"]},
        "created": "2024-01-02T03:04:05.678901234+01:00",
    }
    config = ImageConfig.parse(json.dumps(document).encode(), label="x")
    assert config.cmd == ("run",)
    assert config.env == {"A": "3", "B": ""}
    assert config.created == 1704161045


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ([], "not a JSON object"),
        ({"config": []}, "config is"),
        ({"config": {"Env": ["A=1", 2]}}, "Env has an item"),
        ({"config": {"Cmd": 3}}, "Cmd is 3"),
        ({"config": {"Labels": {"a": 1}}}, "Labels has a value"),
        ({"config": {"User": 0}}, "User is 0"),
        ({"rootfs": {"diff_ids": [None]}}, "diff_ids"),
        ({"history": [1]}, "history"),
        ({"created": "yesterday"}, "created is 'yesterday'"),
        ({"created": "2024-13-45T99:99:99Z"}, "created is"),
    ],
)
def test_malformed_configurations_are_refused(document: Any, match: str) -> None:
    with pytest.raises(UntrustedDataError, match=match) as caught:
        ImageConfig.parse(json.dumps(document).encode(), label="the image")
    assert "the image" in caught.value.what


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(UntrustedDataError, match="is not JSON"):
        ImageConfig.parse(data, label="the image")


def test_a_history_must_fit_the_layers() -> None:
    config = ImageConfig(history=(HistoryEntry(created_by="one"),))
    with pytest.raises(BugError, match="2 layers"):
        config.to_oci(diff_ids=["a", "b"])
