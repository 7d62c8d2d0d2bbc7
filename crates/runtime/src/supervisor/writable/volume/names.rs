//! Names of a volume that are known in memory: listings, whose positions stay while a directory is read, and where inodes stand.

use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;

use rustix::fs::FileType;
use sconify_volume::{FileKind, Volume, VolumeError};

use super::super::directory::{Directory, Name};

/// Entries of a directory that are read from the volume at once.
const PIECE: usize = 4096;
/// Places that are remembered; when there are more, all are forgotten and found again at need.
const PLACES: usize = 1 << 18;
/// In a listing, the type stands above the number.
const KIND_SHIFT: u32 = 56;

/// What is known.
#[derive(Default)]
pub struct Names {
    listings: HashMap<u64, Directory>,
    places: HashMap<u64, (u64, Name)>,
}

fn packed(number: u64, kind: FileKind) -> u64 {
    number | u64::from(kind.mode_bits() >> 12) << KIND_SHIFT
}

/// Number and type of an entry of a listing.
pub fn unpacked(entry: u64) -> (u64, FileType) {
    let kind = (entry >> KIND_SHIFT) as u32;
    let number = entry & ((1 << KIND_SHIFT) - 1);
    (number, FileType::from_raw_mode(kind << 12))
}

fn read(volume: &Volume, directory: u64) -> Result<Directory, VolumeError> {
    let mut listing = Directory::new(directory);
    let mut cookie = 0;
    loop {
        let entries = volume.read_directory(directory, cookie, PIECE)?;
        let Some(last) = entries.last() else {
            return Ok(listing);
        };
        cookie = last.cookie;
        for entry in entries {
            if !matches!(&entry.name[..], b"." | b"..") {
                let name = Name::from(entry.name);
                listing.insert(name, packed(entry.inode, entry.kind));
            }
        }
    }
}

impl Names {
    /// A directory's listing, which is read at the first time.
    ///
    /// # Errors
    /// If the volume can't be read, or it is no directory.
    pub fn listing(&mut self, volume: &Volume, directory: u64) -> Result<&Directory, VolumeError> {
        match self.listings.entry(directory) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(read(volume, directory)?)),
        }
    }

    /// Notes that a name stands for a file.
    pub fn note(&mut self, directory: u64, name: &[u8], number: u64, kind: FileKind) {
        if let Some(listing) = self.listings.get_mut(&directory) {
            let entry = packed(number, kind);
            if listing.get(name).is_some() {
                listing.replace(name, entry);
            } else {
                listing.insert(Name::from(name), entry);
            }
        }
        self.place(number, directory, name);
    }

    /// Notes where a file stands.
    pub fn place(&mut self, number: u64, directory: u64, name: &[u8]) {
        let is_known = self
            .places
            .get(&number)
            .is_some_and(|(known, other)| *known == directory && **other == *name);
        if is_known {
            return;
        }
        if self.places.len() >= PLACES {
            self.places.clear();
        }
        self.places.insert(number, (directory, Arc::from(name)));
    }

    /// Notes that a file has lost a name; whether it was the last one the caller knows.
    pub fn forget_name(&mut self, directory: u64, name: &[u8], number: u64, is_last: bool) {
        if let Some(listing) = self.listings.get_mut(&directory) {
            listing.remove(name);
        }
        self.forget_place(directory, name, number, is_last);
    }

    /// Notes that a file does not stand at a place any more that something else has now.
    pub fn forget_place(&mut self, directory: u64, name: &[u8], number: u64, is_last: bool) {
        let stands = |(known, other): &(u64, Name)| *known == directory && **other == *name;
        // The last name is shown on, as that of something deleted.
        if !is_last && self.places.get(&number).is_some_and(stands) {
            self.places.remove(&number);
        }
    }

    /// Where a file stands, or stood last.
    pub fn place_of(&self, number: u64) -> Option<(u64, Name)> {
        self.places.get(&number).cloned()
    }

    /// Drops what is known of an inode that is gone.
    pub fn drop_inode(&mut self, number: u64) {
        self.listings.remove(&number);
        self.places.remove(&number);
    }
}
