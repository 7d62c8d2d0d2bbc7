//! Who may use a volume together with whom: one writer, or any number of readers.
//!
//! The lock guards from mistakes, not from the host, who can copy a volume: forks are found by the policy service.

use std::fs::File;
use std::path::Path;

use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;

use crate::error::{Result, VolumeError};

const FILE_NAME: &str = "volume.lock";

/// Held for as long as it lives.
pub(crate) struct Lock(File);

impl Lock {
    /// Locks a volume for one writer.
    pub(crate) fn exclusive(directory: &Path) -> Result<Self> {
        Self::take(
            directory,
            FlockOperation::NonBlockingLockExclusive,
            "another process reads or writes it; one writer is allowed, and nobody beside it",
        )
    }

    /// Locks a volume against writers.
    pub(crate) fn shared(directory: &Path) -> Result<Self> {
        Self::take(
            directory,
            FlockOperation::NonBlockingLockShared,
            "another process writes it; readers are allowed once it has ended",
        )
    }

    /// Lets readers in after a writer's work was done.
    pub(crate) fn downgrade(&self) -> Result<()> {
        flock(&self.0, FlockOperation::NonBlockingLockShared)
            .map_err(|errno| VolumeError::io(FILE_NAME, errno.into()))
    }

    fn take(directory: &Path, operation: FlockOperation, reason: &'static str) -> Result<Self> {
        let path = directory.join(FILE_NAME);
        let opened = match File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
        {
            // A volume that is mounted for reading has the lock's file already.
            Err(error) if error.raw_os_error() == Some(Errno::ROFS.raw_os_error()) => {
                File::open(&path)
            }
            other => other,
        };
        let file = opened.map_err(|error| {
            if directory.is_dir() {
                VolumeError::io(path.display().to_string(), error)
            } else {
                VolumeError::Missing {
                    directory: directory.display().to_string(),
                    reason: "got no directory".to_owned(),
                }
            }
        })?;
        match flock(&file, operation) {
            Ok(()) => Ok(Self(file)),
            Err(Errno::WOULDBLOCK) => Err(VolumeError::InUse {
                directory: directory.display().to_string(),
                reason,
            }),
            Err(errno) => Err(VolumeError::io(
                format!("{}: its file system can't lock", path.display()),
                errno.into(),
            )),
        }
    }
}
