"""The enclave API of the CAS (docs/protocol.md, section 4)."""

from __future__ import annotations

from werkzeug.wrappers import Request, Response

from sconify.cas.errors import MethodError, UnauthenticatedError
from sconify.cas.http import Api, json_response, not_found, parse_body, require_method
from sconify.cas.messages import AdvanceRequest, AttestRequest, ChallengeRequest, ExitRequest, base64url
from sconify.cas.nonces import LIFETIME
from sconify.cas.rate_limit import RateLimit
from sconify.cas.release import Release
from sconify.cas.runs import Runs

_VOLUMES = "/v1/volumes/"


class EnclaveApi(Api):
    """Attestation, the release of configurations, and what runs do afterwards.

    Args:
        release: Attestation and release.
        runs: What comes after.
        limit: Limits the requests of each address.
    """

    ROUTES = ("/v1/challenge", "/v1/attest", "/v1/exit", "/v1/renew", "/v1/volumes")

    def __init__(self, release: Release, *, runs: Runs, limit: RateLimit) -> None:
        super().__init__("enclave", limit=limit)
        self._release = release
        self._runs = runs

    def handle(self, request: Request) -> Response:
        """Route a request."""
        path = request.path
        if path.startswith(_VOLUMES):
            return self._volume(request, path.removeprefix(_VOLUMES))
        if path not in ("/v1/challenge", "/v1/attest", "/v1/exit", "/v1/renew"):
            raise not_found(request)
        require_method(request, "POST")
        if path == "/v1/challenge":
            nonce = self._release.challenge(parse_body(request, ChallengeRequest))
            return json_response({"nonce": base64url(nonce), "expires_in": LIFETIME})
        if path == "/v1/attest":
            sealed, token = self._release.attest(parse_body(request, AttestRequest))
            return json_response({"sealed": sealed, "session_token": token})
        if path == "/v1/renew":
            return json_response({"expires_in": self._runs.renew(token=_token(request))})
        token = _token(request)
        self._runs.exit(parse_body(request, ExitRequest), token=token)
        return Response(status=204)

    def _volume(self, request: Request, name: str) -> Response:
        token = _token(request)
        if request.method == "GET":
            state = self._runs.volume(name, token=token)
            return json_response({"root": state.root.hex() if state.root else None, "counter": state.counter})
        if request.method != "POST":
            raise MethodError(f"method {request.method[:20]} is not for volumes, expected GET or POST")
        self._runs.advance(name, parse_body(request, AdvanceRequest), token=token)
        return Response(status=204)


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not token:
        raise UnauthenticatedError("the request has no session token (Authorization: Bearer)")
    return token
