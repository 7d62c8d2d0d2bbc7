"""The OpenAPI description, and requests made of it at random: none makes the CAS fail.

``SCONIFY_API_EXAMPLES`` says how many requests are made for each operation.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from sconify.cas.openapi import openapi
from tests.cas_server import PROJECT, Client, RunningCas, session_text

EXAMPLES = int(os.environ.get("SCONIFY_API_EXAMPLES", "4"))
schemathesis.serializer.alias("application/jose", "text/plain")
schema = schemathesis.openapi.from_dict(json.loads(openapi()))


@pytest.fixture(scope="module")
def known(cas: RunningCas, tmp_path_factory: pytest.TempPathFactory) -> tuple[Client, str]:
    """A client with a session, and the token of a run."""
    client = Client.make(tmp_path_factory.mktemp("client"), cas.client_port)
    extra = "images: [{name: i, volumes: [{name: v, path: /v}]}]\nvolumes: [{name: v}]"
    client.upload(session_text("known", extra=extra).replace("- name: web", "- name: web\n    image_name: i"))
    return client, str(cas.enclave("known/web").attest().body["session_token"])


def test_the_published_description_is_that_of_the_code() -> None:
    assert Path(PROJECT, "docs/openapi.json").read_text() == openapi(), "run make schema"


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
def test_no_request_makes_the_cas_fail(
    case: schemathesis.Case[Any], cas: RunningCas, known: tuple[Client, str]
) -> None:
    client, token = known
    at_enclave = "enclave" in case.operation.definition.raw["tags"][0]
    port = cas.enclave_port if at_enclave else cas.client_port
    files = (str(client.directory / "cert.pem"), str(client.directory / "key.pem"))
    headers = {"Authorization": f"Bearer {token}"} if at_enclave else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of urllib3: the certificate is self-signed
        response = case.call(
            base_url=f"https://127.0.0.1:{port}", headers=headers, verify=False, cert=None if at_enclave else files
        )
        case.validate_response(
            response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
        )
