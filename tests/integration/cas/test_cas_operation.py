"""What those who run a CAS ask it: health, readiness, metrics, and that no client can take it all."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cas_server import Client, RunningCas, running_cas, session_text


def metrics(client: Client) -> str:
    command = ["curl", "--silent", "--insecure", f"https://127.0.0.1:{client.port}/v1/metrics"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_health_and_readiness_need_no_certificate(cas: RunningCas, client: Client) -> None:
    for path in ("/v1/health", "/v1/ready"):
        answer = client.request(path, identify=False)
        assert (answer.status, answer.body) == (200, {"status": "ok"})
        assert client.request(path, "-X", "POST").status == 405


def test_a_cas_without_an_owner_is_healthy_but_not_ready(tmp_path: Path) -> None:
    with running_cas(tmp_path / "state", "--require-provisioning") as own:
        client = Client.make(tmp_path / "c", own.client_port)
        assert client.request("/v1/health").status == 200
        assert client.request("/v1/ready").status == 503


def test_metrics_count_and_name_nobody(cas: RunningCas, client: Client, name: str) -> None:
    client.upload(session_text(name))
    cas.enclave(f"{name}/web").attest()
    cas.enclave(f"{name}/web").attest(evidence={"kind": "made up"})
    client.request("/v1/made-up/path")
    text = metrics(client)
    assert 'sconify_cas_requests_total{api="client",route="/v1/sessions",status="201"}' in text
    assert 'sconify_cas_attestations_total{kind="simulated",outcome="accepted"}' in text
    assert 'sconify_cas_attestations_total{kind="other",outcome="refused"}' in text
    assert 'sconify_cas_request_seconds_bucket{api="enclave",le="0.001",route="/v1/challenge"}' in text
    assert name not in text
    assert "made-up" not in text


def test_an_address_that_asks_too_much_is_told_to_wait(tmp_path: Path) -> None:
    with running_cas(tmp_path / "state", "--rate-limit=2") as own:
        client = Client.make(tmp_path / "c", own.client_port)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.request("/v1/version"), range(30)))
        statuses = [answer.status for answer in answers]
        assert statuses.count(200) >= 8
        assert statuses.count(429) >= 5
        assert all("too many requests" in answer.message for answer in answers if answer.status == 429)
        assert own.enclave("a/b").challenge()  # the other API counts by itself


def test_structured_logs_name_each_request_and_no_secret(tmp_path: Path) -> None:
    with running_cas(tmp_path / "state", "--log-format=json") as server:
        client = Client.make(tmp_path / "client", server.client_port)
        text = session_text("logged", extra="secrets: [{name: s, kind: ascii, value: hunter2}]")
        assert client.upload(text).status == 201
        assert client.request("/v1/sessions/nothing?hash=hunter2").status == 404
        headers = subprocess.run(
            ["curl", "-sSki", "-H", "Authorization: hunter2", f"https://127.0.0.1:{server.client_port}/v1/version"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    log = server.log.read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["method"], line["path"], line["status"]) for line in requests] == [
        ("POST", "/v1/sessions", 201),
        ("GET", "/v1/sessions/nothing", 404),
        ("GET", "/v1/version", 200),
    ]
    assert requests[0]["client"] == requests[1]["client"]
    assert "client" not in requests[2]
    assert f"X-Request-Id: {requests[2]['request_id']}" in headers
    assert len({line["request_id"] for line in requests}) == 3
    assert "hunter2" not in log
