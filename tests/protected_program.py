"""A converted program, made by hand: a protected file system with one program, and its sconified binary."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sconify._shield import Builder
from sconify.program.launch import LaunchManifest, measurement, runtime_path, sconified_binary

PROGRAM = """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words) {
    for (int at = 0; at < count; at++) puts(words[at]);
    puts(getenv("GREETING"));
    if (getenv("HOST_SECRET")) puts("the host's environment");
    fflush(stdout);
    int code = atoi(words[1]);
    if (code < 0) raise(-code);
    return code;
}
"""
KEY = bytes(range(32))


@dataclass(frozen=True)
class ProtectedProgram:
    """A converted program.

    Attributes:
        binary: The sconified binary.
        measurement: What it is measured as.
        index: The index of its file system.
        tag: The index's root tag.
    """

    binary: Path
    measurement: str
    index: Path
    tag: str

    def service(self, *, argument: str, attestation: str, tag: str | None = None) -> str:
        """The services of a session with this program."""
        return f"""
services:
  - name: web
    command: [program, "{argument}"]
    environment: {{GREETING: hello}}
    pwd: /
    attestation: {attestation}
    fspf_path: {self.index}
    fspf_key: "{KEY.hex()}"
    fspf_tag: "{tag or self.tag}"
"""

    def run(self, name: str, *, cas_port: int, las: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Start it as the service of a session, with further environment variables."""
        environment = {
            "SCONE_CONFIG_ID": f"{name}/web",
            "SCONE_CAS_ADDR": f"localhost:{cas_port}",
            "SCONE_LAS_ADDR": las,
            "HOST_SECRET": "x",
            **variables,
        }
        return subprocess.run(
            [self.binary, "ignored"], env=environment, capture_output=True, text=True, check=False, timeout=60
        )


def protected_program(directory: Path, *, cas_key: str) -> ProtectedProgram:
    """Make a converted program for a CAS with this key (SHA-256 in hex digits)."""
    program = directory / "program"
    subprocess.run(["cc", "-static", "-x", "c", "-", "-o", program], input=PROGRAM.encode(), check=True)
    index, pack = directory / "index", directory / "pack"
    builder = Builder(KEY)
    builder.add_region(b"/app", "encrypted", "test")
    for path in ("/proc", "/dev"):
        builder.add_region(path.encode(), "host", "test")
    number = builder.add_pack(b"/app", str(pack).encode(), str(pack))
    add_entry = partial(builder.add_entry, uid=0, gid=0, mtime=0, mtime_nsec=0)
    add_entry(b"/", type="d", mode=0o755, inode=1)
    add_entry(b"/app", type="d", mode=0o755, inode=2)
    size = program.stat().st_size
    add_entry(b"/app/program", type="-", mode=0o755, inode=3, source=str(program), size=size, pack=number)
    tag = builder.finish(str(index)).tag.hex()
    manifest = LaunchManifest.for_runtime(
        runtime_path(), program="/app/program", cas_key=cas_key, variables={"SCONE_ALLOW_DLOPEN": "1"}
    )
    binary = directory / "sconified"
    binary.write_bytes(sconified_binary(runtime_path(), manifest))
    binary.chmod(0o755)
    return ProtectedProgram(binary, measurement(manifest), index, tag)
