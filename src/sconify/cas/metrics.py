"""What a CAS process counts, in the text format of Prometheus (``GET /v1/metrics``): no names, no identities."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_registry = CollectorRegistry()
requests = Counter(
    "sconify_cas_requests", "Requests by API, route and status.", ["api", "route", "status"], registry=_registry
)
seconds = Histogram(
    "sconify_cas_request_seconds",
    "Time that requests took, without their connection.",
    ["api", "route"],
    registry=_registry,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
attestations = Counter(
    "sconify_cas_attestations", "Attestations by outcome and kind of evidence.", ["outcome", "kind"], registry=_registry
)


def exposition() -> bytes:
    """Return everything that was counted."""
    return generate_latest(_registry)
