//! What the configuration says of a volume (docs/protocol.md, section 4). No I/O.

use std::time::Duration;

use sconify_shield::FileSystemKey;
use serde::Deserialize;
use zeroize::Zeroizing;

/// What becomes of a volume's changes, and which states of it are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdatePolicy {
    /// The newest state alone is accepted, and each new one is reported.
    RollbackProtected,
    /// Every state is accepted, none is reported.
    NoRollbackProtection,
    /// The recorded state alone is accepted; changes are lost at the end.
    Ephemeral,
}

/// The state that the CAS has recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its root; without one, nothing was ever recorded.
    pub root: Option<[u8; 32]>,
    /// Its counter; 0 with a root: the owner named the root of a volume that no service has used yet.
    pub counter: u64,
}

/// A volume, and where it is mounted.
pub struct Mount {
    /// Its name in the session.
    pub name: String,
    /// The path at which the program finds it, and at which the host keeps its store.
    pub path: Vec<u8>,
    /// The volume key.
    pub key: FileSystemKey,
    /// How it is used.
    pub policy: UpdatePolicy,
    /// Whether nothing of it may be changed; any number of readers may use it at the same time.
    pub read_only: bool,
    /// The newest state that is known.
    pub recorded: Recorded,
    /// Whether `fsync` waits until the CAS has recorded the state.
    pub strict: bool,
    /// How long commits go on while the CAS can't be told of them.
    pub patience: Duration,
}

/// An element of `volumes` in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountFields {
    name: String,
    path: String,
    key: Zeroizing<String>,
    update_policy: UpdatePolicy,
    #[serde(default)]
    read_only: bool,
    root: Option<String>,
    counter: u64,
    strict: bool,
    cas_absence_seconds: u64,
}

impl MountFields {
    /// Reads the values.
    ///
    /// # Errors
    /// Which field breaks which rule.
    pub fn read(&self) -> Result<Mount, (&'static str, &'static str)> {
        let proper = |component: &str| !matches!(component, "" | "." | "..");
        let is_normal = self
            .path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(proper) && !rest.contains('\0'));
        if !is_normal {
            return Err((
                "path",
                "an absolute path without empty, . and .. components",
            ));
        }
        if self.name.is_empty() || self.name.contains(['/', '\0']) {
            return Err(("name", "non-empty, without / and NUL"));
        }
        if self.read_only && self.update_policy == UpdatePolicy::Ephemeral {
            return Err((
                "read_only",
                "false where the update policy is ephemeral, which is about changes",
            ));
        }
        let root = self.root.as_deref().map(|root| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(root, &mut bytes).map(|()| bytes)
        });
        let recorded = Recorded {
            root: root
                .transpose()
                .map_err(|_| ("root", "64 hex digits or null"))?,
            counter: self.counter,
        };
        if recorded.root.is_none() && recorded.counter > 0 {
            return Err(("root", "64 hex digits where the counter is not 0"));
        }
        Ok(Mount {
            name: self.name.clone(),
            path: self.path.clone().into(),
            key: FileSystemKey::from_hex(&self.key).map_err(|_| ("key", "64 hex digits"))?,
            policy: self.update_policy,
            read_only: self.read_only,
            recorded,
            strict: self.strict,
            patience: Duration::from_secs(self.cas_absence_seconds),
        })
    }
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
