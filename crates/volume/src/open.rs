//! Creating and opening a volume.

use std::path::Path;
use std::sync::Arc;

use crate::attributes::{Attributes, FileKind};
use crate::commit::{seal_state, HEADER_ROW, SUPERBLOCK_ROW};
use crate::error::{Result, VolumeError};
use crate::freshness::{judge, Ancestor, Expected, Stale};
use crate::keys::{Header, Keys};
use crate::lock::Lock;
use crate::log;
use crate::node::{Key, Kind, Link, Node, NODE_SIZE};
use crate::seal::{Tag, SALT_SIZE};
use crate::slots::Slots;
use crate::store::{Batch, Store, Table};
use crate::superblock::{Superblock, SPILL};
use crate::tree::{Nodes, Tree};
use crate::volume::{Opened, Volume};
use crate::{FileSystemKey, ROOT_INODE};

/// How a volume is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// By one writer.
    ReadWrite,
    /// By any number of readers.
    ReadOnly,
    /// By any number of processes that may write; what they write ends with them.
    Ephemeral,
}

/// How to open a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How it is used.
    pub access: Access,
    /// Bytes of changes that are kept in memory before content is written to the disk unasked, or all is committed; a commit under way
    /// may hold as many again.
    pub dirty_bytes: usize,
    /// Bytes of decrypted content and tree that are kept for reading.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            dirty_bytes: 16 << 20,
            cache_bytes: 64 << 20,
        }
    }
}

impl Volume {
    /// Makes a new, empty volume in a directory that has none. It is on the disk when this returns, in commit 1.
    ///
    /// # Errors
    /// [`VolumeError::Exists`], [`VolumeError::InUse`], [`VolumeError::Missing`] if there is no such directory.
    pub fn create(directory: &Path, key: &FileSystemKey, options: &Options) -> Result<Self> {
        if options.access != Access::ReadWrite {
            return Err(VolumeError::ReadOnly);
        }
        let lock = Lock::exclusive(directory)?;
        match Store::open(directory) {
            // What a creation left that was interrupted: a database without tables.
            Err(VolumeError::Missing { .. }) => {}
            Err(VolumeError::NotAuthentic { .. }) | Ok(_) => {
                return Err(VolumeError::Exists {
                    directory: directory.display().to_string(),
                })
            }
            Err(other) => return Err(other),
        }
        let slots = Slots::create(directory)?;
        let store = Store::create(directory)?;
        let (header, data_key) = Header::create(key);
        let keys = Keys::derive(&data_key);
        let mut tree = Tree::empty();
        let mut top = Attributes::new(ROOT_INODE, FileKind::Directory, 0o755, (0, 0));
        top.links = 2;
        top.parent = ROOT_INODE;
        let key = Key::new(ROOT_INODE, Kind::Attributes, 0);
        tree.put(&NoNodes, key, &top.encode())?;
        let mut superblock = Superblock {
            counter: 1,
            generation: header.generation,
            level: tree.level(),
            tree: tree.root(),
            next_inode: ROOT_INODE + 1,
            next_node: tree.next(),
            next_chunk: 1,
            chunks: 0,
            slots: 0,
            slots_used: 0,
            recent: Vec::new(),
        };
        let mut rows = Batch::new();
        rows.insert((Table::Volume, HEADER_ROW), Some(header.encode().into()));
        seal_state(
            &keys,
            &mut tree,
            &mut superblock,
            &mut rows,
            &mut |_, _, _| {},
        );
        store.initialise(&rows)?;
        std::fs::File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| VolumeError::io(directory.display().to_string(), error))?;
        Ok(Self::assemble(
            Opened {
                store,
                slots,
                header,
                keys,
                superblock,
                tree,
                lock,
            },
            options,
        ))
    }

    /// Opens a volume whose state is the expected one.
    ///
    /// # Errors
    /// [`VolumeError::Stale`] if the state is older, forked or foreign, [`VolumeError::NotAuthentic`] if header,
    /// superblock or tree were changed, [`VolumeError::InUse`], [`VolumeError::Missing`].
    pub fn open(
        directory: &Path,
        key: &FileSystemKey,
        expected: &Expected,
        options: &Options,
    ) -> Result<Self> {
        let (store, lock) = match options.access {
            Access::ReadWrite => {
                let lock = Lock::exclusive(directory)?;
                (Store::open(directory)?, lock)
            }
            Access::ReadOnly | Access::Ephemeral => open_shared(directory, options.access)?,
        };
        let stale = |stale| VolumeError::Stale {
            directory: directory.display().to_string(),
            stale,
        };
        let header = store
            .read(Table::Volume, HEADER_ROW, Header::decode)?
            .ok_or_else(|| VolumeError::forged("the volume's header", "it is missing"))??;
        let found = header.volume;
        let data_key = header
            .unwrap(key)
            .ok_or_else(|| stale(Stale::ForeignKey { found }))?;
        let keys = Keys::derive(&data_key);
        let superblock = read_superblock(&store, &keys)?;
        if superblock.generation != header.generation {
            return Err(VolumeError::forged(
                "the volume's header",
                format!(
                    "it has key generation {}, expected {}: it is older or newer than the rest",
                    header.generation, superblock.generation
                ),
            ));
        }
        let slots = match options.access {
            Access::ReadWrite => Slots::open(directory)?,
            Access::ReadOnly | Access::Ephemeral => Slots::open_immutable(directory)?,
        };
        let (tree, next) = (superblock.tree, superblock.next_node);
        let mut volume = Self::assemble(
            Opened {
                store,
                slots,
                header,
                keys,
                superblock: superblock.clone(),
                tree: Tree::open(tree, superblock.level, next),
                lock,
            },
            options,
        );
        let ancestor = |counter| {
            volume
                .ancestor(&superblock, counter)
                .map_err(Refusal::Failed)
        };
        let accepted = judge(
            volume.id(),
            volume.state(),
            expected,
            &superblock.recent,
            ancestor,
        );
        let accepted = accepted.map_err(|refusal| match refusal {
            Refusal::Stale(reason) => stale(reason),
            Refusal::Failed(error) => error,
        })?;
        volume.slots.check_length(superblock.slots)?;
        volume.load(&tree, superblock.level)?;
        if options.access != Access::ReadOnly {
            volume.reap_orphans()?;
        }
        volume.accepted = accepted;
        Ok(volume)
    }

    /// The root of an earlier commit, as the authenticated history has it.
    fn ancestor(&self, superblock: &Superblock, counter: u64) -> Result<Ancestor> {
        let recent = counter
            .checked_sub(superblock.first_recent())
            .and_then(|index| superblock.recent.get(usize::try_from(index).ok()?));
        if let Some(root) = recent {
            return Ok(Ancestor::Known(*root));
        }
        let position = (counter.max(1) - 1) % SPILL as u64;
        let first = counter.max(1) - position;
        let record = self
            .read()
            .tree
            .get(self, Key::new(0, Kind::History, first))?;
        let index = usize::try_from(position).expect("positions are small") * 32;
        let root = record.and_then(|roots| roots.get(index..index + 32)?.try_into().ok());
        Ok(root.map_or(Ancestor::Forgotten, Ancestor::Known))
    }
}

/// Reads and authenticates the superblock.
fn read_superblock(store: &Store, keys: &Keys) -> Result<Superblock> {
    let forged = |reason: &str| VolumeError::forged("the volume's superblock", reason);
    store
        .read(Table::Volume, SUPERBLOCK_ROW, |row| {
            if row.len() != SALT_SIZE + NODE_SIZE + size_of::<Tag>() {
                return Err(forged("it has another length"));
            }
            let (message, tag) = row.split_at(row.len() - size_of::<Tag>());
            let tag = tag.try_into().expect("sixteen bytes");
            let text = keys
                .superblock
                .open(SUPERBLOCK_ROW, message, &tag)
                .map_err(|_| forged("it was changed or comes from another volume"))?;
            Superblock::decode(&text)
        })?
        .ok_or_else(|| forged("it is missing"))?
}

/// Opens a volume that others may read too. A log that a killed writer left is written back first, by a writer.
fn open_shared(directory: &Path, access: Access) -> Result<(Store, Lock)> {
    let lock = if log::is_left(directory) {
        let lock = Lock::exclusive(directory)?;
        Store::open(directory)?.close()?;
        lock.downgrade()?;
        lock
    } else {
        Lock::shared(directory)?
    };
    let store = match access {
        Access::Ephemeral => Store::open_ephemeral(directory)?,
        _ => Store::open_immutable(directory)?,
    };
    Ok((store, lock))
}

/// Why the freshness could not be confirmed.
enum Refusal {
    Stale(Stale),
    Failed(VolumeError),
}

impl From<Stale> for Refusal {
    fn from(stale: Stale) -> Self {
        Self::Stale(stale)
    }
}

/// Of a tree that has no nodes elsewhere.
struct NoNodes;

impl Nodes for NoNodes {
    fn load(&self, link: &Link, _level: u8) -> Result<Arc<Node>> {
        Err(VolumeError::forged(
            format!("node {} of the volume's tree", link.id),
            "it was never stored",
        ))
    }
}
