from __future__ import annotations

import pytest

from sconify.cas.attested import CasAddress
from sconify.cas.authority import enclave_address
from sconify.errors import UserError


@pytest.mark.parametrize(
    ("client", "given", "shown"),
    [
        ("cas.example", None, "cas.example"),
        ("cas.example:9000", None, "cas.example"),
        ("cas.example:9000", ":28765", "cas.example:28765"),
        ("cas.example", "cas.team.svc", "cas.team.svc"),
        ("cas.example", "cas.team.svc:28765", "cas.team.svc:28765"),
        ("cas.example", ":18765", "cas.example"),
        ("[fd00::2]:9000", None, "[fd00::2]"),
        ("fd00::2", ":28765", "[fd00::2]:28765"),
        ("cas", "fd00::3", "[fd00::3]"),
    ],
)
def test_what_the_container_is_told(client: str, given: str | None, shown: str) -> None:
    assert enclave_address(CasAddress.parse(client), given) == shown


@pytest.mark.parametrize("given", [":", ":0", ":x", "a b", "cas:99999", "https://cas"])
def test_what_is_no_address_names_the_flag(given: str) -> None:
    with pytest.raises(UserError) as caught:
        enclave_address(CasAddress.parse("cas"), given)
    assert "--cas-enclave" in caught.value.diagnostics()
