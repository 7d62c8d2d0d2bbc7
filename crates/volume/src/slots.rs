//! The contents file: sealed chunks at slots beside the database, written once instead of through the log (volume format,
//! section 7).
//!
//! A slot that a state on the disk names is never written. New content goes to other slots, is synced, and is named by the
//! commit that follows; what is here without such a name is nothing. The file is the host's: what is read from it is judged by
//! the caller, who authenticates it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::{fadvise, Advice};
use rustix::io::Errno;

use crate::error::{Result, VolumeError};
use crate::store::lock;
use crate::CHUNK_SIZE;

/// The name of the file in the volume's directory.
pub(crate) const FILE_NAME: &str = "volume.contents";

/// Bytes of a slot.
const SIZE: Option<NonZeroU64> = NonZeroU64::new(CHUNK_SIZE as u64);
/// The least that a disk writes or loses at once, in bytes.
const SECTOR: usize = 512;

/// Chunks that wait to be written, by slot.
type Waiting = BTreeMap<u64, Arc<Vec<u8>>>;

/// The contents file of one volume.
pub(crate) struct Slots {
    path: PathBuf,
    file: File,
    waiting: RwLock<Waiting>,
    unsynced: Mutex<Unsynced>,
}

/// What was written since the last sync.
#[derive(Default)]
struct Unsynced {
    /// A mark of the content of each slot.
    marks: BTreeMap<u64, u64>,
    /// Whether a sync has failed: the kernel then forgets what it could not write.
    failed: bool,
}

impl Slots {
    /// Makes an empty file.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] if there is one that holds something.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let slots = Self::open_with(directory, File::options().create(true))?;
        if slots.bytes()? > 0 {
            return Err(VolumeError::Exists {
                directory: directory.display().to_string(),
            });
        }
        Ok(slots)
    }

    /// Opens the file for reading and writing. What the kernel has of it in memory is dropped: pages may be among it that a disk has
    /// refused before, and such a page is not good again by being written again.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let slots = Self::open_with(directory, &mut File::options())?;
        // Its failure is no news: no state names what could not be written.
        let _ = slots.file.sync_data();
        let _ = fadvise(&slots.file, 0, None, Advice::DontNeed);
        Ok(slots)
    }

    /// Opens the file for reading.
    pub(crate) fn open_immutable(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE_NAME);
        let file = File::open(&path).map_err(|error| explain(&path, error))?;
        Ok(Self::new(path, file))
    }

    fn open_with(directory: &Path, options: &mut std::fs::OpenOptions) -> Result<Self> {
        let path = directory.join(FILE_NAME);
        let options = options.read(true).write(true).truncate(false);
        let file = options.open(&path).map_err(|error| explain(&path, error))?;
        Ok(Self::new(path, file))
    }

    fn new(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file,
            waiting: RwLock::default(),
            unsynced: Mutex::default(),
        }
    }

    /// The length of the file.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(|error| self.io(error))?;
        Ok(metadata.len())
    }

    /// Refuses a file that is shorter than what its slots take.
    pub(crate) fn check_length(&self, slots: u64) -> Result<()> {
        let (found, expected) = (self.bytes()?, slots.saturating_mul(CHUNK_SIZE as u64));
        if found < expected {
            return Err(VolumeError::forged(
                "the volume's contents file",
                format!("it is truncated: got {found} bytes, expected {expected} at least"),
            ));
        }
        Ok(())
    }

    /// Reads what is at a slot, or None if the file ends before.
    pub(crate) fn read(&self, slot: u64) -> Result<Option<Vec<u8>>> {
        let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = waiting.get(&slot) {
            return Ok(Some(bytes.to_vec()));
        }
        drop(waiting);
        let mut bytes = vec![0; CHUNK_SIZE];
        match self.file.read_exact_at(&mut bytes, offset(slot)?) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Lets a sealed chunk wait for [`Slots::write`]; it is read as if it were written.
    pub(crate) fn queue(&self, slot: u64, sealed: Vec<u8>) {
        debug_assert_eq!(sealed.len(), CHUNK_SIZE);
        let mut waiting = self.waiting.write().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(slot, Arc::new(sealed));
    }

    /// Writes what waits. What the disk refuses still waits then.
    pub(crate) fn write(&self) -> Result<()> {
        let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner);
        let all = waiting.clone();
        drop(waiting);
        for (slot, bytes) in all {
            lock(&self.unsynced).marks.insert(slot, mark(&bytes));
            self.put(slot, &bytes)?;
            let mut waiting = self.waiting.write().unwrap_or_else(PoisonError::into_inner);
            if waiting
                .get(&slot)
                .is_some_and(|now| Arc::ptr_eq(now, &bytes))
            {
                waiting.remove(&slot);
            }
        }
        Ok(())
    }

    /// How many slots were written, or wait to be, since the last sync.
    pub(crate) fn unsynced(&self) -> usize {
        let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner);
        let waiting = waiting.len();
        waiting + lock(&self.unsynced).marks.len()
    }

    /// Returns when all that was written is on the disk.
    ///
    /// # Errors
    /// What the disk says, at each call until it has all of it. After a sync that failed everything is written again, from what
    /// the kernel still has of it.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut unsynced = lock(&self.unsynced);
        if unsynced.marks.is_empty() {
            return Ok(());
        }
        if unsynced.failed {
            for (slot, expected) in &unsynced.marks {
                let kept = self.read(*slot)?.filter(|bytes| mark(bytes) == *expected);
                let bytes = kept.ok_or_else(|| {
                    self.io(io::Error::from_raw_os_error(Errno::IO.raw_os_error()))
                })?;
                // A page that was refused is not good again by being written again: it must be dropped first.
                let _ = fadvise(&self.file, offset(*slot)?, SIZE, Advice::DontNeed);
                self.put(*slot, &bytes)?;
            }
        }
        unsynced.failed = true;
        self.file.sync_data().map_err(|error| self.io(error))?;
        *unsynced = Unsynced::default();
        Ok(())
    }

    /// Cuts what is behind so many slots off.
    pub(crate) fn cut(&self, slots: u64) -> Result<()> {
        let length = offset(slots)?;
        if self.bytes()? > length {
            self.file.set_len(length).map_err(|error| self.io(error))?;
            lock(&self.unsynced).marks.split_off(&slots);
        }
        Ok(())
    }

    /// Copies so many slots to a new file, which is on the disk when this returns.
    pub(crate) fn copy_to(&self, directory: &Path, slots: u64) -> Result<()> {
        let path = directory.join(FILE_NAME);
        let copy = || {
            let source = File::open(&self.path)?;
            let mut target = File::create_new(&path)?;
            io::copy(
                &mut io::Read::take(source, slots * CHUNK_SIZE as u64),
                &mut target,
            )?;
            target.sync_all()
        };
        copy().map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => VolumeError::Exists {
                directory: directory.display().to_string(),
            },
            _ => explain_at(&path, error),
        })
    }

    fn put(&self, slot: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, offset(slot)?);
        written.map_err(|error| self.io(error))
    }

    fn io(&self, error: io::Error) -> VolumeError {
        explain_at(&self.path, error)
    }
}

fn offset(slot: u64) -> Result<u64> {
    // The kernel takes offsets up to 2^63.
    slot.checked_mul(CHUNK_SIZE as u64)
        .filter(|offset| i64::try_from(*offset).is_ok())
        .ok_or_else(|| {
            VolumeError::forged(
                "the volume's contents file",
                format!("it has no slot {slot}"),
            )
        })
}

fn explain(path: &Path, error: io::Error) -> VolumeError {
    if error.kind() == ErrorKind::NotFound {
        return VolumeError::forged(
            "the volume's contents file",
            format!("it is missing: got no file {FILE_NAME}"),
        );
    }
    explain_at(path, error)
}

fn explain_at(path: &Path, error: io::Error) -> VolumeError {
    if error.kind() == ErrorKind::StorageFull {
        return VolumeError::Full("the contents file can't grow".to_owned());
    }
    VolumeError::io(path.display().to_string(), error)
}

/// Tells, but for a chance of 2^-64, whether a disk has lost sectors of random bytes.
fn mark(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(SECTOR).fold(0, |sum: u64, sector| {
        let first = sector[..8].try_into().expect("eight bytes");
        (sum.rotate_left(5) ^ u64::from_le_bytes(first)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(seed: u64) -> Vec<u8> {
        let word = |index: u64| {
            (seed * 1_000 + index)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes()
        };
        (0..CHUNK_SIZE as u64 / 8).flat_map(word).collect()
    }

    #[test]
    fn what_waits_is_read_as_if_it_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let slots = Slots::create(directory.path()).unwrap();
        slots.queue(3, sealed(1));
        assert_eq!((slots.bytes().unwrap(), slots.unsynced()), (0, 1));
        assert_eq!(slots.read(3).unwrap().unwrap(), sealed(1));
        assert_eq!(slots.read(4).unwrap(), None);
        slots.write().unwrap();
        assert_eq!(
            (slots.bytes().unwrap(), slots.unsynced()),
            (4 * CHUNK_SIZE as u64, 1)
        );
        assert_eq!(slots.read(3).unwrap().unwrap(), sealed(1));
        slots.sync().unwrap();
        assert_eq!(slots.unsynced(), 0);
        slots.check_length(4).unwrap();
        assert!(slots
            .check_length(5)
            .unwrap_err()
            .to_string()
            .contains("truncated"));
        slots.cut(3).unwrap();
        assert_eq!(slots.read(3).unwrap(), None);
        assert!(slots.read(u64::MAX).is_err());
    }

    #[test]
    fn after_a_failed_sync_what_was_written_must_still_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let slots = Slots::create(directory.path()).unwrap();
        slots.queue(0, sealed(1));
        slots.queue(1, sealed(2));
        slots.write().unwrap();
        lock(&slots.unsynced).failed = true;
        let path = directory.path().join(FILE_NAME);
        let mut lost = std::fs::read(&path).unwrap();
        lost[CHUNK_SIZE + 3 * SECTOR..CHUNK_SIZE + 4 * SECTOR].fill(0);
        std::fs::write(&path, &lost).unwrap();
        for _ in 0..2 {
            let error = slots.sync().unwrap_err();
            assert_eq!(error.errno(), Errno::IO, "{error}");
        }
        slots.queue(1, sealed(3));
        slots.write().unwrap();
        slots.sync().unwrap();
        assert_eq!(slots.read(0).unwrap().unwrap(), sealed(1));
        assert_eq!(slots.read(1).unwrap().unwrap(), sealed(3));
    }

    #[test]
    fn a_file_that_holds_something_is_not_taken_for_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            Slots::open(directory.path()),
            Err(VolumeError::NotAuthentic { .. })
        ));
        drop(Slots::create(directory.path()).unwrap());
        drop(Slots::create(directory.path()).unwrap());
        std::fs::write(directory.path().join(FILE_NAME), b"content").unwrap();
        assert!(matches!(
            Slots::create(directory.path()),
            Err(VolumeError::Exists { .. })
        ));
    }
}
