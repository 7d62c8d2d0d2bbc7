"""A CAS put together: store, key, sessions, release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from sconify.attestation.authorities import Authorities
from sconify.attestation.judge import Mode
from sconify.cas.api import ClientApi, EnclaveApi
from sconify.cas.audit import AuditLog
from sconify.cas.catalog import Catalog
from sconify.cas.collateral import Collateral, Fetcher
from sconify.cas.keys import CasKey, load_cas_key
from sconify.cas.master_key import FileMasterKey, MasterKeyProvider
from sconify.cas.release import Release
from sconify.cas.sessions import Sessions
from sconify.cas.store import Store
from sconify.errors import UserError

MASTER_KEY_FILE = "master.key"
AUDIT_LOG = "audit.jsonl"


class Cas:
    """A CAS without its network.

    Args:
        state_dir: Where it keeps everything; made if it does not exist.
        mode: Debug accepts simulated evidence where a policy tolerates it, production never.
        master_key: Gives the key of the store; None: ``master.key`` in the state directory.
        fetcher: Fetches collateral of hardware; None: what it needs must be imported.
        test_roots: Roots that are trusted besides the manufacturers', for tests: in debug mode only.

    Raises:
        UserError: The master key is missing or is another store's; the store is that of a CAS in the other mode.
        ServiceError: The state directory can't be used.
    """

    key: CasKey
    client_api: ClientApi
    enclave_api: EnclaveApi

    def __init__(
        self,
        state_dir: Path,
        *,
        mode: Mode,
        master_key: MasterKeyProvider | None = None,
        fetcher: Fetcher | None = None,
        test_roots: Sequence[x509.Certificate] = (),
    ) -> None:
        if test_roots and mode is Mode.PRODUCTION:
            raise UserError(
                "test roots are not for a CAS in production mode",
                remedy="leave --test-root out, or start it with --debug",
            )
        self._store = Store(state_dir, master_key=master_key or FileMasterKey(state_dir / MASTER_KEY_FILE))
        self._audit = AuditLog(state_dir / AUDIT_LOG)
        self.key = load_cas_key(self._store)
        self._require_mode(mode)
        catalog = Catalog(self._store)
        sessions = Sessions(self._store, catalog=catalog, audit=self._audit)
        self.collateral = Collateral(self._store, fetcher=fetcher, test_roots=test_roots)
        authorities = Authorities(self.collateral, test_roots=test_roots)
        release = Release(
            self._store, catalog=catalog, key=self.key, mode=mode, audit=self._audit, authorities=authorities
        )
        self.client_api = ClientApi(sessions, key=self.key, mode=mode)
        self.enclave_api = EnclaveApi(release)
        self._audit.record("cas started", mode=mode.value, key=self.key.key_hash)

    def _require_mode(self, mode: Mode) -> None:
        """Refuse to serve what a CAS of the other mode has stored: its key and secrets are not protected alike."""
        first = self._store.fixed("mode", new=mode.value.encode()).decode()
        if first != mode:
            self._store.close()
            raise UserError(
                f"the state directory is that of a CAS in {first} mode, got {mode} mode",
                remedy=f"give another one with --state-dir=DIR, or start it with --{first}",
            )

    def close(self) -> None:
        """Record the end and close the store."""
        self._audit.record("cas stopped")
        self._audit.close()
        self._store.close()
