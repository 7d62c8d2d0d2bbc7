from __future__ import annotations

import json
from pathlib import Path

import pytest

from sconify.cli.config_file import config_schema, parse_config
from sconify.cli.image_options import request_of
from sconify.cli.sconify_image import sconify_image
from sconify.errors import UserError
from sconify.request import Request
from tests.containers import PROJECT

TEXT = """\
version: 1
from: native
to: oci:/out:x
binary: python3
dir: [/app, /tls]
plain: /data
env: {PORT: 8443, NAME: value}
create_namespace: true
dlopen: 2
heap: 256m
"""


def request(*arguments: str) -> Request:
    with sconify_image.make_context("sconify_image", list(arguments)) as context:
        return request_of(context.params)


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "sconify.yaml"
    file.write_text(TEXT)
    return f"--config={file}"


def test_a_file_holds_any_option(config: str) -> None:
    made = request(config)
    assert (str(made.native), made.binary, made.directories) == ("native:latest", "python3", ("/app", "/tls"))
    assert made.plain_directories == ("/data",)
    assert made.environment == (("PORT", "8443"), ("NAME", "value"))
    assert made.create_namespace
    assert made.variables["SCONE_ALLOW_DLOPEN"] == "2"
    assert made.variables["SCONE_HEAP"] == str(256 << 20)
    assert made.variables["SCONE_STACK"] == str(1 << 20)


def test_flags_win(config: str) -> None:
    made = request(config, "--binary=node", "--dir=/other", "--heap", "1g")
    assert (made.binary, made.directories) == ("node", ("/other",))
    assert made.variables["SCONE_HEAP"] == str(1 << 30)
    assert made.plain_directories == ("/data",)


@pytest.mark.parametrize(
    ("old", "new", "what", "remedy"),
    [
        ("version: 1\n", "", "got version none, expected 1", "version: 1"),
        ("version: 1", "version: 2", "got version 2, expected 1", "version: 1"),
        ("binary: python3", "binaries: python3", "line 4, column 1: there is no option 'binaries'", "write binary"),
        ("binary: python3", "config: x", "there is no option 'config'", ""),
        ("binary: python3", "binary: [a]", "binary is a list, expected text", "quotes"),
        ("create_namespace: true", "create-namespace: 'yes'", "expected true or false", "write one of them"),
        ("plain: /data", "plain: [{}]", "plain is a mapping, expected text", "quotes"),
        ("dir: [", "dir: [[", "not YAML", "mend file"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old: str, new: str, what: str, remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(TEXT.replace(old, new), sconify_image, source="file")
    assert what in caught.value.what
    assert remedy in (caught.value.remedy or "")


def test_no_mapping_is_refused() -> None:
    with pytest.raises(UserError, match="is no mapping of options"):
        parse_config("- a\n", sconify_image, source="file")


def test_the_schema_in_the_documentation_is_that_of_the_options() -> None:
    """Mend with: python -m sconify.cli.config_file > docs/sconify.schema.json."""
    assert json.loads((PROJECT / "docs/sconify.schema.json").read_text()) == config_schema(sconify_image)
