//! Regions: which protection holds where.

use std::fmt;

/// What a region does with the paths beneath its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegionKind {
    /// Contents are in packs; names, sizes and modes are hidden.
    Encrypted,
    /// Contents are plain files whose hashes are in the index.
    Authenticated,
    /// Writable, under a throw-away key.
    Ephemeral,
    /// Writable and durable, under the policy's key.
    Volume,
    /// As the host gives it, unprotected.
    Host,
}

impl RegionKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Encrypted,
        Self::Authenticated,
        Self::Ephemeral,
        Self::Volume,
        Self::Host,
    ];

    /// The kind's name as it is written in plans and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encrypted => "encrypted",
            Self::Authenticated => "authenticated",
            Self::Ephemeral => "ephemeral",
            Self::Volume => "volume",
            Self::Host => "host",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A path prefix, what holds beneath it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    prefix: Box<[u8]>,
    kind: RegionKind,
    reason: Box<str>,
}

impl Region {
    pub(crate) fn new(prefix: &[u8], kind: RegionKind, reason: &str) -> Self {
        Self {
            prefix: prefix.into(),
            kind,
            reason: reason.into(),
        }
    }

    /// The normal path at which the region begins.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// What the region does.
    pub fn kind(&self) -> RegionKind {
        self.kind
    }

    /// Why the path is in this region, for people.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
