//! The entries of directories (volume format, section 6).
//!
//! An entry's record stands at a keyed hash of its name, so a name is found, and listed, without regard to how many there
//! are, and nobody can choose names that collide. The place of an entry is its cookie: it stays the same as long as
//! the entry lives, whatever happens to the others.

use std::ops::{ControlFlow, RangeInclusive};

use rustix::io::Errno;

use crate::attributes::{Attributes, FileKind};
use crate::error::Result;
use crate::node::{Key, Kind};
use crate::volume::{Volume, Working};
use crate::wire::Decoder;
use crate::MAX_NAME;

/// Places for names with one hash.
const SLOTS: u64 = 128;
/// Cookies 1 and 2 are those of `.` and `..`.
const FIRST_COOKIE: u64 = 3;

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Vec<u8>,
    /// The number of its inode.
    pub inode: u64,
    /// The inode's type.
    pub kind: FileKind,
    /// Where reading goes on after this entry; at most 2^62.
    pub cookie: u64,
}

/// An entry and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) slot: u64,
    pub(crate) inode: u64,
    pub(crate) kind: FileKind,
}

impl Volume {
    /// Reads entries of a directory, `.` and `..` first, the others in an order of their own.
    ///
    /// `cookie` is 0 or that of the last entry that was read. An entry that is there all the while is read exactly
    /// once, whatever is added and removed meanwhile.
    ///
    /// # Errors
    /// ENOENT or ENOTDIR if the inode is no directory.
    pub fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        limit: usize,
    ) -> Result<Vec<DirectoryEntry>> {
        let working = self.read();
        let attributes = self.directory(&working, directory)?;
        let mut entries = Vec::new();
        for (position, name, inode) in [
            (1, b".".as_slice(), directory),
            (2, b"..", attributes.parent),
        ] {
            if cookie < position && entries.len() < limit {
                entries.push(DirectoryEntry {
                    name: name.to_vec(),
                    inode,
                    kind: FileKind::Directory,
                    cookie: position,
                });
            }
        }
        let first = Key::new(
            directory,
            Kind::Entry,
            (cookie + 1).saturating_sub(FIRST_COOKIE),
        );
        let last = Key::new(directory, Kind::Entry, u64::MAX);
        let mut failed = None;
        working
            .tree
            .scan(self, first..=last, false, &mut |key, record| {
                if entries.len() >= limit {
                    return ControlFlow::Break(());
                }
                match decode(record) {
                    Ok((inode, kind, name)) => entries.push(DirectoryEntry {
                        name: name.to_vec(),
                        inode,
                        kind,
                        cookie: key.sub + FIRST_COOKIE,
                    }),
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
        failed.map_or(Ok(entries), Err)
    }

    pub(crate) fn directory(&self, working: &Working, inode: u64) -> Result<Attributes> {
        let attributes = self.find(working, inode)?;
        match attributes.kind {
            FileKind::Directory => Ok(attributes),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    pub(crate) fn entry(
        &self,
        working: &Working,
        directory: u64,
        name: &[u8],
    ) -> Result<Option<Entry>> {
        let mut found = Ok(None);
        working.tree.scan(
            self,
            self.places(directory, name),
            false,
            &mut |key, record| match decode(record) {
                Ok((inode, kind, other)) if other == name => {
                    found = Ok(Some(Entry {
                        slot: key.sub,
                        inode,
                        kind,
                    }));
                    ControlFlow::Break(())
                }
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => {
                    found = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        found
    }

    /// Where a new entry will stand.
    ///
    /// # Errors
    /// ENOSPC if 128 names have its hash.
    pub(crate) fn free_slot(&self, working: &Working, directory: u64, name: &[u8]) -> Result<u64> {
        let places = self.places(directory, name);
        let (mut slot, last) = (places.start().sub, places.end().sub);
        working.tree.scan(self, places, false, &mut |key, _| {
            if key.sub != slot {
                return ControlFlow::Break(());
            }
            slot += 1;
            ControlFlow::Continue(())
        })?;
        if slot > last {
            return Err(Errno::NOSPC.into());
        }
        Ok(slot)
    }

    pub(crate) fn put_entry(
        &self,
        working: &mut Working,
        directory: u64,
        name: &[u8],
        entry: Entry,
    ) -> Result<()> {
        let key = Key::new(directory, Kind::Entry, entry.slot);
        working
            .tree
            .put(self, key, &encode(entry.inode, entry.kind, name))
    }

    pub(crate) fn is_empty(&self, working: &Working, directory: u64) -> Result<bool> {
        let mut empty = true;
        let range =
            Key::new(directory, Kind::Entry, 0)..=Key::new(directory, Kind::Entry, u64::MAX);
        working.tree.scan(self, range, false, &mut |_, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
        Ok(empty)
    }

    fn places(&self, directory: u64, name: &[u8]) -> RangeInclusive<Key> {
        let first = self.keys.name_hash(directory, name) * SLOTS;
        Key::new(directory, Kind::Entry, first)
            ..=Key::new(directory, Kind::Entry, first + SLOTS - 1)
    }
}

/// Refuses what can't be the name of an entry.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    match name {
        _ if name.len() > MAX_NAME => Err(Errno::NAMETOOLONG.into()),
        b"" => Err(Errno::NOENT.into()),
        b"." | b".." => Err(Errno::INVAL.into()),
        _ if name.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(Errno::INVAL.into()),
        _ => Ok(()),
    }
}

fn encode(inode: u64, kind: FileKind, name: &[u8]) -> Vec<u8> {
    [&inode.to_le_bytes(), [kind as u8].as_slice(), name].concat()
}

pub(crate) fn decode(record: &[u8]) -> Result<(u64, FileKind, &[u8])> {
    let mut decoder = Decoder::new("a directory entry of the volume's tree", record);
    let inode = decoder.u64()?;
    let kind = FileKind::from_byte(decoder.u8()?)
        .ok_or_else(|| decoder.malformed("its type is unknown"))?;
    Ok((inode, kind, decoder.rest()))
}
