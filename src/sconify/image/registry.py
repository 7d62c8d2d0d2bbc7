"""How registries are reached: credentials, certificates, and those without TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sconify.image.credentials import helper_authfile
from sconify.image.reference import ImageReference, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAccess:
    """What skopeo is told about registries. The default is what ``docker login`` or ``skopeo login`` left behind."""

    authfile: Path | None = None
    """Credentials, in the format of ``~/.docker/config.json``, credential helpers included."""
    cert_dir: Path | None = None
    """Directory with certificates of registries' authorities (``*.crt``) and client certificates (``*.cert``)."""
    insecure: tuple[str, ...] = ()
    """``HOST[:PORT]`` of registries that have no TLS, or a certificate that nobody vouches for."""

    foreign_layers: bool = False
    """Whether layers that an image keeps elsewhere are fetched from the URLs that it names."""

    def flags(self, reference: ImageReference, *, prefix: str = "") -> list[str]:
        """Return skopeo's options for an image.

        Args:
            reference: The image; only those in registries need any.
            prefix: ``src-`` or ``dest-`` for a command with two images.
        """
        if reference.transport is not Transport.REGISTRY:
            return []
        options = []
        host = registry_host(reference.name)
        authfile = helper_authfile(host, self.authfile) or self.authfile
        if authfile is not None:
            options.append(f"--{prefix}authfile={authfile}")
        if self.cert_dir is not None:
            options.append(f"--{prefix}cert-dir={self.cert_dir}")
        if host in self.insecure:
            options.append(f"--{prefix}tls-verify=false")
        return options


DEFAULT_ACCESS = RegistryAccess()


def registry_host(name: str) -> str:
    """Return ``HOST[:PORT]`` of an image's name; names without one are Docker Hub's."""
    host, slash, _ = name.partition("/")
    return host if slash and (host == "localhost" or "." in host or ":" in host) else "docker.io"
