"""Each key and rule of the session language, with what is accepted and what is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.policy.keyhash import encode_key_hash
from sconify.policy.model import Session
from sconify.policy.part import Variable, resolve, variables
from sconify.policy.schema import session_schema
from sconify.policy.session import parse_session, session_hash

PROJECT = Path(__file__).resolve().parents[3]
SESSIONS = PROJECT / "tests/vectors/sessions"
M, N = "ab" * 32, "cd" * 32
KEY = encode_key_hash(bytes(32))
ED25519 = (
    "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEAO2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="
    "\\n-----END PUBLIC KEY-----\\n"
)
P256 = (
    "-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li"
    "/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\\n-----END PUBLIC KEY-----\\n"
)

HEAD = 'name: team/app\nversion: "0.3"\n'
KEYS = "{name: pk, kind: private-key}, {name: p384, kind: private-key, key_type: P-384}, {name: t, kind: ascii}"


def service(members: str) -> str:
    secrets = f"{KEYS}, {{name: b, kind: binary, size: 32}}"
    return f"{HEAD}services: [{{name: s, command: p, {members}}}]\nsecrets: [{secrets}]\n"


def secret(members: str) -> str:
    return f"{HEAD}secrets: [{KEYS}, {{name: x, {members}}}]\n"


def volume(members: str) -> str:
    return f"{HEAD}volumes: [{{name: v{members}}}]\n"


def image(members: str) -> str:
    return f"{HEAD}volumes: [{{name: v}}]\nsecrets: [{KEYS}]\nimages: [{{name: i, {members}}}]\n"


def policy(members: str) -> str:
    return f"{HEAD}secrets: [{KEYS}]\naccess_policy: {members}\n"


def security(members: str) -> str:
    return f"{HEAD}secrets: [{KEYS}]\nsecurity: {members}\n"


ACCEPTED = [
    HEAD,
    'name: /\nversion: "0.3"',
    "name: a\nversion: 0.3",
    "name: a\nversion: 0.3.12",
    HEAD + f"predecessor: {M}",
    HEAD + "predecessor: ~",
    HEAD + f"namespace_hash: {M}",
    HEAD + f"creator: {KEY}",
    HEAD + f'creator: {{signer: "{ED25519}"}}',
    HEAD + "secret_config: {store_in: !cas }",
    HEAD + "digest: anything",
    service(f"mrenclaves: [{M}], tags: [x], persistency: None"),
    service(f"attestation: {{mrenclave: {M}}}").replace("command: p", "command: [p, '@@2', x, '@@1']"),
    service(f"attestation: {{signer: {{mrsigner: {M}, isvprodid: 1, isvsvn_min: 0}}}}"),
    service(f"attestation: {{signer: {{mrsigner: {M}, isvprodid: 1, isvsvn: 2}}}}"),
    service(f"attestation: {{signer: {{mrsigner: {M}, isvprodid: 1, isvsvn_min: 2, isvsvn_max: 2}}}}"),
    service("attestation: $$SCONE::t$$"),
    service("attestation: {mrenclave: $$SCONE::t$$}"),
    service("attestation: [{mrenclave: [$$SCONE::t$$]}, $$SCONE::t$$]"),
    service("mrenclaves: [$$SCONE::t$$]"),
    service(f"mrenclaves: [{M}], platforms: ['INTEL_QE_ID:{'0' * 32}', {M}]"),
    service(f"mrenclaves: [{M}], fspf_path: /x, fspf_key: $$SCONE::b$$, fspf_tag: '{'0' * 32}'"),
    service(f"mrenclaves: [{M}], environment: {{'\\@\\@HOSTNAME': ''}}"),
    service(f"mrenclaves: [{M}], one_time_password_shared_secret: gezd gnbv gy3t qojq gezd gnbv gy3t qojq"),
    secret("kind: ascii, size: 1, export_public: true"),
    secret("kind: binary, value: ''"),
    secret("kind: private-key, key_type: Ed25519, migrate: true"),
    secret("kind: public-key, private_key: pk"),
    secret(f'kind: public-key, value: "{P256}"'),
    secret("kind: x509, private_key: pk"),
    secret("kind: x509, private_key: pk, endpoint: client, common_name: me, valid_for: 1 year 2 weeks"),
    secret("kind: x509, private_key: pk, dns: [a.example, '*.a.example'], san: ['ip:::1', 'dns:b.example']"),
    secret("kind: x509-ca, private_key: pk, valid_for: 90 days"),
    secret("kind: x509, private_key: pk, issuer: ca}, {name: ca, kind: x509-ca, private_key: pk"),
    secret("kind: config-fragment, value: {a: [1, true, x]}"),
    secret("kind: pgp-key"),
    secret("kind: jwt, signer: p384, validity: {for: 24h}, payload: {who: $$SCONE::self::software_identity$$, x: y}"),
    secret("import: {session: ../other, secret: y}"),
    secret("kind: x509, import: {session: other, secret: y, session_hash: " + M + "}"),
    secret("import: '/session=a,secret=b'"),
    secret(f"import: 'cas.example:8081/cas_key={KEY},session=a,secret=b'"),
    secret("kind: ascii, export: b"),
    secret(f"kind: ascii, export: [b, 'c:{M}', {{session: d}}, {{namespace: team}}, {{namespace: .}}]"),
    volume(""),
    volume(f", fspf_key: {M}"),
    volume(f", fspf_key: {M}, fspf_tag: {N}, files: authenticated-only"),
    volume(", export: {session: b}"),
    volume(", export: {to: {session: b}, update_policy: no_rollback_protection, volume_alias: w}"),
    volume(", import: {session: b, volume: w}"),
    image("volumes: [{name: v, path: /v}, {name: v, path: /w/, update_policy: ephemeral}]"),
    image("volumes: [{name: v, path: /v, read_only: true}]"),
    volume(", export: {to: {session: b}, read_only: true}"),
    image("injection_files: [/a, {path: /b, content: $$SCONE::t$$, permission: 0o100}]"),
    image("provide_secrets: [t], tags: [x], mrenclaves: [y]"),
    policy("{read: ANY, update: NONE, create_sessions: CREATOR, list_sessions: [CREATOR]}"),
    policy(f"{{update: [{KEY}, {{signer: \"{ED25519}\"}}]}}"),
    policy(f"{{update: {{require-all: [CREATOR, {KEY}]}}}}"),
    policy(f"{{create_sessions: [{{require-at-least-1: [CREATOR, {{require-all: [{KEY}]}}]}}]}}"),
    policy("$$SCONE::t$$"),
    policy("{read: $$SCONE::t$$, update: [CREATOR, $$SCONE::t$$]}"),
    security("{attestation: {mode: none}}"),
    security("{attestation: {tolerate: [debug, outdated-tcb], ignore_advisories: '*'}}"),
    security("{attestation: {ignore_advisories: [INTEL-SA-00334, INTEL-SA-00615], must_be_sgx_local: false}}"),
    security("{attestation: {one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}}"),
    security("{singleton_enclaves: true, service_access_token: 0123456789abcdef}"),
    security("{service_access_token: $$SCONE::t$$, attestation: $$SCONE::t$$}"),
    security("$$SCONE::t$$"),
]  # fmt: skip

REFUSED = [
    (HEAD + f"predecessor: {M}\nnamespace_hash: {M}", "exclude each other"),
    (HEAD + "creator: somebody", "not a key hash"),
    (HEAD + "creator: {signer: somebody}", "no public key in PEM"),
    (HEAD + f'creator: {{signer: "{P256}"}}', "another type, expected Ed25519 or P-384"),
    (HEAD + "secret_config: {store_in: !akv {token: x}}", "for Azure only"),
    (HEAD + "secret_config: {store_in: elsewhere}", "in the CAS only"),
    (HEAD + "secrets: !!seq []", "tags"),
    ('name: /a\nversion: "0.3"', "expected a name"),
    (service(f"mrenclaves: [{M}]").replace("command: p", "command: ['@@1', '@@1']"), "@@1 is given twice"),
    (service(f"mrenclaves: [{M}]").replace("command: p", "command: ['@@0']"), "first is @@1"),
    (service(f"mrenclaves: [{M}], environment: {{A: x, '\\@\\@A': ''}}"), "as well"),
    (service("attestation: {}"), "it names nothing"),
    (service("attestation: []"), "no attestation factor"),
    (service(f"attestation: {{mrenclave: {M}, signer: {{mrsigner: {M}}}}}"), "isvprodid: this key is missing"),
    (service(f"attestation: {{signer: {{mrsigner: {M}, isvprodid: 1, isvsvn: 1, isvsvn_min: 1}}}}"), "exclude"),
    (service(f"attestation: {{signer: {{mrsigner: {M}, isvprodid: 1, isvsvn_min: 3, isvsvn_max: 2}}}}"), "no version"),
    (service("attestation: $$SCONE::nothing$$"), "no such secret"),
    (service("attestation: $$SCONE::pk$$"), "of kind private-key, which can't stand here"),
    (service(f"mrenclaves: [{M}], platforms: [x]"), "INTEL_QE_ID"),
    (service(f"mrenclaves: [{M}], fspf_update_policy: never"), "rollback_protected_reinitializable"),
    (service(f"mrenclaves: [{M}], one_time_password_shared_secret: abc1"), "no base32"),
    (service(f"mrenclaves: [{M}], one_time_password_shared_secret: ABCDEFGH"), "40 bits, expected 128"),
    (secret("kind: aad-token, tenant_id: x"), "for Azure only"),
    (secret("import_akv: {vault: x}"), "for Azure only"),
    (secret("kind: session-ca"), "use x509-ca"),
    (secret("value: x"), "kind is missing"),
    (secret("kind: ascii, export_public: 'yes'"), "true or false"),
    (secret("kind: ascii, export: {}"), "session or namespace"),
    (secret(f"kind: ascii, export: {{namespace: a, session_hash: {M}}}"), "no session_hash"),
    (secret("kind: ascii, export: ../../../a"), "above the root"),
    (secret("kind: ascii, export: {session: a, cas_url: x}"), "needs cas_key"),
    (secret(f"kind: ascii, export: {{session: a, cas_key: {KEY}}}"), "cas_url is missing"),
    (secret("kind: ascii, size: 3, import: {session: a, secret: b}"), "import and size exclude"),
    (secret("import: {session: ../app, secret: b}"), "import from itself"),
    (secret("import: {session: a}"), "secret: this key is missing"),
    (secret("import: a"), "expected a mapping, or text such as"),
    (secret("kind: private-key, value: x"), "no unencrypted PKCS#8"),
    (secret("kind: private-key, key_type: P-521"), "P-256"),
    (secret("kind: public-key"), "give private_key"),
    (secret("kind: public-key, private_key: t"), "of kind ascii, expected private-key"),
    (secret("kind: x509"), "private_key is missing"),
    (secret("kind: x509, private_key: nothing"), "there is no secret nothing"),
    (secret("kind: x509, private_key: pk, issuer: pk"), "expected x509-ca"),
    (secret("kind: x509-ca, private_key: pk, issuer: x"), "issue itself"),
    (secret("kind: x509, private_key: pk, endpoint: client, dns: a"), "for servers"),
    (secret("kind: x509, private_key: pk, dns: 'a b'"), "expected a host name"),
    (secret("kind: x509, private_key: pk, san: [a]"), "dns:NAME or ip:ADDRESS"),
    (secret("kind: x509, private_key: pk, san: ['ip:1.2.3.4.5']"), "expected an IP address"),
    (secret("kind: x509-ca, private_key: pk, dns: a"), "unknown key"),
    (secret("kind: x509, private_key: pk, valid_for: soon"), "expected a duration"),
    (secret("kind: x509, private_key: pk, valid_for: 3 fortnights"), "got the unit"),
    (secret("kind: x509, value: x"), "no certificate in PEM"),
    (secret("kind: config-fragment"), "value is missing"),
    (secret("kind: config-fragment, value: {a: ~}"), "empty value"),
    (secret("kind: config-fragment, value: $$SCONE::t$$"), "variables can't stand inside"),
    (secret("kind: pgp-key, value: x"), "unknown key"),
    (secret("kind: jwt, signer: pk, validity: {for: 1h}"), "P-384"),
    (secret("kind: jwt, signer: p384"), "validity is missing"),
    (secret("kind: jwt, signer: p384, validity: {for: 1h}, payload: {exp: x}"), "set by the CAS"),
    (secret("kind: jwt, signer: p384, validity: {for: 1h}, payload: {a: 'x $$SCONE::t$$'}"), "the whole value"),
    (secret("kind: jwt, signer: p384, alg: ES256, validity: {for: 1h}"), "ES384"),
    (volume(f", fspf_tag: {M}"), "needs fspf_key"),
    (volume(f", fspf_key: {M}, import: {{session: a, volume: b}}"), "exclude each other"),
    (volume(", export: {namespace: a}"), "to sessions, not to a namespace"),
    (volume(", files: plain"), "authenticated-only"),
    (image("volumes: [{name: w, path: /v}]"), "there is no volume w"),
    (image("volumes: [{name: v, path: /v}, {name: v, path: /v/}]"), "path /v is given twice"),
    (image("volumes: [{name: v, path: v}]"), "absolute path"),
    (image("volumes: [{name: v, path: /v, update_policy: never}]"), "rollback_protected"),
    (image("volumes: [{name: v, path: /v, update_policy: ephemeral, read_only: true}]"), "exclude each other"),
    (image("volumes: [{name: v, path: /v, read_only: perhaps}]"), "true or false"),
    (image("provide_secrets: [nothing]"), "there is no secret nothing"),
    (image("injection_files: [{path: /b, content: $$SCONE::x$$}]"), "no such secret"),
    (policy("{update: [{require-all: []}]}"), "expected a list"),
    (policy(f"{{update: [{{require-at-least-3: [{KEY}]}}]}}"), "never be met"),
    (policy("{update: [{require-some: [CREATOR]}]}"), "require-at-least-N"),
    (policy("{update: [{require-all: [ANY]}]}"), "can't stand in require"),
    (policy("{read: [{require-all: [CREATOR]}]}"), "read takes no signer"),
    (policy(f'{{read: [{{signer: "{ED25519}"}}]}}'), "read takes no signer"),
    (policy("{update: [$$SCONE::nothing$$]}"), "no such secret"),
    (policy("{update: $$SCONE::p384$$}"), "can't stand here"),
    (security("{attestation: {mode: maa, url: x}}"), "for Azure only"),
    (security("{attestation: {mode: maa}}"), "for Azure only"),
    (security("{attestation: {tolerate: [maa-managed-tcb]}}"), "for Azure only"),
    (security("{attestation: {ignore_advisories: ['*', INTEL-SA-00334]}}"), "only entry"),
    (security("{attestation: {ignore_advisories: [SA-1]}}"), "name of an advisory"),
    (security("{attestation: {must_be_sgx_local: 'yes'}}"), "true or false"),
    (security("{service_access_token: short}"), "could be guessed"),
    (security("{one_shot: true}"), "unknown key"),
]  # fmt: skip


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(text: str) -> None:
    session = parse_session(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Session.model_validate(session.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert session_hash(again) == session_hash(session)


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_refused_with_place_and_reason(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as caught:
        parse_session(text)
    assert "line " in caught.value.what
    assert "kind:" not in caught.value.what.replace("kind: ", "")


def filled(text: str) -> str:
    for name in ("NAMESPACE", "SESSION"):
        text = text.replace(f"${name}", "x")
    return text.replace("$MRENCLAVE", M).replace("${SCONE_FSPF_KEY}", M).replace("${SCONE_FSPF_TAG}", "0" * 32)


@pytest.mark.parametrize("file", sorted(SESSIONS.glob("*.yml")), ids=lambda file: file.name)
def test_real_sessions_are_accepted_and_keep_their_hash(file: Path) -> None:
    session = parse_session(filled(file.read_text()))
    dumped = session.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert Session.model_validate(dumped) == session
    assert session_hash(Session.model_validate(json.loads(json.dumps(dumped)))) == session_hash(session)


def test_the_sample_of_everything_has_every_key() -> None:
    keys: set[str] = set()

    def collect(data: object) -> None:
        if isinstance(data, dict):
            keys.update(data)
            for value in data.values():
                collect(value)
        elif isinstance(data, list):
            for value in data:
                collect(value)

    collect(yaml.safe_load((SESSIONS / "everything.yml").read_text().replace("!cas", "cas")))
    known = {key for part in json.loads(session_schema())["$defs"].values() for key in part.get("properties", {})}
    missing = known - keys - {"isvsvn", "cas_software_key", "least", "entries"}
    assert missing == set()


def test_the_published_schema_is_that_of_the_model() -> None:
    assert (PROJECT / "docs/session.schema.json").read_text() == session_schema(), "run make schema"


def test_variables_stand_in_place_of_parts_and_lists_are_spliced() -> None:
    session = parse_session(service(f"attestation: [{{mrenclave: {M}}}, $$SCONE::t$$], platforms: $$SCONE::t$$"))
    part = session.services[0]
    assert [at for at, _ in variables(part)] == [("attestation", 1), ("platforms",)]
    values = {"t": [{"mrenclave": [N]}, {"mrenclave": M}]}
    with pytest.raises(ValueError, match="expected text"):
        resolve(part, lambda variable: values[variable.secret])
    answers = iter([values["t"], ["0" * 32]])
    resolved = resolve(part, lambda _: next(answers))
    assert [factor.mrenclave for factor in resolved.factors] == [(M,), (N,), (M,)]
    assert resolved.platforms == ("0" * 32,)
    assert resolve(resolved, lambda _: None) is resolved


def test_variables_inside_of_variables_are_refused() -> None:
    part = parse_session(policy("$$SCONE::t$$"))
    with pytest.raises(ValueError, match="holds a variable"):
        resolve(part, lambda _: {"read": "$$SCONE::t$$"})


@given(st.from_regex(r"\$\$SCONE::[A-Za-z0-9_.~-]{1,5}(:[a-z0-9-]{1,5}){0,2}\$\$", fullmatch=True))
def test_a_variable_is_what_its_text_says(text: str) -> None:
    assert str(Variable.parse(text)) == text
