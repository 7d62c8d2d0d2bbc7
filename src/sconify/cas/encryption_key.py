"""The key to which authors encrypt sessions: another one than the CAS key, which only signs."""

from __future__ import annotations

from joserfc.jwk import ECKey

from sconify.cas.store import Store

_NAME = "session encryption"


def load_encryption_key(store: Store) -> ECKey:
    """Return the session encryption key of a store, EC P-256; it is made when it is needed first.

    Raises:
        UserError: The store was written under another master key.
    """
    new = ECKey.generate_key("P-256").as_der(private=True)
    return ECKey.import_key(store.fixed(_NAME, new=new))


def public_jwk(key: ECKey) -> dict[str, str]:
    """Return the public half as a JWK."""
    members = key.as_dict(private=False)
    return {name: str(members[name]) for name in ("kty", "crv", "x", "y")}
