"""Why the CAS refuses a request: each class has the HTTP status that the client sees."""

from __future__ import annotations

from sconify.errors import SconifyError, ServiceError, UntrustedDataError, UserError


class BadRequestError(UserError):
    """The request itself is malformed."""

    status = 400


class UnauthenticatedError(UserError):
    """The request needs a client certificate or a token, and has none that is valid."""

    status = 401


class ForbiddenError(UserError):
    """The caller may not do this."""

    status = 403


class NotFoundError(UserError):
    """There is no such thing."""

    status = 404


class MethodError(UserError):
    """The path exists, the method does not."""

    status = 405


class ConflictError(UserError):
    """Somebody else was first: the name exists, or the predecessor is no longer the latest version."""

    status = 409


class LengthRequiredError(UserError):
    """The body has no length: it is sent in chunks."""

    status = 411


class TooLargeError(UserError):
    """The body is larger than the CAS accepts."""

    status = 413


class NotProvisionedError(ServiceError):
    """The CAS has no owner yet."""


class TooManyRequestsError(UserError):
    """The address has sent too many requests."""

    status = 429


def http_status(error: SconifyError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, UntrustedDataError):
        return 403
    if isinstance(error, ServiceError):
        return 503
    status = getattr(error, "status", 400 if isinstance(error, UserError) else 500)
    return int(status)
