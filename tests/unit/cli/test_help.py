"""The help names every option of the seed's list, with its default; the README's commands use options that exist."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from sconify.cli.option_groups import GroupedOption
from sconify.cli.sconify_image import sconify_image
from tests.containers import PROJECT

SEED: dict[str, str | None] = {
    "from": None,
    "to": None,
    "binary": None,
    "name": "TO_IMAGE without '/'",
    "base": "an empty one",
    "command": "ENTRYPOINT + CMD of the native image",
    "env": None,
    "cli": None,
    "service-name": "service",
    "dir": None,
    "plain": None,
    "plain-file": None,
    "host-path": None,
    "cas": "an embedded one on this machine, for tests",
    "cas-debug": None,
    "las": "localhost:18766",
    "trace": None,
    "template": "a built-in one",
    "session": "session.yml in the build resources",
    "secrets": None,
    "injectedfiles": None,
    "namespace": "a random one, created",
    "create-namespace": None,
    "identity": "~/.cas/config.json",
    "push-image": None,
    "disable-binary-symlink-detection": None,
    "disable-copy-shared-object-dependencies": None,
    "disable-copy-service-libraries": None,
    "disable-copy-envvars": None,
    "disable-session-upload": None,
    "disable-attestation": None,
    "disable-session-security-attestation": None,
    "disable-replace-unsconifiable-binaries": None,
    "binary-fs": None,
    "fs-dir": None,
    "fs-file": None,
    "crosscompiler": None,
    "disable-binary-fs-defaults": None,
    "heap": "1G",
    "stack": "1M",
    "dlopen": "1",
    "fork": "allowed",
    "debug": None,
    "verbose": None,
    "no-color": None,
    # Of later versions.
    "allow-debug-mode": None,
    "allow-tcb-vulnerabilities": None,
    "disable-update-session-if-exists": None,
    "disable-ld-library-path-in-session": None,
    "dry-run": None,
    "log": "info",
}
"""The options, and their defaults here. Where a default of the seed's names a public image or CAS, ours is local."""


@pytest.fixture(scope="module")
def shown() -> str:
    result = CliRunner().invoke(sconify_image, ["--help"], terminal_width=120)
    assert result.exit_code == 0
    return result.output


def paragraph(shown: str, option: str) -> str:
    """Return what the help says about an option, in one line."""
    match = re.search(rf"^  (?:-\w, )?(?:--[\w-]+[,/ ] ?)*--{option}\b(.*?)(?=^  -|^\S|^$)", shown, re.M | re.S)
    assert match is not None, f"--{option} is not in the help"
    return " ".join(match[0].split())


@pytest.mark.parametrize("option", SEED)
def test_the_help_names_it_with_its_default(shown: str, option: str) -> None:
    default = SEED[option]
    text = paragraph(shown, option)
    if default is not None:
        assert f"[default: {default}]" in text


def test_every_option_has_a_heading_and_a_text() -> None:
    for parameter in sconify_image.params:
        if isinstance(parameter, GroupedOption):
            assert parameter.help, parameter.name
            assert parameter.help.rstrip("]").endswith((".", parameter.help.rpartition("[")[2].rstrip("]")))


def known_options() -> set[str]:
    return {name for parameter in sconify_image.params for name in (*parameter.opts, *parameter.secondary_opts)}


def mentioned(*documents: str) -> set[str]:
    text = "".join((PROJECT / document).read_text() for document in documents)
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))


def test_the_documentation_names_every_option() -> None:
    options = {name for name in known_options() if name.startswith("--")} - {"--help", "--version"}
    assert options - mentioned("README.md", "docs/sconify_image.md") == set()


def test_the_documentation_names_no_other_option() -> None:
    """But for those of the other commands that it shows, and the placeholder for any."""
    others = {"--help", "--env", "--file", "--seconds", "--opt", "--volume"}
    assert mentioned("docs/sconify_image.md") - known_options() - others == set()


def test_the_readme_uses_options_that_exist() -> None:
    known = known_options()
    text = (PROJECT / "README.md").read_text()
    for block in re.findall(r"^ *(?:SESSION=\$\()?sconify_image .*?(?<!\\)$", text, re.M | re.S):
        for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", block):
            assert option in known, option


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "a", "--to", "oci:/x", "--binary", "b", "--env", "A=1", "--env=B=2"],
        ["--from=a", "--to=oci:/x", "--binary=b", "--env=A=1", "--env", "B=2", "--create_namespace"],
    ],
)
def test_both_ways_to_write_an_option(arguments: list[str]) -> None:
    with sconify_image.make_context("sconify_image", arguments) as context:
        assert list(context.params["env"]) == ["A=1", "B=2"]


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(click.NoSuchOption) as caught:
        sconify_image.make_context("sconify_image", ["--binry=x"])
    assert "--binary" in caught.value.format_message()
