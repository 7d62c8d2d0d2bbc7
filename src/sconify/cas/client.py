"""The client of a CAS: sessions are created, updated and read at a CAS that was attested before."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from sconify.cas.attested import AttestedCas
from sconify.cas.connection import DEFAULT_TIMEOUT, CasConnection, CasRefusedError
from sconify.cas.identity import Identity
from sconify.cas.session_text import with_predecessor
from sconify.errors import ServiceError, UserError
from sconify.policy import encrypted, signed
from sconify.policy.session import parse_session

_CONFLICT = 409
_UPDATE_ATTEMPTS = 3


@dataclass(frozen=True)
class StoredSession:
    """One version of a session, as the CAS gave it."""

    text: str = field(repr=False)  # it may hold secrets
    hash: str


@dataclass(frozen=True)
class SessionVersion:
    """What is known of one version of a session."""

    version: int
    """From 1."""
    hash: str
    created_at: int
    """Seconds since 1970."""


class CasClient:
    """Talks to an attested CAS, and to nobody else: every connection is checked for its key.

    Args:
        cas: The attested CAS.
        identity: Who asks; shown as TLS client certificate.
        timeout: Seconds that one request may take.
        retries: How often a CAS that can't be reached is tried again; None takes SCONE_CLI_RETRIES, or 3.
    """

    def __init__(
        self, cas: AttestedCas, *, identity: Identity, timeout: float = DEFAULT_TIMEOUT, retries: int | None = None
    ) -> None:
        self.cas = cas
        self._connection = CasConnection(
            cas.address, identity=identity, key_sha256=cas.key_sha256, timeout=timeout, retries=retries
        )

    def create_session(self, text: str) -> str:
        """Store a session.

        Args:
            text: The session as YAML. With ``predecessor`` it replaces that version.

        Returns:
            The hash of the stored version, 64 hex digits.

        Raises:
            CasRefusedError: The session is not valid, or not allowed; status 409 when the name exists.
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        answer = self._connection.request("POST", "/v1/sessions", body=text.encode())
        return self._hash(answer.document)

    def encryption_key(self) -> dict[str, object]:
        """Return the key, as a JWK, to which sessions for this CAS are encrypted.

        Raises:
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        key = self._connection.request("GET", "/v1/encryption_key").document.get("key")
        if not isinstance(key, dict):
            raise self._malformed("key")
        return key

    def create_wrapped_session(self, document: str) -> str:
        """Store a signed session or an encrypted one; return the hash of the stored version.

        Args:
            document: As ``sconify.policy.signed`` or ``sconify.policy.encrypted`` makes it.

        Raises:
            CasRefusedError: A signature is not valid, the session is not, or it is not allowed.
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        kind = signed.MEDIA_TYPE if document.lstrip().startswith("{") else encrypted.MEDIA_TYPE
        answer = self._connection.request("POST", "/v1/sessions", body=document.encode(), content_type=kind)
        return self._hash(answer.document)

    def update_session(self, text: str) -> str:
        """Replace the newest version of a session that exists; its hash is filled in as ``predecessor``.

        Raises:
            CasRefusedError: No such session, not allowed, or somebody else keeps updating it.
            UserError: The text is no session.
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        name = parse_session(text).name
        for attempt in range(1, _UPDATE_ATTEMPTS + 1):
            newest = self.read_session(name).hash
            try:
                return self.create_session(with_predecessor(text, newest))
            except CasRefusedError as refused:
                # Somebody else's update came in between.
                if refused.status != _CONFLICT or attempt == _UPDATE_ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def upload_session(self, text: str, *, update: bool) -> str:
        """Store a session whether or not one of its name exists.

        Args:
            text: The session as YAML.
            update: Whether an existing session may be replaced; if not, it is refused.

        Returns:
            The hash of the stored version, 64 hex digits.

        Raises:
            CasRefusedError: The session is not valid, not allowed, or exists and may not be replaced.
            UserError: The text is no session.
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        name = parse_session(text).name
        try:
            return self.create_session(text)
        except CasRefusedError as refused:
            if refused.status != _CONFLICT:
                raise
            if not update:
                raise CasRefusedError(
                    f"session {name} exists already at the CAS {self.cas.address}",
                    status=_CONFLICT,
                    remedy="give another session name, or allow updates",
                ) from refused
        return self.update_session(text)

    def read_session(self, name: str, *, session_hash: str | None = None) -> StoredSession:
        """Return the newest version of a session, or the one with the given hash.

        Raises:
            CasRefusedError: No such session (status 404), or not allowed to read it.
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        path = f"/v1/sessions/{quote(name, safe='/~')}"
        if session_hash is not None:
            path += f"?hash={quote(session_hash, safe='')}"
        document = self._connection.request("GET", path).document
        text = document.get("session")
        if not isinstance(text, str):
            raise self._malformed("session")
        return StoredSession(text, self._hash(document))

    def list_sessions(self, namespace: str | None = None) -> list[str]:
        """Return the names of the sessions that the client may list, those below a namespace or all.

        Raises:
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        found: list[str] = []
        while True:
            query = {"after": found[-1] if found else ""} | ({"namespace": namespace} if namespace else {})
            document = self._connection.request("GET", f"/v1/sessions?{urlencode(query)}").document
            names = document.get("sessions")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise self._malformed("sessions")
            found += names
            if not names or document.get("more") is not True:
                return found

    def session_history(self, name: str) -> list[SessionVersion]:
        """Return what is known of each version of a session, the first one first.

        Raises:
            CasRefusedError: No such session (status 404), or not allowed to read it.
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        document = self._connection.request("GET", f"/v1/history/{quote(name, safe='/~')}").document
        try:
            versions = [
                SessionVersion(int(version["version"]), self._hash(version), int(version["created_at"]))
                for version in document["versions"]
            ]
        except (KeyError, TypeError, ValueError):
            raise self._malformed("versions") from None
        if not versions:
            raise self._malformed("versions")
        return versions

    def provision(self, token: str, *, root_session: str | None) -> str:
        """Become the owner of a new CAS; return the owner's key hash.

        Raises:
            CasRefusedError: The token is another one, the CAS has an owner already, or the session is none.
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        body = json.dumps({"token": token, "root_session": root_session}).encode()
        document = self._connection.request(
            "POST", "/v1/provision", body=body, content_type="application/json"
        ).document
        owner = document.get("owner")
        if not isinstance(owner, str):
            raise self._malformed("owner")
        return owner

    def ensure_namespace(self, name: str) -> bool:
        """Create the session that stands for a namespace, and each one above it, where they do not exist.

        Args:
            name: The namespace, such as ``team`` or ``team/project``.

        Returns:
            Whether anything was created.

        Raises:
            UserError: The name is empty or has an empty part.
            CasRefusedError: The CAS doesn't allow it.
            ServiceError: The CAS can't be reached, or failed.
            UntrustedDataError: The server is not the attested CAS.
        """
        parts = name.split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_.~-]+", part) for part in parts):
            raise UserError(
                f"{name!r} is no namespace", remedy="use letters, digits and `-_.~`, with `/` between the parts"
            )
        created = False
        for length in range(1, len(parts) + 1):
            try:
                self.create_session(f'name: "{"/".join(parts[:length])}"\nversion: "0.3"\n')
                created = True
            except CasRefusedError as refused:
                if refused.status != _CONFLICT:
                    raise
        return created

    def _hash(self, document: dict[str, object]) -> str:
        value = document.get("hash")
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
            raise self._malformed("hash")
        return value

    def _malformed(self, member: str) -> ServiceError:
        return ServiceError(
            f'the CAS at {self.cas.address} answered without a valid "{member}"',
            remedy="use a CAS and a client of the same version",
        )
