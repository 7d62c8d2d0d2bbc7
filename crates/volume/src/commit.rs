//! Commits: everything that was changed becomes durable at once, and the root with it.

use std::sync::Arc;

use rustix::fs::statvfs;

use crate::error::{Result, VolumeError};
use crate::freshness::State;
use crate::keys::Keys;
use crate::node::{Key, Kind};
use crate::seal::Tag;
use crate::store::{lock, Batch, Table};
use crate::storing::Place;
use crate::superblock::{Superblock, HISTORY_RECORDS, SPILL};
use crate::tree::Tree;
use crate::volume::{Durable, Volume, Working};
use crate::CHUNK_SIZE;

/// The row of the table `volume` that has the header.
pub(crate) const HEADER_ROW: u64 = 0;
/// The row of the table `volume` that has the superblock.
pub(crate) const SUPERBLOCK_ROW: u64 = 1;

/// Room on the disk that is left for removing files and for the tree.
const RESERVE: u64 = 2 << 20;
/// What a byte of content may take: in the log, in the database, and the tree above it.
const SPREAD: u64 = 3;
/// Slots that are written without a sync. Then a commit is due: a crash should not take more, and those that they replace are free after
/// it.
const MAX_UNSYNCED: usize = 16_384;
/// Bytes behind the last slot in use from which on the contents file is cut, if they are most of it.
const MAX_TAIL: u64 = 64 << 20;
/// Chunks that may become dirty until the disk is asked for room again.
const ROOM_STEP: u64 = 64;

impl Volume {
    /// Makes all changes durable that were made before the call, in one transaction.
    ///
    /// This is `fsync`, `fdatasync`, `sync_file_range`, `msync` and the `fsync` of a directory alike. Calls of several
    /// threads share transactions. Without changes nothing is written and the state stays.
    ///
    /// # Errors
    /// [`VolumeError::Full`] or [`VolumeError::Io`] if the disk fails: the database is then as the last commit left it,
    /// all changes are still there for programs to read, and the next commit tries again.
    pub fn commit(&self) -> Result<State> {
        let wanted = self.read().version;
        let committing = lock(&self.committing);
        let durable = *lock(&self.durable);
        if durable.version >= wanted {
            return Ok(durable.state);
        }
        // What an earlier attempt has left, before more is encrypted: memory is not filled while the disk fails.
        self.slots.write()?;
        let (rows, durable) = {
            let mut working = self.write();
            self.freeze(&mut working)?;
            let state = State {
                counter: working.superblock.counter,
                root: working.root,
            };
            let durable = Durable {
                state,
                version: working.version,
                slots: working.superblock.slots,
            };
            (self.store.waiting(), durable)
        };
        // Content is on the disk before the rows that name it.
        self.slots.write()?;
        self.slots.sync()?;
        self.store.save(&rows)?;
        *lock(&self.durable) = durable;
        self.write().slots.release(durable.state.counter);
        self.cut_contents(durable.slots);
        drop(committing);
        Ok(durable.state)
    }

    /// Makes room in memory, by writing content to slots that nothing on the disk names, or by a commit.
    ///
    /// # Errors
    /// As [`Volume::commit`].
    pub(crate) fn relieve(&self) -> Result<()> {
        let committing = lock(&self.committing);
        self.slots.write()?;
        let mut working = self.write();
        if !self.is_over_limit(&working) {
            return Ok(());
        }
        let is_enough = working.bookkeeping() <= self.dirty_limit / 2;
        if self.store.is_durable() && is_enough && self.slots.unsynced() < MAX_UNSYNCED {
            self.store_contents(&mut working, Place::Slots)?;
            drop(working);
            return self.slots.write();
        }
        drop(working);
        drop(committing);
        self.commit().map(drop)
    }

    /// Gives room on the disk back, if it is much.
    fn cut_contents(&self, slots: u64) {
        let needed = slots * CHUNK_SIZE as u64;
        let tail = self
            .slots
            .bytes()
            .map_or(0, |bytes| bytes.saturating_sub(needed));
        if self.store.is_durable() && tail > MAX_TAIL.max(needed) {
            // What can't be cut now is cut after another commit.
            let _ = self.slots.cut(slots);
        }
    }

    /// Encrypts what was changed; the rows wait to be saved. On failure nothing is lost, and nothing of it is saved.
    pub(crate) fn freeze(&self, working: &mut Working) -> Result<()> {
        let place = self.place_of_contents(working);
        self.store_contents(working, place)?;
        let mut superblock = working.superblock.clone();
        if let Some((first, roots)) = superblock.advance(working.root) {
            let key = |first| Key::new(0, Kind::History, first);
            working.tree.put(self, key(first), &roots)?;
            let kept = HISTORY_RECORDS * SPILL as u64;
            if let Some(oldest) = first.checked_sub(kept) {
                working.tree.remove(self, key(oldest))?;
            }
        }
        superblock.generation = lock(&self.header).generation;
        superblock.next_inode = working.next_inode;
        superblock.next_chunk = working.next_chunk;
        superblock.chunks = working.chunks;
        superblock.slots = working.slots.needed();
        superblock.slots_used = working.slots.used();
        let mut rows = Batch::new();
        let freed = std::mem::take(&mut working.freed);
        rows.extend(freed.into_iter().map(|id| ((Table::Chunk, id), None)));
        working.root = seal_state(
            &self.keys,
            &mut working.tree,
            &mut superblock,
            &mut rows,
            &mut |id, tag, node| self.keep_node(id, tag, node),
        );
        working.superblock = superblock;
        self.store.queue(rows);
        Ok(())
    }

    /// Refuses a change for which the disk has no room, before it is made: what was accepted can then be committed.
    pub(crate) fn check_room(&self, working: &mut Working, chunks: usize) -> Result<()> {
        // A change without content counts too: it adds to the tree.
        let chunks = chunks + 1;
        if working.room < chunks {
            let dirty = working.dirty.len() + working.tree.dirty() + chunks;
            let needed = RESERVE + SPREAD * (dirty * CHUNK_SIZE) as u64;
            let available = self.available(working)?;
            let Some(rest) = available.checked_sub(needed) else {
                return Err(VolumeError::Full(format!(
                    "{available} bytes are left on the disk of {}, expected {needed} at least",
                    self.store.directory().display()
                )));
            };
            let step = (rest / SPREAD / CHUNK_SIZE as u64).min(ROOM_STEP);
            working.room = chunks + usize::try_from(step).expect("a step is small");
        }
        working.room -= chunks;
        Ok(())
    }

    /// Bytes that the disk, the free pages of the database and the free slots have for more, once the log was written back and has
    /// its full size.
    pub(crate) fn available(&self, working: &Working) -> Result<u64> {
        if !self.store.is_durable() {
            return Ok(u64::MAX);
        }
        let directory = self.store.directory();
        let disk = statvfs(directory)
            .map_err(|errno| VolumeError::io(directory.display().to_string(), errno.into()))?;
        let available = disk.f_bavail * disk.f_frsize
            + self.store.free_bytes()?
            + working.slots.free(self.slots.bytes()? / CHUNK_SIZE as u64) * CHUNK_SIZE as u64;
        Ok(available.saturating_sub(self.store.growth()?))
    }
}

/// Encrypts the dirty nodes and the superblock into `rows`; returns the root of the state.
pub(crate) fn seal_state(
    keys: &Keys,
    tree: &mut Tree,
    superblock: &mut Superblock,
    rows: &mut Batch,
    keep: &mut dyn FnMut(u64, Tag, &Arc<crate::node::Node>),
) -> [u8; 32] {
    rows.extend(
        tree.take_freed()
            .into_iter()
            .map(|id| ((Table::Node, id), None)),
    );
    tree.seal(&mut |id, node| {
        let (message, tag) = keys.nodes.seal(id, &node.encode());
        rows.insert((Table::Node, id), Some(message.into()));
        keep(id, tag, node);
        tag
    });
    superblock.tree = tree.root();
    superblock.level = tree.level();
    superblock.next_node = tree.next();
    let text = superblock.encode();
    let (mut row, tag) = keys.superblock.seal(SUPERBLOCK_ROW, &text);
    row.extend(tag);
    rows.insert((Table::Volume, SUPERBLOCK_ROW), Some(row.into()));
    keys.root(&text)
}
