"""Random valid sessions, as data of hypothesis."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

from sconify.policy.keyhash import encode_key_hash

names = st.from_regex(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]{0,11}", fullmatch=True)
session_names = st.lists(names, min_size=1, max_size=3).map("/".join)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20).filter(
    lambda text: "$$SCONE::" not in text
)
grants = st.one_of(st.just("CREATOR"), st.binary(min_size=32, max_size=32).map(encode_key_hash))
grant_lists = st.one_of(st.sampled_from(["ANY", "NONE", "CREATOR"]), st.lists(grants, min_size=1, max_size=3))
quorums = st.recursive(
    grants,
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda entries: st.sampled_from(["all", *(f"at-least-{n}" for n in range(1, len(entries) + 1))]).map(
            lambda word: {f"require-{word}": entries}
        )
    ),
    max_leaves=5,
)
factors = st.one_of(
    st.fixed_dictionaries({"mrenclave": st.one_of(digests, st.lists(digests, min_size=1, max_size=2))}),
    st.fixed_dictionaries(
        {
            "signer": st.fixed_dictionaries(
                {"mrsigner": digests, "isvprodid": st.integers(0, 9), "isvsvn_min": st.integers(0, 9)}
            )
        }
    ),
)


@st.composite
def sessions(draw: st.DrawFn, session_name: st.SearchStrategy[str] = session_names) -> dict[str, Any]:
    """The data of a session."""
    secret_names = draw(st.lists(names, unique=True, min_size=1, max_size=4))
    secrets: list[dict[str, Any]] = []
    for name in secret_names:
        kind = draw(st.sampled_from(["ascii", "binary", "given", "private-key", "fragment"]))
        secret: dict[str, Any] = {"name": name, "kind": "ascii" if kind == "given" else kind}
        if kind == "given":
            secret["value"] = draw(texts)
        elif kind == "fragment":
            secret |= {"kind": "config-fragment", "value": draw(st.lists(texts, max_size=2))}
        elif kind == "private-key":
            secret["key_type"] = draw(st.sampled_from(["P-256", "P-384", "Ed25519"]))
        else:
            secret["size"] = draw(st.integers(1, 64))
        secrets.append(secret)
    ascii_names = [secret["name"] for secret in secrets if secret["kind"] == "ascii"]
    placed = st.sampled_from([f"$$SCONE::{name}$$" for name in ascii_names]) if ascii_names else texts
    values = st.one_of(texts, placed, st.integers(0, 99), st.builds("{}{}".format, texts, placed))
    volumes = draw(st.lists(names, unique=True, max_size=2))
    mounts = [{"name": name, "path": f"/v{at}"} for at, name in enumerate(volumes)]
    services = [
        {
            "name": name,
            "image_name": "image",
            "command": draw(st.lists(values, min_size=1, max_size=3)),
            "environment": draw(st.dictionaries(names, values, max_size=3)),
            "pwd": draw(paths),
            "attestation": draw(st.one_of(factors, st.lists(factors, min_size=1, max_size=2))),
        }
        for name in draw(st.lists(names, unique=True, max_size=2))
    ]
    session: dict[str, Any] = {
        "name": draw(session_name),
        "version": draw(st.sampled_from(["0.3", "0.3.12"])),
        "services": services,
        "images": [{"name": "image", "volumes": mounts}],
        "volumes": [{"name": name} for name in volumes],
        "secrets": secrets,
        "access_policy": {"update": draw(st.one_of(grant_lists, st.lists(quorums, min_size=1, max_size=2)))},
        "security": {"attestation": {"tolerate": ["simulated-platform"]}},
    }
    if draw(st.booleans()):
        session["salt"] = draw(st.binary(min_size=16, max_size=16).map(bytes.hex))
    keys = draw(st.permutations(list(session)))
    return {key: session[key] for key in keys}


def as_yaml(session: dict[str, Any]) -> str:
    """The text of a session."""
    return yaml.safe_dump(session, sort_keys=False)
