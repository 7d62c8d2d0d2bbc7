//! Writes that the supervisor makes in a program's place, and so knows of.
//!
//! They go through a mapping, which moves none of the kernel's times of the file. So whatever does move them is a change of which nothing is known, and as long
//! as nothing has, what was noted here is all that has changed.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{fstat, Stat};
use rustix::io::Errno;
use rustix::time::{clock_gettime, ClockId};
use sconify_volume::CHUNK_SIZE;

use super::super::Time;
use crate::kernel::mapping::Window;

/// What was written to one memory file.
#[derive(Default)]
pub struct Noted {
    /// Held while something is written: writes to one file follow one another.
    window: Mutex<Option<Window>>,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    chunks: BTreeSet<u64>,
    /// When the last one was written.
    time: Option<Time>,
}

impl Noted {
    /// Lets `copy` write to a part of a memory file: it gets the mapping, and returns how many bytes from `offset` on it has written. None if the part is not
    /// within the file, or was not when it came to it: such a write is the kernel's.
    ///
    /// # Errors
    /// What `copy` gives; nothing was written then.
    pub fn write(
        &self,
        memory: &OwnedFd,
        offset: u64,
        length: usize,
        copy: impl FnOnce(&Window) -> Result<usize, Errno>,
    ) -> Result<Option<usize>, Errno> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let size = fstat(memory)?.st_size as u64;
        let is_within = offset
            .checked_add(length as u64)
            .is_some_and(|end| end <= size);
        if !is_within || length == 0 {
            return Ok(None);
        }
        let size = usize::try_from(size).map_err(|_| Errno::NOMEM)?;
        let window = match &mut *window {
            Some(window) if window.size() >= offset as usize + length => window,
            window => window.insert(Window::open(memory.as_fd(), size)?),
        };
        let count = copy(window)?;
        if count == 0 {
            return Ok(None);
        }
        // Only now: who takes the marks must find in the file what they stand for.
        let chunk = CHUNK_SIZE as u64;
        let mut marks = self.marks();
        marks
            .chunks
            .extend(offset / chunk..(offset + count as u64).div_ceil(chunk));
        let now = clock_gettime(ClockId::Realtime);
        marks.time = Some((now.tv_sec, now.tv_nsec as u32));
        Ok(Some(count))
    }

    /// Takes the numbers of the chunks that were written since they were taken last.
    pub fn take(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.marks().chunks)
    }

    /// Whether nothing was written since that.
    pub fn is_empty(&self) -> bool {
        self.marks().chunks.is_empty()
    }

    /// The times of modification and of change of the content, by the kernel's and those of what was written here.
    pub fn times(&self, status: &Stat) -> (Time, Time) {
        let modified = (status.st_mtime, status.st_mtime_nsec as u32);
        let changed = (status.st_ctime, status.st_ctime_nsec as u32);
        match self.marks().time {
            Some(time) if time > changed => (time, time),
            _ => (modified, changed),
        }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "noted_tests.rs"]
mod tests;
