"""Public values: secrets with ``export_public``, for anybody without authentication."""

from __future__ import annotations

import datetime
import re

from sconify.cas import certificates
from sconify.cas.catalog import Catalog, LoadedSession
from sconify.cas.errors import BadRequestError, NotFoundError
from sconify.cas.resolution import Resolver
from sconify.policy.formats import FORMATS, SecretValue

_QUERY = re.compile(r"session=([^,]+)(?:,session_hash=([0-9a-fA-F]{64}))?(?:,secret=([^,]+))?")
_KINDS = {"ascii": "string", "public-key": "public-key", "x509": "x509", "x509-ca": "x509-ca"}
# What may go out of each kind; binary values as hex digits, of certificates never the private key.
_FORMATS = {"binary": "hex", "pgp-key": "publickey:asciiarmored"}
_PRIVATE = ("private-key", "config-fragment", "jwt")


class PublicValues:
    """Answers ``GET /v1/values/...``.

    Args:
        catalog: The sessions.
        resolver: Finds the values.
    """

    def __init__(self, catalog: Catalog, *, resolver: Resolver) -> None:
        self._catalog = catalog
        self._resolver = resolver

    def get(self, query: str) -> dict[str, object]:
        """Return one value, or all public values of a session.

        Args:
            query: ``session=NAME[,session_hash=HASH][,secret=NAME]``.

        Raises:
            BadRequestError: The query is malformed.
            NotFoundError: There is no such session, or no such secret that is public.
        """
        match = _QUERY.fullmatch(query)
        if match is None:
            raise BadRequestError("expected /v1/values/session=NAME[,session_hash=HASH][,secret=NAME]")
        name, wanted_hash, secret = match.groups()
        session = self._catalog.latest(name)
        # One answer to all, so that names of sessions and secrets that are not public can't be found out.
        missing = NotFoundError(f"session {name[:100]} has no public value{f' {secret[:100]}' if secret else 's'}")
        if session is None or (wanted_hash is not None and session.hash != wanted_hash.lower()):
            raise missing
        public = self._public(session, secret)
        if not public:
            raise missing
        if secret is not None:
            return public[secret]
        return {"values": public}

    def _public(self, session: LoadedSession, only: str | None) -> dict[str, dict[str, object]]:
        names = [
            secret.name
            for secret in session.model.secrets
            if secret.export_public and (only is None or secret.name == only)
        ]
        if not names:
            return {}
        values = self._resolver.secrets(session).values
        return {name: _document(values[name]) for name in names if name in values and values[name].kind not in _PRIVATE}


def _document(value: SecretValue) -> dict[str, object]:
    form = FORMATS[value.kind][_FORMATS.get(value.kind, "")]
    document: dict[str, object] = {
        "kind": _KINDS.get(value.kind, value.kind),
        "value": form.encode(value).decode(),
        "expires": None,
        "renew": None,
    }
    if value.kind in ("x509", "x509-ca"):
        expires = certificates.expiry(value)
        if expires.year < 4096:
            document |= {"expires": _time(expires), "renew": _time(certificates.renewal(value))}
    return document


def _time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
