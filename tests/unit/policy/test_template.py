from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.policy.formats import SecretValue
from sconify.policy.secret import AsciiSecret
from sconify.policy.session import parse_session
from sconify.policy.substitution import substitute
from sconify.policy.template import ConvertedService, SessionTemplate, session_text, shown_text

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


@settings(deadline=None)  # a busy machine is no defect
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
    service = session.services[0]
    assert service.host_arguments == {}
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


def test_what_was_written_for_the_policy_may_name_secrets() -> None:
    given_by_user = dataclasses.replace(
        SERVICE,
        command=["app", "$$SCONE::token$$"],
        environment={"TOKEN": "$$SCONE::token$$", "NATIVE": "$$SCONE::token$$"},
        policy_command=True,
        policy_variables=frozenset({"TOKEN"}),
        secrets=[{"name": "token", "kind": "ascii", "value": "s3cret"}],
        injection_files=[{"path": "/etc/token", "content": "$$SCONE::token$$"}],
    )
    session = parse_session(session_text(given_by_user))
    service = session.services[0]
    secrets = {
        secret.name: SecretValue(kind="ascii", data=secret.value.encode())
        for secret in session.secrets
        if isinstance(secret, AsciiSecret) and secret.value
    }
    assert substitute(service.command[1], secrets=secrets) == b"s3cret"
    assert substitute(service.environment["TOKEN"], secrets=secrets) == b"s3cret"
    assert substitute(service.environment["NATIVE"], secrets=secrets) == b"$$SCONE::token$$"
    image = session.image(service.image_name)
    assert image is not None
    assert image.injection_files[0].path == "/etc/token"
    with pytest.raises(UserError, match="no such secret"):
        session_text(dataclasses.replace(given_by_user, secrets=[]))


def test_a_service_that_is_not_attested_has_no_factor() -> None:
    session = parse_session(session_text(dataclasses.replace(SERVICE, attested=False)))
    assert session.security.attestation.mode == "none"
    assert session.services[0].factors == ()


COMMUNITY = """\
name: $NAMESPACE/$SESSION
version: "0.3"
services:
   - name: $SERVICE
     image_name: app_image
     mrenclaves: [$MRENCLAVE]
     command: $CMD
     environment:
        SCONE_MODE: hw
$ENVVARS
     fspf_path: ${SCONE_FSPF_PATH}
     fspf_key: $SCONE_FSPF_KEY
     fspf_tag: $SCONE_FSPF_TAG
images:
   - name: app_image
$INJECTED_FILES
$SECRETS
"""


def test_a_template_with_variables() -> None:
    service = dataclasses.replace(
        SERVICE,
        secrets=[{"name": "token", "kind": "ascii"}],
        injection_files=[{"path": "/etc/token", "content": "$$SCONE::token$$"}],
        environment={"A": "{{ 1 }} $HOME", "B": "x"},
    )
    session = parse_session(session_text(service, template=SessionTemplate(text=COMMUNITY, source="t")))
    made = session.services[0]
    assert session.name == "ns/flask"
    assert made.command == tuple(SERVICE.command)
    assert made.environment == {"SCONE_MODE": "hw", "A": "{{ 1 }} $HOME", "B": "x"}
    assert (made.pwd, made.fspf_key, made.factors[0].mrenclave) == ("/app", "12" * 32, (SERVICE.measurement,))
    assert session.images[0].injection_files[0].path == "/etc/token"
    assert session.secrets[0].name == "token"


def test_the_built_in_template_can_be_given_too() -> None:
    assert session_text(SERVICE, template=SessionTemplate.default()) == session_text(SERVICE)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("$NAMESPACE/$SESSION", "fixed/name", "its name is fixed/name"),
        ("$SERVICE", "other", "it has no service app"),
        ("$SCONE_FSPF_KEY", "ab" * 32, "another file system key"),
        ("$MRENCLAVE", "cd" * 32, "does not accept the measurement"),
        ("$CMD", "$NONSENSE", r"line 7: \$NONSENSE is no variable"),
        ("command: $CMD", "command: x $ENVVARS", "line of its own"),
        ("     command: $CMD", "     commando: $CMD", "file.yml makes no session of this image: .*unknown key"),
        ("$CMD", "{{ 1 +", "the template file.yml, line 8 is malformed"),
        ("$CMD", "{{ unknown }}", "the template file.yml is malformed"),
    ],
)
def test_a_template_that_makes_no_session_of_this_image_is_refused(old: str, new: str, what: str) -> None:
    template = SessionTemplate(text=COMMUNITY.replace(old, new, 1), source="file.yml")
    with pytest.raises(UserError, match=what) as caught:
        session_text(SERVICE, template=template)
    assert "file.yml" in caught.value.what
    assert caught.value.remedy


def test_a_template_without_the_volumes_of_the_image_is_refused() -> None:
    template = SessionTemplate(text=COMMUNITY, source="file.yml")
    service = dataclasses.replace(SERVICE, mounts=[{"name": "data", "path": "/data"}])
    with pytest.raises(UserError) as caught:
        session_text(service, template=template)
    assert "its service app has no volume data at /data" in caught.value.what
    assert "$MOUNTS below that image" in (caught.value.remedy or "")


def test_what_is_shown_has_no_secrets() -> None:
    text = shown_text(
        dataclasses.replace(
            SERVICE,
            environment={"PASSWORD": "hunter2"},
            secrets=[{"name": "token", "kind": "ascii", "value": "hunter3"}],
            injection_files=[{"path": "/f", "content": "hunter4"}],
        )
    )
    assert "PASSWORD" in text
    for secret in ("hunter", "/app/x.py", "12" * 32):
        assert secret not in text


VOLUMES = dataclasses.replace(
    SERVICE,
    volumes=(
        {"name": "own", "export": [{"session": "other"}]},
        {"name": "theirs", "import": {"session": "s", "volume": "theirs"}},
    ),
    mounts=({"name": "own", "path": "/data"}, {"name": "theirs", "path": "/theirs"}),
)


def test_volumes_are_declared_and_mounted() -> None:
    text = COMMUNITY.replace("$INJECTED_FILES\n", "$MOUNTS\n") + "$VOLUMES\n"
    for template in (None, SessionTemplate(text=text, source="t")):
        session = parse_session(session_text(VOLUMES, template=template))
        assert [volume.name for volume in session.volumes] == ["own", "theirs"]
        image = session.image(session.services[0].image_name)
        assert image is not None
        assert [(volume.name, volume.path) for volume in image.volumes] == [("own", "/data"), ("theirs", "/theirs")]
        assert all(volume.update_policy == "rollback_protected" for volume in image.volumes)


def test_a_template_without_the_volumes_is_refused() -> None:
    with pytest.raises(UserError, match="no volume own at /data") as caught:
        session_text(VOLUMES, template=SessionTemplate(text=COMMUNITY, source="t"))
    assert "$MOUNTS" in (caught.value.remedy or "")
