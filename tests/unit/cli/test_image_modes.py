"""Options of one mode are refused in the other, each with the flag that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sconify.cli.sconify_image import sconify_image
from sconify.errors import UserError

REQUIRED = ("--from=oci:/nowhere", "--to=made", "--binary=/bin/x", "--explain")


@pytest.mark.parametrize(
    ("options", "what", "remedy"),
    [
        (["--binary-fs", "--dir=/app"], "--dir=/app and --binary-fs exclude each other", "--fs-dir=/app"),
        (["--binary-fs", "--trace=FILE"], "--trace and --binary-fs exclude each other", "--fs-dir"),
        (["--fs-dir=/app"], "--fs-dir needs --binary-fs", "--dir"),
        (["--fs-file=/app"], "--fs-file needs --binary-fs", "--binary-fs"),
        (["--binary-fs-plain"], "--binary-fs-plain needs --binary-fs", "--binary-fs"),
        (["--disable-binary-fs-defaults"], "--disable-binary-fs-defaults needs --binary-fs", "--binary-fs"),
        (["--binary-fs", "--binary-fs-plain", "--key-file=KEY"], "--binary-fs-plain and --key-file", "one of the two"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], what: str, remedy: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(sconify_image, [*REQUIRED, *options])
    assert isinstance(done.exception, UserError)
    assert what in done.exception.what
    assert remedy in str(done.exception.remedy)
