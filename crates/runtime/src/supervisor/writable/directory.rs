//! The names in a directory of memory. Each has a position that stays while the name does, so that a listing that is read in pieces misses nothing and
//! repeats nothing, whatever happens in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sconify_shield::EntryId;

/// A name, shared by the directory that has it and the file that it names.
pub type Name = Arc<[u8]>;

/// Positions below belong to `.` and `..`.
const FIRST: u64 = 2;
/// Positions from here on are given anew, from the start: offsets of open directories must stay below those that the supervisor uses itself.
const LIMIT: u64 = 1 << 29;

/// The names in one directory.
pub struct Directory {
    /// The directory above.
    pub parent: u64,
    /// How many of the names are those of directories.
    pub subdirectories: u32,
    /// The directory of the image whose entries are still to be made.
    pub unlisted: Option<EntryId>,
    entries: BTreeMap<u64, (Name, u64)>,
    positions: HashMap<Name, u64>,
    next: u64,
}

impl Directory {
    /// An empty directory.
    pub fn new(parent: u64) -> Self {
        Self {
            parent,
            subdirectories: 0,
            unlisted: None,
            entries: BTreeMap::new(),
            positions: HashMap::new(),
            next: FIRST,
        }
    }

    /// A directory that begins with what the image has in one of its own.
    pub fn of_image(parent: u64, directory: EntryId) -> Self {
        Self {
            unlisted: Some(directory),
            ..Self::new(parent)
        }
    }

    /// The file of a name.
    pub fn get(&self, name: &[u8]) -> Option<u64> {
        let position = self.positions.get(name)?;
        self.entries.get(position).map(|(_, number)| *number)
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a name that is free.
    pub fn insert(&mut self, name: Name, number: u64) {
        if self.next >= LIMIT {
            let entries = std::mem::take(&mut self.entries);
            self.entries = (FIRST..).zip(entries.into_values()).collect();
            self.next = FIRST + self.entries.len() as u64;
            for (position, (name, _)) in &self.entries {
                self.positions.insert(Arc::clone(name), *position);
            }
        }
        self.positions.insert(Arc::clone(&name), self.next);
        self.entries.insert(self.next, (name, number));
        self.next += 1;
    }

    /// Lets a name stand for another file; it keeps its position.
    pub fn replace(&mut self, name: &[u8], number: u64) {
        if let Some(position) = self.positions.get(name) {
            if let Some((_, old)) = self.entries.get_mut(position) {
                *old = number;
            }
        }
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &[u8]) {
        if let Some(position) = self.positions.remove(name) {
            self.entries.remove(&position);
        }
    }

    /// Names from a position on, with the file and the position behind each.
    pub fn from(&self, position: u64) -> impl Iterator<Item = (&Name, u64, u64)> {
        self.entries
            .range(position.max(FIRST)..)
            .map(|(position, (name, number))| (name, *number, position + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Arc::from(text.as_bytes())
    }

    #[test]
    fn positions_stay_when_names_go() {
        let mut directory = Directory::new(1);
        for number in 0..10 {
            directory.insert(name(&number.to_string()), number);
        }
        let mut seen = Vec::new();
        let mut position = 0;
        let first = |directory: &Directory, position| {
            let mut entries = directory.from(position);
            entries.next().map(|(_, number, next)| (number, next))
        };
        while let Some((number, next)) = first(&directory, position) {
            seen.push(number);
            position = next;
            directory.remove(number.to_string().as_bytes());
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert!(directory.is_empty());
    }

    #[test]
    fn positions_do_not_run_out() {
        let mut directory = Directory::new(1);
        directory.insert(name("first"), 7);
        directory.next = LIMIT;
        directory.insert(name("second"), 8);
        assert_eq!(
            (directory.get(b"first"), directory.get(b"second")),
            (Some(7), Some(8))
        );
        let positions: Vec<_> = directory.from(0).map(|(.., next)| next).collect();
        assert_eq!(positions, [FIRST + 1, FIRST + 2]);
    }
}
