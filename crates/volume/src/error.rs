//! The error of the crate; its variants tell whose fault it is, and [`VolumeError::errno`] what a program is told.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::freshness::Stale;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, VolumeError>;

/// Why a volume could not be opened, read or changed. Messages hold names and numbers, never content or keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// What a program asked for that a file system refuses: no such file, not empty and the like.
    #[error("{0}")]
    Refused(Errno),
    /// The volume is not in the state that the policy service recorded.
    #[error("the volume in {directory} is refused: {stale}")]
    Stale {
        /// Where the volume stands.
        directory: String,
        /// Older, forked or foreign, and by which counters.
        stale: Stale,
    },
    /// Bytes of the database were changed, moved, or come from another state or volume.
    #[error("{what}: {reason}")]
    NotAuthentic {
        /// The part of the volume, by name: the file and the chunk of it where that is known.
        what: String,
        /// The check that failed.
        reason: String,
    },
    /// The directory holds no volume.
    #[error("{directory} holds no volume: {reason}")]
    Missing {
        /// Where it was looked for.
        directory: String,
        /// What was found instead.
        reason: String,
    },
    /// A volume that shall be created is there already.
    #[error("{directory} holds a volume already")]
    Exists {
        /// Where it stands.
        directory: String,
    },
    /// Another process uses the volume.
    #[error("the volume in {directory} is in use: {reason}")]
    InUse {
        /// Where it stands.
        directory: String,
        /// Who may not use it together with whom.
        reason: &'static str,
    },
    /// A change was asked of a volume that was opened for reading only.
    #[error("the volume is open for reading only")]
    ReadOnly,
    /// The disk is full.
    #[error("no space is left for the volume: {0}")]
    Full(String),
    /// The disk or the operating system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was read or written.
        what: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The database engine failed in another way.
    #[error("the volume's database: {0}")]
    Database(rusqlite::Error),
}

impl VolumeError {
    /// The error number that a program gets: what a disk file system would answer.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused(errno) => *errno,
            Self::ReadOnly => Errno::ROFS,
            Self::Full(_) => Errno::NOSPC,
            Self::InUse { .. } => Errno::BUSY,
            Self::Missing { .. } => Errno::NOENT,
            Self::Exists { .. } => Errno::EXIST,
            Self::Io { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::IO),
            Self::Stale { .. } | Self::NotAuthentic { .. } | Self::Database(_) => Errno::IO,
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    pub(crate) fn forged(what: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::NotAuthentic {
            what: what.to_string(),
            reason: reason.into(),
        }
    }
}

impl From<Errno> for VolumeError {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl From<rusqlite::Error> for VolumeError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full("the database can't grow".to_owned()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::NotAuthentic {
                what: "the volume's database".to_owned(),
                reason: format!("it was changed or is truncated: {error}"),
            },
            Some(ErrorCode::SystemIoFailure) => Self::Io {
                what: "the volume's database".to_owned(),
                source: io::Error::new(
                    io::Error::from_raw_os_error(Errno::IO.raw_os_error()).kind(),
                    error.to_string(),
                ),
            },
            _ => Self::Database(error),
        }
    }
}
