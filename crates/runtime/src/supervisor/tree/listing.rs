//! Listing directories of the index.

use std::collections::BTreeMap;

use rustix::fs::{lstat, FileType};
use sconify_shield::{EntryId, RegionKind};

use crate::supervisor::task::{join, os_path};
use crate::supervisor::writable::parent;

use super::{Node, Tree};

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

impl Tree {
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

/// The name of `path` if it stands directly in `directory`.
fn name_in<'a>(directory: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    if parent(path)? != directory {
        return None;
    }
    path.rsplit(|&byte| byte == b'/').next()
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
