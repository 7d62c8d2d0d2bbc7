"""Whether a CAS can serve: what its readiness endpoint answers (``GET /v1/ready``)."""

from __future__ import annotations

from sconify.cas.provisioning import Provisioning
from sconify.cas.store import Store
from sconify.errors import ServiceError


class Health:
    """Knows whether the CAS can serve.

    Args:
        store: Must answer.
        provisioning: The CAS must have an owner, if it needs one.
    """

    def __init__(self, store: Store, *, provisioning: Provisioning) -> None:
        self._store = store
        self._provisioning = provisioning
        self.stopping = False
        """Whether the CAS is about to end: new connections are to go elsewhere."""

    def require_ready(self) -> None:
        """Check that requests would be served.

        Raises:
            ServiceError: The CAS is stopping, has no owner yet, or its database does not answer.
        """
        if self.stopping:
            raise ServiceError("this CAS is stopping")
        self._provisioning.require()
        self._store.is_empty()
