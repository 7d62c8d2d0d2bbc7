//! What the owner does with a volume as a whole: look at it, change its key, copy it.

use std::path::Path;

use crate::commit::HEADER_ROW;
use crate::error::{Result, VolumeError};
use crate::freshness::State;
use crate::keys::VolumeId;
use crate::lock::Lock;
use crate::slots;
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
    /// Bytes of content in chunks of their own, in the database and the contents file.
    pub chunk_bytes: u64,
    /// Bytes of the database with its free pages.
    pub database_bytes: u64,
    /// Bytes of the contents file with its free slots.
    pub contents_bytes: u64,
    /// Bytes of free pages and slots in them.
    pub free_bytes: u64,
}

impl Volume {
    /// What is known of the volume without reading its files.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn facts(&self) -> Result<Facts> {
        let working = self.read();
        let (chunks, free) = (
            working.chunks + working.slots.used(),
            self.slots
                .bytes()?
                .saturating_sub(working.slots.used() * CHUNK_SIZE as u64),
        );
        drop(working);
        let header = lock(&self.header);
        Ok(Facts {
            id: header.volume,
            state: self.state(),
            key_generation: header.generation,
            chunk_bytes: chunks * CHUNK_SIZE as u64,
            database_bytes: self.store.database_bytes()?,
            contents_bytes: self.slots.bytes()?,
            free_bytes: self.store.free_bytes()? + free,
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
        if self.access == crate::Access::ReadWrite {
            self.commit()?;
        }
        // No commit may come between the state that is returned and the copy. Without one no slot is written that the state names.
        let committing = lock(&self.committing);
        let durable = *lock(&self.durable);
        let copied = self.slots.copy_to(directory, durable.slots);
        let contents = directory.join(slots::FILE_NAME);
        let is_new = !matches!(copied, Err(VolumeError::Exists { .. }));
        let state = copied
            .and_then(|()| self.store.copy_to(&path))
            .map(|()| durable.state);
        drop(committing);
        if state.is_err() && is_new {
            // What could not be created can't be removed either; the first error is the one to tell.
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_file(&contents);
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
