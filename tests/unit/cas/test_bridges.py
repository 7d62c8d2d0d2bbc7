from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from sconify.cas.bridges import bridge_addresses

needs_ip = pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2")


@needs_ip
def test_agrees_with_iproute2() -> None:
    listed = json.loads(subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout)
    docker = [entry["addr_info"][0]["local"] for entry in listed if entry.get("ifname") == "docker0"]
    assert set(docker) <= set(bridge_addresses())
    assert set(bridge_addresses()) <= {info["local"] for entry in listed for info in entry.get("addr_info", [])}


@needs_ip
def test_container_bridges_count_and_nothing_else() -> None:
    """In a network of its own, where interfaces can be made at will."""
    made = {
        "docker0": "198.51.100.1/28",
        "br-0123456789ab": "198.51.100.17/28",
        "podman1": "198.51.100.33/28",
        "cni-podman0": "198.51.100.49/28",
        "br-lan": "198.51.100.65/28",
        "eth7": "198.51.100.81/28",
        "docker1": None,
    }
    commands = []
    for name, address in made.items():
        commands.append(f"ip link add {name} type bridge")
        if address:
            commands.append(f"ip addr add {address} dev {name}")
    script = "set -e; " + "; ".join(commands) + '; exec "$0" -c "$1"'
    show = "import json; from sconify.cas.bridges import bridge_addresses; print(json.dumps(bridge_addresses()))"
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", script, sys.executable, show]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == ["198.51.100.1", "198.51.100.17", "198.51.100.33", "198.51.100.49"]
