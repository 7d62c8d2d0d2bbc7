//! One trapped call: its arguments, who makes it, where its paths lead, and how it is answered.

use std::cell::OnceCell;
use std::os::fd::AsFd;

use rustix::fs::{openat2, readlinkat, FileType, Mode, OFlags, ResolveFlags, CWD};
use rustix::io::Errno;

use crate::kernel::notify::Notification;

use super::procfs::{self, Proc};
use super::task::{join, Credentials, Task};
use super::tree::{Node, Place};
use super::Shield;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It returns this.
    Value(i64),
    /// The kernel carries it out.
    Pass,
    /// It has been answered already.
    Done,
}

/// The outcome of a handler.
pub type Reply = Result<Answer, Errno>;

/// Links followed in the host's part of one path, as in the kernel.
const LINK_LIMIT: usize = 40;
/// Linux's name for "relative to the working directory".
const AT_FDCWD: i32 = libc::AT_FDCWD;

/// What may be wanted of a file, as bits.
pub mod want {
    /// To execute, or to search a directory.
    pub const EXECUTE: u32 = 1;
    /// To write.
    pub const WRITE: u32 = 2;
    /// To read.
    pub const READ: u32 = 4;
}

/// Whose ids count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Those that the kernel checks files by.
    FileSystem,
    /// The real ones, for `access`.
    Real,
}

/// A trapped call.
pub struct Call<'a> {
    /// What it is served from.
    pub shield: &'a Shield,
    /// The call as the kernel reports it.
    pub notification: Notification,
    /// The calling thread.
    pub task: Task,
    credentials: OnceCell<Credentials>,
}

/// A path that a call names, resolved.
#[derive(Debug)]
pub enum Target {
    /// Something of ours.
    Node(Node),
    /// Nothing, where only we could make something.
    Missing,
    /// The host's: the kernel gets there by the program's own arguments.
    Host,
    /// The host's, at this path: the program's own arguments would not lead the kernel there.
    HostAt(Vec<u8>),
    /// Refused.
    Undeclared,
}

impl<'a> Call<'a> {
    /// Begins to serve a notification.
    pub fn new(shield: &'a Shield, notification: Notification) -> Self {
        Self {
            shield,
            notification,
            task: Task(notification.thread),
            credentials: OnceCell::new(),
        }
    }

    /// An argument as the address that it is.
    pub fn address(&self, index: usize) -> u64 {
        self.notification.arguments[index]
    }

    /// An argument as the `int` that it is: the upper half of the register does not count.
    pub fn int(&self, index: usize) -> i32 {
        self.notification.arguments[index] as i32
    }

    /// An argument as open flags.
    pub fn open_flags(&self, index: usize) -> OFlags {
        OFlags::from_bits_retain(self.int(index) as u32)
    }

    /// The path that an argument points to.
    pub fn path(&self, index: usize) -> Result<Vec<u8>, Errno> {
        let path = self
            .shield
            .memories
            .read_path(self.task, self.address(index))?;
        self.check_waiting()?;
        Ok(path)
    }

    /// What was read about a thread counts only if the thread was still there afterwards.
    fn check_waiting(&self) -> Result<(), Errno> {
        if self.shield.listener.is_waiting(self.notification.id) {
            Ok(())
        } else {
            Err(Errno::SRCH)
        }
    }

    /// Writes into the caller's memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.shield.memories.write(self.task, address, bytes)
    }

    /// Who the caller is; read once.
    pub fn credentials(&self) -> Result<&Credentials, Errno> {
        if let Some(credentials) = self.credentials.get() {
            return Ok(credentials);
        }
        let credentials = self.task.credentials()?;
        self.check_waiting()?;
        Ok(self.credentials.get_or_init(|| credentials))
    }

    /// The absolute path that a path and the descriptor that it is relative to stand for.
    pub fn absolute(&self, directory: i32, path: &[u8]) -> Result<Vec<u8>, Errno> {
        if path.starts_with(b"/") {
            return Ok(path.to_vec());
        }
        let base = if directory == AT_FDCWD {
            self.task.working_directory()?
        } else {
            self.task.descriptor_path(directory)?
        };
        self.check_waiting()?;
        Ok(join(&base, path))
    }

    /// Finds out where a path leads, and whether the caller may search the directories on the way.
    ///
    /// # Errors
    /// As the kernel would give for this path.
    pub fn locate(&self, directory: i32, path: &[u8], follow: bool) -> Result<Target, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let given = self.absolute(directory, path)?;
        let mut current = given.clone();
        for _ in 0..LINK_LIMIT {
            let host = match self.shield.tree.resolve(&current, follow)? {
                Place::Node(node) => {
                    self.check_reachable(node)?;
                    return Ok(Target::Node(node));
                }
                Place::Missing => return Ok(Target::Missing),
                Place::Undeclared => return Ok(Target::Undeclared),
                Place::Host(path) => path,
            };
            let next = match procfs::inspect(self, &host, follow)? {
                Proc::Redirect(path) => Some(path),
                Proc::Node(node) => return Ok(Target::Node(node)),
                Proc::Native => None,
                Proc::Outside => self.host_link(&host, follow)?,
            };
            match next {
                Some(path) => current = path,
                None if collapse(&host) == collapse(&given) => return Ok(Target::Host),
                None => return Ok(Target::HostAt(procfs::absolute_self(self, host))),
            }
        }
        Err(Errno::LOOP)
    }

    /// If a path in the host's part passes a symbolic link: the path that the first one of them makes of it.
    fn host_link(&self, path: &[u8], follow: bool) -> Result<Option<Vec<u8>>, Errno> {
        if self.shield.has_sysfs && path.starts_with(b"/sys/") {
            return Ok(None);
        }
        let last = if follow {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC | last;
        match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(Errno::LOOP) => {}
            _ => return Ok(None),
        }
        let mut end = 0;
        while end < path.len() {
            let start = end + 1;
            end = path[start..]
                .iter()
                .position(|&byte| byte == b'/')
                .map_or(path.len(), |at| start + at);
            let is_last = path[end..].iter().all(|&byte| byte == b'/');
            if matches!(&path[start..end], b"" | b"." | b"..") || (is_last && !follow) {
                continue;
            }
            if let Ok(target) = readlinkat(CWD, &path[..end], Vec::new()) {
                let base = if target.as_bytes().starts_with(b"/") {
                    &b"/"[..]
                } else {
                    &path[..start]
                };
                let mut next = join(base, target.as_bytes());
                next.extend_from_slice(&path[end..]);
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    /// Whether the caller may search the directories that lead to a node.
    fn check_reachable(&self, node: Node) -> Result<(), Errno> {
        let tree = &self.shield.tree;
        let Node::Entry(id) = node else { return Ok(()) };
        if tree.is_openly_reachable(node) {
            return Ok(());
        }
        tree.directories_above(id).try_for_each(|directory| {
            self.permit(Node::Entry(directory), want::EXECUTE, Identity::FileSystem)
        })
    }

    /// Checks permission bits the way the kernel does.
    ///
    /// # Errors
    /// `EACCES`; `EROFS` if writing is wanted.
    pub fn permit(&self, node: Node, wanted: u32, identity: Identity) -> Result<(), Errno> {
        const DAC_OVERRIDE: u64 = 1 << 1;
        const DAC_READ_SEARCH: u64 = 1 << 2;

        let metadata = self.shield.tree.metadata(node);
        let is_special = matches!(
            FileType::from_raw_mode(metadata.mode),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo
        );
        if wanted & want::WRITE != 0 && !is_special {
            return Err(Errno::ROFS);
        }
        let mode = metadata.mode;
        if mode & mode >> 3 & mode >> 6 & wanted == wanted {
            return Ok(());
        }
        let credentials = self.credentials()?;
        let (uid, gid, capabilities) = match identity {
            Identity::FileSystem => (
                credentials.uid.file_system,
                credentials.gid.file_system,
                credentials.capabilities,
            ),
            // As in the kernel: with a real user other than root no capability counts, with root all that are permitted.
            Identity::Real if credentials.uid.real == 0 => {
                (0, credentials.gid.real, credentials.permitted)
            }
            Identity::Real => (credentials.uid.real, credentials.gid.real, 0),
        };
        let granted = if uid == metadata.uid {
            mode >> 6
        } else if gid == metadata.gid || credentials.groups.contains(&metadata.gid) {
            mode >> 3
        } else {
            mode
        };
        if granted & wanted == wanted {
            return Ok(());
        }
        let is_directory = metadata.is(FileType::Directory);
        let may_override = capabilities & DAC_OVERRIDE != 0
            && (is_directory || wanted & want::EXECUTE == 0 || mode & 0o111 != 0);
        let may_look = capabilities & DAC_READ_SEARCH != 0
            && if is_directory {
                wanted & want::WRITE == 0
            } else {
                wanted == want::READ
            };
        if may_override || may_look {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
    }

    /// The node that an open descriptor of the caller shows, if it is one of ours.
    pub fn node_of_descriptor(&self, descriptor: i32) -> Option<Node> {
        let status = self.task.descriptor_status(descriptor).ok()?;
        let node = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => {
                self.shield
                    .contents
                    .node_of(status.st_dev, status.st_ino)?
                    .0
            }
            FileType::Directory => {
                let path = self.task.descriptor_path(descriptor).ok()?;
                Node::Entry(self.directory_at(&path)?)
            }
            _ => return None,
        };
        self.check_waiting().ok()?;
        Some(node)
    }

    /// The directory of the index whose canonical path this is.
    pub fn directory_at(&self, path: &[u8]) -> Option<sconify_shield::EntryId> {
        match self.shield.tree.resolve(path, false) {
            Ok(Place::Node(Node::Entry(id))) => {
                let entry = self.shield.tree.index().entry(id);
                (entry.is_directory() && entry.path() == path).then_some(id)
            }
            _ => None,
        }
    }

    /// Gives the caller an open file.
    pub fn give(&self, file: impl AsFd, close_on_exec: bool) -> Reply {
        self.shield
            .listener
            .answer_descriptor(self.notification.id, file, close_on_exec)?;
        Ok(Answer::Done)
    }
}

/// A path without empty and `.` components, the form that resolution gives.
fn collapse(path: &[u8]) -> Vec<u8> {
    let mut collapsed = Vec::with_capacity(path.len());
    for component in path.split(|&byte| byte == b'/') {
        if !component.is_empty() && component != b"." {
            collapsed.push(b'/');
            collapsed.extend_from_slice(component);
        }
    }
    if collapsed.is_empty() {
        collapsed.push(b'/');
    }
    collapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_dot_components_vanish() {
        assert_eq!(collapse(b"//proc/./self//maps"), b"/proc/self/maps");
        assert_eq!(collapse(b"/"), b"/");
        assert_eq!(collapse(b"/a/../b"), b"/a/../b");
    }
}
