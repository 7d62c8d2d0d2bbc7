from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from sconify.cas.request_log import JsonFormatter, begin_request, log_request, request_id


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("request log test")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    yield written
    log.removeHandler(handler)


def test_each_line_is_an_object_with_the_request_s_id(stream: io.StringIO) -> None:
    log = logging.getLogger("request log test")
    new = begin_request()
    log.warning('quote " and\nnewline %s', "\u2028")
    log_request(log, address="::1", client=None, method="GET", path="/v1\\n", status=404, milliseconds=1.5)
    message, request = map(json.loads, stream.getvalue().splitlines())
    assert message["message"] == 'quote " and\nnewline \u2028'
    assert message["level"] == "warning"
    assert request | {"time": ""} == {
        "time": "",
        "level": "info",
        "event": "request",
        "address": "::1",
        "method": "GET",
        "path": "/v1\\n",
        "status": 404,
        "milliseconds": 1.5,
        "request_id": new,
    }
    assert datetime.fromisoformat(request["time"]).tzinfo is not None


def test_ids_are_new_with_each_request() -> None:
    assert begin_request() != begin_request()
    assert request_id.get() is not None
