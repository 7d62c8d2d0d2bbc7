"""What both APIs of the CAS share: routing, limits, JSON, errors and the request log."""

from __future__ import annotations

import json
import logging
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

import sconify
from sconify.cas.errors import BadRequestError, NotFoundError, TooLargeError, http_status
from sconify.errors import SconifyError
from sconify.policy.keyhash import key_hash

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PEER_KEY = "sconify.peer_key"
"""WSGI environment key of the SubjectPublicKeyInfo (DER) of the client's certificate, proven by TLS."""

MAX_BODY = (1 << 20) + 4096
"""Bytes of a request body: a session of the largest size."""

_TOO_LARGE = f"the body is larger than {MAX_BODY} bytes"
_log = logging.getLogger("sconify.cas")
_M = TypeVar("_M", bound=BaseModel)


class Api(ABC):
    """A WSGI application that answers in JSON; subclasses route."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request and log it: no query, no header, no body, for they may hold secrets."""
        begin = time.monotonic()
        request = Request(environ)
        request.max_content_length = MAX_BODY + 1
        response = self._answer(request)
        if response.status_code >= 400:
            # The rest of a refused body is not read, so nothing can follow on this connection.
            response.headers["Connection"] = "close"
        _log.info(
            "%s %s %s %s %d %.1f ms",
            request.remote_addr,
            caller_or_none(request) or "-",
            request.method,
            request.path.encode("unicode_escape", "backslashreplace").decode()[:600],
            response.status_code,
            1000 * (time.monotonic() - begin),
        )
        return response(environ, start_response)

    @abstractmethod
    def handle(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            SconifyError: The request is refused.
        """

    def _answer(self, request: Request) -> Response:
        try:
            return self.handle(request)
        except RequestEntityTooLarge:
            return _error(TooLargeError(_TOO_LARGE))
        except HTTPException:
            return _error(BadRequestError("the request is malformed"))
        except SconifyError as error:
            if http_status(error) >= 500:
                _log.error("%s", error.diagnostics())
            return _error(error)
        except Exception as error:  # whatever it is, the client gets an answer and the server goes on
            # Where, but not what: the message of an unknown exception may quote a secret.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            _log.error("internal error: %s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
            return _error(SconifyError("internal error", remedy="see the log of the CAS, and report it"))


def json_response(document: Mapping[str, object], *, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(json.dumps(document, ensure_ascii=False), status=status, mimetype="application/json")


def parse_body(request: Request, model: type[_M]) -> _M:
    """Return the JSON body as a message.

    Raises:
        BadRequestError: It is no JSON, or not the message; no value is shown.
    """
    try:
        return model.model_validate_json(body(request))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(element)[:60] for element in first["loc"])
    raise BadRequestError(f"the body is not as the protocol demands: {place or 'it'}: {first['msg']}")


def body(request: Request) -> bytes:
    """Return the body.

    Raises:
        TooLargeError: It is larger than ``MAX_BODY`` bytes.
    """
    data: bytes = request.get_data(cache=False)
    # A body in chunks has no announced length, and is cut off at the limit rather than refused.
    if len(data) > MAX_BODY:
        raise TooLargeError(_TOO_LARGE)
    return data


def caller_or_none(request: Request) -> str | None:
    """Return the key hash of the client's certificate, or None if it has none."""
    spki = request.environ.get(PEER_KEY)
    return key_hash(spki) if spki else None


def not_found(request: Request) -> NotFoundError:
    """Return the error of a path that the API does not have."""
    return NotFoundError(f"there is no {request.path[:200]!r} in this API")


def _error(error: SconifyError) -> Response:
    messages = [error.what]
    cause = error.__cause__
    while isinstance(cause, SconifyError):
        messages.append(cause.what)
        cause = cause.__cause__
    document = {"msg": messages, "remedy": error.remedy, "version": sconify.__version__}
    return json_response(document, status=http_status(error))
