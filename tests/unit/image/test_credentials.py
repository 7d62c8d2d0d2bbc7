from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sconify.image.credentials import helper_authfile

HOST = "registry.example:5000"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a ``config.json`` of Docker, where nothing else says anything of registries."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def test_the_store_becomes_a_helper_of_the_one_registry(docker: Path) -> None:
    docker.write_text(json.dumps({"credsStore": "desktop", "auths": {HOST: {}}}))
    made = helper_authfile(HOST, None)
    assert made is not None
    assert json.loads(made.read_text()) == {"credHelpers": {HOST: "desktop"}}
    assert helper_authfile(HOST, docker) == made


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"auths": {HOST: {"auth": "eDp5"}}},
        {"credsStore": "desktop", "auths": {HOST: {"auth": "eDp5"}}},
        {"credsStore": "desktop", "credHelpers": {HOST: "own"}},
        {"credsStore": "../../bin/sh"},
        {"credsStore": ""},
        {"credsStore": 7},
        [],
    ],
)
def test_what_skopeo_finds_itself_is_left_to_it(docker: Path, document: Any) -> None:
    docker.write_text(json.dumps(document))
    assert helper_authfile(HOST, None) is None


def test_a_login_of_skopeo_comes_first(docker: Path) -> None:
    docker.write_text(json.dumps({"credsStore": "desktop"}))
    assert helper_authfile(HOST, None) is not None
    login = docker.parent / "config/containers/auth.json"
    login.parent.mkdir(parents=True)
    login.write_text(json.dumps({"auths": {HOST: {"auth": "eDp5"}}}))
    assert helper_authfile(HOST, None) is None


def test_damaged_files_are_left_to_skopeo(docker: Path) -> None:
    docker.write_text("{")
    assert helper_authfile(HOST, None) is None
