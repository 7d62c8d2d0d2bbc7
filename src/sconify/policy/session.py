"""Sessions as text: parsing, the hash, and the text that is read back."""

from __future__ import annotations

import hashlib
import json

from pydantic import ValidationError

from sconify.errors import BugError, UserError
from sconify.policy.access import signer_key_hash
from sconify.policy.canonical import canonical_json
from sconify.policy.document import Document, parse_document
from sconify.policy.model import Session
from sconify.policy.part import TAG

_HASH_DOMAIN = b"sconify session v1\0"


def parse_session(text: str) -> Session:
    """Parse the YAML text of a session.

    Args:
        text: At most ``document.MAX_BYTES`` in UTF-8.

    Raises:
        UserError: The text is no session; the message names line, column and key, and shows no secret value.
    """
    return _validate(parse_document(text))


def session_hash(session: Session) -> str:
    """Return the hash of a session: 64 hex digits.

    It is the SHA-256 of the canonical JSON of the normalised model without members that have their default value (so
    an extension of the language does not change old hashes), with ``creator`` if set. The text that was uploaded and
    the text that is read back differ in ``creator`` only.
    """
    model = session.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return hashlib.sha256(_HASH_DOMAIN + canonical_json(model)).hexdigest()


def creator_identity(creator: object) -> str:
    """Return the creator of a session as one text: a key hash, or ``signer:`` and the signer's."""
    if isinstance(creator, dict):
        return f"signer:{signer_key_hash(creator['signer'])}"
    return str(creator)


def with_creator(text: str, *, creator: str | dict[str, str]) -> str:
    """Return a session's text with its creator written into it, comments and all.

    Args:
        text: The text of a valid session.
        creator: The key hash of the creator, or ``{"signer": PEM}``.

    Raises:
        UserError: The text is so unusual at its top level that the creator can't be written into it.
    """
    text = text.removeprefix("\ufeff")  # a byte order mark says nothing, and would shift offsets
    document = parse_document(text)
    session = _validate(document)
    if session.creator is not None:
        if creator_identity(session.creator) == creator_identity(creator):
            return text
        raise BugError("the session has another creator already")
    offset, flow = document.top
    line = f"creator: {json.dumps(creator)}"
    if flow:
        result = f"{text[: offset + 1]}{line}, {text[offset + 1 :]}"
    else:
        column = offset - (text.rfind("\n", 0, offset) + 1)
        result = f"{text[:offset]}{line}\n{' ' * column}{text[offset:]}"
    remedy = "begin the session with a line `name: ...`, and keep it small"
    try:
        written = parse_session(result)
    except UserError as error:
        raise UserError("the creator can't be written into the session", remedy=remedy) from error
    if written != session.model_copy(update={"creator": creator}):
        raise UserError("the creator can't be written into the session: it is no plain mapping", remedy=remedy)
    return result


def _validate(document: Document) -> Session:
    try:
        return Session.model_validate(document.data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    # Tags of unions are no part of the text.
    path = context.get("location") or tuple(
        element for element in first["loc"] if not (isinstance(element, str) and element.startswith(TAG))
    )
    mark = document.key_mark(path, context["key"]) if "key" in context else document.mark(path)
    shown = "".join(f"[{element}]" if isinstance(element, int) else f".{element}" for element in path).lstrip(".")
    message = first["msg"] if first["type"] != "missing" else "this key is missing"
    raise UserError(f"session {mark}: {shown}: {message}" if shown else f"session {mark}: {message}")
