"""``--config FILE``: any option of ``sconify_image`` in a YAML file; what stands on the command line wins.

The keys are the long names of the options without dashes, and ``version``. ``docs/sconify.schema.json`` is its schema.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import click

from sconify.cli.option_groups import GroupedOption
from sconify.errors import UserError
from sconify.policy.document import Document, Number, parse_document
from sconify.request import read_policy_file

VERSION = "1"
_NOT_IN_FILES = frozenset({"config"})
_SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


def load_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Take the file's values as defaults of the command's options: a callback of click's.

    Raises:
        UserError: The file can't be read, or a key or value in it is wrong; the message has the line.
    """
    if path is not None:
        text = read_policy_file(path, flag="--config")
        context.default_map = {**(context.default_map or {}), **parse_config(text, context.command, source=str(path))}
    return path


def parse_config(text: str, command: click.Command, *, source: str) -> dict[str, Any]:
    """Return the values of a configuration file, by the names that click gives to options.

    Args:
        text: The YAML text.
        command: The command whose options it may have.
        source: Where the text is from, for messages.

    Raises:
        UserError: It is no YAML mapping, its version is unknown, or a key or value is wrong.
    """
    try:
        document = parse_document(text)
    except UserError as error:
        raise UserError(f"{source}: {error.what}", remedy=f"mend {source}") from None
    data = document.data
    if not isinstance(data, dict):
        raise UserError(f"{source} is no mapping of options", remedy="begin it with version: 1")
    version = data.pop("version", None)
    if not isinstance(version, Number) or version.source != VERSION:
        got = "none" if version is None else getattr(version, "source", str(version))
        raise UserError(
            f"{source}: got version {got}, expected {VERSION}", remedy=f"write version: {VERSION} in {source}"
        )
    options = _options(command)
    values: dict[str, Any] = {}
    for key, value in data.items():
        where = f"{source}, {document.key_mark((), key)}"
        option = options.get(key.replace("_", "-"))
        if option is None or option.name is None:
            near = difflib.get_close_matches(key, options, n=1)
            raise UserError(f"{where}: there is no option {key!r}", remedy=f"write {near[0]}" if near else "remove it")
        values[option.name] = _value(option, value, where=where, document=document)
    return values


def config_schema(command: click.Command) -> dict[str, Any]:
    """Return the JSON Schema of a command's configuration files."""
    properties: dict[str, Any] = {"version": {"const": int(VERSION)}}
    for key, option in _options(command).items():
        properties[key] = {"description": option.help, **_type_schema(option)}
    return {
        "$schema": _SCHEMA_ID,
        "title": "Configuration of sconify_image",
        "type": "object",
        "required": ["version"],
        "additionalProperties": False,
        "properties": properties,
    }


def _options(command: click.Command) -> dict[str, GroupedOption]:
    options = [parameter for parameter in command.params if isinstance(parameter, GroupedOption)]
    return {option.key: option for option in options if option.key not in _NOT_IN_FILES}


def _type_schema(option: GroupedOption) -> dict[str, Any]:
    scalar: dict[str, Any] = {"type": ["string", "number"]}
    if isinstance(option.type, click.Choice):
        texts: list[Any] = list(option.type.choices)
        numbers = [int(text) for text in texts if text.isdigit()]
        scalar = {"enum": texts + numbers}
    if option.is_flag:
        return {"type": "boolean"}
    if not option.multiple:
        return scalar
    forms: list[dict[str, Any]] = [scalar, {"type": "array", "items": scalar}]
    if option.key == "env":
        forms.append({"type": "object", "additionalProperties": {"type": ["string", "number"]}})
    return {"anyOf": forms}


def _value(option: GroupedOption, value: object, *, where: str, document: Document) -> Any:
    if option.is_flag:
        if not isinstance(value, bool):
            raise UserError(
                f"{where}: {option.key} is {_shown(value)}, expected true or false", remedy="write one of them"
            )
        return value
    if not option.multiple:
        return _text(option, value, where)
    if option.key == "env" and isinstance(value, dict):
        return [f"{name}={_text(option, item, where)}" for name, item in value.items()]
    items = value if isinstance(value, list) else [value]
    return [_text(option, item, f"{where}, {document.mark((option.key, n))}") for n, item in enumerate(items)]


def _text(option: GroupedOption, value: object, where: str) -> str:
    if isinstance(value, Number):
        return value.source
    if not isinstance(value, str):
        raise UserError(f"{where}: {option.key} is {_shown(value)}, expected text", remedy="write it in quotes")
    return value


def _shown(value: object) -> str:
    """Return the kind of a value; the value itself may be a secret."""
    kinds = {"dict": "a mapping", "list": "a list", "bool": "a boolean", "NoneType": "nothing"}
    return kinds.get(type(value).__name__, "text")


def main() -> None:
    """Print the schema: ``python -m sconify.cli.config_file > docs/sconify.schema.json``."""
    from sconify.cli.sconify_image import sconify_image  # noqa: PLC0415 - it has the option that uses this module

    print(json.dumps(config_schema(sconify_image), indent=2))


if __name__ == "__main__":
    main()
