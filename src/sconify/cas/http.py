"""What both APIs of the CAS share: routing, limits, JSON, errors and the request log."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar

from cheroot.errors import FatalSSLAlert
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

import sconify
from sconify.cas import metrics
from sconify.cas.errors import (
    BadRequestError,
    LengthRequiredError,
    MethodError,
    NotFoundError,
    TooLargeError,
    http_status,
)
from sconify.cas.rate_limit import RateLimit
from sconify.cas.request_log import begin_request, log_request
from sconify.errors import SconifyError
from sconify.policy.keyhash import key_hash

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PEER_KEY = "sconify.peer_key"
"""WSGI environment key of the SubjectPublicKeyInfo (DER) of the client's certificate, proven by TLS."""

MAX_BODY = (1 << 20) + 4096
"""Bytes of a request body: a session of the largest size."""

_MAX_REST, _PIECE = 16 << 20, 64 << 10
_log = logging.getLogger("sconify.cas")
_M = TypeVar("_M", bound=BaseModel)


class Api(ABC):
    """A WSGI application that answers in JSON; subclasses route.

    Args:
        name: Names it in metrics.
        limit: Limits the requests of each address.
    """

    ROUTES: ClassVar[tuple[str, ...]]
    """Its paths, without what varies behind them."""

    def __init__(self, name: str, *, limit: RateLimit) -> None:
        self._name = name
        self._limit = limit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request and log it: no query, no header, no body, for they may hold secrets."""
        begin = time.monotonic()
        request = Request(environ)
        new_id = begin_request()
        response = self._answer(request)
        response.headers["X-Request-Id"] = new_id
        if response.status_code >= 400:
            _read_rest(request)
            response.headers["Connection"] = "close"
        duration = time.monotonic() - begin
        route = self._route(request.path)
        metrics.requests.labels(self._name, route, str(response.status_code)).inc()
        metrics.seconds.labels(self._name, route).observe(duration)
        log_request(
            _log,
            api=self._name,
            address=request.remote_addr,
            client=caller_or_none(request),
            method=request.method[:20],
            path=request.path.encode("unicode_escape", "backslashreplace").decode()[:600],
            status=response.status_code,
            milliseconds=round(1000 * duration, 1),
        )
        return response(environ, start_response)

    def _route(self, path: str) -> str:
        """Return what stands for a path in metrics: one of the API's own, so that clients can't make up new ones."""
        return next((route for route in self.ROUTES if path == route or path.startswith(f"{route}/")), "-")

    @abstractmethod
    def handle(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            SconifyError: The request is refused.
        """

    def _answer(self, request: Request) -> Response:
        try:
            self._limit.take(request.remote_addr or "-")
            _check_length(request)
            return self.handle(request)
        except FatalSSLAlert:
            raise  # the client is gone, or too slow: the server drops the connection
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
    return Response(json.dumps(document), status=status, mimetype="application/json")


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
    """Return the body, at most ``MAX_BODY`` bytes."""
    data: bytes = request.get_data(cache=False)
    return data


def caller_or_none(request: Request) -> str | None:
    """Return the key hash of the client's certificate, or None if it has none."""
    spki = request.environ.get(PEER_KEY)
    return key_hash(spki) if spki else None


def require_method(request: Request, method: str) -> None:
    """Check the method of a request.

    Raises:
        MethodError: It is another one.
    """
    if request.method != method:
        raise MethodError(f"method {request.method[:20]} is not for {request.path[:200]!r}, expected {method}")


def not_found(request: Request) -> NotFoundError:
    """Return the error of a path that the API does not have."""
    return NotFoundError(f"there is no {request.path[:200]!r} in this API")


def _check_length(request: Request) -> None:
    """Refuse what has no known length (cheroot reads chunks without a bound) or one that is too large."""
    if "HTTP_TRANSFER_ENCODING" in request.environ:
        raise LengthRequiredError("the body is sent in chunks, expected a Content-Length")
    length = request.environ.get("CONTENT_LENGTH") or "0"
    if not re.fullmatch(r"[0-9]{1,15}", length):
        raise BadRequestError("the Content-Length is no number")
    if int(length) > MAX_BODY:
        raise TooLargeError(f"the body has {length} bytes, expected at most {MAX_BODY}")


def _read_rest(request: Request) -> None:
    """Read the rest of a refused body, unless it is huge: a client that still sends would not see the answer."""
    length = request.environ.get("CONTENT_LENGTH") or ""
    chunked = "HTTP_TRANSFER_ENCODING" in request.environ
    if not chunked and re.fullmatch(r"[0-9]{1,15}", length) and int(length) <= _MAX_REST:
        while request.environ["wsgi.input"].read(_PIECE):
            pass


def _error(error: SconifyError) -> Response:
    messages = [error.what]
    cause = error.__cause__
    while isinstance(cause, SconifyError):
        messages.append(cause.what)
        cause = cause.__cause__
    document = {"msg": messages, "remedy": error.remedy, "version": sconify.__version__}
    return json_response(document, status=http_status(error))
