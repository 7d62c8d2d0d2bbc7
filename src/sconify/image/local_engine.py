"""The local Docker engine, for those who may have no use for it: the library that talks to it takes long to load."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from sconify.errors import ServiceError

if TYPE_CHECKING:
    from sconify.image.engine import Engine


def local_engine() -> Engine:
    """Connect to the engine that ``DOCKER_HOST`` names.

    Raises:
        ServiceError: None answers.
    """
    return cast("Engine", importlib.import_module("sconify.image.engine").Engine())


def has_local_engine() -> bool:
    """Tell whether an engine answers."""
    try:
        local_engine().close()
    except ServiceError:
        return False
    return True
