"""A CAS put together: store, key, sessions, release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sconify.attestation.authorities import Authorities
from sconify.attestation.judge import Mode
from sconify.cas.api import ClientApi
from sconify.cas.audit import AuditLog
from sconify.cas.audited_history import AuditedHistory
from sconify.cas.catalog import Catalog
from sconify.cas.collateral import Collateral, Fetcher
from sconify.cas.console.pages import Console
from sconify.cas.enclave_api import EnclaveApi
from sconify.cas.encryption_key import load_encryption_key
from sconify.cas.health import Health
from sconify.cas.keys import CasKey, load_cas_key
from sconify.cas.leases import Leases
from sconify.cas.master_key import FileMasterKey, MasterKeyProvider
from sconify.cas.mounts import Mounts
from sconify.cas.provisioning import Provisioning
from sconify.cas.rate_limit import RateLimit
from sconify.cas.release import Release
from sconify.cas.renewals import Renewals
from sconify.cas.resolution import Resolver
from sconify.cas.runs import Runs, RunTokens
from sconify.cas.sealing import Authenticator, derive_key
from sconify.cas.self_evidence import SelfEvidence
from sconify.cas.sessions import Sessions
from sconify.cas.store import Store
from sconify.cas.values import PublicValues
from sconify.cas.volumes import VolumeStates
from sconify.errors import UserError
from sconify.las.provider import Provider

MASTER_KEY_FILE = "master.key"
AUDIT_LOG = "audit.jsonl"


class Cas:
    """A CAS without its network.

    Args:
        state_dir: Where it keeps everything; made if it does not exist.
        mode: Debug accepts simulated evidence where a policy tolerates it, production never.
        master_key: Gives the key of the store; None: ``master.key`` in the state directory.
        database_url: ``postgresql://...``; None: SQLite in the state directory.
        fetcher: Fetches collateral of hardware; None: what it needs must be imported.
        test_roots: Roots that are trusted besides the manufacturers', for tests: in debug mode only.
        accept_older_database: Whether a database may be older than the audit log says it was: a restored backup.
        require_provisioning: Whether it serves nothing before an owner has provisioned it.
        rate_limit: Requests a second that each address may send to each API; 0: as many as it likes.
        hardware: Gives evidence of the VM in which the CAS runs; None: it shows simulated evidence of itself.
        console: Whether it has pages for people.
        operators: Key hashes of those who may see everything there, besides the owner.

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
        database_url: str | None = None,
        fetcher: Fetcher | None = None,
        test_roots: Sequence[x509.Certificate] = (),
        accept_older_database: bool = False,
        require_provisioning: bool = False,
        rate_limit: float = 0,
        hardware: Provider | None = None,
        console: bool = True,
        operators: Sequence[str] = (),
    ) -> None:
        if test_roots and mode is Mode.PRODUCTION:
            raise UserError(
                "test roots are not for a CAS in production mode",
                remedy="leave --test-root out, or start it with --debug",
            )
        self._store = Store(
            state_dir,
            master_key=master_key or FileMasterKey(state_dir / MASTER_KEY_FILE),
            database_url=database_url,
        )
        try:
            self.key = load_cas_key(self._store)
            self._require_mode(mode)
            self._audit = AuditLog(state_dir / AUDIT_LOG, signing_key=audit_key(self._store.root_key), cas_key=self.key)
            self._history = AuditedHistory(
                # SQLite has one log beside it. On PostgreSQL each replica has its own, and replicas come and go.
                self._store,
                self._audit,
                name="beside the store" if database_url is None else self._audit.identity,
            )
            self._history.require_newest(accept_older=accept_older_database)
        except BaseException:
            self._store.close()
            raise
        catalog = Catalog(self._store)
        resolver = Resolver(catalog, renewals=Renewals(self._store))
        states, leases = VolumeStates(self._store), Leases(self._store)
        tokens = RunTokens(self._store.root_key)
        self._runs = Runs(tokens, states=states, leases=leases, audit=self._audit)
        sessions = Sessions(self._store, catalog=catalog, resolver=resolver, audit=self._audit)
        self.collateral = Collateral(self._store, fetcher=fetcher, test_roots=test_roots)
        release = Release(
            self._store,
            catalog=catalog,
            resolver=resolver,
            mounts=Mounts(catalog, resolver=resolver, states=states),
            tokens=tokens,
            leases=leases,
            key=self.key,
            mode=mode,
            audit=self._audit,
            authorities=Authorities(self.collateral, test_roots=test_roots),
        )
        values = PublicValues(catalog, resolver=resolver)
        self.provisioning = Provisioning(
            self._store, sessions=sessions, audit=self._audit, required=require_provisioning
        )
        self.health = Health(self._store, provisioning=self.provisioning)
        pages = Console(
            sessions,
            provisioning=self.provisioning,
            audit=self._audit,
            key=self.key,
            mode=mode,
            fingerprints=Authenticator(self._store.root_key, purpose="console"),
            operators=operators,
        )
        self.evidence = SelfEvidence(self.key, mode=mode, hardware=hardware)
        self.client_api = ClientApi(
            sessions,
            values=values,
            provisioning=self.provisioning,
            health=self.health,
            limit=RateLimit(rate_limit),
            key=self.key,
            mode=mode,
            evidence=self.evidence,
            encryption_key=load_encryption_key(self._store),
            console=pages if console else None,
        )
        self.enclave_api = EnclaveApi(release, runs=self._runs, limit=RateLimit(rate_limit))
        self._audit.record("cas started", mode=mode.value, key=self.key.key_hash, generation=self._store.generation)

    def _require_mode(self, mode: Mode) -> None:
        """Refuse to serve what a CAS of the other mode has stored: its key and secrets are not protected alike."""
        first = self._store.fixed("mode", new=mode.value.encode()).decode()
        if first != mode:
            raise UserError(
                f"the state directory is that of a CAS in {first} mode, got {mode} mode",
                remedy=f"give another one with --state-dir=DIR, or start it with --{first}",
            )

    def checkpoint(self) -> None:
        """Note how far the store and the audit log have come, if they have; to be called every few seconds."""
        advanced, self._runs.advanced = self._runs.advanced, False
        self._history.note(volumes_advanced=advanced)

    def close(self) -> None:
        """Record the end and close the store."""
        self._audit.record("cas stopped", generation=self._store.generation)
        self._history.note(volumes_advanced=False)
        self._audit.close()
        self._store.close()


def audit_key(root_key: bytes) -> Ed25519PrivateKey:
    """Return the key that signs audit logs: all replicas have the same."""
    return Ed25519PrivateKey.from_private_bytes(derive_key(root_key, purpose="audit log"))
