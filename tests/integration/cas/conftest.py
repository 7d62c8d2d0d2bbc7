"""The fixtures of tests that need a real CAS."""

from __future__ import annotations

from tests.cas_fixtures import cas, client, name, new_client

__all__ = ["cas", "client", "name", "new_client"]
