"""The JSON Schema of the session language, as ``docs/session.schema.json`` publishes it (``make schema``).

An editor that knows it completes keys and marks mistakes in YAML files. It says less than the CAS checks: what must
hold between the parts of a session has no place in it.
"""

from __future__ import annotations

import json

from sconify.policy.model import Session

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def session_schema() -> str:
    """Return the JSON Schema as text."""
    schema = Session.model_json_schema(by_alias=True)
    return json.dumps({"$schema": _DRAFT, **schema}, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(session_schema(), end="")
