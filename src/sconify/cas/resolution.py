"""All secrets of a session at the time when they are asked for: its own, imported ones, and certificates in time.

An import needs both sides: the importing session names session and secret, and the newest version of that session
exports the secret to it. What is imported is as it is there at that moment.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, TypeVar

from pydantic import ValidationError

from sconify.cas.catalog import Catalog, LoadedSession, ResolvedSecrets
from sconify.cas.errors import ForbiddenError, NotFoundError
from sconify.cas.renewals import Renewals
from sconify.cas.secret_values import certificate_value, public_key_value
from sconify.errors import BugError, UserError
from sconify.policy.access import AccessPolicy
from sconify.policy.formats import FORMATS, SecretValue
from sconify.policy.part import OR_VARIABLE, Part, Variable, resolve, variables
from sconify.policy.references import SecretImport, exports_to, resolve_name
from sconify.policy.secret import AuthoritySecret, CertificateSecret, JwtSecret, PublicKeySecret, Secret
from sconify.policy.security import Security

_MAX_DEPTH = 8
_KEPT = "secrets"
_P = TypeVar("_P", bound=Part)


class _SecurityHolder(Part):
    security: Annotated[Security, OR_VARIABLE]


class Resolver:
    """Finds the values of the secrets of sessions.

    Args:
        catalog: The sessions.
        renewals: Keeps the certificates that are issued later.
    """

    def __init__(self, catalog: Catalog, *, renewals: Renewals) -> None:
        self._catalog = catalog
        self._renewals = renewals

    def secrets(self, session: LoadedSession) -> ResolvedSecrets:
        """Return the secrets of a session.

        Raises:
            NotFoundError: A session or secret that is imported does not exist.
            ForbiddenError: It is not exported to this session.
        """
        return self._secrets(session, depth=0)

    def security(self, session: LoadedSession) -> Security:
        """Return the security section with the values of its variables in their place.

        Raises:
            UserError: A value is not there, or does not fit.
        """
        section: object = session.model.security
        if isinstance(section, Variable):
            holder = _SecurityHolder.model_construct({"security"}, security=section)
            return self.part(holder, session).security
        return self.part(session.model.security, session)

    def part(self, part: _P, session: LoadedSession) -> _P:
        """Return a part of a session with the values of its variables in their place.

        Raises:
            UserError: A value is not there, or does not fit.
        """
        if next(variables(part), None) is None:
            return part
        values = self.secrets(session).values
        try:
            return resolve(part, lambda variable: variable_data(variable, values))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(element) for element in first["loc"])
            raise UserError(
                f"session {session.model.name}: what stands for {place} does not fit: {first['msg']}"
            ) from None

    def access_policy(self, session: LoadedSession) -> AccessPolicy:
        """Return the access policy; entries whose variables have no value are left out, so they let nobody in."""
        policy: object = session.model.access_policy
        if isinstance(policy, AccessPolicy) and next(variables(policy), None) is None:
            return policy
        try:
            values: Mapping[str, SecretValue] = self.secrets(session).values
        except UserError:
            values = session.stored.secrets

        def lookup(variable: Variable) -> object:
            try:
                return variable_data(variable, values)
            except UserError:
                return []  # an entry that is left out

        nobody = AccessPolicy(read=("NONE",), update=("NONE",))
        try:
            if isinstance(policy, Variable):
                found = lookup(policy)
                return AccessPolicy.model_validate(found) if isinstance(found, dict) else nobody
            assert isinstance(policy, AccessPolicy)
            return resolve(policy, lookup)
        except ValidationError:
            return nobody

    def _secrets(self, session: LoadedSession, *, depth: int) -> ResolvedSecrets:
        now = datetime.datetime.now(datetime.UTC)
        known = session.kept.get(_KEPT)
        if isinstance(known, ResolvedSecrets) and (known.good_until is None or known.good_until > now):
            return known
        values = dict(session.stored.secrets)
        ends: list[datetime.datetime] = []
        waiting: list[Secret] = []
        for secret in session.model.secrets:
            if secret.import_ is not None:
                values[secret.name] = self._imported(secret, secret.import_, session, depth=depth)
                ends.append(now)  # imports are looked at each time
            elif isinstance(secret, CertificateSecret | AuthoritySecret | PublicKeySecret):
                waiting.append(secret)
        ends += self._complete(session, waiting, values, now)
        resolved = ResolvedSecrets(values=values, good_until=min(ends, default=None))
        session.kept[_KEPT] = resolved
        return resolved

    def _complete(
        self, session: LoadedSession, waiting: list[Secret], values: dict[str, SecretValue], now: datetime.datetime
    ) -> list[datetime.datetime]:
        """Make what could not be made before its parts were there, and certificates that end soon; issuers first."""
        ends: list[datetime.datetime] = []
        while waiting:
            ready = [s for s in waiting if getattr(s, "issuer", None) not in {w.name for w in waiting}]
            if not ready:
                raise BugError("certificates issue one another in a circle")
            for secret in ready:
                value = values.get(secret.name)
                if isinstance(secret, PublicKeySecret):
                    value = value or public_key_value(secret, values)
                elif isinstance(secret, CertificateSecret | AuthoritySecret):
                    if secret.value is None:
                        issuer = values.get(secret.issuer) if secret.issuer is not None else None
                        issue = partial(certificate_value, secret, values, now=now)
                        value, until = self._renewals.current(session, secret, issuer=issuer, issue=issue, now=now)
                        ends += [until] if until is not None else []
                    elif value is None:
                        value = certificate_value(secret, values, now=now)
                if value is not None:
                    values[secret.name] = value
            waiting = [secret for secret in waiting if secret not in ready]
        return ends

    def _imported(self, secret: Secret, source: SecretImport, importer: LoadedSession, *, depth: int) -> SecretValue:
        if source.cas_url is not None:
            raise NotFoundError(
                f"secret {secret.name} is imported from the CAS {source.cas_url}, which this CAS does not ask",
                remedy="import from a session of this CAS",
            )
        if depth >= _MAX_DEPTH:
            raise ForbiddenError(f"secret {secret.name} is imported over more than {_MAX_DEPTH} sessions")
        name = resolve_name(source.session, base=importer.model.name)
        exporter = self._catalog.latest(name)
        if exporter is None or (source.session_hash is not None and exporter.hash != source.session_hash):
            raise NotFoundError(f"secret {secret.name} is imported from session {name}, which is not there")
        exported = exporter.model.secret(source.secret)
        # One answer to both, so that an importer learns nothing of what is not exported to it.
        if exported is None or not _is_exported(exported, exporter, importer):
            raise ForbiddenError(
                f"session {name} does not export a secret {source.secret} to session {importer.model.name}",
                remedy=f"have it say export: [{{session: {importer.model.name}}}] in the secret",
            )
        if isinstance(exported, JwtSecret):
            raise ForbiddenError(f"secret {source.secret} of session {name} is a token, which can't be imported")
        value = self._secrets(exporter, depth=depth + 1).values.get(source.secret)
        if value is None:
            raise NotFoundError(f"secret {source.secret} of session {name} has no value")
        if secret.kind is not None and secret.kind != value.kind:
            raise UserError(f"secret {secret.name} is imported: got kind {value.kind}, expected {secret.kind}")
        if isinstance(exported, CertificateSecret | AuthoritySecret):
            key = exporter.model.secret(exported.private_key) if exported.private_key is not None else None
            if key is not None and not _is_exported(key, exporter, importer):
                value = replace(value, private_key=None)
        return value


def variable_data(variable: Variable, values: Mapping[str, SecretValue]) -> object:
    """Return the plain data that a variable stands for.

    Raises:
        NotFoundError: Its secret has no value.
        UserError: The secret has no such format.
    """
    value = values.get(variable.secret)
    if value is None:
        raise NotFoundError(f"secret {variable.secret} has no value")
    if value.kind == "config-fragment":
        return json.loads(value.data)
    if value.kind == "binary" and not variable.format:
        return value.data.hex()
    form = FORMATS[value.kind].get(variable.format)
    if form is None or form.raw:
        raise UserError(
            f"secret {variable.secret} of kind {value.kind} can't stand in the configuration in this format"
        )
    return form.encode(value).decode()


def _is_exported(secret: Secret, exporter: LoadedSession, importer: LoadedSession) -> bool:
    return any(
        exports_to(target, exporter=exporter.model.name, importer=importer.model.name, importer_hash=importer.hash)
        for target in secret.export
    )
