from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.policy.formats import SecretValue
from sconify.policy.secret import AsciiSecret
from sconify.policy.session import parse_session
from sconify.policy.substitution import substitute
from sconify.policy.template import ConvertedService, session_text

NASTY = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
        st.sampled_from(
            [
                "$$SCONE::",
                "$$",
                "@@1",
                "@@",
                "{{",
                "{%",
                "\n",
                "\r\n",
                "'",
                '"',
                "\\",
                ": ",
                " #",
                "\u2028",
                "\x85",
                "---",
            ]
        ),
    ),
    max_size=8,
).map("".join)
SERVICE = ConvertedService(
    name="ns/flask",
    service="app",
    measurement="ab" * 32,
    command=["python3", "-B", "/app/x.py"],
    environment={"PORT": "8443"},
    pwd="/app",
    fspf_path="/.sconify/index",
    fspf_key="12" * 32,
    fspf_tag="34" * 16,
    tolerate=["simulated-platform"],
)


def test_the_text_is_the_session_that_was_asked_for() -> None:
    session = parse_session(session_text(SERVICE))
    service = session.services[0]
    assert (session.name, service.name, service.pwd) == ("ns/flask", "app", "/app")
    assert service.command == tuple(SERVICE.command)
    assert service.environment == SERVICE.environment
    assert service.attestation[0].mrenclave == (SERVICE.measurement,)
    assert (service.fspf_path, service.fspf_key, service.fspf_tag) == ("/.sconify/index", "12" * 32, "34" * 16)
    assert session.security.attestation.tolerate == ("simulated-platform",)
    assert session.predecessor is None
    assert session.secrets == ()


def test_a_predecessor_is_named() -> None:
    text = session_text(dataclasses.replace(SERVICE, predecessor="ef" * 32, tolerate=()))
    assert parse_session(text).predecessor == "ef" * 32
    assert parse_session(text).security.attestation.tolerate == ()


@given(
    st.lists(NASTY, min_size=1, max_size=4),
    st.dictionaries(NASTY.filter(lambda name: name and "=" not in name), NASTY, max_size=4),
    NASTY.map(lambda text: "/" + text.replace("/", "").replace(".", "")),
)
def test_whatever_the_image_holds_comes_back_as_it_was(
    command: list[str], environment: dict[str, str], pwd: str
) -> None:
    text = session_text(dataclasses.replace(SERVICE, command=command, environment=environment, pwd=pwd))
    session = parse_session(text)
    secrets = {
        secret.name: SecretValue(kind="ascii", data=secret.value.encode())
        for secret in session.secrets
        if isinstance(secret, AsciiSecret) and secret.value
    }
    assert session.services[0].host_arguments == {}
    service = session.services[0]
    assert [substitute(argument, secrets=secrets).decode() for argument in service.command] == command
    assert {
        name: substitute(value, secrets=secrets).decode() for name, value in service.environment.items()
    } == environment
    assert service.pwd == pwd


@pytest.mark.parametrize(
    "change",
    [
        {"command": ["\udcff"]},
        {"environment": {"A": "\udcff"}},
        {"environment": {"A=B": ""}},
        {"command": ["\0"]},
        {"command": []},
        {"name": "a b"},
        {"tolerate": ["everything"]},
        {"pwd": "relative"},
        {"measurement": "00"},
    ],
    ids=str,
)
def test_what_no_session_can_say_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError):
        session_text(dataclasses.replace(SERVICE, **change))  # type: ignore[arg-type]


def test_keys_and_arguments_are_not_shown() -> None:
    shown = repr(SERVICE)
    assert "12" * 32 not in shown
    assert "/app/x.py" not in shown
    assert "8443" not in shown
