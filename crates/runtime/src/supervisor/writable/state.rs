//! The inodes of the ephemeral file system: what they hold, how they get and lose names, and when they end.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    fstat, futimens, memfd_create, open, FileType, MemfdFlags, Mode, OFlags, Timespec, Timestamps,
};
use rustix::io::{pread, Errno};
use rustix::time::{clock_gettime, ClockId};
use sconify_shield::EntryId;

use super::directory::{Directory, Name};
use super::image::Image;
use super::{Kind, New, Time};
use crate::kernel::process::is_sole_holder;

/// Contents up to this size are taken out of their memory file when there are too many of those.
const SMALL: u64 = 1 << 16;
/// Longest name that the kernel takes for a memory file.
const MEMORY_NAME_LIMIT: usize = 249;

pub struct File {
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Times of what has no memory file; the memory file has those of its content.
    pub accessed: Time,
    pub modified: Time,
    pub changed: Time,
    /// All names: a directory and a name in it.
    pub names: Vec<(u64, Name)>,
    /// The last name that it lost.
    pub last: Option<(u64, Name)>,
    /// Whether it may be linked though it has no name.
    pub linkable: bool,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub body: Body,
}

/// The memory file that holds a content.
pub struct Memory {
    pub file: Arc<OwnedFd>,
    /// Its inode number.
    pub inode: u64,
    /// When it was last changed, as the kernel sees it, once the content was in it.
    filled: Time,
    /// The entry of the image whose content this is, as long as nobody could have changed it, and its size.
    pub pristine: Option<(EntryId, u64)>,
}

pub enum Body {
    Memory(Memory),
    /// A content that has no memory file for now.
    Idle(Box<[u8]>),
    /// What the image has: an entry, and its size.
    Initial(EntryId, u64),
    Directory(Directory),
    Symlink(Box<[u8]>),
    /// A pipe or a socket; the kernel's part is with the [`super::Objects`].
    Special,
}

pub struct State {
    pub files: HashMap<u64, File>,
    pub next: u64,
    /// By the inode numbers of their memory files.
    pub by_memory: HashMap<u64, u64>,
    /// Regular files without a name that may be open.
    pub orphans: Vec<u64>,
    /// When there are more memory files than this, those that nobody has open are given up.
    pub demote_at: usize,
    pub memories: usize,
    /// Bytes of the memory files that hold what the image has, and how many make us give up those that nobody has open.
    pub pristine: u64,
    pub pristine_at: u64,
    pub pristine_limit: u64,
    /// What the regions begin with.
    pub image: Option<Image>,
}

impl State {
    pub fn file(&self, number: u64) -> Result<&File, Errno> {
        self.files.get(&number).ok_or(Errno::NOENT)
    }

    pub fn file_mut(&mut self, number: u64) -> Result<&mut File, Errno> {
        self.files.get_mut(&number).ok_or(Errno::NOENT)
    }

    pub fn directory(&self, number: u64) -> Result<&Directory, Errno> {
        match &self.file(number)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub fn directory_mut(&mut self, number: u64) -> Result<&mut Directory, Errno> {
        match &mut self.file_mut(number)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub fn is_directory(&self, number: u64) -> bool {
        self.directory(number).is_ok()
    }

    /// A directory that may get names: one that was not removed.
    pub fn living(&self, number: u64) -> Result<&Directory, Errno> {
        let file = self.file(number)?;
        match &file.body {
            Body::Directory(directory) if directory.parent != number && file.names.is_empty() => {
                Err(Errno::NOENT)
            }
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Notes that a directory's names have changed.
    pub fn touch(&mut self, directory: u64) {
        if let Some(file) = self.files.get_mut(&directory) {
            let now = now();
            (file.modified, file.changed) = (now, now);
        }
    }

    /// Gives a file a name that is free, or replaces what has it.
    pub fn name(&mut self, number: u64, directory: u64, name: Name) {
        let is_directory = self.is_directory(number);
        if let Ok(entries) = self.directory_mut(directory) {
            if entries.get(&name).is_some() {
                entries.replace(&name, number);
            } else {
                entries.insert(Arc::clone(&name), number);
            }
            entries.subdirectories += u32::from(is_directory);
        }
        if let Some(file) = self.files.get_mut(&number) {
            if let Body::Directory(entries) = &mut file.body {
                entries.parent = directory;
            }
            file.names.push((directory, name));
        }
    }

    /// Takes a name of a file away; whether the directory forgets it too is the second part.
    pub fn unname(&mut self, number: u64, directory: u64, name: &[u8], forget: bool) {
        let is_directory = self.is_directory(number);
        if let Ok(entries) = self.directory_mut(directory) {
            if forget {
                entries.remove(name);
            }
            entries.subdirectories -= u32::from(is_directory);
        }
        if let Some(file) = self.files.get_mut(&number) {
            let held = |held: &(u64, Name)| held.0 == directory && *held.1 == *name;
            if let Some(at) = file.names.iter().position(held) {
                file.last = Some(file.names.swap_remove(at));
            }
            file.changed = now();
        }
    }

    /// Frees a file that has lost its last name, unless it may be open.
    pub fn release(&mut self, number: u64) {
        let Some(file) = self.files.get(&number) else {
            return;
        };
        if !file.names.is_empty() {
            return;
        }
        match &file.body {
            Body::Memory(..) if self.is_open(number) => self.orphans.push(number),
            Body::Directory(_) | Body::Special => {}
            _ => self.drop_file(number),
        }
    }

    /// Whether somebody else has the memory file of a file.
    pub fn is_open(&self, number: u64) -> bool {
        match self.files.get(&number).map(|file| &file.body) {
            Some(Body::Memory(Memory { file, .. })) => {
                Arc::strong_count(file) > 1 || !is_sole_holder(file.as_fd())
            }
            _ => false,
        }
    }

    pub fn drop_file(&mut self, number: u64) {
        if let Some(file) = self.files.remove(&number) {
            if let Body::Memory(memory) = file.body {
                self.by_memory.remove(&memory.inode);
                self.pristine -= memory.pristine.map_or(0, |(_, size)| size);
            }
        }
    }

    /// Takes contents that nobody has open out of their memory files: small ones, and those that can be had from the image again.
    pub fn demote(&mut self) {
        let candidates: Vec<_> = self.by_memory.values().copied().collect();
        for number in candidates {
            if self.is_open(number) {
                continue;
            }
            let Some(File {
                body,
                changed,
                accessed,
                modified,
                ..
            }) = self.files.get_mut(&number)
            else {
                continue;
            };
            let Body::Memory(memory) = body else {
                continue;
            };
            let Ok(status) = fstat(&*memory.file) else {
                continue;
            };
            let idle = match memory.pristine {
                Some((id, size)) => {
                    self.pristine -= size;
                    Body::Initial(id, size)
                }
                None => {
                    let size = status.st_size as u64;
                    if size > SMALL {
                        continue;
                    }
                    let mut content = vec![0; size as usize];
                    if pread(&*memory.file, &mut content, 0) != Ok(content.len()) && size > 0 {
                        continue;
                    }
                    Body::Idle(content.into())
                }
            };
            let inode = memory.inode;
            (*accessed, *modified, *changed) = memory.times(&status, *modified, *changed);
            *body = idle;
            self.by_memory.remove(&inode);
        }
        self.demote_at = self.memories.max(2 * self.by_memory.len());
        self.pristine_at = self.pristine_limit.max(self.pristine + self.pristine / 4);
    }

    /// Notes that a content may be changed from now on: it is not the image's any more.
    pub fn spoil(&mut self, number: u64) {
        if let Some(File {
            body: Body::Memory(memory),
            ..
        }) = self.files.get_mut(&number)
        {
            self.pristine -= memory.pristine.take().map_or(0, |(_, size)| size);
        }
    }

    /// Puts a memory file in the place of what a file's content was.
    pub fn hold(&mut self, number: u64, memory: OwnedFd) -> Result<Arc<OwnedFd>, Errno> {
        if self.by_memory.len() >= self.demote_at || self.pristine > self.pristine_at {
            self.demote();
        }
        let file = self.file_mut(number)?;
        set_times(&memory, Some(file.accessed), Some(file.modified))?;
        let status = fstat(&memory)?;
        let memory = Memory {
            file: Arc::new(memory),
            inode: status.st_ino,
            filled: status_changed(&status),
            pristine: match file.body {
                Body::Initial(id, size) => Some((id, size)),
                _ => None,
            },
        };
        let held = Arc::clone(&memory.file);
        let size = memory.pristine.map_or(0, |(_, size)| size);
        file.body = Body::Memory(memory);
        self.by_memory.insert(status.st_ino, number);
        self.pristine += size;
        Ok(held)
    }

    pub fn make(&mut self, directory: u64, new: &New, linkable: bool) -> u64 {
        let number = self.next;
        self.next += 1;
        let (kind, body) = match &new.kind {
            Kind::File => (FileType::RegularFile, Body::Idle(Box::default())),
            Kind::Directory => (
                FileType::Directory,
                Body::Directory(Directory::new(directory)),
            ),
            Kind::Symlink(target) => (FileType::Symlink, Body::Symlink(target[..].into())),
            Kind::Fifo => (FileType::Fifo, Body::Special),
            Kind::Socket => (FileType::Socket, Body::Special),
        };
        let now = now();
        self.files.insert(
            number,
            File {
                mode: kind.as_raw_mode() | new.mode,
                uid: new.uid,
                gid: new.gid,
                accessed: now,
                modified: now,
                changed: now,
                names: Vec::new(),
                last: None,
                linkable,
                xattrs: BTreeMap::new(),
                body,
            },
        );
        number
    }

    /// Whether `directory` is `above` or beneath it.
    pub fn is_within(&self, directory: u64, above: u64) -> bool {
        let mut at = directory;
        loop {
            if at == above {
                return true;
            }
            match self.directory(at) {
                Ok(entries) if entries.parent != at => at = entries.parent,
                _ => return false,
            }
        }
    }

    /// Checks that what stands at a name may make way for something else.
    pub fn check_replaceable(&self, victim: u64, by_directory: bool) -> Result<(), Errno> {
        match (self.directory(victim), by_directory) {
            (Ok(_), false) => Err(Errno::ISDIR),
            (Err(_), true) => Err(Errno::NOTDIR),
            (Ok(entries), true) if !entries.is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }
}

/// Makes an empty memory file, executable as files are.
///
/// # Errors
/// `EMFILE` and the like.
pub fn create(name: &[u8]) -> Result<OwnedFd, Errno> {
    let name = &name[..name.len().min(MEMORY_NAME_LIMIT)];
    let draft = match memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::EXEC) {
        // Kernels before 6.3 know no such flag; there all memory files are executable.
        Err(Errno::INVAL) => memfd_create(name, MemfdFlags::CLOEXEC),
        result => result,
    }?;
    // The kernel does not count the first descriptor of a memory file among those that write it, so it would not see that we are the only one.
    open(
        format!("/proc/self/fd/{}", draft.as_raw_fd()),
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

impl Memory {
    /// The times of the content, and of the last change of anything; `modified` is what the content had when it was put here, `changed` when the attributes
    /// were last changed.
    pub fn times(
        &self,
        status: &rustix::fs::Stat,
        modified: Time,
        changed: Time,
    ) -> (Time, Time, Time) {
        let (accessed, written, touched) = times(status, changed);
        // Putting the content here was no change of it.
        let is_untouched = status_changed(status) == self.filled && written == modified;
        (
            accessed,
            written,
            if is_untouched { changed } else { touched },
        )
    }
}

/// The times of a content, and of the last change of anything, if that of the attributes is this.
pub fn times(status: &rustix::fs::Stat, changed: Time) -> (Time, Time, Time) {
    (
        (status.st_atime, status.st_atime_nsec as u32),
        (status.st_mtime, status.st_mtime_nsec as u32),
        changed.max(status_changed(status)),
    )
}

fn status_changed(status: &rustix::fs::Stat) -> Time {
    (status.st_ctime, status.st_ctime_nsec as u32)
}

pub fn set_times(
    memory: &OwnedFd,
    accessed: Option<Time>,
    modified: Option<Time>,
) -> Result<(), Errno> {
    let of = |time: Option<Time>| match time {
        Some((seconds, nanoseconds)) => Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        },
        None => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
    };
    futimens(
        memory,
        &Timestamps {
            last_access: of(accessed),
            last_modification: of(modified),
        },
    )
}

/// The time that the kernel gives to files.
pub fn now() -> Time {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    (time.tv_sec, time.tv_nsec as u32)
}
