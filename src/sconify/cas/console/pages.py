"""The pages of the console and who may see them (GET below ``/console``; nothing can be changed here).

Who looks is known by the client certificate, as everywhere at the client API. A session's pages are for those who may
read it. What services of other sessions did, and the audit log, is for operators: the owner of the CAS (the one who has
provisioned it) and those whom its command line names.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection
from functools import cache
from importlib import resources

import jinja2
from werkzeug.exceptions import HTTPException
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

import sconify
from sconify.attestation.judge import Mode
from sconify.cas.access import Caller
from sconify.cas.audit import AuditLog
from sconify.cas.console.activity import recent
from sconify.cas.console.chain import Chain
from sconify.cas.console.difference import difference
from sconify.cas.console.redaction import redacted
from sconify.cas.console.summary import proofs
from sconify.cas.errors import BadRequestError, ForbiddenError, NotFoundError, UnauthenticatedError, http_status
from sconify.cas.http import caller_or_none, not_found, require_method
from sconify.cas.keys import CasKey
from sconify.cas.provisioning import Provisioning
from sconify.cas.sealing import Authenticator
from sconify.cas.sessions import Sessions, SessionText
from sconify.errors import SconifyError
from sconify.policy.session import parse_session

PREFIX = "/console"

_PAGE = 100
_OUTCOMES = ("attested", "refused", "exited")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Console:
    """Answers requests below ``/console``.

    Args:
        sessions: The session operations, which decide who may see what.
        provisioning: Knows the owner.
        audit: The audit log of this process.
        key: The CAS key.
        mode: The mode that the CAS shows.
        fingerprints: Makes the fingerprints of what is hidden.
        operators: Key hashes of those who may see everything, besides the owner.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        provisioning: Provisioning,
        audit: AuditLog,
        key: CasKey,
        mode: Mode,
        fingerprints: Authenticator,
        operators: Collection[str] = (),
    ) -> None:
        self._sessions = sessions
        self._provisioning = provisioning
        self._log = audit.path
        self._chain = Chain(audit.path, cas_key=key.key_hash)
        self._fingerprints = fingerprints
        self._operators = frozenset(operators)
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("sconify.cas.console"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["time"] = _time
        self._templates.globals.update(
            version=sconify.__version__, mode=mode.value, cas_key=key.key_hash, proofs=proofs
        )
        self._pages: dict[str, Callable[[Request, Caller], Response]] = {
            "/": self._overview,
            "/sessions": self._list,
            "/session": self._session,
            "/diff": self._diff,
            "/activity": self._activity,
            "/audit": self._audit,
        }

    @staticmethod
    def has(path: str) -> bool:
        """Tell whether a path is one of the console's."""
        return path in ("/", PREFIX) or path.startswith(f"{PREFIX}/")

    def handle(self, request: Request) -> Response:
        """Answer a request, errors too, with a page."""
        try:
            response = self._answer(request)
        except SconifyError as error:
            response = self._error(request, error)
        except HTTPException:
            response = self._error(request, BadRequestError("the request is malformed"))
        response.headers.update(_HEADERS)
        return response

    def _answer(self, request: Request) -> Response:
        require_method(request, "GET")
        path = request.path.removeprefix(PREFIX)
        if request.path in ("/", PREFIX):
            return redirect(f"{PREFIX}/")
        if path == "/style.css":
            return Response(_style(), content_type="text/css; charset=utf-8")
        page = self._pages.get(path)
        if page is None:
            raise not_found(request)
        key = caller_or_none(request)
        if key is None:
            raise UnauthenticatedError(
                "Your browser has shown no certificate",
                remedy="Make a file for it with `sconify self export FILE.p12`, import that in the browser's settings "
                "(certificates, your certificates), and open this page anew",
            )
        self._provisioning.require()
        return page(request, Caller(key=key))

    def _overview(self, request: Request, caller: Caller) -> Response:
        names, more = self._sessions.names(namespace=None, caller=caller)
        activities = recent(self._log, visible=self._visible(caller), limit=10)
        return self._page(
            "overview.html",
            request,
            caller,
            count=f"{len(names)}{' or more' if more else ''}",
            activities=activities,
            chain=self._chain.state() if self._is_operator(caller) else None,
        )

    def _list(self, request: Request, caller: Caller) -> Response:
        after = request.args.get("after", "")
        names, more = self._sessions.names(namespace=None, caller=caller, after=after)
        more_names = more or len(names) > _PAGE
        return self._page(
            "sessions.html",
            request,
            caller,
            names=names[:_PAGE],
            after=after,
            following=names[_PAGE - 1] if more_names and len(names) >= _PAGE else None,
        )

    def _session(self, request: Request, caller: Caller) -> Response:
        name = request.args.get("name", "")
        versions = self._sessions.history(name, caller=caller)
        shown = _version(versions, request.args.get("version"), name=name, default=len(versions))
        return self._page(
            "session.html",
            request,
            caller,
            name=name,
            versions=versions[::-1],
            shown=shown,
            session=parse_session(shown.text),
            text=self._redacted(shown, name),
            activities=recent(self._log, visible=lambda session: session == name, limit=10),
        )

    def _diff(self, request: Request, caller: Caller) -> Response:
        name = request.args.get("name", "")
        versions = self._sessions.history(name, caller=caller)
        new = _version(versions, request.args.get("new"), name=name, default=len(versions))
        old = _version(versions, request.args.get("old"), name=name, default=max(1, new.version - 1))
        lines = difference(self._redacted(old, name), self._redacted(new, name))
        return self._page(
            "diff.html", request, caller, name=name, old=old, new=new, lines=lines, versions=versions[::-1]
        )

    def _activity(self, request: Request, caller: Caller) -> Response:
        outcome = request.args.get("outcome") or None
        if outcome not in (None, *_OUTCOMES):
            raise BadRequestError(f"outcome: expected {', '.join(_OUTCOMES)}")
        activities = recent(self._log, visible=self._visible(caller), limit=_PAGE, outcome=outcome)
        return self._page("activity.html", request, caller, activities=activities, outcome=outcome, outcomes=_OUTCOMES)

    def _audit(self, request: Request, caller: Caller) -> Response:
        if not self._is_operator(caller):
            raise ForbiddenError(
                "The audit log is for operators of this CAS",
                remedy=f"Its owner is one; others are named with --operator={caller.key} when it is started",
            )
        return self._page("audit.html", request, caller, chain=self._chain.state())

    def _is_operator(self, caller: Caller) -> bool:
        return caller.key is not None and caller.key in {self._provisioning.owner, *self._operators}

    def _readable(self, caller: Caller) -> Callable[[str], bool]:
        return cache(lambda session: self._sessions.may_read(session, caller=caller))

    def _visible(self, caller: Caller) -> Callable[[str], bool]:
        return (lambda _session: True) if self._is_operator(caller) else self._readable(caller)

    def _redacted(self, version: SessionText, name: str) -> str:
        def fingerprint(value: str) -> str:
            return self._fingerprints.digest(f"{name}\0{value}".encode()).hex()[:8]

        return redacted(version.text, fingerprint=fingerprint)

    def _page(self, template: str, request: Request, caller: Caller, **values: object) -> Response:
        html = self._templates.get_template(template).render(
            here=request.path.removeprefix(PREFIX),
            caller=caller.key,
            operator=self._is_operator(caller),
            may_read=self._readable(caller),
            **values,
        )
        return Response(html, content_type="text/html; charset=utf-8")

    def _error(self, request: Request, error: SconifyError) -> Response:
        html = self._templates.get_template("error.html").render(
            here=request.path.removeprefix(PREFIX),
            caller=caller_or_none(request),
            operator=False,
            what=error.what,
            remedy=error.remedy,
            status=http_status(error),
        )
        return Response(html, status=http_status(error), content_type="text/html; charset=utf-8")


def _version(versions: list[SessionText], number: str | None, *, name: str, default: int) -> SessionText:
    wanted = str(default) if number is None else number
    found = next((version for version in versions if str(version.version) == wanted), None)
    if found is None:
        raise NotFoundError(f"session {name} has no version {wanted[:20]}")
    return found


def _time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@cache
def _style() -> bytes:
    return resources.files("sconify.cas.console").joinpath("style.css").read_bytes()
