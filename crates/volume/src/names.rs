//! Messages that name the file: paths are looked for only after something failed.

use std::ops::ControlFlow;

use crate::entries;
use crate::error::{Result, VolumeError};
use crate::node::{Key, Kind};
use crate::volume::{Volume, Working};
use crate::ROOT_INODE;

impl Volume {
    /// A path of an inode, for messages: None if it has no name or the tree can't be read.
    pub fn path_of(&self, inode: u64) -> Option<Vec<u8>> {
        self.path_in(&self.read(), inode)
    }

    pub(crate) fn path_in(&self, working: &Working, mut inode: u64) -> Option<Vec<u8>> {
        let mut components = Vec::new();
        while inode != ROOT_INODE {
            let (directory, name) = self.entry_of(working, inode)?;
            components.push(name);
            // A directory tells the one above; one entry had to be searched.
            inode = directory;
            if components.len() > 4_096 {
                return None;
            }
        }
        components.push(Vec::new());
        components.reverse();
        Some(components.join(b"/".as_slice()))
    }

    fn entry_of(&self, working: &Working, inode: u64) -> Option<(u64, Vec<u8>)> {
        let range = match self.find(working, inode) {
            Ok(attributes) if attributes.parent != 0 => {
                Key::new(attributes.parent, Kind::Entry, 0)
                    ..=Key::new(attributes.parent, Kind::Entry, u64::MAX)
            }
            _ => Key::new(0, Kind::Attributes, 0)..=Key::new(u64::MAX, Kind::History, u64::MAX),
        };
        let mut found = None;
        let scanned = working.tree.scan(self, range, false, &mut |key, record| {
            if key.kind == Kind::Entry {
                if let Ok((other, _, name)) = entries::decode(record) {
                    if other == inode {
                        found = Some((key.inode, name.to_vec()));
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        });
        scanned.ok().and(found)
    }

    /// Adds the path of a file to a failure of authentication.
    pub(crate) fn named<T>(&self, working: &Working, inode: u64, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            VolumeError::NotAuthentic { what, reason } => VolumeError::NotAuthentic {
                what: match self.path_in(working, inode) {
                    Some(path) => format!("{}: {what}", display(&path)),
                    None => what,
                },
                reason,
            },
            other => other,
        })
    }
}

/// Makes a path readable in a message, whatever bytes it holds.
pub(crate) fn display(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}
