"""Interpreters whose libraries are taken along, and the list of them."""

from __future__ import annotations

from sconify.program.binary import Program
from sconify.program.services.known_places import JAVA, NGINX, NODE, PERL, PHP, RUBY, R
from sconify.program.services.python import Python
from sconify.program.services.service import Inclusion, Service, ServiceLibraries
from sconify.program.view import RootView

SERVICES: tuple[Service, ...] = (Python(), NODE, JAVA, RUBY, PERL, PHP, R, NGINX)
"""Every service that is known."""

SUPPORTED = "\n".join(
    (
        *(f"{service.name}: {service.description}" for service in SERVICES),
        "Go, Rust, C, C++: nothing to find; what they need is in the binary, or is a shared object of it",
    )
)
"""What ``--help`` says about them, one line each."""


def service_of(view: RootView, program: Program) -> Service | None:
    """Return the service that ``program`` is the interpreter of; None if it is none that is known."""
    return next((service for service in SERVICES if service.recognises(view, program)), None)


__all__ = ["SERVICES", "SUPPORTED", "Inclusion", "Service", "ServiceLibraries", "service_of"]
