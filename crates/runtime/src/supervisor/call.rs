//! One trapped call: its arguments, who makes it, where its paths lead, and how it is answered.

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{openat2, readlinkat, FileType, Mode, OFlags, ResolveFlags, CWD};
use rustix::io::Errno;

use crate::kernel::notify::Notification;

use super::procfs::{self, Proc};
use super::rights::Subject;
pub use super::rights::{want, Identity};
use super::task::{join, Credentials, Task};
use super::tree::{last, Node, Place, Start};
use super::writable::{Inode, Last, Spot};
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
    /// Nothing, in a protected or writable directory.
    Missing,
    /// The host's: the kernel gets there by the program's own arguments.
    Host,
    /// The host's, at this path: the program's own arguments would not lead the kernel there.
    HostAt(Vec<u8>),
    /// Refused.
    Undeclared,
}

/// A directory that a path is relative to.
#[derive(Debug)]
pub enum Base {
    /// One that the kernel knows by this path.
    Path(Vec<u8>),
    /// One of a writable region.
    Inode(Inode),
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

    /// The directory behind a descriptor of the caller, or `AT_FDCWD`.
    ///
    /// # Errors
    /// `EBADF`, `ENOTDIR`; `ENOENT` if the kernel has no path for it any more.
    pub fn base(&self, directory: i32) -> Result<Base, Errno> {
        let base = if directory == AT_FDCWD {
            self.base_of(self.task, "cwd")?
        } else if directory < 0 {
            return Err(Errno::BADF);
        } else {
            self.base_of(self.task, &format!("fd/{directory}"))
                .map_err(|error| match error {
                    Errno::NOENT => Errno::BADF,
                    error => error,
                })?
        };
        self.check_waiting()?;
        base.ok_or(Errno::NOENT)
    }

    /// The directory behind a link of `/proc/TID`; `None` if it was removed.
    ///
    /// # Errors
    /// `ENOENT` if there is no such link, `ENOTDIR` if it leads to no directory.
    pub fn base_of(&self, task: Task, link: &str) -> Result<Option<Base>, Errno> {
        let path = task.link(link)?;
        if !path.starts_with(b"/") {
            return Err(Errno::NOTDIR);
        }
        // The directories of writable regions have no name on the disk.
        if !path.ends_with(b" (deleted)") {
            return Ok(Some(Base::Path(path)));
        }
        let status = task.status_of(link)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let objects = &self.shield.tree.writable.objects;
        Ok(match objects.of(status.st_dev, status.st_ino) {
            Some(Node::Writable(inode)) => Some(Base::Inode(inode)),
            _ => None,
        })
    }

    /// The path of the directory behind a link of `/proc/TID`, as the program knows it.
    ///
    /// # Errors
    /// `ENOENT` if it was removed; as [`Call::base_of`].
    pub fn path_of_link(&self, task: Task, link: &str) -> Result<Vec<u8>, Errno> {
        match self.base_of(task, link)?.ok_or(Errno::NOENT)? {
            Base::Path(path) => Ok(path),
            Base::Inode(inode) => match self.shield.tree.writable.path(inode) {
                (path, false) => Ok(path),
                (_, true) => Err(Errno::NOENT),
            },
        }
    }

    /// The absolute path that a path and the descriptor that it is relative to stand for.
    pub fn absolute(&self, directory: i32, path: &[u8]) -> Result<Vec<u8>, Errno> {
        if path.starts_with(b"/") {
            return Ok(path.to_vec());
        }
        match self.base(directory)? {
            Base::Path(base) => Ok(join(&base, path)),
            Base::Inode(inode) => match self.shield.tree.writable.path(inode) {
                (base, false) => Ok(join(&base, path)),
                (_, true) => Err(Errno::NOENT),
            },
        }
    }

    /// Finds out where a path leads, and whether the caller may search the directories on the way.
    ///
    /// # Errors
    /// As the kernel would give for this path.
    pub fn locate(&self, directory: i32, path: &[u8], follow: bool) -> Result<Target, Errno> {
        self.locate_name(directory, path, last(follow))
            .map(|(target, _)| target)
    }

    /// As [`Call::locate`]; also gives the name in a writable directory that the path ends with, if it ends with one.
    ///
    /// # Errors
    /// As the kernel would give for this path.
    pub fn locate_name(
        &self,
        directory: i32,
        path: &[u8],
        last: Last,
    ) -> Result<(Target, Option<Spot>), Errno> {
        let follow = last == Last::Follow;
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let (mut start, mut current) = (Start::Root, path.to_vec());
        if !path.starts_with(b"/") {
            match self.base(directory)? {
                Base::Path(base) => current = join(&base, path),
                Base::Inode(inode) => start = Start::Inode(inode),
            }
        }
        // Whether the kernel gets there by the program's own arguments: through links of the host at most, which lead to the host's part.
        let mut is_native = matches!(start, Start::Root);
        let search = |node| self.permit(node, want::EXECUTE, Identity::FileSystem);
        for _ in 0..LINK_LIMIT {
            let (place, spot) = self.shield.tree.walk(&start, &current, last, &search)?;
            let host = match place {
                Place::Node(node) => {
                    self.check_reachable(node)?;
                    return Ok((Target::Node(node), spot));
                }
                Place::Missing => return Ok((Target::Missing, spot)),
                Place::Undeclared => return Ok((Target::Undeclared, None)),
                Place::Host(path) => path,
            };
            is_native &= collapse(&host) == collapse(&current);
            let next = match procfs::inspect(self, &host, follow)? {
                Proc::Redirect(path) => {
                    is_native = false;
                    Some(path)
                }
                Proc::Node(node) => return Ok((Target::Node(node), None)),
                Proc::Native => None,
                Proc::Outside => self.host_link(&host, follow)?,
            };
            match next {
                Some(path) => (start, current) = (Start::Root, path),
                None if is_native => return Ok((Target::Host, None)),
                None => return Ok((Target::HostAt(procfs::absolute_self(self, host)), None)),
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
    /// `EACCES`; `EROFS` if writing is wanted in a read-only region.
    pub fn permit(&self, node: Node, wanted: u32, identity: Identity) -> Result<(), Errno> {
        let metadata = self.shield.tree.metadata(node);
        let is_special = matches!(
            FileType::from_raw_mode(metadata.mode),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo
        );
        let tree = &self.shield.tree;
        let is_writable = match node {
            // Pipes and sockets are no part of what is stored.
            _ if is_special => true,
            Node::Writable(inode) => {
                metadata.is(FileType::Socket) || !tree.writable.is_read_only(inode)
            }
            _ => false,
        };
        if wanted & want::WRITE != 0 && !is_writable {
            return Err(Errno::ROFS);
        }
        let mode = metadata.mode;
        if mode & mode >> 3 & mode >> 6 & wanted == wanted {
            return Ok(());
        }
        if Subject::new(self.credentials()?, identity).may(&metadata, wanted) {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
    }

    /// The caller, as the kernel checks files by.
    pub fn subject(&self) -> Result<Subject<'_>, Errno> {
        Ok(Subject::new(self.credentials()?, Identity::FileSystem))
    }

    /// The node that an open descriptor of the caller shows, if it is one of ours.
    pub fn node_of_descriptor(&self, descriptor: i32) -> Option<Node> {
        let node = self.node_of_link(self.task, &format!("fd/{descriptor}"))?;
        self.check_waiting().ok()?;
        Some(node)
    }

    /// The node that one of the links of `/proc/TID` leads to, if it is one of ours.
    pub fn node_of_link(&self, task: Task, link: &str) -> Option<Node> {
        let status = task.status_of(link).ok()?;
        let writable = &self.shield.tree.writable;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => self.shield.memory_node(status.st_dev, status.st_ino),
            FileType::Directory => match self.base_of(task, link).ok()?? {
                Base::Path(path) => Some(Node::Entry(self.directory_at(&path)?)),
                Base::Inode(inode) => Some(Node::Writable(inode)),
            },
            FileType::Fifo => writable.objects.of(status.st_dev, status.st_ino),
            _ => None,
        }
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

    /// Gives the caller an open file that nobody else has when it goes on: what happens when a file is closed (locks, ends of pipes, events) happens when
    /// the program closes it.
    pub fn give_alone(&self, file: OwnedFd, close_on_exec: bool) -> Reply {
        let listener = &self.shield.listener;
        let number = listener.install(self.notification.id, &file, close_on_exec)?;
        drop(file);
        Ok(Answer::Value(number.into()))
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
