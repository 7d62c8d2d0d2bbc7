//! The volume: what threads share, and who waits for whom.
//!
//! * `working` is the tree as programs see it, with all that is not on disk yet. Readers share it; a change holds it for
//!   microseconds; a commit holds it while it encrypts, and no longer.
//! * `committing` is held by the one thread that writes to the disk. Nobody who reads or changes files takes it, unless
//!   too much is waiting to be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use zeroize::Zeroizing;

use crate::attributes::Attributes;
use crate::cache::Cache;
use crate::error::{Result, VolumeError};
use crate::freshness::{Accepted, State};
use crate::keys::{Header, Keys, VolumeId};
use crate::lock::Lock;
use crate::node::{Key, Kind, Link, Node, NODE_SIZE};
use crate::open::{Access, Options};
use crate::seal::{Tag, SALT_SIZE};
use crate::store::{lock, Store, Table};
use crate::superblock::Superblock;
use crate::tree::{Nodes, Tree};
use crate::CHUNK_SIZE;

/// The content of a chunk.
pub(crate) type Content = Arc<Zeroizing<Vec<u8>>>;

/// An open volume. Dropping it ends its use without a commit; see [`Volume::close`].
pub struct Volume {
    pub(crate) store: Store,
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
    /// Content that is not encrypted yet, by inode and number of the chunk.
    pub(crate) dirty: BTreeMap<(u64, u64), Zeroizing<Vec<u8>>>,
    /// Rows of chunks that no record names any more.
    pub(crate) freed: Vec<u64>,
    /// Counts changes.
    pub(crate) version: u64,
    /// How often each inode is open.
    pub(crate) handles: HashMap<u64, usize>,
    /// How many more chunks may become dirty before the disk is asked for room again.
    pub(crate) room: usize,
}

/// What is on the disk.
#[derive(Clone, Copy)]
pub(crate) struct Durable {
    pub(crate) state: State,
    /// The change up to which it is.
    pub(crate) version: u64,
}

impl Volume {
    pub(crate) fn assemble(opened: Opened, options: &Options) -> Self {
        let Opened {
            store,
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
            root: state.root,
            tree,
            superblock,
            dirty: BTreeMap::new(),
            freed: Vec::new(),
            version: 0,
            handles: HashMap::new(),
            room: 0,
        };
        let quarter = options.cache_bytes / 4;
        Self {
            store,
            keys,
            header: Mutex::new(header),
            access: options.access,
            dirty_limit: options.dirty_bytes,
            accepted: Accepted::Same,
            working: RwLock::new(working),
            committing: Mutex::new(()),
            durable: Mutex::new(Durable { state, version: 0 }),
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

    /// Writes the log back, so that the database is one file; nobody may use the volume any more.
    ///
    /// # Errors
    /// [`VolumeError::Io`] and the like; what was committed is on the disk all the same.
    pub fn close_shared(&self) -> Result<()> {
        let _committing = lock(&self.committing);
        self.store.close()
    }

    /// Commits and closes; the database is one file then, if the disk allows it.
    ///
    /// # Errors
    /// What [`Volume::commit`] fails with.
    pub fn close(self) -> Result<State> {
        let state = self.commit()?;
        self.store.close()?;
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
            self.commit()?;
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
        // A freed row costs some bytes until it is removed.
        working.dirty.len() * CHUNK_SIZE
            + working.tree.dirty() * NODE_SIZE
            + working.freed.len() * 64
            > self.dirty_limit
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
                Ok(Some(Arc::new(Zeroizing::new(content))))
            }
            ChunkRecord::Row(link) => {
                if let Some(content) = lock(&self.chunks).get(&link.tag) {
                    return Ok(Some(content));
                }
                let content =
                    Arc::new(self.open_row(Table::Chunk, &link).map_err(|reason| {
                        reason.at(|| format!("chunk {index} of inode {inode}"))
                    })?);
                lock(&self.chunks).insert(link.tag, Arc::clone(&content));
                Ok(Some(content))
            }
        }
    }

    pub(crate) fn keep_chunk(&self, tag: Tag, content: Content) {
        lock(&self.chunks).insert(tag, content);
    }

    pub(crate) fn keep_node(&self, id: u64, tag: Tag, node: &Arc<Node>) {
        lock(&self.nodes).insert(id, (tag, Arc::clone(node)));
    }

    /// Reads and authenticates the row behind a link, once more if the disk may have lost it and the log has it.
    fn open_row(
        &self,
        table: Table,
        link: &Link,
    ) -> std::result::Result<Zeroizing<Vec<u8>>, RowError> {
        let recoveries = self.store.recoveries();
        match self.open_row_once(table, link) {
            Err(RowError::Forged(_))
                if self
                    .store
                    .has_recovered(recoveries)
                    .map_err(RowError::Other)? =>
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
    ) -> std::result::Result<Zeroizing<Vec<u8>>, RowError> {
        let (sealer, size) = match table {
            Table::Chunk => (&self.keys.chunks, CHUNK_SIZE),
            _ => (&self.keys.nodes, NODE_SIZE),
        };
        let opened = self.store.read(table, link.id, |row| {
            if row.len() != SALT_SIZE + size {
                let expected = SALT_SIZE + size;
                return Err(format!("it has {} bytes, expected {expected}", row.len()));
            }
            sealer.open(link.id, row, &link.tag).map_err(|_| {
                "it was changed, moved, or comes from another state or volume".to_owned()
            })
        });
        let name = |reason| format!("row {} of table {}: {reason}", link.id, table.name());
        match opened {
            Ok(Some(Ok(text))) => Ok(text),
            Ok(Some(Err(reason))) => Err(RowError::Forged(name(reason))),
            Ok(None) => Err(RowError::Forged(name("it is missing".to_owned()))),
            Err(VolumeError::NotAuthentic { what, reason }) => {
                Err(RowError::Forged(name(format!("{what}: {reason}"))))
            }
            Err(error) => Err(RowError::Other(error)),
        }
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

/// Why a row can't be used.
enum RowError {
    Forged(String),
    Other(VolumeError),
}

impl RowError {
    fn at(self, place: impl FnOnce() -> String) -> VolumeError {
        match self {
            Self::Forged(reason) => VolumeError::forged(place(), reason),
            Self::Other(error) => error,
        }
    }
}

/// Where the content of a chunk is.
pub(crate) enum ChunkRecord<'a> {
    Row(Link),
    /// In the record itself, without the zeros at its end.
    Inline(&'a [u8]),
}

impl<'a> ChunkRecord<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Row(link) => {
                out.push(1);
                link.encode(&mut out);
            }
            Self::Inline(bytes) => {
                out.push(2);
                out.extend_from_slice(bytes);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut decoder = crate::wire::Decoder::new("a chunk record of the volume's tree", bytes);
        match decoder.u8()? {
            1 => {
                let link = Link::decode(&mut decoder)?;
                decoder.end()?;
                Ok(Self::Row(link))
            }
            2 => Ok(Self::Inline(decoder.rest())),
            _ => Err(decoder.malformed("its storage is unknown")),
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
