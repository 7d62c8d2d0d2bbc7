//! What the supervisor knows of a calling thread: its identity, its descriptors. All of it comes from `/proc`.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{getxattr, openat, readlinkat, stat, Mode, OFlags, Stat, CWD};
use rustix::io::{read, Errno};
use rustix::process::{prlimit, Pid, Resource, Rlimit};

use crate::kernel::thread::with_file_system_identity;

/// Bytes that most texts of `/proc` fit into.
const TEXT_SIZE: usize = 4096;

thread_local! {
    /// The user and group by which another user's process was last looked at.
    static LAST_IDENTITY: Cell<Option<(u32, u32)>> = const { Cell::new(None) };
}

/// A calling thread, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task(pub i32);

impl Task {
    /// `/proc/TID/<name>`.
    fn file(self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0)
    }

    /// One of its texts, in one piece: the kernel makes it anew for each reading.
    fn text(self, name: &str) -> Result<String, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(CWD, self.file(name), flags, Mode::empty())?;
        let mut text = Vec::with_capacity(TEXT_SIZE);
        loop {
            text.reserve(TEXT_SIZE);
            if read(&file, rustix::buffer::spare_capacity(&mut text))? == 0 {
                // A thread's name, which is anything, stands in some of them.
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
        }
    }

    /// Its memory, for reading and writing.
    pub fn memory(self) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let memory = self.attempt(|| openat(CWD, self.file("mem"), flags, Mode::empty()))?;
        Ok(File::from(memory))
    }

    /// What stands behind a descriptor. The kernel follows the link to the open file itself, not its path.
    pub fn descriptor_status(self, descriptor: i32) -> Result<Stat, Errno> {
        self.status_of(&format!("fd/{descriptor}"))
    }

    /// An extended attribute of what stands behind a descriptor.
    pub fn attribute_of_descriptor(self, descriptor: i32, name: &str) -> Result<Vec<u8>, Errno> {
        const LIMIT: usize = 256;
        let path = self.file(&format!("fd/{descriptor}"));
        self.attempt(|| {
            let mut value = vec![0; LIMIT];
            let count = getxattr(&path, name, &mut value)?;
            value.truncate(count);
            Ok(value)
        })
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
        let text = self.attempt(|| self.text(&format!("fdinfo/{descriptor}")))?;
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
            let text = self.attempt(|| self.text("limits"))?;
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
        let text = self.text("limits").map_err(|_| Errno::SRCH)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Max file size"))
            .ok_or(Errno::SRCH)?;
        let soft = line.split_ascii_whitespace().next().unwrap_or_default();
        Ok(soft.parse().unwrap_or(u64::MAX))
    }

    /// Whether a signal waits that the thread must see to. One that is for the whole process may be another thread's; then this says no.
    pub fn has_signal(self) -> Result<bool, Errno> {
        let text = self.text("status").map_err(|_| Errno::SRCH)?;
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
        let text = self.text("status").map_err(|_| Errno::SRCH)?;
        Credentials::parse(&text).ok_or(Errno::SRCH)
    }

    /// Runs `work`; if it is refused, once more with the file system identity of the thread: `/proc` lets a user look at the processes of
    /// that user, and us only at those of ours. The identity that was right the last time is tried before the thread's is looked up.
    fn attempt<T>(self, work: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        const REFUSED: [Errno; 2] = [Errno::ACCESS, Errno::PERM];
        let is_refused =
            |result: &Result<T, Errno>| result.as_ref().is_err_and(|error| REFUSED.contains(error));
        let mut result = work();
        if is_refused(&result) {
            if let Some((uid, gid)) = LAST_IDENTITY.get() {
                result = with_file_system_identity(uid, gid, &work);
            }
        }
        if is_refused(&result) {
            let credentials = self.credentials()?;
            let (uid, gid) = (credentials.uid.effective, credentials.gid.effective);
            LAST_IDENTITY.set(Some((uid, gid)));
            result = with_file_system_identity(uid, gid, &work);
        }
        result
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
    fn a_thread_may_have_any_name() {
        let name = std::thread::spawn(|| {
            let own = fs::read_link("/proc/thread-self").unwrap();
            let number = own.file_name().unwrap().to_str().unwrap();
            let task = Task(number.parse().unwrap());
            fs::write(task.file("comm"), b"\xff\xfe").unwrap();
            task.credentials().map(|credentials| credentials.process)
        });
        assert_eq!(name.join().unwrap(), Ok(std::process::id() as i32));
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
