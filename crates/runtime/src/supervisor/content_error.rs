//! Why a verified content can't be had: because of the host, or for a lack of memory.

use rustix::io::Errno;
use sconify_shield::ShieldError;

use super::program::ProgramError;

/// Why a content can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It does not verify, or can't be read.
    #[error(transparent)]
    Shield(#[from] ShieldError),
    /// Its file on the disk can't be opened.
    #[error("{file} can't be opened: {error}")]
    Open {
        /// The file, as a path in the container.
        file: String,
        /// What the kernel says.
        error: Errno,
    },
    /// It is no program that can be started.
    #[error("it can't be executed: {0}")]
    Program(#[from] ProgramError),
    /// There is not enough memory for it.
    #[error(
        "it has {size} bytes, and the container has {free} bytes of memory left: give it more"
    )]
    Room {
        /// Bytes of the content.
        size: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The memory file can't be made.
    #[error("making its memory file: {0}")]
    Kernel(#[from] Errno),
}

impl ContentError {
    /// Whether the host, not a lack of memory or descriptors, keeps the content from us.
    pub fn is_tampering(&self) -> bool {
        match self {
            Self::Shield(_) => true,
            Self::Open { error, .. } => !matches!(
                *error,
                Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::ACCESS | Errno::PERM
            ),
            Self::Program(_) | Self::Room { .. } | Self::Kernel(_) => false,
        }
    }

    /// What the program is told.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Kernel(error @ (Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC)) => {
                *error
            }
            Self::Program(error) => error.errno(),
            Self::Room { .. } => Errno::NOMEM,
            _ => Errno::IO,
        }
    }
}
