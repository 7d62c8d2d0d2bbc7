//! Contents that the program may have open: memory files of whole contents, and what of them is in the volume.
//!
//! The kernel does not tell which part of a memory file was written. So a write-back reads what may have changed and compares it chunk by chunk with
//! the fingerprints of what the volume has. Of a file whose time of change is the same as at the last look, and that is nowhere mapped to be
//! written, only those chunks are read that the supervisor has written in the program's place.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{fstat, ftruncate, seek, SeekFrom, Stat};
use rustix::io::{pread, pwrite, Errno};
use sconify_volume::{OpenFile, Plaintext, Time, Times, Volume, VolumeError, CHUNK_SIZE};
use zeroize::Zeroizing;

use super::super::state::{create, now, set_times};
use super::fingerprint::{Fingerprints, Print};
use super::noted::Noted;
use crate::kernel::process::is_sole_holder;

const CHUNK: u64 = CHUNK_SIZE as u64;
/// Bytes that are read from a memory file at once.
const STRIDE: usize = 64 * CHUNK_SIZE;
/// Chunks that are given to the volume at once.
const BATCH: usize = 64;
/// Before Linux 6.13 the times of files tick this slowly; what was changed within a tick looks unchanged.
const TICK: i64 = 20_000_000;
/// A file is looked at in the background again after so many times the time that the last look took.
const LEISURE: u32 = 20;

/// A content in memory.
pub struct HeldFile {
    /// Keeps the inode while it has no name.
    handle: OpenFile,
    /// The memory file and its inode number, once the content was read.
    memory: OnceLock<(Arc<OwnedFd>, u64)>,
    written: Mutex<Written>,
    noted: Noted,
    /// Whether it was ever mapped so that it may be written unnoticed.
    is_mapped: AtomicBool,
    used: Mutex<Instant>,
}

/// What is known of a content in the volume.
#[derive(Default)]
struct Written {
    /// Chunks that are not zeros, and in which look they were seen last.
    prints: HashMap<u64, (Print, u32)>,
    look: u32,
    /// Size, time of modification and of change that the volume has.
    settled: Option<Stamp>,
    /// With this size and these times, nothing has changed.
    clean: Option<Stamp>,
    /// When it may be looked at in the background again.
    due: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(status: &Stat) -> Self {
        Self {
            size: status.st_size as u64,
            modified: (status.st_mtime, status.st_mtime_nsec as i64),
            changed: (status.st_ctime, status.st_ctime_nsec as i64),
        }
    }

    /// Whether a change after `time` would show.
    fn is_older_than(&self, (seconds, nanoseconds): (i64, u32)) -> bool {
        let elapsed = (seconds - self.changed.0)
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(nanoseconds) - self.changed.1);
        elapsed > TICK
    }
}

impl HeldFile {
    pub fn new(handle: OpenFile) -> Self {
        Self {
            handle,
            memory: OnceLock::new(),
            written: Mutex::default(),
            noted: Noted::default(),
            is_mapped: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
        }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory file, if the content was read.
    pub fn memory(&self) -> Option<&Arc<OwnedFd>> {
        self.memory.get().map(|(memory, _)| memory)
    }

    /// The inode number of the memory file.
    pub fn memory_inode(&self) -> Option<u64> {
        self.memory.get().map(|(_, inode)| *inode)
    }

    /// What the supervisor writes in the program's place.
    pub fn noted(&self) -> &Noted {
        &self.noted
    }

    /// Notes that the program may write through a mapping from now on.
    pub fn note_mapping(&self) {
        self.is_mapped.store(true, Ordering::SeqCst);
    }

    /// Notes that it is not mapped any more.
    pub fn forget_mappings(&self) {
        self.is_mapped.store(false, Ordering::SeqCst);
    }

    /// Whether the content may have been written through a mapping.
    pub fn is_mapped(&self) -> bool {
        self.is_mapped.load(Ordering::SeqCst)
    }

    pub fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long nobody has asked for it.
    pub fn idle(&self) -> Duration {
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    /// Whether somebody else has the memory file, open or mapped.
    pub fn is_open(&self) -> bool {
        self.memory()
            .is_some_and(|memory| Arc::strong_count(memory) > 1 || !is_sole_holder(memory.as_fd()))
    }

    /// Whether nothing was changed since the last look; false if that can't be told.
    pub fn is_clean(&self) -> bool {
        let Ok(written) = self.written.try_lock() else {
            return false;
        };
        let Some(memory) = self.memory() else {
            return true;
        };
        let status = fstat(&**memory).map(|status| Stamp::of(&status));
        let is_clean = status.is_ok_and(|stamp| written.clean == Some(stamp));
        is_clean && !self.is_mapped() && self.noted.is_empty()
    }

    /// Whether it is time for a look in the background.
    pub fn is_due(&self) -> bool {
        let written = self.written();
        written.due.is_none_or(|due| Instant::now() >= due)
    }

    /// Reads the content into a memory file, unless that was done.
    ///
    /// # Errors
    /// What the volume fails with, or making a memory file; `ENOMEM` if the content has more than `limit` bytes.
    pub fn load(
        &self,
        volume: &Volume,
        prints: &Fingerprints,
        name: &[u8],
        limit: u64,
    ) -> Result<Arc<OwnedFd>, VolumeError> {
        let mut written = self.written();
        if let Some(memory) = self.memory() {
            return Ok(Arc::clone(memory));
        }
        let number = self.handle.inode();
        let attributes = volume.attributes(number)?;
        if attributes.blocks() * 512 > limit {
            error!(
                "a file of the volume has {} bytes of content, more than the {limit} that memory allows: give the container more memory",
                attributes.blocks() * 512
            );
            return Err(Errno::NOMEM.into());
        }
        let memory = create(name)?;
        ftruncate(&memory, attributes.size)?;
        let mut known = HashMap::new();
        let mut buffer = buffer(attributes.size);
        let mut offset = 0;
        while let Some(data) = data_from(volume, number, offset)? {
            let start = data / CHUNK * CHUNK;
            let count = volume.read_at(number, start, &mut buffer)?;
            if count == 0 {
                break;
            }
            buffer[count..].fill(0);
            let mut done = 0;
            while done < count {
                done += pwrite(&memory, &buffer[done..count], start + done as u64)?;
            }
            let chunks = buffer.chunks_exact(CHUNK_SIZE).zip(start / CHUNK..);
            for (chunk, index) in chunks.take(count.div_ceil(CHUNK_SIZE)) {
                let print = prints.of(chunk);
                if !prints.is_zeros(print) {
                    known.insert(index, (print, 0));
                }
            }
            offset = start + buffer.len() as u64;
        }
        let time = |time: Time| Some((time.seconds, time.nanoseconds));
        set_times(&memory, time(attributes.atime), time(attributes.mtime))?;
        let status = fstat(&memory)?;
        let stamp = Stamp::of(&status);
        written.prints = known;
        written.settled = Some(stamp);
        // Nobody has it yet, but may change it in the tick in which it was made.
        written.clean = stamp.is_older_than(now()).then_some(stamp);
        let (memory, _) = self
            .memory
            .get_or_init(|| (Arc::new(memory), status.st_ino));
        Ok(Arc::clone(memory))
    }

    /// Gives the volume what has changed since the last look.
    ///
    /// # Errors
    /// What the volume fails with; what was not given is given at the next look.
    pub fn write_back(&self, volume: &Volume, prints: &Fingerprints) -> Result<(), VolumeError> {
        let mut written = self.written();
        let Some(memory) = self.memory() else {
            return Ok(());
        };
        let began = Instant::now();
        // Before anything is read: what changes from here on shows at the next look.
        let noted = self.noted.take();
        let (status, looked) = (fstat(&**memory)?, now());
        let stamp = Stamp::of(&status);
        let is_known = !self.is_mapped() && written.clean == Some(stamp);
        if is_known && noted.is_empty() {
            return Ok(());
        }
        // If this look fails, the next one is at everything.
        written.clean = None;
        let number = self.handle.inode();
        written.look = written.look.wrapping_add(1);
        let mut look = Look {
            volume,
            prints,
            number,
            size: stamp.size,
            batch: Vec::new(),
            seen: 0,
            is_changed: false,
        };
        if is_known {
            look.read_only(memory, &mut written, &noted)?;
        } else {
            look.read(memory, &mut written)?;
            look.finish(&mut written)?;
        }
        if look.is_changed || !noted.is_empty() || written.settled != Some(stamp) {
            let time = |(seconds, nanoseconds)| Time {
                seconds,
                nanoseconds,
            };
            let (modified, changed) = self.noted.times(&status);
            let times = Times {
                atime: time((status.st_atime, status.st_atime_nsec as u32)),
                mtime: time(modified),
                ctime: time(changed),
            };
            volume.settle(number, stamp.size, &times)?;
            written.settled = Some(stamp);
        }
        if !is_known {
            written.prints.retain(|index, _| index * CHUNK < stamp.size);
        }
        if !self.is_mapped() && stamp.is_older_than(looked) {
            written.clean = Some(stamp);
        }
        written.due = Some(began + began.elapsed() * LEISURE);
        Ok(())
    }
}

/// Room for as much as is read at once of a file of this size.
fn buffer(size: u64) -> Zeroizing<Vec<u8>> {
    let whole = size.div_ceil(CHUNK).saturating_mul(CHUNK);
    Zeroizing::new(vec![0; whole.min(STRIDE as u64) as usize])
}

/// The first offset from `offset` on that may hold data.
fn data_from(volume: &Volume, number: u64, offset: u64) -> Result<Option<u64>, VolumeError> {
    match volume.seek_data(number, offset) {
        Ok(data) => Ok(Some(data)),
        Err(VolumeError::Refused(Errno::NXIO)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One look at a memory file.
struct Look<'a> {
    volume: &'a Volume,
    prints: &'a Fingerprints,
    number: u64,
    size: u64,
    batch: Vec<(u64, Plaintext, Option<Print>)>,
    /// Chunks that are not zeros.
    seen: usize,
    is_changed: bool,
}

impl Look<'_> {
    fn read(&mut self, memory: &OwnedFd, written: &mut Written) -> Result<(), VolumeError> {
        let mut buffer = buffer(self.size);
        let mut next = 0;
        while next < self.size {
            let data = match seek(memory, SeekFrom::Data(next)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = seek(memory, SeekFrom::Hole(data))?.min(self.size);
            let mut at = (data / CHUNK * CHUNK).max(next);
            while at < end {
                let wanted = (end.div_ceil(CHUNK) * CHUNK - at).min(STRIDE as u64);
                let piece = &mut buffer[..wanted as usize];
                self.fill(memory, at, piece)?;
                for (chunk, index) in piece.chunks_exact(CHUNK_SIZE).zip(at / CHUNK..) {
                    self.compare(written, index, chunk)?;
                }
                at += wanted;
            }
            next = at.max(end);
        }
        Ok(())
    }

    /// Reads some chunks, when all others are as they were at the last look.
    fn read_only(
        &mut self,
        memory: &OwnedFd,
        written: &mut Written,
        indexes: &BTreeSet<u64>,
    ) -> Result<(), VolumeError> {
        let mut chunk = Zeroizing::new(vec![0; CHUNK_SIZE]);
        for &index in indexes {
            if index * CHUNK >= self.size {
                break;
            }
            self.fill(memory, index * CHUNK, &mut chunk)?;
            if !self.prints.is_zeros(self.prints.of(&chunk)) {
                self.compare(written, index, &chunk)?;
            } else if written.prints.contains_key(&index) {
                self.put(written, index, chunk.to_vec(), None)?;
            }
        }
        self.flush(written)
    }

    /// Reads what there is up to the end of the file as it was at first; zeros beyond.
    fn fill(&self, memory: &OwnedFd, at: u64, piece: &mut [u8]) -> Result<(), Errno> {
        let length = (self.size - at).min(piece.len() as u64) as usize;
        let mut done = 0;
        while done < length {
            match pread(memory, &mut piece[done..length], at + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        piece[done..].fill(0);
        Ok(())
    }

    fn compare(
        &mut self,
        written: &mut Written,
        index: u64,
        chunk: &[u8],
    ) -> Result<(), VolumeError> {
        let print = self.prints.of(chunk);
        if self.prints.is_zeros(print) {
            return Ok(());
        }
        self.seen += 1;
        let look = written.look;
        match written.prints.get_mut(&index) {
            Some((known, seen)) if *known == print => {
                *seen = look;
                Ok(())
            }
            known => {
                if let Some((_, seen)) = known {
                    *seen = look;
                } else {
                    self.seen -= 1;
                }
                self.put(written, index, chunk.to_vec(), Some(print))
            }
        }
    }

    fn put(
        &mut self,
        written: &mut Written,
        index: u64,
        chunk: Vec<u8>,
        print: Option<Print>,
    ) -> Result<(), VolumeError> {
        self.batch.push((index, chunk.into(), print));
        if self.batch.len() >= BATCH {
            self.flush(written)?;
        }
        Ok(())
    }

    fn flush(&mut self, written: &mut Written) -> Result<(), VolumeError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.is_changed = true;
        let mut prints = Vec::with_capacity(self.batch.len());
        let mut chunks = Vec::with_capacity(self.batch.len());
        for (index, chunk, print) in self.batch.drain(..) {
            prints.push((index, print));
            chunks.push((index, chunk));
        }
        self.volume.put_chunks(self.number, chunks, self.size)?;
        for (index, print) in prints {
            match print {
                Some(print) => {
                    let look = written.look;
                    if written.prints.insert(index, (print, look)).is_none() {
                        self.seen += 1;
                    }
                }
                None => drop(written.prints.remove(&index)),
            }
        }
        Ok(())
    }

    /// Gives the last chunks, and zeros for those that have become holes.
    fn finish(&mut self, written: &mut Written) -> Result<(), VolumeError> {
        self.flush(written)?;
        if written.prints.len() == self.seen {
            return Ok(());
        }
        let look = written.look;
        let gone = written.prints.iter().filter(|(_, (_, seen))| *seen != look);
        let gone: Vec<u64> = gone.map(|(index, _)| *index).collect();
        // What lies beyond the end goes when the size is set.
        for index in gone {
            if index * CHUNK < self.size {
                self.put(written, index, vec![0; CHUNK_SIZE], None)?;
            }
        }
        self.flush(written)
    }
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
