"""The client API of the CAS (docs/protocol.md, section 5)."""

from __future__ import annotations

import base64
import re

from joserfc.jwk import ECKey
from werkzeug.wrappers import Request, Response

import sconify
from sconify.attestation.judge import Mode
from sconify.cas import metrics
from sconify.cas.access import Caller
from sconify.cas.console.pages import Console
from sconify.cas.encryption_key import public_jwk
from sconify.cas.errors import BadRequestError, UnauthenticatedError
from sconify.cas.health import Health
from sconify.cas.http import Api, body, caller_or_none, json_response, not_found, parse_body, require_method
from sconify.cas.keys import CasKey
from sconify.cas.messages import ProvisionRequest
from sconify.cas.provisioning import Provisioning
from sconify.cas.rate_limit import RateLimit
from sconify.cas.self_evidence import SelfEvidence
from sconify.cas.sessions import Sessions, SessionText
from sconify.cas.values import PublicValues
from sconify.policy import encrypted, signed

_SESSIONS = "/v1/sessions"
_CREATE = (_SESSIONS, "/session")
_HISTORY = "/v1/history/"
_VALUES = "/v1/values/"
_ENCRYPTED = "/v1/encrypted_sessions"
_OF_ITSELF = (
    "/v1/attest",
    "/v1/encryption_key",
    "/v1/health",
    "/v1/metrics",
    "/v1/provision",
    "/v1/ready",
    "/v1/version",
)
_HEX64 = re.compile(r"[0-9a-f]{64}")


class ClientApi(Api):
    """Sessions, public values, and what the CAS is.

    Args:
        sessions: The session operations.
        values: The public values.
        provisioning: Whether the CAS has an owner.
        health: Whether it can serve.
        limit: Limits the requests of each address.
        key: The CAS key.
        mode: The mode that the CAS shows.
        evidence: What it shows of itself.
        encryption_key: Opens encrypted sessions.
        console: The pages for people; None: there are none.
    """

    ROUTES = ("/console", "/session", _SESSIONS, "/v1/history", "/v1/values", _ENCRYPTED, *_OF_ITSELF)

    def __init__(
        self,
        sessions: Sessions,
        *,
        values: PublicValues,
        provisioning: Provisioning,
        health: Health,
        limit: RateLimit,
        key: CasKey,
        mode: Mode,
        evidence: SelfEvidence,
        encryption_key: ECKey,
        console: Console | None = None,
    ) -> None:
        super().__init__("client", limit=limit)
        self._health = health
        self._sessions = sessions
        self._values = values
        self._provisioning = provisioning
        self._key = key
        self._mode = mode
        self._self_evidence = evidence
        self._encryption_key = encryption_key
        self._console = console

    def handle(self, request: Request) -> Response:
        """Route a request."""
        path = request.path
        if self._console is not None and self._console.has(path):
            return self._console.handle(request)
        if path in _OF_ITSELF:
            return self._self(request)
        self._provisioning.require()
        return self._of_sessions(request, path)

    def _of_sessions(self, request: Request, path: str) -> Response:
        if path == _SESSIONS and request.method == "GET":
            return self._list(request)
        if path in _CREATE or path == _ENCRYPTED:
            require_method(request, "PUT" if path == _ENCRYPTED else "POST")
            return self._put(request)
        require_method(request, "GET")
        if path.startswith(f"{_SESSIONS}/"):
            return self._read(request, _name(path.removeprefix(f"{_SESSIONS}/")))
        if path.startswith(_HISTORY):
            return self._history(request, _name(path.removeprefix(_HISTORY)))
        if path.startswith(_VALUES):
            return json_response(self._values.get(path.removeprefix(_VALUES)))
        raise not_found(request)

    def _self(self, request: Request) -> Response:
        if request.path == "/v1/provision":
            require_method(request, "POST")
            message = parse_body(request, ProvisionRequest)
            owner = self._provisioning.provision(
                message.token, root_session=message.root_session, caller=_caller(request)
            )
            return json_response({"owner": owner}, status=201)
        require_method(request, "GET")
        if request.path == "/v1/attest":
            return self._attest(request)
        if request.path == "/v1/encryption_key":
            return json_response({"key": public_jwk(self._encryption_key)})
        if request.path == "/v1/metrics":
            return Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE)
        if request.path == "/v1/ready":
            self._health.require_ready()
        if request.path in ("/v1/health", "/v1/ready"):
            return json_response({"status": "ok"})
        return json_response({"version": sconify.__version__})

    def _put(self, request: Request) -> Response:
        try:
            text = body(request).decode()
        except UnicodeDecodeError:
            raise BadRequestError("the session is no UTF-8 text") from None
        signers: dict[str, str] = {}
        kind = request.mimetype
        if kind == encrypted.MEDIA_TYPE or request.path == _ENCRYPTED:
            text, kind = encrypted.open_encrypted(text, self._encryption_key)
        if kind == signed.MEDIA_TYPE:
            text, signers = signed.open_signed(text)
        caller = Caller(key=caller_or_none(request), signers=signers)
        if not caller.identities:
            raise UnauthenticatedError(
                "the client showed no certificate",
                remedy="use a client certificate (curl --cert FILE --key FILE), or sign the session",
            )
        return json_response({"hash": self._sessions.put(text, caller=caller)}, status=201)

    def _read(self, request: Request, name: str) -> Response:
        found = self._sessions.read(name, caller=_caller(request), wanted_hash=request.args.get("hash"))
        return json_response(_document(found))

    def _history(self, request: Request, name: str) -> Response:
        versions = self._sessions.history(name, caller=_caller(request))
        keys = ("hash", "version", "created_at")
        return json_response({"versions": [{key: _document(version)[key] for key in keys} for version in versions]})

    def _list(self, request: Request) -> Response:
        names, more = self._sessions.names(
            namespace=request.args.get("namespace"), caller=_caller(request), after=request.args.get("after", "")
        )
        return json_response({"sessions": names, "more": more})

    def _attest(self, request: Request) -> Response:
        nonce = request.args.get("nonce", "")
        if not _HEX64.fullmatch(nonce):
            raise BadRequestError("nonce: expected 64 lower-case hex digits", remedy="ask for /v1/attest?nonce=HEX")
        evidence = self._self_evidence.give(bytes.fromhex(nonce))
        key = base64.b64encode(self._key.spki).decode()
        return json_response({"evidence": evidence, "mode": self._mode.value, "key": key})


def _document(session: SessionText) -> dict[str, object]:
    return {
        "session": session.text,
        "hash": session.hash,
        "version": session.version,
        "created_at": session.created_at,
    }


def _name(path: str) -> str:
    return path or "/"


def _caller(request: Request) -> Caller:
    key = caller_or_none(request)
    if key is None:
        raise UnauthenticatedError(
            "the client showed no certificate", remedy="use a client certificate (curl --cert FILE --key FILE)"
        )
    return Caller(key=key)
