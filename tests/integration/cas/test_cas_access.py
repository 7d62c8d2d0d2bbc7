"""Who may do what: signers, quorums, variables, namespaces and lists, over the real API."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sconify.policy.keyhash import certificate_key_hash
from sconify.policy.session import parse_session, session_hash
from sconify.policy.signed import sign_session
from tests.cas_server import Answer, Client, RunningCas, running_cas, session_text


class Signer:
    def __init__(self, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
        self.private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.grant = '{signer: "' + public.replace("\n", "\\n") + '"}'


@pytest.fixture
def signers() -> list[Signer]:
    generate = ed25519.Ed25519PrivateKey.generate
    return [Signer(generate()), Signer(ec.generate_private_key(ec.SECP384R1())), Signer(generate())]


def send(client: Client, text: str, *signers: Signer, identify: bool = True) -> Answer:
    body = sign_session(text, [signer.private for signer in signers])
    return client.request("/v1/sessions", "-H", "Content-Type: application/jose+json", body=body, identify=identify)


def test_a_signed_session_needs_no_certificate_and_its_signer_is_the_creator(
    client: Client, name: str, signers: list[Signer]
) -> None:
    text = session_text(name, extra="access_policy: {read: ANY}")
    created = send(client, text, signers[0], identify=False)
    assert created.status == 201
    read = client.read(name).body
    assert read["hash"] == created.body["hash"] == session_hash(parse_session(read["session"]))
    update = text + f"\npredecessor: {created.body['hash']}"
    assert client.upload(update).status == 403
    assert send(client, update, signers[1], identify=False).status == 403
    assert send(client, update, signers[0], identify=False).status == 201


def test_a_signature_that_is_none_is_refused(client: Client, name: str, signers: list[Signer]) -> None:
    good = sign_session(session_text(name), [signers[0].private])
    bad = good.replace('"signature": "', '"signature": "AAAA', 1)
    header = ["-H", "Content-Type: application/jose+json"]
    assert client.request("/v1/sessions", *header, body=bad).status == 403
    for body in ("{}", "x", '{"payload": "", "signatures": []}', good.replace("payload", "pay")):
        assert client.request("/v1/sessions", *header, body=body).status == 400


def test_a_quorum_is_met_by_those_who_sign_and_who_sends(client: Client, name: str, signers: list[Signer]) -> None:
    one, two, three = signers
    policy = (
        f"access_policy: {{update: [{{require-at-least-2: [{one.grant}, {two.grant}, "
        f"{{require-all: [CREATOR, {three.grant}]}}]}}]}}"
    )
    text = session_text(name, extra=policy)
    last = client.upload(text).body["hash"]
    for signing, status in (
        ([], 403), ([one], 403), ([three], 403), ([one, two], 201), ([one, three], 201), ([two, three, one], 201),
    ):  # fmt: skip
        update = text + f"\npredecessor: {last}"
        answer = send(client, update, *signing) if signing else client.upload(update)
        assert answer.status == status, signing
        last = answer.body["hash"] if status == 201 else last
    # The third may not stand for the creator as well.
    assert send(client, text + f"\npredecessor: {last}", one, three, identify=False).status == 403


def test_variables_in_access_policies_count_when_they_have_a_value(
    client: Client, new_client: Callable[[], Client], name: str
) -> None:
    friend, stranger = new_client(), new_client()
    secrets = f"secrets: [{{name: friend, kind: ascii, value: {certificate_key_hash(friend.certificate)}}}, "
    secrets += "{name: missing, kind: ascii, import: {session: nothing, secret: x}}]"
    text = session_text(
        name, extra=f"{secrets}\naccess_policy: {{read: [CREATOR, $$SCONE::friend$$, $$SCONE::missing$$]}}"
    )
    assert client.upload(text).status == 201
    assert [who.read(name).status for who in (client, friend, stranger)] == [200, 200, 403]
    assert client.upload(session_text(f"{name}-2", extra=f"{secrets}\naccess_policy: $$SCONE::missing$$")).status == 201
    assert client.read(f"{name}-2").status == 403


def test_history_shows_every_version_to_who_may_read(
    client: Client, new_client: Callable[[], Client], name: str
) -> None:
    hashes = [client.upload(session_text(name)).body["hash"]]
    for number in range(3):
        text = session_text(name, environment=f"{{N: {number}}}", extra=f"predecessor: {hashes[-1]}")
        hashes.append(client.upload(text).body["hash"])
    versions = client.request(f"/v1/history/{name}").body["versions"]
    assert [version["hash"] for version in versions] == hashes
    assert [version["version"] for version in versions] == [1, 2, 3, 4]
    assert all(version["created_at"] > 1_700_000_000 for version in versions)
    assert "N: 1" in client.request(f"/v1/sessions/{name}?hash={hashes[2]}").body["session"]
    assert new_client().request(f"/v1/history/{name}").status == 403


def test_lists_show_what_the_caller_may_list(client: Client, new_client: Callable[[], Client], name: str) -> None:
    stranger = new_client()
    client.upload(f"name: {name}\nversion: '0.3'\naccess_policy: {{list_sessions: ANY}}\n")
    client.upload(session_text(f"{name}/a"))
    client.upload(session_text(f"{name}/b", extra="access_policy: {read: NONE}"))
    client.upload(session_text(f"{name}/c", extra="access_policy: {read: ANY}"))
    client.upload(session_text(f"{name}x"))
    listed = client.request(f"/v1/sessions?namespace={name}").body
    assert listed == {"sessions": [f"{name}/a", f"{name}/b", f"{name}/c"], "more": False}
    assert stranger.request(f"/v1/sessions?namespace={name}").body["sessions"] == [f"{name}/c"]
    everything = client.request("/v1/sessions").body["sessions"]
    assert {name, f"{name}x", f"{name}/a"} <= set(everything)
    assert everything == sorted(everything)
    assert client.request("/v1/sessions", identify=False).status == 401


def test_a_namespace_hash_pins_the_namespace_at_creation(client: Client, name: str) -> None:
    parent = client.upload(f"name: {name}\nversion: '0.3'").body["hash"]
    assert client.upload(session_text(f"{name}/a", extra=f"namespace_hash: {'0' * 64}")).status == 409
    assert client.upload(session_text(f"{name}/a", extra=f"namespace_hash: {parent}")).status == 201


def test_the_root_namespace_belongs_to_who_comes_first_or_to_nobody(
    cas: RunningCas, client: Client, new_client: Callable[[], Client], name: str, tmp_path: object
) -> None:
    client.upload(session_text(name))
    assert client.upload('name: /\nversion: "0.3"').status == 403


def test_the_owner_of_the_root_namespace_decides_who_creates_sessions(
    tmp_path_factory: pytest.TempPathFactory, new_client: Callable[[], Client]
) -> None:
    with running_cas(tmp_path_factory.mktemp("root") / "state") as own:
        owner, other = new_client().at(own.client_port), new_client().at(own.client_port)
        assert owner.upload('name: /\nversion: "0.3"').status == 201
        assert other.upload(session_text("a")).status == 403
        assert owner.upload(session_text("a")).status == 201
        assert "name: /" in owner.request("/v1/sessions//").body["session"]
