//! Checking a whole volume: that every byte is authentic, and that the tree of files makes sense.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::attributes::{Attributes, FileKind};
use crate::chunk::{ChunkRecord, Stored};
use crate::entries;
use crate::error::Result;
use crate::names::display;
use crate::node::{Kind, Node};
use crate::store::Table;
use crate::volume::{Volume, Working};
use crate::ROOT_INODE;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Inodes of all types.
    pub inodes: u64,
    /// Directories among them.
    pub directories: u64,
    /// Chunks whose content was decrypted.
    pub chunks: u64,
    /// Bytes that all files have by their sizes.
    pub bytes: u64,
    /// What is wrong, each with the file or row that it is about. Empty if the volume is sound.
    pub problems: Vec<String>,
}

/// What the records say of one inode.
#[derive(Default)]
struct Found {
    attributes: Option<Attributes>,
    /// Entries that name it.
    names: u32,
    /// Directories in it.
    subdirectories: u32,
    stored: u64,
    orphan: bool,
}

struct Check<'a> {
    volume: &'a Volume,
    working: &'a Working,
    report: Report,
    found: BTreeMap<u64, Found>,
    nodes: BTreeSet<u64>,
    chunks: BTreeSet<u64>,
    slots: BTreeSet<u64>,
}

impl Volume {
    /// Reads and authenticates everything that is stored. Programs that change something wait meanwhile.
    ///
    /// # Errors
    /// What [`Volume::commit`] fails with. What is wrong in the volume is in the report.
    pub fn check(&self) -> Result<Report> {
        if self.access == crate::Access::ReadWrite {
            self.commit()?;
        }
        let working = self.read();
        let mut check = Check {
            volume: self,
            working: &working,
            report: Report::default(),
            found: BTreeMap::new(),
            nodes: BTreeSet::new(),
            chunks: BTreeSet::new(),
            slots: BTreeSet::new(),
        };
        check.tree();
        check.inodes();
        check.rows(Table::Node);
        check.rows(Table::Chunk);
        check.slots();
        Ok(check.report)
    }
}

impl Check<'_> {
    fn problem(&mut self, text: String) {
        self.report.problems.push(text);
    }

    fn tree(&mut self) {
        let working = self.working;
        working.tree.walk(self.volume, &mut |link, loaded| {
            self.nodes.insert(link.id);
            match loaded {
                Ok(node) => {
                    if let Node::Leaf(records) = &*node {
                        for (key, value) in records {
                            self.record(key.inode, key.kind, key.sub, value);
                        }
                    }
                }
                Err(error) => self.problem(error.to_string()),
            }
        });
    }

    fn record(&mut self, inode: u64, kind: Kind, sub: u64, value: &[u8]) {
        let result = match kind {
            Kind::Attributes => Attributes::decode(inode, value).map(|attributes| {
                self.found.entry(inode).or_default().attributes = Some(attributes);
            }),
            Kind::Entry => entries::decode(value).map(|(target, kind, _)| {
                self.found.entry(target).or_default().names += 1;
                if kind == FileKind::Directory {
                    self.found.entry(inode).or_default().subdirectories += 1;
                }
            }),
            Kind::Chunk => self.chunk(inode, sub, value),
            Kind::Orphan => {
                self.found.entry(sub).or_default().orphan = true;
                Ok(())
            }
            Kind::Target | Kind::Xattrs | Kind::History => Ok(()),
        };
        if let Err(error) = result {
            self.problem(format!("inode {inode}: {error}"));
        }
    }

    fn chunk(&mut self, inode: u64, index: u64, value: &[u8]) -> Result<()> {
        self.found.entry(inode).or_default().stored += 1;
        self.report.chunks += 1;
        match ChunkRecord::decode(value)?.place() {
            Stored::Row(id) if !self.chunks.insert(id) => {
                self.problem(format!("row {id} of table chunk is used twice"));
            }
            Stored::Slot(slot) if !self.slots.insert(slot) => {
                self.problem(format!("slot {slot} of the contents file is used twice"));
            }
            _ => {}
        }
        let loaded = self.volume.load_chunk(self.working, inode, index);
        if let Err(error) = self.volume.named(self.working, inode, loaded) {
            self.problem(error.to_string());
        }
        Ok(())
    }

    fn inodes(&mut self) {
        let mut kinds = HashMap::new();
        for (inode, found) in std::mem::take(&mut self.found) {
            let Some(attributes) = found.attributes else {
                self.problem(format!("inode {inode} is named but has no attributes"));
                continue;
            };
            self.report.inodes += 1;
            kinds.insert(inode, attributes.kind);
            let names = match attributes.kind {
                FileKind::Directory => {
                    self.report.directories += 1;
                    let named = found.names == 1 || inode == ROOT_INODE || found.orphan;
                    if !named {
                        self.problem(self.name(
                            inode,
                            &format!("it is a directory with {} names", found.names),
                        ));
                    }
                    if found.orphan {
                        0
                    } else {
                        2 + found.subdirectories
                    }
                }
                _ => found.names,
            };
            if attributes.kind == FileKind::Regular {
                self.report.bytes += attributes.size;
            }
            if attributes.links != names {
                self.problem(self.name(
                    inode,
                    &format!("its link count is {}, expected {names}", attributes.links),
                ));
            }
            if (attributes.links == 0) != found.orphan {
                self.problem(self.name(inode, "it has no name and is not kept as an open file"));
            }
            if attributes.stored != found.stored {
                self.problem(self.name(
                    inode,
                    &format!(
                        "it counts {} chunks, expected {}",
                        attributes.stored, found.stored
                    ),
                ));
            }
        }
        if kinds.get(&ROOT_INODE) != Some(&FileKind::Directory) {
            self.problem("the top directory is missing".to_owned());
        }
    }

    /// Compares the rows of a table with those that the tree names.
    fn rows(&mut self, table: Table) {
        let named = match table {
            Table::Chunk => std::mem::take(&mut self.chunks),
            _ => std::mem::take(&mut self.nodes),
        };
        if !self.volume.store.is_durable() && self.volume.access == crate::Access::Ephemeral {
            return;
        }
        let stored = match self.volume.store.ids(table) {
            Ok(stored) => stored,
            Err(error) => return self.problem(format!("table {}: {error}", table.name())),
        };
        for id in stored.iter().filter(|id| !named.contains(id)) {
            self.problem(format!(
                "row {id} of table {} belongs to nothing",
                table.name()
            ));
        }
        if table == Table::Chunk && self.working.chunks != named.len() as u64 {
            let (counted, expected) = (self.working.chunks, named.len());
            self.problem(format!(
                "the superblock counts {counted} chunks, expected {expected}"
            ));
        }
    }

    /// Compares the slots that the tree names with what the superblock says of them.
    fn slots(&mut self) {
        let (counted, expected) = (self.working.slots.used(), self.slots.len() as u64);
        if counted != expected {
            self.problem(format!(
                "the superblock counts {counted} slots in use, expected {expected}"
            ));
        }
        let end = self.working.slots.needed();
        if let Some(beyond) = self.slots.last().filter(|slot| **slot >= end) {
            self.problem(format!(
                "slot {beyond} of the contents file is in use, expected {end} slots"
            ));
        }
    }

    fn name(&self, inode: u64, reason: &str) -> String {
        match self.volume.path_in(self.working, inode) {
            Some(path) => format!("{}: {reason}", display(&path)),
            None => format!("inode {inode}: {reason}"),
        }
    }
}
