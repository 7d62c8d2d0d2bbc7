//! The tree that the program sees: the index, the injected files, and what is left to the host.

mod listing;
mod node;
mod walk;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rustix::fs::FileType;
use sconify_shield::{Entry, EntryId, Index, Kind};
use zeroize::Zeroizing;

use crate::executor::InjectedFile;

use super::writable::{VolumeSystem, Writable};

pub use listing::Child;
pub use node::{Metadata, Name, Node};
pub use walk::{last, Place, Start};

/// The device number of everything that the index lists: one that no disk has.
pub const DEVICE: (u32, u32) = (0, 0xf_5c01);
/// The device number of everything in ephemeral regions.
pub const WRITABLE_DEVICE: (u32, u32) = (0, 0xf_5c02);

struct Injected {
    path: Vec<u8>,
    content: Zeroizing<Vec<u8>>,
    mode: u32,
    inode: u64,
}

/// The tree.
pub struct Tree {
    index: Arc<Index>,
    injected: Vec<Injected>,
    by_path: HashMap<Vec<u8>, u32>,
    /// Directories, themselves and all those above them, that everybody may search.
    open_directories: Vec<bool>,
    /// The writable regions.
    pub writable: Writable,
    /// Undeclared paths that were spoken of.
    mentioned: Mutex<HashSet<Vec<u8>>>,
}

/// Inode numbers of injected files begin here, far above those that an image has.
const INJECTED_INODES: u64 = 1 << 62;

impl Tree {
    /// Lays the injected files over the index. At most `memories` contents of writable files are kept as memory files while nobody has them open.
    pub fn new(
        index: Index,
        files: Vec<InjectedFile>,
        memories: usize,
        volumes: Vec<Arc<VolumeSystem>>,
    ) -> Self {
        let mut open_directories = Vec::with_capacity(index.entries().len());
        for entry in index.entries() {
            // Parents come before their children.
            let above = entry.id() == EntryId::ROOT
                || open_directories[index.parent(entry.id()).0 as usize];
            open_directories.push(above && entry.is_directory() && entry.mode() & 0o111 == 0o111);
        }
        let index = Arc::new(index);
        let mut tree = Self {
            writable: Writable::new(&index, memories, volumes),
            index,
            injected: Vec::new(),
            by_path: HashMap::new(),
            open_directories,
            mentioned: Mutex::default(),
        };
        for file in files {
            tree.inject(file);
        }
        tree
    }

    /// Lays a file over whatever is at its path.
    pub fn inject(&mut self, file: InjectedFile) {
        let number = self.injected.len() as u32;
        self.writable.pin(&file.path, false);
        self.by_path.insert(file.path.clone(), number);
        self.injected.push(Injected {
            path: file.path,
            content: file.content,
            mode: file.mode & 0o777,
            inode: INJECTED_INODES + u64::from(number),
        });
    }

    /// The index beneath.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The entry, if the node is one.
    pub fn entry(&self, node: Node) -> Option<Entry<'_>> {
        match node {
            Node::Entry(id) => Some(self.index.entry(id)),
            Node::Injected(_) | Node::Writable(_) => None,
        }
    }

    /// The content of an injected file.
    pub fn injected_content(&self, number: u32) -> &[u8] {
        &self.injected[number as usize].content
    }

    /// The canonical path of a node; of one that was removed, with the mark that the kernel gives it.
    pub fn path(&self, node: Node) -> Cow<'_, [u8]> {
        match node {
            Node::Entry(id) => self.index.entry(id).path().into(),
            Node::Injected(number) => (&self.injected[number as usize].path).into(),
            Node::Writable(inode) => {
                let (mut path, is_removed) = self.writable.path(inode);
                if is_removed {
                    path.extend_from_slice(b" (deleted)");
                }
                path.into()
            }
        }
    }

    /// What `stat` shows of a node.
    pub fn metadata(&self, node: Node) -> Metadata {
        match node {
            Node::Entry(id) => {
                let entry = self.index.entry(id);
                let device = match entry.kind() {
                    Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                        (major, minor)
                    }
                    _ => (0, 0),
                };
                let time = (entry.mtime(), entry.mtime_nsec());
                Metadata {
                    mode: entry.st_mode(),
                    uid: entry.uid(),
                    gid: entry.gid(),
                    inode: entry.inode(),
                    links: entry.nlink(),
                    size: entry.size(),
                    blocks: entry.size().div_ceil(512),
                    accessed: time,
                    modified: time,
                    changed: time,
                    device,
                    system: DEVICE,
                }
            }
            Node::Injected(number) => {
                let file = &self.injected[number as usize];
                Metadata {
                    mode: FileType::RegularFile.as_raw_mode() | file.mode,
                    // Whoever the program runs as may have the files that the policy gives it.
                    uid: rustix::process::geteuid().as_raw(),
                    gid: rustix::process::getegid().as_raw(),
                    inode: file.inode,
                    links: 1,
                    size: file.content.len() as u64,
                    blocks: (file.content.len() as u64).div_ceil(512),
                    system: DEVICE,
                    ..Metadata::default()
                }
            }
            // What was freed in this moment looks like nothing.
            Node::Writable(inode) => self.writable.metadata(inode).unwrap_or_default(),
        }
    }

    /// Whether everybody may search the directories that lead to a node.
    pub fn is_openly_reachable(&self, node: Node) -> bool {
        match node {
            Node::Entry(id) => {
                id == EntryId::ROOT || self.open_directories[self.index.parent(id).0 as usize]
            }
            // Walking there has checked it.
            Node::Injected(_) | Node::Writable(_) => true,
        }
    }

    /// The directories that lead to an entry, the nearest first.
    pub fn directories_above(&self, id: EntryId) -> impl Iterator<Item = EntryId> + '_ {
        let next = move |id: &EntryId| (*id != EntryId::ROOT).then(|| self.index.parent(*id));
        std::iter::successors(next(&id), next)
    }
}
