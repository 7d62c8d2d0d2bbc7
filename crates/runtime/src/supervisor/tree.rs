//! The tree that the program sees: the index, the injected files, and what is left to the host.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{lstat, FileType};
use rustix::io::Errno;
use sconify_shield::{Entry, EntryId, Index, Kind, Region, RegionKind, ResolveError, Resolved};
use zeroize::Zeroizing;

use crate::executor::InjectedFile;

use super::task::{join, os_path};
use super::writable::{parent, Inode, Last, Spot, Time, Walked, Writable};

/// The device number of everything that the index lists: one that no disk has.
pub const DEVICE: (u32, u32) = (0, 0xf_5c01);
/// The device number of everything in ephemeral regions.
pub const WRITABLE_DEVICE: (u32, u32) = (0, 0xf_5c02);
/// Regions that one path may pass.
const CROSSINGS_LIMIT: usize = 64;

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

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To something of ours.
    Node(Node),
    /// To nothing, in a protected or writable directory.
    Missing,
    /// Into the host's part: the path as the kernel should take it.
    Host(Vec<u8>),
    /// To something that nobody declared.
    Undeclared,
}

/// Where a path begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// At the root: the path is absolute.
    Root,
    /// At a directory of a writable region.
    Inode(Inode),
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

/// One line of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: Vec<u8>,
    /// Its inode number.
    pub inode: u64,
    /// Its type.
    pub kind: FileType,
}

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
/// Undeclared paths are spoken of once each, up to this many.
const MENTIONS: usize = 4096;

impl Tree {
    /// Lays the injected files over the index. At most `memories` contents of writable files are kept as memory files while nobody has them open.
    pub fn new(index: Index, files: Vec<InjectedFile>, memories: usize) -> Self {
        let injected: Vec<_> = files
            .into_iter()
            .zip(INJECTED_INODES..)
            .map(|(file, inode)| Injected {
                path: file.path,
                content: file.content,
                mode: file.mode & 0o777,
                inode,
            })
            .collect();
        let by_path = injected
            .iter()
            .zip(0..)
            .map(|(file, number)| (file.path.clone(), number))
            .collect();
        let mut open_directories = Vec::with_capacity(index.entries().len());
        for entry in index.entries() {
            // Parents come before their children.
            let above = entry.id() == EntryId::ROOT
                || open_directories[index.parent(entry.id()).0 as usize];
            open_directories.push(above && entry.is_directory() && entry.mode() & 0o111 == 0o111);
        }
        let index = Arc::new(index);
        let mut writable = Writable::new(&index, memories);
        for file in &injected {
            writable.pin(&file.path, false);
        }
        Self {
            writable,
            index,
            injected,
            by_path,
            open_directories,
            mentioned: Mutex::default(),
        }
    }

    /// The index beneath.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Follows an absolute path, whoever may search the directories on the way.
    ///
    /// # Errors
    /// As the kernel would for this path.
    pub fn resolve(&self, path: &[u8], follow: bool) -> Result<Place, Errno> {
        self.walk(&Start::Root, path, last(follow), &|_| Ok(()))
            .map(|(place, _)| place)
    }

    /// Follows a path; also says which name in a writable directory it ends with, if it ends with one. `search` says whether the caller may search a
    /// directory of a writable region, or one that leads to such a region.
    ///
    /// # Errors
    /// As the kernel would for this path.
    pub fn walk(
        &self,
        start: &Start,
        path: &[u8],
        last: Last,
        search: &dyn Fn(Node) -> Result<(), Errno>,
    ) -> Result<(Place, Option<Spot>), Errno> {
        let walked = self.walk_regions(start, path, last, search);
        if self.injected.is_empty() {
            return walked;
        }
        let canonical = match &walked {
            Ok((Place::Node(node), _)) => self.path(*node),
            Ok((_, Some(spot))) => {
                Cow::Owned(join(&self.writable.path(spot.directory).0, &spot.name))
            }
            Ok((Place::Host(path), _)) => Cow::Borrowed(&path[..]),
            _ => match self.index.resolve(path, last == Last::Follow) {
                Ok(Resolved::Missing { path, .. } | Resolved::Undeclared { path }) => {
                    Cow::Owned(path)
                }
                _ => Cow::Borrowed(path),
            },
        };
        match self.by_path.get(&*canonical) {
            Some(&number) => Ok((Place::Node(Node::Injected(number)), None)),
            None => walked,
        }
    }

    fn walk_regions(
        &self,
        start: &Start,
        path: &[u8],
        last: Last,
        search: &dyn Fn(Node) -> Result<(), Errno>,
    ) -> Result<(Place, Option<Spot>), Errno> {
        let mut links = 0;
        let mut next = match start {
            Start::Root => Cow::Borrowed(path),
            Start::Inode(inode) => {
                match self.walk_writable(*inode, path, last, &mut links, search)? {
                    Walked::Outside(path) => Cow::Owned(path),
                    walked => return Ok(placed(walked)),
                }
            }
        };
        for _ in 0..CROSSINGS_LIMIT {
            let resolved = self.resolve_in_index(&next, last)?;
            let (path, kind) = match resolved {
                Resolved::Writable { path, kind } => (path, kind),
                resolved => return Ok((self.place(resolved), None)),
            };
            let prefix = self.index.region_of(&path).map(Region::prefix);
            let prefix = prefix.unwrap_or_default();
            let Some((root, above)) = self.writable.enter(prefix) else {
                return Ok((self.unserved(&path, kind), None));
            };
            let rest = &path[prefix.len()..];
            if let Some(above) = above.filter(|above| !self.open_directories[above.0 as usize]) {
                let directories = std::iter::once(above).chain(self.directories_above(above));
                for directory in directories {
                    search(Node::Entry(directory))?;
                }
            }
            match self.walk_writable(root, rest, last, &mut links, search)? {
                Walked::Outside(path) => next = Cow::Owned(path),
                walked => return Ok(placed(walked)),
            }
        }
        Err(Errno::LOOP)
    }

    fn resolve_in_index(&self, path: &[u8], last: Last) -> Result<Resolved, Errno> {
        let result = match self.index.resolve(path, last == Last::Follow) {
            // The name itself is meant; that only a directory may have a slash behind it is looked at later.
            Err(ResolveError::NotDirectory) if last == Last::Name && path.ends_with(b"/") => {
                let end = path.iter().rposition(|&byte| byte != b'/').unwrap_or(0);
                self.index.resolve(&path[..=end], false)
            }
            result => result,
        };
        result.map_err(|error| match error {
            ResolveError::NotDirectory => Errno::NOTDIR,
            ResolveError::Loop => Errno::LOOP,
            ResolveError::NoEntry => Errno::NOENT,
            ResolveError::NameTooLong => Errno::NAMETOOLONG,
        })
    }

    fn walk_writable(
        &self,
        start: Inode,
        rest: &[u8],
        last: Last,
        links: &mut u32,
        search: &dyn Fn(Node) -> Result<(), Errno>,
    ) -> Result<Walked, Errno> {
        let search = |inode| search(Node::Writable(inode));
        self.writable.walk(start, rest, last, links, &search)
    }

    fn place(&self, resolved: Resolved) -> Place {
        match resolved {
            Resolved::Entry { id } => Place::Node(Node::Entry(id)),
            Resolved::Missing { .. } => Place::Missing,
            Resolved::Host { path } => Place::Host(path),
            Resolved::Writable { path, kind } => self.unserved(&path, kind),
            Resolved::Undeclared { path } => {
                self.mention(&path);
                Place::Undeclared
            }
        }
    }

    fn unserved(&self, path: &[u8], kind: RegionKind) -> Place {
        if self.is_first_mention(path) {
            let region = self.index.region_of(path);
            error!(
                "{}: refused: the region {} is {}, which this runtime can't serve",
                Name(path),
                Name(region.map_or(&b"/"[..], |region| region.prefix())),
                kind.name()
            );
        }
        Place::Undeclared
    }

    /// Says, once for each path, that it is undeclared and how to declare it.
    fn mention(&self, path: &[u8]) {
        if !self.is_first_mention(path) {
            return;
        }
        let name = Name(path);
        if self.index.was_omitted(path) {
            warn!(
                "{name}: refused: it is in no region (undeclared); the native image has it: convert with \
                 --plain-file={name}, or with --dir for its directory"
            );
        } else if lstat(os_path(path)).is_ok() {
            warn!(
                "{name}: refused: it is in no region (undeclared), yet the container has it: convert with \
                 --host-path={name} if the program may see what the host puts there"
            );
        } else {
            debug!("{name}: refused: it is in no region (undeclared)");
        }
    }

    fn is_first_mention(&self, path: &[u8]) -> bool {
        let mut mentioned = self
            .mentioned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        mentioned.len() < MENTIONS && mentioned.insert(path.to_vec())
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

    /// Lists a directory of the index from a position on, each child with the position behind it.
    pub fn list_from(&self, directory: Node, from: u64) -> Vec<(Child, u64)> {
        let Node::Entry(id) = directory else {
            return Vec::new();
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        self.list(id).into_iter().zip(1..).skip(from).collect()
    }

    /// Lists a directory of the index, with `.` and `..`, injected files, and host paths that exist.
    pub fn list(&self, directory: EntryId) -> Vec<Child> {
        let path = self.index.entry(directory).path();
        let mut children = BTreeMap::new();
        for (name, id) in self.index.children(directory) {
            let entry = self.index.entry(id);
            children.insert(
                name.to_vec(),
                (entry.inode(), FileType::from_raw_mode(entry.st_mode())),
            );
        }
        for region in self.index.regions() {
            let Some(name) = name_in(path, region.prefix()) else {
                continue;
            };
            if children.contains_key(name) {
                continue;
            }
            if let Some(root) = self.writable.root(region.prefix()) {
                children.insert(name.to_vec(), (root.number, FileType::Directory));
            } else if region.kind() == RegionKind::Host {
                if let Ok(status) = lstat(os_path(&join(path, name))) {
                    children.insert(
                        name.to_vec(),
                        (status.st_ino, FileType::from_raw_mode(status.st_mode)),
                    );
                }
            }
        }
        for file in &self.injected {
            if let Some(name) = name_in(path, &file.path) {
                children.insert(name.to_vec(), (file.inode, FileType::RegularFile));
            }
        }
        let special = [
            (&b"."[..], directory),
            (b"..", self.index.parent(directory)),
        ]
        .map(|(name, id)| Child {
            name: name.to_vec(),
            inode: self.index.entry(id).inode(),
            kind: FileType::Directory,
        });
        let named = children
            .into_iter()
            .map(|(name, (inode, kind))| Child { name, inode, kind });
        special.into_iter().chain(named).collect()
    }
}

/// Whether a link at the end of a path is followed.
pub fn last(follow: bool) -> Last {
    if follow {
        Last::Follow
    } else {
        Last::Keep
    }
}

/// The place that a walk in a writable region ended at.
fn placed(walked: Walked) -> (Place, Option<Spot>) {
    match walked {
        Walked::Found(inode, spot) => (Place::Node(Node::Writable(inode)), spot),
        Walked::Free(spot) => (Place::Missing, Some(spot)),
        Walked::Outside(path) => (Place::Host(path), None),
    }
}

/// The name of `path` if it stands directly in `directory`.
fn name_in<'a>(directory: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    if parent(path)? != directory {
        return None;
    }
    path.rsplit(|&byte| byte == b'/').next()
}

/// A path in a message.
pub struct Name<'a>(pub &'a [u8]);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_directly_in_their_directory() {
        assert_eq!(name_in(b"/", b"/a"), Some(&b"a"[..]));
        assert_eq!(name_in(b"/a", b"/a/b"), Some(&b"b"[..]));
        for (directory, path) in [
            (&b"/"[..], &b"/"[..]),
            (b"/", b"/a/b"),
            (b"/a", b"/ab"),
            (b"/a", b"/a"),
        ] {
            assert_eq!(name_in(directory, path), None);
        }
    }
}
