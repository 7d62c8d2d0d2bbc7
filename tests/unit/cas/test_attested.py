from __future__ import annotations

import pytest

from sconify.cas.attested import CasAddress
from sconify.errors import UserError


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("cas", "cas", 8081, "cas:8081"),
        ("cas.example:9000", "cas.example", 9000, "cas.example:9000"),
        ("127.0.0.1", "127.0.0.1", 8081, "127.0.0.1:8081"),
        ("[::1]:9000", "::1", 9000, "[::1]:9000"),
        ("[::1]", "::1", 8081, "[::1]:8081"),
        ("fd00::2", "fd00::2", 8081, "[fd00::2]:8081"),
    ],
)
def test_addresses(text: str, host: str, port: int, shown: str) -> None:
    address = CasAddress.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, shown)
    assert CasAddress.parse(shown) == address


@pytest.mark.parametrize(
    "text",
    ["", ":8081", "cas:", "cas:0", "cas:65536", "cas:x", "https://cas", "a b", "cas:80:81", "cas\n", "[::1"],
)
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no address of a CAS"):
        CasAddress.parse(text)
