"""What every part of a session's model shares."""

from __future__ import annotations

import difflib

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from sconify.policy.fields import invalid


class Part(BaseModel):
    """A part of a session: frozen, strict, and an unknown key is answered with the nearest known one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise invalid(f"expected a mapping with the keys {', '.join(cls.model_fields)}")
        for key in data:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.5)
                hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(cls.model_fields)}"
                raise PydanticCustomError(
                    "session_key", "{message}", {"message": f'unknown key "{key[:60]}": {hint}', "key": key}
                )
        return data
