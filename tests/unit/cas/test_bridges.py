from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sconify.cas.bridges import bridge_addresses


def test_no_interfaces(tmp_path: Path) -> None:
    assert bridge_addresses(tmp_path) == []
    assert bridge_addresses(tmp_path / "none") == []


def test_only_container_bridges_count(tmp_path: Path) -> None:
    # `lo` exists and has an address; it is taken only where the directory shows it as a container bridge.
    (tmp_path / "lo" / "bridge").mkdir(parents=True)
    (tmp_path / "docker0").mkdir()
    (tmp_path / "br-gone" / "bridge").mkdir(parents=True)
    assert bridge_addresses(tmp_path) == []


@pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2 to compare with")
def test_agrees_with_iproute2() -> None:
    listed = json.loads(subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout)
    expected = sorted(
        address["local"]
        for interface in listed
        if interface.get("ifname", "").startswith(("docker", "br-", "podman", "cni"))
        for address in interface["addr_info"][:1]
    )
    assert bridge_addresses() == expected
    assert all(ipaddress.ip_address(address).is_private for address in bridge_addresses())
