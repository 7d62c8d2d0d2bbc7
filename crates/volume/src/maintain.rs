//! What the owner does with a volume as a whole: look at it, change its key, copy it.

use std::path::Path;

use crate::commit::HEADER_ROW;
use crate::error::{Result, VolumeError};
use crate::freshness::State;
use crate::keys::VolumeId;
use crate::lock::Lock;
use crate::store::{lock, Store, Table, FILE_NAME};
use crate::volume::Volume;
use crate::{FileSystemKey, CHUNK_SIZE};

/// What is known of a volume without reading its files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its name.
    pub id: VolumeId,
    /// The state on the disk.
    pub state: State,
    /// How often the key was changed.
    pub key_generation: u32,
    /// Bytes of content in chunks of their own.
    pub chunk_bytes: u64,
    /// Bytes of the database with its free pages.
    pub database_bytes: u64,
    /// Bytes of free pages in it.
    pub free_bytes: u64,
}

impl Volume {
    /// What is known of the volume without reading its files.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn facts(&self) -> Result<Facts> {
        let chunks = self.read().chunks;
        let header = lock(&self.header);
        Ok(Facts {
            id: header.volume,
            state: self.state(),
            key_generation: header.generation,
            chunk_bytes: chunks * CHUNK_SIZE as u64,
            database_bytes: self.store.database_bytes()?,
            free_bytes: self.store.free_bytes()?,
        })
    }

    /// Wraps the data key under another volume key, in a commit of its own. The old key opens the volume no longer, and
    /// what is stored is not encrypted anew: whoever has an old copy and the old key can read what the copy holds.
    ///
    /// # Errors
    /// What [`Volume::commit`] fails with; both keys may then open the volume, so keep them until one did.
    pub fn rotate(&self, old_key: &FileSystemKey, new_key: &FileSystemKey) -> Result<State> {
        if self.access != crate::Access::ReadWrite {
            return Err(VolumeError::ReadOnly);
        }
        {
            let mut working = self.write();
            let mut header = lock(&self.header);
            let data_key = header.unwrap(old_key).ok_or_else(|| {
                VolumeError::forged("the volume's header", "the old key does not open it")
            })?;
            *header = header.rewrap(new_key, &data_key);
            self.store
                .queue([((Table::Volume, HEADER_ROW), Some(header.encode().into()))].into());
            working.version += 1;
        }
        self.commit()
    }

    /// Copies the newest state to another directory, encrypted as it is, while programs go on. The copy is a volume of
    /// that state: once this one has gone on, the copy is older.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] if a volume is there already; [`VolumeError::Full`] and the like leave no copy behind.
    pub fn backup(&self, directory: &Path) -> Result<State> {
        let _lock = Lock::exclusive(directory)?;
        let path = directory.join(FILE_NAME);
        if path.exists() {
            return Err(VolumeError::Exists {
                directory: directory.display().to_string(),
            });
        }
        // No commit may come between the state that is returned and the copy.
        let state = if self.access == crate::Access::ReadWrite {
            self.commit()?;
            let committing = lock(&self.committing);
            let state = self.state();
            let copied = self.store.copy_to(&path);
            drop(committing);
            copied.map(|()| state)
        } else {
            self.store.copy_to(&path).map(|()| self.state())
        };
        if state.is_err() {
            // What could not be created can't be removed either; the first error is the one to tell.
            let _ = std::fs::remove_file(&path);
        }
        let state = state?;
        std::fs::File::open(&path)
            .and_then(|copy| copy.sync_all())
            .and_then(|()| std::fs::File::open(directory))
            .and_then(|directory| directory.sync_all())
            .map_err(|error| VolumeError::io(path.display().to_string(), error))?;
        Ok(state)
    }

    /// Whether a directory holds a volume's database.
    pub fn is_in(directory: &Path) -> bool {
        Store::is_in(directory)
    }
}
