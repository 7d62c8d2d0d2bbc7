//! What stands behind a writable region: a tree of inodes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use sconify_shield::EntryId;

use crate::supervisor::tree::{Child, Metadata};

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular, empty file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Something new, and whose it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What becomes of a name that is taken when something is renamed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renaming {
    /// It is replaced.
    Replace,
    /// It is kept: the call fails.
    Keep,
    /// The two are exchanged.
    Exchange,
}

/// A change of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// New permission, set-id and sticky bits.
    Mode(u32),
    /// New owner, group and mode.
    Owner(u32, u32, u32),
    /// New times of access and modification; `None` stays.
    Times(Option<Time>, Option<Time>),
}

/// How an extended attribute is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Whether or not it exists.
    Any,
    /// `XATTR_CREATE`.
    Create,
    /// `XATTR_REPLACE`.
    Replace,
}

/// The content of a regular file.
pub enum Content {
    /// In memory, open for reading and writing.
    Memory(Arc<OwnedFd>),
    /// Still what the image has: this entry's, to be copied and given to [`FileSystem::load`].
    Initial(EntryId),
}

/// Where a file stands, as far as names tell.
pub struct Located {
    /// The root of its region.
    pub root: u64,
    /// Its path from there on, without a slash in front.
    pub path: Vec<u8>,
    /// Whether that was its last name, and it has none any more.
    pub is_removed: bool,
}

/// A tree of inodes. Permissions are the caller's matter, as is everything that a path means.
pub trait FileSystem: Send + Sync {
    /// What a name in a directory stands for.
    ///
    /// # Errors
    /// `ENOTDIR` if it is no directory.
    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Option<u64>, Errno>;

    /// The directory above; a region's root is above itself.
    ///
    /// # Errors
    /// `ENOTDIR` if it is no directory.
    fn parent(&self, directory: u64) -> Result<u64, Errno>;

    /// What `stat` shows.
    ///
    /// # Errors
    /// `ENOENT` if there is no such inode any more.
    fn metadata(&self, number: u64) -> Result<Metadata, Errno>;

    /// A symbolic link's target.
    ///
    /// # Errors
    /// `EINVAL` if it is no link.
    fn target(&self, number: u64) -> Result<Vec<u8>, Errno>;

    /// The names in a directory from a position on, each with the position behind it. Positions 0 and 1 are `.` and `..`.
    ///
    /// # Errors
    /// `ENOTDIR` if it is no directory, `ENOENT` if it was removed.
    fn list(&self, directory: u64, from: u64) -> Result<Vec<(Child, u64)>, Errno>;

    /// Where a file stands.
    ///
    /// # Errors
    /// `ENOENT` if there is no such inode any more.
    fn locate(&self, number: u64) -> Result<Located, Errno>;

    /// Makes something under a name.
    ///
    /// # Errors
    /// `EEXIST`; `ENOENT` if the directory was removed; `ENOSPC`.
    fn create(&self, directory: u64, name: &[u8], new: &New) -> Result<u64, Errno>;

    /// Makes a file without a name; whether it may be linked later is the second argument.
    ///
    /// # Errors
    /// `ENOSPC`.
    fn create_unnamed(&self, directory: u64, new: &New, linkable: bool) -> Result<u64, Errno>;

    /// Gives a file one more name.
    ///
    /// # Errors
    /// `EEXIST`; `EPERM` for directories; `ENOENT` if it lost its last name.
    fn link(&self, number: u64, directory: u64, name: &[u8]) -> Result<(), Errno>;

    /// Takes a name away, of an empty directory if `is_directory`, else of anything else. If it was the last one, [`FileSystem::forget`] must follow sometime.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTEMPTY`, `ENOTDIR`, `EISDIR`.
    fn remove(&self, directory: u64, name: &[u8], is_directory: bool) -> Result<(), Errno>;

    /// Moves a name.
    ///
    /// # Errors
    /// As `renameat2`.
    fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), renaming: Renaming)
        -> Result<(), Errno>;

    /// Changes attributes.
    ///
    /// # Errors
    /// `ENOENT` if there is no such inode any more.
    fn change(&self, number: u64, change: Change) -> Result<(), Errno>;

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `ENODATA`.
    fn attribute(&self, number: u64, name: &[u8]) -> Result<Vec<u8>, Errno>;

    /// The names of all extended attributes.
    ///
    /// # Errors
    /// `ENOENT` if there is no such inode any more.
    fn attributes(&self, number: u64) -> Result<Vec<Vec<u8>>, Errno>;

    /// Sets an extended attribute, or removes it.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `ENOSPC`.
    fn set_attribute(
        &self,
        number: u64,
        name: &[u8],
        value: Option<&[u8]>,
        setting: Setting,
    ) -> Result<(), Errno>;

    /// The content of a regular file.
    ///
    /// # Errors
    /// `EINVAL` if it is no regular file; what making a memory file gives.
    fn content(&self, number: u64) -> Result<Content, Errno>;

    /// Takes a copy of the initial content of a file; returns the content, which is another one if somebody was faster.
    ///
    /// # Errors
    /// `ENOENT` if there is no such inode any more.
    fn load(&self, number: u64, copy: OwnedFd) -> Result<Arc<OwnedFd>, Errno>;

    /// The memory file of a content, if it has one now.
    fn memory(&self, _number: u64) -> Option<Arc<OwnedFd>> {
        None
    }

    /// The entry of the image whose content a file still has.
    fn pristine(&self, _number: u64) -> Option<EntryId> {
        None
    }

    /// Notes that the content of a file may be changed from now on.
    fn spoil(&self, _number: u64) {}

    /// The file that a memory file is the content of, by the memory file's inode number.
    fn of_memory(&self, memory: u64) -> Option<u64>;

    /// Keeps an inode of which the program holds the place only: it must be there until it is forgotten, although it is not open.
    ///
    /// # Errors
    /// `ENOENT` if there is no such inode any more.
    fn keep(&self, number: u64) -> Result<(), Errno>;

    /// Forgets an inode once it has neither a name nor, if it is a regular file, is open; whether others are open the caller must know.
    fn forget(&self, number: u64);

    /// Whether something has no name but was open when it lost it.
    fn has_garbage(&self) -> bool;

    /// Drops what has no name and is not open any more. Returns whether some is left that is.
    fn sweep(&self) -> bool;

    /// Gives up the memory of contents that nobody has open and that can be had again.
    fn trim(&self) {}
}
