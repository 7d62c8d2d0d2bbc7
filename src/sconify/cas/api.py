"""The two APIs of the CAS (docs/protocol.md, sections 4 and 5)."""

from __future__ import annotations

import base64
import re
import time
from hashlib import sha256

from werkzeug.wrappers import Request, Response

import sconify
from sconify.attestation import simulated
from sconify.attestation.evidence import cas_report_data
from sconify.attestation.judge import Mode
from sconify.cas.errors import BadRequestError, MethodError, UnauthenticatedError
from sconify.cas.http import Api, body, caller_or_none, json_response, not_found, parse_body
from sconify.cas.keys import CasKey
from sconify.cas.nonces import LIFETIME
from sconify.cas.release import AttestRequest, ChallengeRequest, ExitRequest, Release
from sconify.cas.sessions import Sessions

_SESSIONS = "/v1/sessions"
_CREATE = (_SESSIONS, "/session")
_HEX64 = re.compile(r"[0-9a-f]{64}")


class ClientApi(Api):
    """Sessions, and what the CAS is.

    Args:
        sessions: The session operations.
        key: The CAS key.
        mode: The mode that the CAS shows.
    """

    def __init__(self, sessions: Sessions, *, key: CasKey, mode: Mode) -> None:
        self._sessions = sessions
        self._key = key
        self._mode = mode

    def handle(self, request: Request) -> Response:
        """Route a request."""
        path = request.path
        if path in _CREATE:
            _require_method(request, "POST")
            return self._put(request)
        _require_method(request, "GET")
        if path.startswith(f"{_SESSIONS}/"):
            return self._read(request, path.removeprefix(f"{_SESSIONS}/"))
        if path == "/v1/attest":
            return self._attest(request)
        if path == "/v1/version":
            return json_response({"version": sconify.__version__})
        raise not_found(request)

    def _put(self, request: Request) -> Response:
        caller = _caller(request)
        try:
            text = body(request).decode()
        except UnicodeDecodeError:
            raise BadRequestError("the session is no UTF-8 text") from None
        return json_response({"hash": self._sessions.put(text, caller=caller)}, status=201)

    def _read(self, request: Request, name: str) -> Response:
        caller = _caller(request)
        found = self._sessions.read(name, caller=caller, wanted_hash=request.args.get("hash"))
        return json_response({"session": found.text, "hash": found.hash})

    def _attest(self, request: Request) -> Response:
        nonce = request.args.get("nonce", "")
        if not _HEX64.fullmatch(nonce):
            raise BadRequestError("nonce: expected 64 lower-case hex digits", remedy="ask for /v1/attest?nonce=HEX")
        evidence = simulated.issue(
            # No hardware measures this CAS, so it can only name itself.
            measurement=sha256(f"sconify cas {sconify.__version__}".encode()).digest(),
            report_data=cas_report_data(nonce=bytes.fromhex(nonce), spki=self._key.spki, mode=self._mode),
            issued_at=int(time.time()),
        )
        key = base64.b64encode(self._key.spki).decode()
        return json_response({"evidence": evidence, "mode": self._mode.value, "key": key})


class EnclaveApi(Api):
    """Attestation and the release of configurations.

    Args:
        release: The operations.
    """

    def __init__(self, release: Release) -> None:
        self._release = release

    def handle(self, request: Request) -> Response:
        """Route a request."""
        if request.path not in ("/v1/challenge", "/v1/attest", "/v1/exit"):
            raise not_found(request)
        _require_method(request, "POST")
        if request.path == "/v1/challenge":
            nonce = self._release.challenge(parse_body(request, ChallengeRequest))
            shown = base64.urlsafe_b64encode(nonce).rstrip(b"=").decode()
            return json_response({"nonce": shown, "expires_in": LIFETIME})
        if request.path == "/v1/attest":
            sealed, token = self._release.attest(parse_body(request, AttestRequest))
            return json_response({"sealed": sealed, "session_token": token})
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise UnauthenticatedError("the request has no session token (Authorization: Bearer)")
        self._release.exit(parse_body(request, ExitRequest), token=token)
        return Response(status=204)


def _caller(request: Request) -> str:
    caller = caller_or_none(request)
    if caller is None:
        raise UnauthenticatedError(
            "the client showed no certificate", remedy="use a client certificate (curl --cert FILE --key FILE)"
        )
    return caller


def _require_method(request: Request, method: str) -> None:
    if request.method != method:
        raise MethodError(f"method {request.method[:20]} is not for {request.path[:200]!r}, expected {method}")
