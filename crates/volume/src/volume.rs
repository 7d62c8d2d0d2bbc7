//! The volume: what threads share, and who waits for whom.
//!
//! * `working` is the tree as programs see it, with all that is not on disk yet. Readers share it; a change holds it for
//!   microseconds; a commit holds it while it encrypts, and no longer.
//! * `committing` is held by the one thread that writes to the disk. Nobody who reads or changes files takes it, unless
//!   too much is waiting to be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::allocation::Allocation;
use crate::attributes::Attributes;
use crate::cache::Cache;
use crate::chunk::{ChunkRecord, Stored};
use crate::error::{Result, VolumeError};
use crate::freshness::{Accepted, State};
use crate::keys::{Header, Keys, VolumeId};
use crate::lock::Lock;
use crate::node::{Key, Kind, Link, Node, NODE_SIZE};
use crate::open::{Access, Options};
use crate::plaintext::Plaintext;
use crate::seal::{Salt, Tag, SALT_SIZE};
use crate::slots::Slots;
use crate::store::{lock, Store, Table};
use crate::superblock::Superblock;
use crate::tree::{Nodes, Tree};
use crate::CHUNK_SIZE;

/// The content of a chunk.
pub(crate) type Content = Arc<Plaintext>;

/// An open volume. Dropping it ends its use without a commit; see [`Volume::close`].
pub struct Volume {
    pub(crate) store: Store,
    pub(crate) slots: Slots,
    pub(crate) keys: Keys,
    pub(crate) header: Mutex<Header>,
    pub(crate) access: Access,
    pub(crate) dirty_limit: usize,
    pub(crate) accepted: Accepted,
    pub(crate) working: RwLock<Working>,
    pub(crate) committing: Mutex<()>,
    pub(crate) durable: Mutex<Durable>,
    nodes: Mutex<Cache<u64, (Tag, Arc<Node>)>>,
    chunks: Mutex<Cache<Tag, Content>>,
    /// Dropped last: whoever waits for it finds a closed database.
    _lock: Lock,
}

/// What a volume is made of.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) slots: Slots,
    pub(crate) header: Header,
    pub(crate) keys: Keys,
    pub(crate) superblock: Superblock,
    pub(crate) tree: Tree,
    pub(crate) lock: Lock,
}

/// The tree with all changes.
pub(crate) struct Working {
    pub(crate) tree: Tree,
    /// Of the newest state that was encrypted; the tree is ahead of it.
    pub(crate) superblock: Superblock,
    pub(crate) root: [u8; 32],
    pub(crate) next_inode: u64,
    pub(crate) next_chunk: u64,
    /// How many chunks have rows of their own.
    pub(crate) chunks: u64,
    /// Which slots of the contents file are free.
    pub(crate) slots: Allocation,
    /// Content that is not encrypted yet, by inode and number of the chunk.
    pub(crate) dirty: BTreeMap<(u64, u64), Plaintext>,
    /// Rows of chunks that no record names any more.
    pub(crate) freed: Vec<u64>,
    /// Counts changes.
    pub(crate) version: u64,
    /// How often each inode is open.
    pub(crate) handles: HashMap<u64, usize>,
    /// How many more chunks may become dirty before the disk is asked for room again.
    pub(crate) room: usize,
}

impl Working {
    /// Bytes of memory that changes take beside the content, until a commit.
    pub(crate) fn bookkeeping(&self) -> usize {
        // Something freed costs some bytes until it is on the disk.
        let freed = self.freed.len() + usize::try_from(self.slots.waiting()).unwrap_or(usize::MAX);
        self.tree.dirty() * NODE_SIZE + freed.saturating_mul(64)
    }

    /// Notes that the chunk of a record is stored there no longer.
    pub(crate) fn free(&mut self, stored: Stored) {
        match stored {
            Stored::Inline => {}
            Stored::Row(id) => {
                self.chunks -= 1;
                self.freed.push(id);
            }
            Stored::Slot(slot) => self.slots.give_back(slot, self.superblock.counter + 1),
        }
    }
}

/// What is on the disk.
#[derive(Clone, Copy)]
pub(crate) struct Durable {
    pub(crate) state: State,
    /// The change up to which it is.
    pub(crate) version: u64,
    /// How many slots of the contents file it needs.
    pub(crate) slots: u64,
}

impl Volume {
    pub(crate) fn assemble(opened: Opened, options: &Options) -> Self {
        let Opened {
            store,
            slots,
            header,
            keys,
            superblock,
            tree,
            lock,
        } = opened;
        let state = superblock.state(&keys);
        let working = Working {
            next_inode: superblock.next_inode,
            next_chunk: superblock.next_chunk,
            chunks: superblock.chunks,
            slots: Allocation::new(superblock.slots, superblock.slots_used),
            root: state.root,
            tree,
            superblock,
            dirty: BTreeMap::new(),
            freed: Vec::new(),
            version: 0,
            handles: HashMap::new(),
            room: 0,
        };
        let durable = Durable {
            state,
            version: 0,
            slots: working.superblock.slots,
        };
        let quarter = options.cache_bytes / 4;
        Self {
            store,
            slots,
            keys,
            header: Mutex::new(header),
            access: options.access,
            dirty_limit: options.dirty_bytes,
            accepted: Accepted::Same,
            working: RwLock::new(working),
            committing: Mutex::new(()),
            durable: Mutex::new(durable),
            nodes: Mutex::new(Cache::new(quarter / NODE_SIZE)),
            chunks: Mutex::new(Cache::new((options.cache_bytes - quarter) / CHUNK_SIZE)),
            _lock: lock,
        }
    }

    /// The volume's name.
    pub fn id(&self) -> VolumeId {
        lock(&self.header).volume
    }

    /// The state that is on the disk.
    pub fn state(&self) -> State {
        lock(&self.durable).state
    }

    /// How the state in which the volume was opened stood to the expected one.
    pub fn accepted(&self) -> Accepted {
        self.accepted
    }

    /// Whether something was changed that is not on the disk yet.
    pub fn is_dirty(&self) -> bool {
        self.read().version > lock(&self.durable).version
    }

    /// Keeps an inode while it is open: its content lives on without a name.
    ///
    /// # Errors
    /// ENOENT if there is no such inode.
    pub fn open_file(self: &Arc<Self>, inode: u64) -> Result<OpenFile> {
        let mut working = self.write();
        self.find(&working, inode)?;
        *working.handles.entry(inode).or_default() += 1;
        drop(working);
        Ok(OpenFile::new(Arc::clone(self), inode))
    }

    /// Writes the log back, so that the database has all; nobody may use the volume any more.
    ///
    /// # Errors
    /// [`VolumeError::Io`] and the like; what was committed is on the disk all the same.
    pub fn close_shared(&self) -> Result<()> {
        let _committing = lock(&self.committing);
        self.end()
    }

    /// Closes the files, and cuts off what the last commit does not need of that of contents.
    fn end(&self) -> Result<()> {
        self.store.close()?;
        if self.access == Access::ReadWrite {
            self.slots.cut(lock(&self.durable).slots)?;
        }
        Ok(())
    }

    /// Commits and closes; no log is left then, if the disk allows it.
    ///
    /// # Errors
    /// What [`Volume::commit`] fails with.
    pub fn close(self) -> Result<State> {
        let state = self.commit()?;
        self.end()?;
        Ok(state)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Working> {
        self.working.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Working> {
        self.working.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree for a change.
    pub(crate) fn change(&self) -> Result<RwLockWriteGuard<'_, Working>> {
        if self.access == Access::ReadOnly {
            return Err(VolumeError::ReadOnly);
        }
        let mut working = self.write();
        if self.is_over_limit(&working) {
            drop(working);
            self.relieve()?;
            working = self.write();
        }
        working.version += 1;
        Ok(working)
    }

    /// The tree for a change that gives room back: a full disk must not stand in its way.
    pub(crate) fn change_to_free(&self) -> Result<RwLockWriteGuard<'_, Working>> {
        match self.change() {
            Err(VolumeError::Full(_)) => {
                let mut working = self.write();
                working.version += 1;
                Ok(working)
            }
            other => other,
        }
    }

    /// Whether so much waits to be written that it must be, before there is more.
    pub(crate) fn is_over_limit(&self, working: &Working) -> bool {
        working.dirty.len() * CHUNK_SIZE + working.bookkeeping() > self.dirty_limit
    }

    /// The content of a chunk, or None for a hole.
    pub(crate) fn load_chunk(
        &self,
        working: &Working,
        inode: u64,
        index: u64,
    ) -> Result<Option<Content>> {
        let key = Key::new(inode, Kind::Chunk, index);
        let Some(record) = working.tree.get(self, key)? else {
            return Ok(None);
        };
        match ChunkRecord::decode(&record)? {
            ChunkRecord::Inline(bytes) => {
                let mut content = bytes.to_vec();
                content.resize(CHUNK_SIZE, 0);
                Ok(Some(Arc::new(content.into())))
            }
            ChunkRecord::Row(link) => self.load_content((inode, index), &link.tag, || {
                self.open_row(Table::Chunk, &link)
            }),
            ChunkRecord::Slot(link, salt) => {
                self.load_content((inode, index), &link.tag, || self.open_slot(&link, &salt))
            }
        }
    }

    fn load_content(
        &self,
        (inode, index): (u64, u64),
        tag: &Tag,
        open: impl FnOnce() -> std::result::Result<Plaintext, PlaceError>,
    ) -> Result<Option<Content>> {
        if let Some(content) = lock(&self.chunks).get(tag) {
            return Ok(Some(content));
        }
        let content =
            open().map_err(|reason| reason.at(|| format!("chunk {index} of inode {inode}")))?;
        let content = Arc::new(content);
        lock(&self.chunks).insert(*tag, Arc::clone(&content));
        Ok(Some(content))
    }

    pub(crate) fn keep_chunk(&self, tag: Tag, content: Content) {
        lock(&self.chunks).insert(tag, content);
    }

    pub(crate) fn keep_node(&self, id: u64, tag: Tag, node: &Arc<Node>) {
        lock(&self.nodes).insert(id, (tag, Arc::clone(node)));
    }

    /// Reads and authenticates the row behind a link, once more if the disk may have lost it and the log has it.
    fn open_row(&self, table: Table, link: &Link) -> std::result::Result<Plaintext, PlaceError> {
        let recoveries = self.store.recoveries();
        match self.open_row_once(table, link) {
            Err(PlaceError::Forged(_))
                if self
                    .store
                    .has_recovered(recoveries)
                    .map_err(PlaceError::Other)? =>
            {
                self.open_row_once(table, link)
            }
            opened => opened,
        }
    }

    fn open_row_once(
        &self,
        table: Table,
        link: &Link,
    ) -> std::result::Result<Plaintext, PlaceError> {
        let (sealer, size) = match table {
            Table::Chunk => (&self.keys.chunks, CHUNK_SIZE),
            _ => (&self.keys.nodes, NODE_SIZE),
        };
        let opened = self.store.read(table, link.id, |row| {
            if row.len() != SALT_SIZE + size {
                let expected = SALT_SIZE + size;
                return Err(format!("it has {} bytes, expected {expected}", row.len()));
            }
            sealer
                .open(link.id, row, &link.tag)
                .map_err(|_| CHANGED.to_owned())
        });
        let name = |reason| format!("row {} of table {}: {reason}", link.id, table.name());
        match opened {
            Ok(Some(Ok(text))) => Ok(text),
            Ok(Some(Err(reason))) => Err(PlaceError::Forged(name(reason))),
            Ok(None) => Err(PlaceError::Forged(name("it is missing".to_owned()))),
            Err(VolumeError::NotAuthentic { what, reason }) => {
                Err(PlaceError::Forged(name(format!("{what}: {reason}"))))
            }
            Err(error) => Err(PlaceError::Other(error)),
        }
    }

    /// Reads and authenticates the chunk in a slot.
    fn open_slot(&self, link: &Link, salt: &Salt) -> std::result::Result<Plaintext, PlaceError> {
        let forged =
            |reason| PlaceError::Forged(format!("slot {} of the contents file: {reason}", link.id));
        let sealed = self.slots.read(link.id).map_err(PlaceError::Other)?;
        let sealed = sealed.ok_or_else(|| forged("it is missing: the file is truncated"))?;
        let opened = self.keys.slots.open_apart(link.id, salt, sealed, &link.tag);
        opened.map_err(|_| forged(CHANGED))
    }
}

impl Nodes for Volume {
    fn load(&self, link: &Link, level: u8) -> Result<Arc<Node>> {
        let cached = lock(&self.nodes).get(&link.id);
        let node = match cached {
            Some((tag, node)) if tag == link.tag => node,
            _ => {
                let text = self
                    .open_row(Table::Node, link)
                    .map_err(|reason| reason.at(|| "the volume's tree of files".to_owned()))?;
                let node = Arc::new(Node::decode(&text)?);
                self.keep_node(link.id, link.tag, &node);
                node
            }
        };
        if node.level() != level {
            return Err(VolumeError::forged(
                format!("node {} of the volume's tree", link.id),
                format!("it has level {}, expected {level}", node.level()),
            ));
        }
        Ok(node)
    }
}

/// What the host may have done to bytes that don't authenticate.
const CHANGED: &str = "it was changed, moved, or comes from another state or volume";

/// Why a row or slot can't be used.
enum PlaceError {
    Forged(String),
    Other(VolumeError),
}

impl PlaceError {
    fn at(self, place: impl FnOnce() -> String) -> VolumeError {
        match self {
            Self::Forged(reason) => VolumeError::forged(place(), reason),
            Self::Other(error) => error,
        }
    }
}

/// An open file; while it lives, the inode's content does.
pub struct OpenFile {
    volume: Arc<Volume>,
    inode: u64,
}

impl OpenFile {
    /// An inode whose handle was counted already.
    pub(crate) fn new(volume: Arc<Volume>, inode: u64) -> Self {
        Self { volume, inode }
    }

    /// The number of the inode.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The volume that the file is in.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The file's attributes.
    ///
    /// # Errors
    /// If the volume can't be read.
    pub fn attributes(&self) -> Result<Attributes> {
        self.volume.attributes(self.inode)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut working = self.volume.write();
        let last = match working.handles.get_mut(&self.inode) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => working.handles.remove(&self.inode).is_some(),
        };
        drop(working);
        if last {
            // What can't be removed now is removed when the volume is opened next.
            let _ = self.volume.reap(self.inode);
        }
    }
}
