"""The console: what its pages show to whom, by curl; and that a real browser shows them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sconify.cas.identity import Identity
from tests.browser import PASSPHRASE, Browser
from tests.cas_server import OTHER_MEASUREMENT, Client, RunningCas, running_cas, session_text

SECRETS = "secrets: [{name: database, kind: ascii, value: hunter2-%d}, {name: made, kind: binary}]"


def identity(client: Client) -> Identity:
    pem = (client.directory / "key.pem").read_bytes() + (client.directory / "cert.pem").read_bytes()
    return Identity.from_pem(pem, source="the test")


def get(client: Client, path: str, *, identify: bool = True) -> tuple[int, str, str]:
    """Return status, headers and body."""
    who = ["--cert", str(client.directory / "cert.pem"), "--key", str(client.directory / "key.pem")] if identify else []
    command = ["curl", "-sSki", *who, f"https://127.0.0.1:{client.port}{path}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    headers, _, body = done.stdout.partition("\n\n")
    return int(headers.split()[1]), headers, body


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client.make(tmp_path_factory.mktemp("operator"), 0)


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client.make(tmp_path_factory.mktemp("author"), 0)


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory, operator: Client, author: Client) -> Iterator[RunningCas]:
    """A CAS with two sessions of an author: one with two versions, some attestations and a refusal."""
    state = tmp_path_factory.mktemp("console") / "state"
    with running_cas(state, f"--operator={identity(operator).key_hash}") as server:
        at = author.at(server.client_port)
        first = at.upload(session_text("team", extra=SECRETS % 1)).body["hash"]
        text = session_text("team", environment="{MODE: <b>fast</b>}", extra=SECRETS % 2)
        assert at.upload(f"predecessor: {first}\n{text}").status == 201
        assert at.upload(session_text("open", extra="access_policy: {read: ANY}")).status == 201
        service = server.enclave("team/web")
        begun = service.attest()
        assert begun.status == 200
        service.post("/v1/exit", {"status": 3, "signal": None}, token=begun.body["session_token"])
        nonce = service.challenge()
        evidence = service.evidence(nonce, measurement=OTHER_MEASUREMENT)
        assert service.attest(nonce=nonce, evidence=evidence).status == 403
        assert server.enclave("nobody/<script>alert(1)").attest().status == 404
        yield server


@pytest.fixture
def stranger(cas: RunningCas, tmp_path: Path) -> Client:
    return Client.make(tmp_path / "stranger", cas.client_port)


def test_a_session_s_page_has_its_history_and_names_of_secrets_but_no_value(cas: RunningCas, author: Client) -> None:
    status, _, page = get(author.at(cas.client_port), "/console/session?name=team")
    assert status == 200
    for shown in ("database", "made", "ab" * 32, "since version 1", "exit status 3", "check measurement"):
        assert shown in page
    assert "hunter2" not in page
    assert "0123456789abcdef" not in page
    assert "&lt;b&gt;fast" in page
    assert "<b>" not in page
    old = get(author.at(cas.client_port), "/console/session?name=team&version=1")[2]
    assert "not the one that counts" in old
    assert "fast" not in old


def test_a_difference_shows_that_a_secret_changed_without_either_value(cas: RunningCas, author: Client) -> None:
    _, _, page = get(author.at(cas.client_port), "/console/diff?name=team&old=1&new=2")
    assert page.count('class="added"') == page.count('class="removed"') + 1  # the predecessor is new
    assert page.count("value: (hidden: ") == 2
    assert "hunter2" not in page
    assert "Nothing." in get(author.at(cas.client_port), "/console/diff?name=team&old=2&new=2")[2]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/session?name=team", 403),
        ("/console/diff?name=team", 403),
        ("/console/audit", 403),
        ("/console/session?name=nothing", 404),
        ("/console/nothing", 404),
        ("/console/session?name=open&version=9", 404),
        ("/console/activity?outcome=else", 400),
    ],
)
def test_who_may_not_see_a_page_gets_one_that_says_so(stranger: Client, path: str, status: int) -> None:
    found, headers, page = get(stranger, path)
    assert found == status
    assert f"Error {status}" in page
    assert "Content-Security-Policy: default-src 'none'" in headers


def test_a_stranger_sees_what_everybody_may_and_no_more(stranger: Client) -> None:
    assert "hidden" in get(stranger, "/console/session?name=open")[2]
    assert ">open</a>" in get(stranger, "/console/sessions")[2]
    assert "team" not in get(stranger, "/console/sessions")[2]
    for path in ("/console/", "/console/activity"):
        page = get(stranger, path)[2]
        assert "team" not in page
        assert "nobody" not in page
        assert "/console/audit" not in page


def test_an_operator_sees_every_refusal_and_the_chain_but_no_session(cas: RunningCas, operator: Client) -> None:
    at = operator.at(cas.client_port)
    page = get(at, "/console/activity?outcome=refused")[2]
    assert "check measurement" in page
    assert "nobody/&lt;script&gt;alert(1)" in page
    assert "exit status" not in page
    assert "session?name=" not in page
    audit = get(at, "/console/audit")[2]
    assert ">whole</span>" in audit
    assert get(at, "/console/session?name=team")[0] == 403


def test_pages_change_nothing_and_are_kept_by_nobody(cas: RunningCas, author: Client) -> None:
    at = author.at(cas.client_port)
    status, headers, _ = get(at, "/console/")
    assert status == 200
    assert "Cache-Control: no-store" in headers
    assert "frame-ancestors 'none'" in headers
    assert "script" not in headers
    for start in ("/", "//"):
        status, headers, _ = get(at, start)
        assert (status, "Location: /console/\n" in f"{headers}\n") == (302, True)
    assert get(at, "//elsewhere.example/")[0] == 400
    posted = subprocess.run(
        ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-d", "x=y", f"https://127.0.0.1:{at.port}/console/"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert posted.stdout == "405"


def test_what_somebody_reads_here_is_in_the_audit_log(cas: RunningCas, author: Client) -> None:
    before = len(cas.events())
    get(author.at(cas.client_port), "/console/session?name=team")
    assert [event["event"] for event in cas.events()[before:]] == ["session history read"]


def test_who_has_no_certificate_learns_how_to_get_one_in(stranger: Client) -> None:
    status, _, page = get(stranger, "/console/", identify=False)
    assert status == 401
    assert "sconify self export" in page


def test_a_cas_can_do_without(tmp_path: Path, author: Client) -> None:
    with running_cas(tmp_path / "state", "--no-console") as server:
        assert get(author.at(server.client_port), "/console/")[0] == 404
        assert get(author.at(server.client_port), "/")[0] == 404


def test_the_owner_is_an_operator(tmp_path: Path) -> None:
    with running_cas(tmp_path / "state", "--require-provisioning") as server:
        assert server.process.stdout is not None
        token = server.process.stdout.readline().split()[2]
        owner = Client.make(tmp_path / "owner", server.client_port)
        assert get(owner, "/console/")[0] == 503
        assert owner.request("/v1/provision", body=f'{{"token": "{token}"}}').status == 201
        assert ">whole</span>" in get(owner, "/console/audit")[2]


class TestBrowser:
    """Chromium, with the certificate imported as a person does it."""

    @pytest.fixture
    def browser(self, cas: RunningCas, author: Client, tmp_path: Path) -> Browser:
        for program in ("chromium", "certutil"):
            assert shutil.which(program), f"{program} is missing: run scripts/system-packages.sh"
        bundle = tmp_path / "identity.p12"
        bundle.write_bytes(identity(author).pkcs12(PASSPHRASE.encode()))
        return Browser.with_certificate(tmp_path / "home", pkcs12=bundle, origin=f"https://127.0.0.1:{cas.client_port}")

    def test_it_logs_in_by_its_certificate_and_shows_the_page(
        self, cas: RunningCas, browser: Browser, author: Client, tmp_path: Path
    ) -> None:
        page = browser.text("/console/session?name=team")
        assert "<h1>team</h1>" in page
        assert identity(author).key_hash in page
        # The style sheet was let in, and follows what the person prefers.
        light, dark = tmp_path / "light.png", tmp_path / "dark.png"
        browser.picture("/console/activity", light)
        browser.picture("/console/activity", dark, dark=True)
        assert light.read_bytes() != dark.read_bytes()
        requests = cas.log.read_text()
        assert "GET /console/style.css 200" in requests
        assert "favicon.ico 500" not in requests
