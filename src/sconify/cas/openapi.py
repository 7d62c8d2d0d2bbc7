"""The OpenAPI description of both APIs of the CAS, as ``docs/openapi.json`` publishes it (``make schema``)."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

import sconify
from sconify.cas.messages import AdvanceRequest, AttestRequest, ChallengeRequest, ExitRequest, ProvisionRequest

_HEX32 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_.~-]+(/[A-Za-z0-9_.~-]+)*$", "maxLength": 512}
_ERROR = {
    "type": "object",
    "required": ["msg", "remedy", "version"],
    "properties": {
        "msg": {"type": "array", "items": _TEXT, "minItems": 1},
        "remedy": {"type": ["string", "null"]},
        "version": _TEXT,
    },
    "additionalProperties": False,
}
_TAG_CLIENT, _TAG_ENCLAVE = "client API (port 8081)", "enclave API (port 18765)"


def openapi() -> str:
    """Return the description as text."""
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Configuration and Attestation Service",
            "version": sconify.__version__,
            "description": "docs/protocol.md says what it means. Clients of the client API are known by the key of "
            "their TLS certificate; runs at the enclave API by the token that came with their configuration.",
        },
        "paths": {**_client_paths(), **_enclave_paths()},
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "certificate": {"type": "mutualTLS"},
                "run": {"type": "http", "scheme": "bearer"},
            },
        },
    }
    return json.dumps(document, indent=2) + "\n"


def _client_paths() -> dict[str, Any]:
    session = _object(session=_TEXT, hash=_HEX32, version=_COUNT, created_at=_COUNT)
    version = _object(hash=_HEX32, version=_COUNT, created_at=_COUNT)
    text = {"application/yaml": {"schema": _TEXT}, "application/jose+json": {"schema": _TEXT}}
    create = _operation(
        "Create or update a session", _TAG_CLIENT, 201, _object(hash=_HEX32), body=text, security="certificate"
    )
    names = _object(sessions={"type": "array", "items": _TEXT}, more={"type": "boolean"})
    attested = _object(evidence={"type": "object"}, mode={"enum": ["debug", "production"]}, key=_TEXT)
    status = _object(status={"const": "ok"})
    return {
        "/v1/sessions": {
            "post": create,
            "get": _operation(
                "List sessions", _TAG_CLIENT, 200, names,
                parameters=[_query("namespace", _NAME), _query("after", _TEXT)], security="certificate",
            ),
        },
        "/session": {"post": create},
        "/v1/encrypted_sessions": {
            "put": _operation(
                "Create or update a session that only this CAS can read", _TAG_CLIENT, 201, _object(hash=_HEX32),
                body={"application/jose": {"schema": _TEXT}},
            )
        },
        "/v1/encryption_key": {
            "get": _operation(
                "The key to which sessions are encrypted", _TAG_CLIENT, 200,
                _object(key=_object(kty=_TEXT, crv=_TEXT, x=_TEXT, y=_TEXT)),
            )
        },
        "/v1/sessions/{name}": {
            "get": _operation(
                "Read a session", _TAG_CLIENT, 200, session,
                parameters=[_path("name", _NAME), _query("hash", _HEX32)], security="certificate",
            )
        },
        "/v1/history/{name}": {
            "get": _operation(
                "Read what versions a session has", _TAG_CLIENT, 200,
                _object(versions={"type": "array", "items": version}),
                parameters=[_path("name", _NAME)], security="certificate",
            )
        },
        "/v1/values/{query}": {
            "get": _operation(
                "Read public values", _TAG_CLIENT, 200, {"type": "object"},
                parameters=[_path("query", {"type": "string", "pattern": "^session=[a-z]+(,secret=[a-z]+)?$"})],
            )
        },
        "/v1/attest": {
            "get": _operation(
                "Attest the CAS", _TAG_CLIENT, 200, attested, parameters=[_query("nonce", _HEX32, required=True)]
            ),
            "post": _operation(
                "Attest a service and get its configuration", _TAG_ENCLAVE, 200,
                _object(sealed=_TEXT, session_token=_TEXT), body=_json(AttestRequest),
            ),
        },
        "/v1/version": {"get": _operation("The version", _TAG_CLIENT, 200, _object(version=_TEXT))},
        "/v1/health": {"get": _operation("Whether the CAS is alive", _TAG_CLIENT, 200, status)},
        "/v1/ready": {"get": _operation("Whether the CAS can serve", _TAG_CLIENT, 200, status)},
        "/v1/provision": {
            "post": _operation(
                "Become the owner of a new CAS", _TAG_CLIENT, 201, _object(owner=_TEXT),
                body=_json(ProvisionRequest), security="certificate",
            )
        },
    }  # fmt: skip


def _enclave_paths() -> dict[str, Any]:
    state = _object(root={"anyOf": [_HEX32, {"type": "null"}]}, counter=_COUNT)
    name = _path("name", {"type": "string", "pattern": "^[A-Za-z0-9_.~-]{1,128}$"})
    challenge = _object(nonce=_TEXT, expires_in=_COUNT)
    return {
        "/v1/challenge": {
            "post": _operation("Get a nonce", _TAG_ENCLAVE, 200, challenge, body=_json(ChallengeRequest))
        },
        "/v1/exit": {
            "post": _operation("Say how a run ended", _TAG_ENCLAVE, 204, None, body=_json(ExitRequest), security="run")
        },
        "/v1/renew": {
            "post": _operation("Renew a run's lease", _TAG_ENCLAVE, 200, _object(expires_in=_COUNT), security="run")
        },
        "/v1/volumes/{name}": {
            "get": _operation("A volume's newest state", _TAG_ENCLAVE, 200, state, parameters=[name], security="run"),
            "post": _operation(
                "Record a newer state of a volume", _TAG_ENCLAVE, 204, None,
                parameters=[name], body=_json(AdvanceRequest), security="run",
            ),
        },
    }  # fmt: skip


def _operation(
    summary: str,
    tag: str,
    status: int,
    answer: dict[str, Any] | None,
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    security: str | None = None,
) -> dict[str, Any]:
    content = {"content": {"application/json": {"schema": answer}}} if answer is not None else {}
    error = {
        "description": "why not",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    operation: dict[str, Any] = {
        "summary": summary,
        "tags": [tag],
        "responses": {str(status): {"description": "done", **content}, "4XX": error, "503": error},
    }
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    if security:
        operation["security"] = [{security: []}]
    return operation


def _json(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    return {"application/json": {"schema": _inlined(schema, schema.pop("$defs", {}))}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    return [_inlined(value, definitions) for value in schema] if isinstance(schema, list) else schema


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _query(name: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


if __name__ == "__main__":
    print(openapi(), end="")
