//! Writable regions: trees of inodes that live in this process, and the kernel objects by which the program holds them.
//!
//! A [`FileSystem`] keeps names, attributes and contents. Which one stands behind a region is decided when the tree is made; all system calls are served
//! alike. The content of a file is a memory file, handed to the program writable, so that reads, writes, mappings and locks are the kernel's own. See
//! `docs/decisions/0010-writable-regions.md`.

mod directory;
mod ephemeral;
mod file_system;
mod image;
mod objects;
mod state;
mod volume;
mod walk;

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use rustix::io::Errno;
use sconify_shield::{EntryId, Index, RegionKind};

pub use file_system::{Change, Content, FileSystem, Kind, Located, New, Renaming, Setting, Time};
pub use objects::{reopen, Objects, Pipe};
pub use state::{create, now};
pub use volume::VolumeSystem;
pub use walk::{Last, Walked};

use super::memory_file::MemoryFile;
use super::task::join;
use super::tree::{Metadata, Node};

/// A file of a writable region: its file system and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    /// Which of the file systems.
    pub system: u16,
    /// The inode's number.
    pub number: u64,
}

/// A name in a writable directory, whether or not something has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The directory.
    pub directory: Inode,
    /// The name.
    pub name: Vec<u8>,
    /// Whether the path went on with a slash, which only directories may.
    pub slash: bool,
}

/// The root of a region.
struct Root {
    prefix: Vec<u8>,
    inode: Inode,
    /// The directory of the index that it stands in.
    above: Option<EntryId>,
}

/// All writable regions of a tree.
pub struct Writable {
    systems: Vec<Arc<dyn FileSystem>>,
    /// Those of them that are durable, from number 1 on.
    durable: Vec<Arc<VolumeSystem>>,
    roots: Vec<Root>,
    /// Where other regions begin within writable ones: the inode that stands for each, and its path.
    junctions: HashMap<Inode, Vec<u8>>,
    /// Directories that can't be moved or removed: those regions and what is above them.
    pinned: HashSet<Inode>,
    /// What the kernel knows of these files.
    pub objects: Objects,
    sweeper: OnceLock<Thread>,
}

/// The number of the ephemeral file system; volumes come behind it.
pub const EPHEMERAL: u16 = 0;

impl Writable {
    /// Makes the writable regions of an index, with what it lists in them. At most `memories` contents are kept as memory files while nobody has them open.
    pub fn new(index: &Arc<Index>, memories: usize, durable: Vec<Arc<VolumeSystem>>) -> Self {
        let image = Some(Arc::clone(index));
        let ephemeral =
            ephemeral::Ephemeral::new(image, memories, crate::supervisor::room::budget());
        let mut roots = Vec::new();
        for region in index.regions() {
            if region.kind() == RegionKind::Ephemeral {
                let number = ephemeral.plant(region.prefix());
                roots.push(Root {
                    prefix: region.prefix().to_vec(),
                    inode: Inode {
                        system: EPHEMERAL,
                        number,
                    },
                    above: parent(region.prefix()).and_then(|above| index.find(above)),
                });
            }
        }
        roots.extend(durable.iter().map(|system| Root {
            prefix: system.prefix().to_vec(),
            inode: system.top(),
            above: parent(system.prefix()).and_then(|above| index.find(above)),
        }));
        let mut systems: Vec<Arc<dyn FileSystem>> = vec![Arc::new(ephemeral)];
        systems.extend(durable.iter().map(|system| Arc::clone(system) as _));
        let mut writable = Self {
            systems,
            durable,
            roots,
            junctions: HashMap::new(),
            pinned: HashSet::new(),
            objects: Objects::default(),
            sweeper: OnceLock::new(),
        };
        writable.pinned = writable.roots.iter().map(|root| root.inode).collect();
        writable.join_regions(index);
        writable
    }

    /// Makes an inode for each region that begins within a writable one, so that listings show it and its way there stays.
    fn join_regions(&mut self, index: &Index) {
        for region in index.regions() {
            let prefix = region.prefix();
            if let Some(inode) = self.pin(prefix, is_directory(index, prefix)) {
                self.junctions.insert(inode, prefix.to_vec());
            }
        }
    }

    /// If a path lies in a writable region, but is not its root: makes an inode there that stays, with the directories above it.
    pub fn pin(&mut self, path: &[u8], is_directory: bool) -> Option<Inode> {
        let root = self.root_of(parent(path)?)?;
        let (mut at, rest) = (root.inode, &path[root.prefix.len()..]);
        // The root directory's prefix ends with the slash that others don't have.
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let names: Vec<_> = rest.split(|&byte| byte == b'/').collect();
        for (position, name) in names.iter().enumerate() {
            let kind = if is_directory || position + 1 < names.len() {
                Kind::Directory
            } else {
                Kind::File
            };
            let new = New {
                kind,
                mode: 0o755,
                uid: 0,
                gid: 0,
            };
            let system = self.system(at);
            let number = match system.lookup(at.number, name) {
                Ok(Some(number)) => number,
                _ => system.create(at.number, name, &new).ok()?,
            };
            at = Inode {
                system: at.system,
                number,
            };
            self.pinned.insert(at);
        }
        Some(at)
    }

    /// The file system of an inode.
    pub fn system(&self, inode: Inode) -> &dyn FileSystem {
        &*self.systems[usize::from(inode.system)]
    }

    /// All volumes.
    pub fn volumes(&self) -> &[Arc<VolumeSystem>] {
        &self.durable
    }

    /// The volume that a file is in.
    pub fn volume(&self, inode: Inode) -> Option<&VolumeSystem> {
        let at = usize::from(inode.system).checked_sub(1)?;
        self.durable.get(at).map(|system| &**system)
    }

    /// Whether a file is in a volume that may only be read.
    pub fn is_read_only(&self, inode: Inode) -> bool {
        self.volume(inode).is_some_and(VolumeSystem::is_read_only)
    }

    /// The writable region that a canonical path lies in, by the longest prefix.
    fn root_of(&self, path: &[u8]) -> Option<&Root> {
        let within = |root: &&Root| {
            path.strip_prefix(&*root.prefix)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || root.prefix == b"/")
        };
        self.roots
            .iter()
            .filter(within)
            .max_by_key(|root| root.prefix.len())
    }

    /// The region that begins at this path: its root, and the directory of the index above it.
    pub fn enter(&self, prefix: &[u8]) -> Option<(Inode, Option<EntryId>)> {
        let root = self.roots.iter().find(|root| root.prefix == prefix)?;
        Some((root.inode, root.above))
    }

    /// The root of the region that begins at exactly this path.
    pub fn root(&self, prefix: &[u8]) -> Option<Inode> {
        self.roots
            .iter()
            .find(|root| root.prefix == prefix)
            .map(|root| root.inode)
    }

    /// The entry of the image whose content a file still has.
    pub fn pristine(&self, inode: Inode) -> Option<EntryId> {
        self.system(inode).pristine(inode.number)
    }

    /// What `stat` shows.
    ///
    /// # Errors
    /// `ENOENT` if there is no such inode any more.
    pub fn metadata(&self, inode: Inode) -> Result<Metadata, Errno> {
        self.system(inode).metadata(inode.number)
    }

    /// The path of a file, or the last one that it had, and whether it has none any more.
    pub fn path(&self, inode: Inode) -> (Vec<u8>, bool) {
        let Ok(located) = self.system(inode).locate(inode.number) else {
            return (b"/".to_vec(), true);
        };
        let root = self
            .roots
            .iter()
            .find(|root| root.inode.system == inode.system && root.inode.number == located.root);
        let prefix = root.map_or(&b"/"[..], |root| &root.prefix);
        if located.path.is_empty() {
            (prefix.to_vec(), located.is_removed)
        } else {
            (join(prefix, &located.path), located.is_removed)
        }
    }

    /// A name of a file: its directory, and what it is called there.
    pub fn place(&self, inode: Inode) -> Option<(Inode, Vec<u8>)> {
        let system = self.system(inode);
        let located = system.locate(inode.number).ok()?;
        let mut directory = located.root;
        let mut names = located.path.split(|&byte| byte == b'/');
        let last = names.next_back().filter(|name| !name.is_empty())?;
        for name in names {
            directory = system.lookup(directory, name).ok()??;
        }
        let number = directory;
        Some((Inode { number, ..inode }, last.to_vec()))
    }

    /// Whether a directory can't be moved or removed, because a region begins there or beneath.
    pub fn is_pinned(&self, inode: Inode) -> bool {
        self.pinned.contains(&inode)
    }

    /// The file whose content a memory file is.
    pub fn of_memory(&self, memory: u64) -> Option<Inode> {
        self.systems.iter().zip(0..).find_map(|(system, number)| {
            Some(Inode {
                system: number,
                number: system.of_memory(memory)?,
            })
        })
    }

    /// Frees what has lost a name, now or when it is not open any more.
    pub fn removed(&self, inode: Inode) {
        let is_nameless = self
            .system(inode)
            .locate(inode.number)
            .map_or(true, |located| located.is_removed);
        let is_kept = is_nameless && self.objects.removed(inode);
        if is_nameless && !is_kept {
            self.system(inode).forget(inode.number);
        }
        if let Some(sweeper) = self.sweeper.get() {
            if is_kept || self.system(inode).has_garbage() {
                sweeper.unpark();
            }
        }
    }

    /// Opens a directory for the program.
    ///
    /// # Errors
    /// `EROFS` if the container has no place for directories; `EMFILE` and the like.
    pub fn open_directory(&self, inode: Inode) -> Result<OwnedFd, Errno> {
        let (file, unused) = self.objects.directory(inode)?;
        self.forget(unused);
        Ok(file)
    }

    /// What stands for a file, called `name`, that the program holds by its place only.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn hold(&self, node: Node, name: &[u8]) -> Result<Arc<MemoryFile>, Errno> {
        let mut is_lost = false;
        if let Node::Writable(inode) = node {
            let system = self.system(inode);
            system.keep(inode.number)?;
            is_lost = system.locate(inode.number)?.is_removed;
        }
        let (file, unused) = self.objects.hold(node, name, is_lost)?;
        self.forget(unused);
        if let Some(sweeper) = self.sweeper.get().filter(|_| is_lost) {
            sweeper.unpark();
        }
        Ok(file)
    }

    /// Forgets those of these files that have no name.
    fn forget(&self, unused: Vec<Inode>) {
        for inode in unused {
            self.system(inode).forget(inode.number);
        }
    }

    /// Gives up the memory of contents that nobody has open and that can be had again.
    pub fn trim(&self) {
        for system in &self.systems {
            system.trim();
        }
    }

    /// Frees what has no name and is not open any more, for ever; `prepare` is called before each time, and `finish` with what it gave after it.
    pub fn sweep_for_ever<T>(&self, prepare: impl Fn() -> T, finish: impl Fn(T)) {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
        let _ = self.sweeper.set(std::thread::current());
        loop {
            let prepared = prepare();
            let (unused, are_held) = self.objects.sweep_lost();
            self.forget(unused);
            // All of them, whatever the first one says.
            let left = self.systems.iter().filter(|system| system.sweep()).count();
            finish(prepared);
            if left > 0 || are_held {
                std::thread::park_timeout(PAUSE);
            } else {
                std::thread::park();
            }
        }
    }
}

/// The path above a normal one.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    match (slash, path.len()) {
        (0, 1) => None,
        (0, _) => Some(b"/"),
        _ => Some(&path[..slash]),
    }
}

/// Whether what a region stands for is a directory: the index says so, or, of the host's, the disk.
fn is_directory(index: &Index, prefix: &[u8]) -> bool {
    match index.lookup(prefix) {
        Some(entry) => entry.is_directory(),
        None => !std::path::Path::is_file(super::task::os_path(prefix)),
    }
}
