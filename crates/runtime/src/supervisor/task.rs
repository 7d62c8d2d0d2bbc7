//! What the supervisor knows of a calling thread: its memory, its identity, its descriptors. All of it comes from `/proc`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{openat, readlinkat, stat, Mode, OFlags, Stat, CWD};
use rustix::io::Errno;
use rustix::process::{prlimit, Pid, Resource, Rlimit};

use crate::kernel::mapping::Window;
use crate::kernel::thread::with_file_system_identity;

/// How long an open `/proc/TID/mem` is used. It stays bound to the memory that the thread had when it was opened; a new thread can't get
/// the number of a dead one within this time, because numbers are given in turn and 32,768 at least must be given in between.
const MEMORY_LIFETIME: Duration = Duration::from_millis(20);
/// Longest path with its final NUL.
const PATH_MAX: usize = 4096;
const PAGE: u64 = 4096;

/// A calling thread, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task(pub i32);

impl Task {
    /// `/proc/TID/<name>`.
    fn file(self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0)
    }

    /// What stands behind a descriptor. The kernel follows the link to the open file itself, not its path.
    pub fn descriptor_status(self, descriptor: i32) -> Result<Stat, Errno> {
        self.status_of(&format!("fd/{descriptor}"))
    }

    /// What stands behind one of the kernel's links, `exe` for instance.
    pub fn status_of(self, name: &str) -> Result<Stat, Errno> {
        self.attempt(|| stat(self.file(name)))
    }

    /// Where one of the kernel's links points.
    pub fn link(self, name: &str) -> Result<Vec<u8>, Errno> {
        let target = self.attempt(|| readlinkat(CWD, self.file(name), Vec::with_capacity(256)))?;
        Ok(target.into_bytes())
    }

    /// The file offset and the flags of an open file.
    pub fn descriptor_position(self, descriptor: i32) -> Result<Position, Errno> {
        let text = self.attempt(|| {
            fs::read_to_string(self.file(&format!("fdinfo/{descriptor}")))
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let offset = field("pos:")
            .and_then(|value| value.parse().ok())
            .ok_or(Errno::IO)?;
        let flags = field("flags:")
            .and_then(|value| u32::from_str_radix(value, 8).ok())
            .ok_or(Errno::IO)?;
        Ok(Position {
            offset,
            flags: OFlags::from_bits_retain(flags),
            close_on_exec: flags & OFlags::CLOEXEC.bits() != 0,
            waits: flags & OFlags::NONBLOCK.bits() == 0,
        })
    }

    /// Whether a descriptor holds a place only (`O_PATH`): what is done to open files can't be done to it.
    pub fn holds_place(self, descriptor: i32) -> Result<bool, Errno> {
        let position = self.descriptor_position(descriptor)?;
        Ok(position.flags.contains(OFlags::PATH))
    }

    /// The limit of open files, after it was changed if one is given; returned is what it was before.
    pub fn descriptor_limit(self, change: Option<Rlimit>) -> Result<Rlimit, Errno> {
        let resource = Resource::Nofile;
        let Some(limit) = change else {
            let text = self.attempt(|| {
                fs::read_to_string(self.file("limits"))
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })?;
            return parse_descriptor_limit(&text).ok_or(Errno::IO);
        };
        self.attempt(|| prlimit(Pid::from_raw(self.0), resource, limit))
    }

    /// The numbers in one of its directories, `fd` for instance.
    pub fn numbers(self, name: &str) -> Result<Vec<i32>, Errno> {
        self.attempt(|| numbers(&self.file(name)))
    }

    /// All processes.
    pub fn all() -> impl Iterator<Item = Self> {
        numbers("/proc").unwrap_or_default().into_iter().map(Self)
    }

    /// How long a file may become by the process's writing: `RLIMIT_FSIZE`.
    pub fn file_size_limit(self) -> Result<u64, Errno> {
        let text = fs::read_to_string(self.file("limits")).map_err(|_| Errno::SRCH)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Max file size"))
            .ok_or(Errno::SRCH)?;
        let soft = line.split_ascii_whitespace().next().unwrap_or_default();
        Ok(soft.parse().unwrap_or(u64::MAX))
    }

    /// Whether a signal waits that the thread must see to. One that is for the whole process may be another thread's; then this says no.
    pub fn has_signal(self) -> Result<bool, Errno> {
        let text = fs::read_to_string(self.file("status")).map_err(|_| Errno::SRCH)?;
        has_signal(&text).ok_or(Errno::IO)
    }

    /// The inode numbers of the memory files that the process has mapped to write them for others.
    pub fn shared_mappings(self) -> Result<Vec<u64>, Errno> {
        let text = self.attempt(|| {
            fs::read(self.file("maps"))
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        Ok(shared_mappings(&String::from_utf8_lossy(&text)))
    }

    /// Where the program headers stand in the thread's memory (`AT_PHDR`).
    pub fn program_headers(self) -> Result<u64, Errno> {
        const AT_PHDR: u64 = 3;
        let vector = self.attempt(|| {
            fs::read(self.file("auxv"))
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        let mut pairs = vector
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
        while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
            if key == AT_PHDR {
                return Ok(value);
            }
        }
        Err(Errno::IO)
    }

    /// Identity and group of the thread.
    pub fn credentials(self) -> Result<Credentials, Errno> {
        let text = fs::read_to_string(self.file("status")).map_err(|_| Errno::SRCH)?;
        Credentials::parse(&text).ok_or(Errno::SRCH)
    }

    /// Runs `work`; if it is refused, once more with the file system identity of the thread: `/proc` lets a user look at the processes of
    /// that user, and us only at those of ours.
    fn attempt<T>(self, work: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match work() {
            Err(Errno::ACCESS | Errno::PERM) => {
                let credentials = self.credentials()?;
                with_file_system_identity(
                    credentials.uid.effective,
                    credentials.gid.effective,
                    work,
                )
            }
            result => result,
        }
    }
}

/// The entries of a directory whose names are numbers.
fn numbers(directory: &str) -> Result<Vec<i32>, Errno> {
    let entries = fs::read_dir(directory)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// A file offset, and what happens to its descriptor at `exec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The offset.
    pub offset: u64,
    /// With what flags it is open.
    pub flags: OFlags,
    /// Whether `exec` closes the descriptor.
    pub close_on_exec: bool,
    /// Whether calls on it wait: `O_NONBLOCK` is not set.
    pub waits: bool,
}

/// By the text of `/proc/TID/status`.
fn has_signal(text: &str) -> Option<bool> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let set = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    let is_alone = field("Threads:")? == "1";
    let of_process = if is_alone { set("ShdPnd:")? } else { 0 };
    let pending = set("SigPnd:")? | of_process;
    Some(pending & !set("SigBlk:")? & !set("SigIgn:")? != 0)
}

/// Of the lines `FROM-TO PERMISSIONS OFFSET DEVICE INODE PATH` of `/proc/PID/maps`, the inodes of memory files with the permissions `rw.s`.
fn shared_mappings(text: &str) -> Vec<u64> {
    let inode = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let permissions = fields.nth(1)?.as_bytes();
        let inode = fields.nth(2)?.parse().ok()?;
        let is_shared = permissions.get(1) == Some(&b'w') && permissions.get(3) == Some(&b's');
        (is_shared && fields.next()?.starts_with("/memfd:")).then_some(inode)
    };
    text.lines().filter_map(inode).collect()
}

/// The line `Max open files  SOFT  HARD  files` of `/proc/PID/limits`.
fn parse_descriptor_limit(text: &str) -> Option<Rlimit> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
    let (current, maximum) = (numbers.next()?, numbers.next()?);
    Some(Rlimit { current, maximum })
}

/// The user or group ids of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Real id.
    pub real: u32,
    /// Effective id.
    pub effective: u32,
    /// The one that file permissions go by.
    pub file_system: u32,
}

/// Who a thread is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The thread group: the process.
    pub process: i32,
    /// User ids.
    pub uid: Ids,
    /// Group ids.
    pub gid: Ids,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective capabilities, as bits.
    pub capabilities: u64,
    /// Permitted capabilities, as bits.
    pub permitted: u64,
    /// Bits that new files don't get.
    pub umask: u32,
}

impl Credentials {
    /// Reads `/proc/TID/status`.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let ids = |name: &str| {
            let mut numbers = field(name)?.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            let (real, effective, _saved, file_system) = (next()?, next()?, next()?, next()?);
            Some(Ids {
                real,
                effective,
                file_system,
            })
        };
        Some(Self {
            process: field("Tgid:")?.parse().ok()?,
            uid: ids("Uid:")?,
            gid: ids("Gid:")?,
            groups: field("Groups:")?
                .split_ascii_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()
                .ok()?,
            capabilities: u64::from_str_radix(field("CapEff:")?, 16).ok()?,
            permitted: u64::from_str_radix(field("CapPrm:")?, 16).ok()?,
            umask: u32::from_str_radix(field("Umask:")?, 8).ok()?,
        })
    }
}

/// Open memories of threads.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<i32, (Arc<File>, Instant)>>);

/// How many memories are kept open; more are dropped together.
const MEMORIES: usize = 256;

impl Memories {
    fn open(&self, task: Task) -> Result<Arc<File>, Errno> {
        let file = task.attempt(|| {
            openat(
                CWD,
                task.file("mem"),
                OFlags::RDWR | OFlags::CLOEXEC,
                Mode::empty(),
            )
        })?;
        let file = Arc::new(File::from(file));
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

/// Joins a directory's path and a relative one.
pub fn join(directory: &[u8], relative: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + relative.len());
    path.extend_from_slice(directory);
    if !directory.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(relative);
    path
}

/// The path as the standard library wants it.
pub fn os_path(path: &[u8]) -> &std::path::Path {
    std::path::Path::new(std::ffi::OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_a_thread_must_see_to_are_noticed() {
        let status = |threads, own, process, blocked, ignored| {
            let text = format!(
                "Threads:\t{threads}\nSigPnd:\t{own}\nShdPnd:\t{process}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t0\n"
            );
            has_signal(&text)
        };
        assert_eq!(status(1, "0", "0", "0", "0"), Some(false));
        assert_eq!(status(1, "0", "2000", "0", "0"), Some(true));
        assert_eq!(status(2, "0", "2000", "0", "0"), Some(false));
        assert_eq!(status(2, "2000", "0", "0", "0"), Some(true));
        assert_eq!(status(1, "0", "2000", "2000", "0"), Some(false));
        assert_eq!(status(1, "0", "2000", "0", "2000"), Some(false));
        assert_eq!(has_signal("nothing"), None);
    }

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

    #[test]
    fn only_shared_mappings_of_memory_files_that_are_written_count() {
        let maps =
            "7f00-7f01 rw-s 00000000 00:01 17                         /memfd:/tmp/a b (deleted)\n\
            7f01-7f02 r--s 00000000 00:01 18                         /memfd:/tmp/b (deleted)\n\
            7f02-7f03 rw-p 00000000 00:01 19                         /memfd:/tmp/c (deleted)\n\
            7f03-7f04 rw-s 00000000 08:01 20                         /tmp/d\n\
            7f04-7f05 rw-p 00000000 00:00 0\n";
        assert_eq!(shared_mappings(maps), [17]);
    }

    #[test]
    fn a_status_is_parsed_whole_or_not_at_all() {
        let status = "Name:\tx\nUmask:\t0022\nTgid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapPrm:\t3\nCapEff:\t2\n";
        let credentials = Credentials::parse(status).unwrap();
        assert_eq!(
            credentials.uid,
            Ids {
                real: 1,
                effective: 2,
                file_system: 4
            }
        );
        assert_eq!((credentials.process, credentials.umask), (7, 0o22));
        assert_eq!(credentials.groups, [9, 10]);
        assert_eq!(credentials.capabilities, 2);
        for line in status.lines().skip(1) {
            assert!(
                Credentials::parse(&status.replace(&format!("{line}\n"), "")).is_none(),
                "without {line}"
            );
        }
    }
}
