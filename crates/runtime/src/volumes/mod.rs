//! The encrypted volumes of a program: what the policy says of them, whether the state on the disk is the newest one, and what is reported of it.
//!
//! The rules, and what a host gains by putting old states back, stand in `docs/decisions/0007-volume-freshness.md`.

mod mount;
mod reports;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use sconify_volume::{
    Accept, Accepted, Access, Expected, Options, Stale, State, Volume, VolumeError,
};

use crate::failure::{Code, Failure};
pub use mount::{Mount, MountFields, Recorded, UpdatePolicy};
pub use reports::{Ledger, LedgerError, Reports};

/// A volume whose state was accepted and, if it is to be, recorded.
pub struct OpenVolume {
    /// Its name in the session.
    pub name: String,
    /// Where the program finds it, and the host keeps it.
    pub path: Vec<u8>,
    /// It.
    pub volume: Arc<Volume>,
    /// Whether nothing was ever stored in it, and something may be.
    pub is_new: bool,
    /// Whether nothing of it may be changed.
    pub is_read_only: bool,
    /// Who is told of its commits; nobody, if older states of it are accepted anyway or its changes are lost at the end.
    pub reports: Option<Arc<Reports>>,
}

/// Why a volume can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Its store.
    #[error("volume {name} at {path}")]
    Store {
        /// Its name.
        name: String,
        /// Where it should be.
        path: String,
        /// What is wrong with it.
        source: VolumeError,
    },
    /// The state could not be recorded.
    #[error("volume {name} at {path}: the CAS does not record its state {state}")]
    Unrecorded {
        /// Its name.
        name: String,
        /// Where it is.
        path: String,
        /// The state that was found.
        state: State,
        /// Why.
        source: LedgerError,
    },
}

impl Mount {
    /// Opens the volume in the state that is recorded or a successor of it, or makes it if there never was one, and has its state recorded.
    ///
    /// # Errors
    /// [`MountError`]; the message says whether the state is older, forked or foreign.
    pub fn open(self, ledger: &Arc<dyn Ledger>) -> Result<OpenVolume, MountError> {
        let shown = String::from_utf8_lossy(&self.path).into_owned();
        let (volume, is_new) = self.open_store().map_err(|source| MountError::Store {
            name: self.name.clone(),
            path: shown.clone(),
            source,
        })?;
        match volume.accepted() {
            Accepted::Successor(commits) => info!(
                "volume {}: {commits} commits were made that the CAS was not told of; they are taken over",
                self.name
            ),
            Accepted::Unchecked => warn!(
                "volume {}: its update policy accepts every state that the host puts there",
                self.name
            ),
            Accepted::Same => {}
        }
        let reports = match self.policy {
            UpdatePolicy::RollbackProtected if !self.read_only => {
                let state = volume.state();
                let is_recorded = self.recorded.counter == state.counter
                    && self.recorded.root == Some(state.root);
                if !is_recorded {
                    // Settled before the program runs: of several successors, the host has chosen this one, for ever.
                    ledger
                        .record(&self.name, state)
                        .map_err(|source| MountError::Unrecorded {
                            name: self.name.clone(),
                            path: shown,
                            state,
                            source,
                        })?;
                }
                Some(Arc::new(Reports::new(&self, Arc::clone(ledger), state)))
            }
            _ => None,
        };
        Ok(OpenVolume {
            name: self.name,
            path: self.path,
            volume: Arc::new(volume),
            is_new: is_new && !self.read_only,
            is_read_only: self.read_only,
            reports,
        })
    }

    fn open_store(&self) -> Result<(Volume, bool), VolumeError> {
        let directory = Path::new(std::ffi::OsStr::from_bytes(&self.path));
        let is_there = Volume::is_in(directory);
        let was_written = self.recorded.counter > 0 || self.recorded.root.is_some();
        if !is_there && !was_written && !self.read_only {
            let created = Volume::create(directory, &self.key, &Options::default());
            match (created, self.policy) {
                // What a creation left that was interrupted is found below.
                (Err(VolumeError::Exists { .. }), _) => {}
                (Ok(volume), UpdatePolicy::Ephemeral) => drop(volume.close()?),
                (created, _) => return created.map(|volume| (volume, true)),
            }
        }
        let expected = match (self.policy, self.recorded.root) {
            (UpdatePolicy::NoRollbackProtection, _) => Expected::Any,
            (_, None) => Expected::Unused,
            (_, Some(root)) if self.recorded.counter == 0 => Expected::Initial { root },
            (policy, Some(root)) => Expected::Recorded {
                state: State {
                    counter: self.recorded.counter,
                    root,
                },
                volume: None,
                // Who reports nothing can't settle which successor it is.
                accept: match policy {
                    UpdatePolicy::RollbackProtected if !self.read_only => Accept::Successors,
                    _ => Accept::Exact,
                },
            },
        };
        let options = Options {
            access: match self.policy {
                _ if self.read_only => Access::ReadOnly,
                UpdatePolicy::Ephemeral => Access::Ephemeral,
                _ => Access::ReadWrite,
            },
            ..Options::default()
        };
        let volume = Volume::open(directory, &self.key, &expected, &options)?;
        let is_new = volume.state().counter == 1;
        Ok((volume, is_new))
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let failure = |code, remedy: &str| {
            Self::new(code, "A volume can't be used", &error).mended_by(remedy)
        };
        match &error {
            MountError::Unrecorded { source: LedgerError::Refused(_), .. } => failure(
                Code::Superseded,
                "end the other service that uses this volume, and start again",
            ),
            MountError::Unrecorded { .. } => failure(Code::Cas, "start the CAS, and start again"),
            MountError::Store { source, .. } => match source {
                VolumeError::Stale { stale: Stale::Newer { .. }, .. } => failure(
                    Code::Integrity,
                    "let the service that writes it start once: it has the state recorded that it left when it was killed",
                ),
                VolumeError::Stale { .. } => failure(
                    Code::Integrity,
                    "put the newest state of the volume back; to accept an older one for ever, its owner names its root as fspf_tag in the session, \
                     with a new key (sconify volume inspect, sconify volume rotate)",
                ),
                VolumeError::NotAuthentic { .. } => failure(Code::Integrity, "put a backup of the newest state back"),
                VolumeError::InUse { .. } => failure(Code::Launch, "end the container that uses it, or give each its own volume"),
                VolumeError::Missing { .. } => failure(
                    Code::Launch,
                    "mount the directory that holds the volume there: docker run -v VOLUME_OR_DIRECTORY:PATH",
                ),
                _ => failure(
                    Code::Launch,
                    "mount a directory there that the container's user may write: docker run -v VOLUME_OR_DIRECTORY:PATH",
                ),
            },
        }
    }
}
