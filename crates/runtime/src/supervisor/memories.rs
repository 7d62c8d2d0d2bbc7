//! The memories of calling threads, from `/proc/TID/mem`.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::task::Task;
use crate::kernel::mapping::Window;

/// How long an open `/proc/TID/mem` is used. It stays bound to the memory that the thread had when it was opened; a new thread can't get
/// the number of a dead one within this time, because numbers are given in turn and 32,768 at least must be given in between.
const MEMORY_LIFETIME: Duration = Duration::from_millis(20);
/// Longest path with its final NUL.
const PATH_MAX: usize = 4096;
const PAGE: u64 = 4096;

/// Open memories of threads.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<i32, (Arc<File>, Instant)>>);

/// How many memories are kept open; more are dropped together.
const MEMORIES: usize = 256;

impl Memories {
    fn open(&self, task: Task) -> Result<Arc<File>, Errno> {
        let file = Arc::new(task.memory()?);
        let now = Instant::now();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Most of those that are too old are of threads that have ended.
        open.retain(|_, (_, since)| now.duration_since(*since) < MEMORY_LIFETIME);
        if open.len() >= MEMORIES {
            open.clear();
        }
        open.insert(task.0, (Arc::clone(&file), now));
        Ok(file)
    }

    fn get(&self, task: Task) -> Result<(Arc<File>, bool), Errno> {
        let kept = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&task.0)
            .cloned();
        match kept {
            Some((file, since)) if since.elapsed() < MEMORY_LIFETIME => Ok((file, false)),
            _ => Ok((self.open(task)?, true)),
        }
    }

    /// Forgets a thread's memory, because `exec` gives it another one.
    pub fn forget(&self, task: Task) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&task.0);
    }

    /// Reads some bytes, at least one.
    ///
    /// # Errors
    /// `EFAULT` if the address is not readable, `EACCES` if the memory is not open to us.
    pub fn read(&self, task: Task, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.with(task, |memory| memory.read_at(buffer, address))
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`Memories::read`].
    pub fn write(&self, task: Task, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            done += self.with(task, |memory| {
                memory.write_at(&bytes[done..], address + done as u64)
            })?;
        }
        Ok(())
    }

    fn with(
        &self,
        task: Task,
        mut work: impl FnMut(&File) -> std::io::Result<usize>,
    ) -> Result<usize, Errno> {
        let unreadable = |error: Errno| {
            if error == Errno::SRCH {
                error
            } else {
                Errno::ACCESS
            }
        };
        let (memory, is_new) = self.get(task).map_err(unreadable)?;
        let mut result = work(&memory);
        // The memory behind an old file is gone after exec: nothing can be read from it.
        if matches!(result, Ok(0)) && !is_new {
            result = work(&*self.open(task).map_err(unreadable)?);
        }
        match result {
            Ok(0) | Err(_) => Err(Errno::FAULT),
            Ok(count) => Ok(count),
        }
    }

    /// Copies up to `length` bytes, at least one, to an offset of a file that is mapped; returns how many.
    ///
    /// # Errors
    /// As [`Memories::read`]; `EFAULT` too if the file ends before the offset.
    pub fn copy(
        &self,
        task: Task,
        address: u64,
        window: &Window,
        offset: usize,
        length: usize,
    ) -> Result<usize, Errno> {
        self.with(task, |memory| {
            Ok(window.copy_from(memory, address, offset, length)?)
        })
    }

    /// Reads exactly the bytes asked for.
    ///
    /// # Errors
    /// As [`Memories::read`].
    pub fn read_exact(&self, task: Task, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < buffer.len() {
            done += self.read(task, address + done as u64, &mut buffer[done..])?;
        }
        Ok(())
    }

    /// Reads a path up to its NUL.
    ///
    /// # Errors
    /// `ENAMETOOLONG` if there is no NUL within 4096 bytes; as [`Memories::read`].
    pub fn read_path(&self, task: Task, address: u64) -> Result<Vec<u8>, Errno> {
        let mut path = Vec::with_capacity(256);
        // Never across a page border before the NUL has been looked for: the next page may not exist.
        let mut piece = 256;
        while path.len() < PATH_MAX {
            let from = address.checked_add(path.len() as u64).ok_or(Errno::FAULT)?;
            let length = piece
                .min((PAGE - from % PAGE) as usize)
                .min(PATH_MAX - path.len());
            let start = path.len();
            path.resize(start + length, 0);
            let count = self.read(task, from, &mut path[start..])?;
            path.truncate(start + count);
            if let Some(end) = path[start..].iter().position(|&byte| byte == 0) {
                path.truncate(start + end);
                return Ok(path);
            }
            piece = PAGE as usize;
        }
        Err(Errno::NAMETOOLONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_read() {
        let memories = Memories::default();
        let task = Task(std::process::id() as i32);
        let text = c"/some/where";
        assert_eq!(
            memories.read_path(task, text.as_ptr() as u64).unwrap(),
            text.to_bytes()
        );
        let long = vec![b'a'; 5000];
        assert_eq!(
            memories.read_path(task, long.as_ptr() as u64),
            Err(Errno::NAMETOOLONG)
        );
        assert_eq!(memories.read_path(task, 1), Err(Errno::FAULT));
    }

    #[test]
    fn memories_too_old_to_be_used_are_closed() {
        let memories = Memories::default();
        let open = |memories: &Memories| memories.0.lock().unwrap().len();
        let process = Task(std::process::id() as i32);
        for thread in process.numbers("task").unwrap() {
            // One of another test may have ended.
            let _ = memories.get(Task(thread));
        }
        assert!(open(&memories) > 1);
        std::thread::sleep(2 * MEMORY_LIFETIME);
        memories.get(process).unwrap();
        assert_eq!(open(&memories), 1);
    }
}
