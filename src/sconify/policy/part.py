"""What all parts of the session language share: strictness, errors with their place, variables in place of values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Location: TypeAlias = tuple[str | int, ...]

TAG: Final = "kind:"
"""How the tags of unions begin: they stand in the locations of pydantic's errors, but not in the text."""

_WORD = re.compile(r"[A-Za-z_-]{1,40}")
_NEAR_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")
_VARIABLE = re.compile(r"\$\$SCONE::([A-Za-z0-9_.~-]+)((?::[a-z0-9-]+)*)\$\$")


def invalid(message: str) -> PydanticCustomError:
    """Return the error of a value that is not as the language demands; the message must not show secrets."""
    return PydanticCustomError("session", "{message}", {"message": message})


def invalid_at(location: Location, message: str) -> PydanticCustomError:
    """Return the error of a check that spans parts, with the place (from the top) where it is to be mended."""
    return PydanticCustomError("session_at", "{message}", {"message": message, "location": location})


class Part(BaseModel):
    """A part of a session: frozen, strict, and an unknown key is answered with the nearest known one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys as they stand in the text."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    def members(self) -> dict[str, object]:
        """Return the members that were given, by the keys of the text."""
        fields = type(self).model_fields
        return {fields[name].alias or name: getattr(self, name) for name in fields if name in self.model_fields_set}

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: object) -> object:
        if isinstance(data, cls):
            return data
        known = cls.keys()
        if not isinstance(data, dict):
            raise invalid(f"expected a mapping with the keys {', '.join(known)}")
        for key in data:
            if key not in known:
                raise unknown_key(key, known)
        return data


def unknown_key(key: str, known: list[str]) -> PydanticCustomError:
    """Return the error of a key that a mapping does not have."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
    # What is no word is likely a value: a secret behind a colon without a space, for example.
    word = _WORD if not near else _NEAR_WORD
    shown = f' "{key}"' if word.fullmatch(key) else ", which is no word (is a space missing behind a colon?)"
    return PydanticCustomError("session_key", "{message}", {"message": f"unknown key{shown}: {hint}", "key": key})


@dataclass(frozen=True)
class Variable:
    """A placeholder in place of a value: ``$$SCONE::NAME$$`` or ``$$SCONE::NAME:FORMAT$$``.

    Attributes:
        secret: The name of the secret whose value stands here once it is resolved.
        format: The format, or nothing.
    """

    secret: str
    format: str = ""

    @classmethod
    def parse(cls, text: str) -> Variable | None:
        """Return the variable that a text is as a whole, or None."""
        match = _VARIABLE.fullmatch(text)
        return cls(match[1], match[2].removeprefix(":")) if match else None

    def __str__(self) -> str:
        return f"$$SCONE::{self.secret}{':' if self.format else ''}{self.format}$$"


class _OrVariable:
    """Lets a variable stand in place of a value.

    The static type stays that of the value: who uses a part that may hold variables gets it from ``resolve`` first.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            _accept_variable,
            handler(source),
            serialization=core_schema.wrap_serializer_function_ser_schema(_dump_variable, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "string", "pattern": f"^{_VARIABLE.pattern}$"}]}


OR_VARIABLE: Final = _OrVariable()


def _accept_variable(value: object, handler: Callable[[object], object]) -> object:
    if isinstance(value, Variable):
        return value
    variable = Variable.parse(value) if isinstance(value, str) else None
    return variable if variable is not None else handler(value)


def _dump_variable(value: object, handler: Callable[[object], object], info: core_schema.SerializationInfo) -> object:
    if isinstance(value, Variable):
        return str(value) if info.mode == "json" else value
    return handler(value)


class _OneOrMore:
    """Accepts a list, or a single element in place of a list of one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: tuple(value) if isinstance(value, list | tuple) else (value,), handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        inner = handler(schema)
        return {"anyOf": [inner["items"], inner]} if "items" in inner else inner


ONE_OR_MORE: Final = _OneOrMore()

P = TypeVar("P", bound=Part)


def variables(part: object, at: Location = ()) -> Iterator[tuple[Location, Variable]]:
    """Yield each variable in a part with its place."""
    if isinstance(part, Variable):
        yield at, part
    elif isinstance(part, Part):
        for name, field in type(part).model_fields.items():
            yield from variables(getattr(part, name), (*at, field.alias or name))
    elif isinstance(part, tuple):
        for index, member in enumerate(part):
            yield from variables(member, (*at, index))


def resolve(part: P, lookup: Callable[[Variable], object]) -> P:
    """Return a part with what its variables stand for in their place; a list in place of an element is spliced.

    Args:
        part: The part.
        lookup: Returns the plain data that a variable stands for.

    Raises:
        pydantic.ValidationError: What a variable stands for does not fit, or holds variables itself.
    """
    if next(variables(part), None) is None:
        return part
    return type(part).model_validate(_filled(part, lookup))


def _filled(data: object, lookup: Callable[[Variable], object]) -> object:
    if isinstance(data, Variable):
        found = lookup(data)
        if _holds_variable(found):
            raise invalid(f"the value of {data} holds a variable itself")
        return found
    if isinstance(data, Part):
        data = data.members()
    if isinstance(data, dict):
        return {key: _filled(value, lookup) for key, value in data.items()}
    if isinstance(data, list | tuple):
        result: list[object] = []
        for value in data:
            filled = _filled(value, lookup)
            if isinstance(value, Variable) and isinstance(filled, list | tuple):
                result += filled
            else:
                result.append(filled)
        return result
    return data


def _holds_variable(data: object) -> bool:
    if isinstance(data, dict):
        return any(_holds_variable(value) for value in data.values())
    if isinstance(data, list | tuple):
        return any(_holds_variable(value) for value in data)
    return isinstance(data, str) and "$$SCONE::" in data
