//! What the image has in an ephemeral region. The inodes of a directory's entries are made when the directory is first looked into, so that a start costs
//! nothing for what the program never looks at.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustix::fs::FileType;
use sconify_shield::{Entry, EntryId, Index, Kind, Region};

use super::directory::{Directory, Name};
use super::state::{now, Body, File, State};
use super::Time;

/// The index, and what was made of it.
pub struct Image {
    index: Arc<Index>,
    /// Which inode was made for which inode of the index, of files that have several names.
    linked: HashMap<u64, u64>,
}

impl Image {
    /// Nothing was made of it yet.
    pub fn new(index: Arc<Index>) -> Self {
        Self {
            index,
            linked: HashMap::new(),
        }
    }
}

/// A file with these attributes and no name.
fn file(mode: u32, uid: u32, gid: u32, time: Time, body: Body) -> File {
    File {
        mode,
        uid,
        gid,
        accessed: time,
        modified: time,
        changed: time,
        names: Vec::new(),
        last: None,
        linkable: false,
        xattrs: BTreeMap::new(),
        body,
    }
}

/// The inode of an entry; none of a device node, which means one of the host's.
fn file_of(entry: Entry<'_>, above: u64) -> Option<File> {
    let body = match entry.kind() {
        Kind::Directory => Body::Directory(Directory::of_image(above, entry.id())),
        Kind::Symlink { target } => Body::Symlink(target.into()),
        Kind::File { size, .. } => Body::Initial(entry.id(), size),
        Kind::Fifo => Body::Special,
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => return None,
    };
    let time = (entry.mtime(), entry.mtime_nsec());
    let mut made = file(entry.st_mode(), entry.uid(), entry.gid(), time, body);
    let xattrs = entry.xattrs();
    made.xattrs = xattrs
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    Some(made)
}

/// The region that an entry is in; regions are few, so the prefix is as good as the region.
fn region_of(index: &Index, id: EntryId) -> Option<&[u8]> {
    index.region_of(index.entry(id).path()).map(Region::prefix)
}

impl State {
    /// Makes the root of a region.
    pub fn plant(&mut self, prefix: &[u8]) -> u64 {
        let root = self.next;
        self.next += 1;
        let index = self.image.as_ref().map(|image| Arc::clone(&image.index));
        let entry = index.as_ref().and_then(|index| index.lookup(prefix));
        let made = entry
            .filter(Entry::is_directory)
            .and_then(|entry| file_of(entry, root));
        let Some(made) = made else {
            // Like a mount point that nobody made: for everybody.
            let mode = FileType::Directory.as_raw_mode() | 0o1777;
            let body = Body::Directory(Directory::new(root));
            self.files.insert(root, file(mode, 0, 0, now(), body));
            return root;
        };
        self.files.insert(root, made);
        if let Some(index) = index {
            // All names of a file must be known before one of them is taken away.
            for entry in index.entries().filter(|entry| !entry.is_directory()) {
                if entry.nlink() > 1 && region_of(&index, entry.id()) == Some(prefix) {
                    self.expand_down_to(&index, root, prefix, index.parent(entry.id()));
                }
            }
        }
        root
    }

    /// Makes everything on the way from the root of a region to a directory in it, and that directory's entries.
    fn expand_down_to(&mut self, index: &Index, root: u64, prefix: &[u8], directory: EntryId) {
        let path = index.entry(directory).path();
        let names = path[prefix.len()..].split(|&byte| byte == b'/');
        let mut at = root;
        self.expand(at);
        for name in names.filter(|name| !name.is_empty()) {
            match self.directory(at).map(|entries| entries.get(name)) {
                Ok(Some(next)) => at = next,
                _ => return,
            }
            self.expand(at);
        }
    }

    /// Makes the entries that the image has in a directory, unless that was done.
    pub fn expand(&mut self, directory: u64) {
        let Ok(entries) = self.directory_mut(directory) else {
            return;
        };
        let (Some(id), Some(image)) = (entries.unlisted.take(), self.image.as_ref()) else {
            return;
        };
        let index = Arc::clone(&image.index);
        let own = region_of(&index, id);
        for (name, child) in index.children(id) {
            // What another region has is not ours.
            if region_of(&index, child) != own {
                continue;
            }
            let entry = index.entry(child);
            let name = Name::from(name);
            let is_linked = !entry.is_directory() && entry.nlink() > 1;
            let linked = self.image.as_mut().map(|image| &mut image.linked);
            let linked = linked.filter(|_| is_linked);
            if let Some(&first) = linked.as_ref().and_then(|found| found.get(&entry.inode())) {
                self.name(first, directory, name);
                continue;
            }
            let Some(made) = file_of(entry, directory) else {
                continue;
            };
            let number = self.next;
            if let Some(linked) = linked {
                linked.insert(entry.inode(), number);
            }
            self.next += 1;
            self.files.insert(number, made);
            self.name(number, directory, name);
        }
    }
}
