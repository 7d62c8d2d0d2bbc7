//! What a path can lead to, and what `stat` shows of it.

use rustix::fs::FileType;
use sconify_shield::EntryId;

use crate::supervisor::writable::{Inode, Time};

/// Something whose bytes and metadata are ours to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// An entry of the index.
    Entry(EntryId),
    /// An injected file, by its number.
    Injected(u32),
    /// A file of a writable region.
    Writable(Inode),
}

/// What a look at a node gives: the fields of `stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number.
    pub inode: u64,
    /// Number of hard links.
    pub links: u32,
    /// Bytes of content.
    pub size: u64,
    /// What the content takes, in pieces of 512 bytes.
    pub blocks: u64,
    /// When the content was last read.
    pub accessed: Time,
    /// When the content was last changed.
    pub modified: Time,
    /// When anything was last changed.
    pub changed: Time,
    /// Device number of a device node.
    pub device: (u32, u32),
    /// Device number of the file system.
    pub system: (u32, u32),
}

impl Metadata {
    /// Sets the size, and the blocks that a whole content of this size takes.
    pub fn set_size(&mut self, size: u64) {
        (self.size, self.blocks) = (size, size.div_ceil(512));
    }

    /// Whether it is a file of this type.
    pub fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.mode) == kind
    }
}

/// A path in a message.
pub struct Name<'a>(pub &'a [u8]);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}
