from __future__ import annotations

import pytest

from sconify.errors import UserError
from sconify.policy.session import parse_session
from sconify.policy.unsupported import refuse_unsupported

KEY = "2wkH4kHMn2WPndf8CxmsoFkX93ouZMJUwTBFSZpDCeNeGWa7dj"
HEAD = 'name: a\nversion: "0.3"\n'
M = "ab" * 32


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("security: {attestation: {must_be_sgx_local: true}}", "must_be_sgx_local"),
        (f"services: [{{name: s, command: c, mrenclaves: [{M}], platforms: [{M}]}}]", "services.s.platforms"),
        (
            f"secrets: [{{name: r, import: {{session: b, secret: c, cas_url: cas, cas_key: {KEY}}}}}]",
            "secrets.r.import.cas_url: this CAS asks no other CAS",
        ),
        (
            f"secrets: [{{name: r, kind: ascii, export: {{session: b, cas_url: c, cas_key: {KEY}}}}}]",
            "secrets.r.export.cas_url: this CAS gives secrets to no other CAS",
        ),
    ],
)
def test_what_this_cas_can_not_do_is_refused_by_name(text: str, what: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_unsupported(parse_session(HEAD + text))
    assert what in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "security: {attestation: {must_be_sgx_local: false}}",
        f"services: [{{name: s, command: c, mrenclaves: [{M}], platforms: ['INTEL_QE_ID:{'0' * 32}']}}]",
        "secrets: [{name: r, import: {session: b, secret: c}}, {name: e, kind: ascii, export: {session: b}}]",
    ],
)
def test_what_it_can_do_is_not(text: str) -> None:
    refuse_unsupported(parse_session(HEAD + text))
