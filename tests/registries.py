"""Real registries on the loopback interface: the ``docker-registry`` of the distribution."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "somebody", "secret-password"
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuu8jXihDn6YyI16dkpSl33R.slyuyqYCi\n"  # bcrypt of PASSWORD


@contextmanager
def registry(directory: Path, *, tls: bool = False, login: bool = False) -> Iterator[str]:
    """Run a registry; yield its ``HOST:PORT``.

    Args:
        directory: An empty directory for its files; with ``tls``, ``certs/ca.crt`` there is its certificate.
        tls: Whether it has TLS, with a certificate that nobody vouches for.
        login: Whether ``USER`` and ``PASSWORD`` are asked for.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = [
        "version: 0.1",
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}",
        "http:",
        f"  addr: '127.0.0.1:{port}'",
    ]
    if tls:
        (directory / "certs").mkdir()
        certificate = directory / "certs/ca.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
             "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{directory}/key.pem",
             "-out", str(certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        lines.append(f"  tls: {{certificate: {certificate}, key: {directory}/key.pem}}")
    if login:
        (directory / "htpasswd").write_text(_HTPASSWD)
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}")
    (directory / "config.yml").write_text("\n".join(lines) + "\n")
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(["docker-registry", "serve", directory / "config.yml"], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def blobs(directory: Path) -> dict[str, int]:
    """Return the sizes of what a registry stores, by digest."""
    found = (directory / "data/docker/registry/v2/blobs/sha256").glob("*/*/data")
    return {file.parent.name: file.stat().st_size for file in found}
