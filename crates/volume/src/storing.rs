//! Where a commit puts content: into records of the tree, rows of the database, or slots of the contents file.

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{available_parallelism, scope};

use crate::chunk::{ChunkRecord, Stored};
use crate::error::Result;
use crate::node::{Key, Kind, Link};
use crate::seal::Tag;
use crate::store::Table;
use crate::volume::{Volume, Working};

/// Content up to this length is kept in its record.
const MAX_INLINE: usize = 1_024;
/// Chunks up to which a commit puts them into the database: one sync for all is quicker then than to write each once.
const MAX_ROWS: usize = 16;
/// Chunks that are encrypted in one go.
const BATCH: usize = 256;
/// Chunks that are worth a thread.
const MIN_SHARE: usize = 16;
/// Threads that encrypt one batch.
const MAX_THREADS: usize = 8;

/// Where content goes that is too long for a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Rows,
    Slots,
}

/// A chunk that becomes stored.
struct Chunk {
    key: Key,
    /// Where it was until now.
    before: Option<Stored>,
    /// Bytes without the zeros at the end.
    length: usize,
    /// The row or slot that it gets; none if it is short.
    place: Option<Stored>,
}

/// A chunk that was encrypted.
struct Sealed {
    bytes: Vec<u8>,
    tag: Tag,
    record: Vec<u8>,
}

impl Volume {
    /// Where the dirty chunks should go in a commit.
    pub(crate) fn place_of_contents(&self, working: &Working) -> Place {
        let is_large = working.dirty.len() > MAX_ROWS || self.slots.unsynced() > 0;
        if self.store.is_durable() && is_large {
            Place::Slots
        } else {
            Place::Rows
        }
    }

    /// Encrypts all dirty chunks and notes where they are. They wait to be written. What a failure leaves is dirty still.
    pub(crate) fn store_contents(&self, working: &mut Working, place: Place) -> Result<()> {
        while !working.dirty.is_empty() {
            if place == Place::Slots && working.slots.wants_search() {
                let named = self.named_slots(working).ok();
                working.slots.found(named);
            }
            let mut chunks = self.next_chunks(working)?;
            for chunk in chunks.iter_mut().filter(|chunk| chunk.length > MAX_INLINE) {
                chunk.place = Some(match (place, chunk.before) {
                    (Place::Slots, _) => Stored::Slot(working.slots.take()),
                    (Place::Rows, Some(Stored::Row(id))) => Stored::Row(id),
                    (Place::Rows, _) => {
                        working.next_chunk += 1;
                        working.chunks += 1;
                        Stored::Row(working.next_chunk - 1)
                    }
                });
            }
            let sealed = self.seal_chunks(working, &chunks);
            for (chunk, sealed) in chunks.into_iter().zip(sealed) {
                self.note(working, &chunk, sealed)?;
            }
        }
        Ok(())
    }

    /// The first dirty chunks. All nodes that noting them needs are in memory then.
    fn next_chunks(&self, working: &mut Working) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for (&(inode, index), content) in working.dirty.iter().take(BATCH) {
            let key = Key::new(inode, Kind::Chunk, index);
            let attributes = Key::new(inode, Kind::Attributes, 0);
            working.tree.prepare(self, &[key, attributes])?;
            let before = working.tree.get(self, key)?;
            let before = before.as_deref().map(ChunkRecord::decode).transpose()?;
            chunks.push(Chunk {
                key,
                before: before.map(|record| record.place()),
                length: content
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1),
                place: None,
            });
        }
        Ok(chunks)
    }

    /// Encrypts chunks for their places, by several threads if there are many.
    fn seal_chunks(&self, working: &Working, chunks: &[Chunk]) -> Vec<Option<Sealed>> {
        let seal = |chunk: &Chunk| {
            let content = &working.dirty[&(chunk.key.inode, chunk.key.sub)];
            chunk.place.map(|place| match place {
                Stored::Slot(id) => {
                    let (bytes, salt, tag) = self.keys.slots.seal_apart(id, content);
                    let record = ChunkRecord::Slot(Link { id, tag }, salt).encode();
                    Sealed { bytes, tag, record }
                }
                Stored::Row(id) => {
                    let (bytes, tag) = self.keys.chunks.seal(id, content);
                    let record = ChunkRecord::Row(Link { id, tag }).encode();
                    Sealed { bytes, tag, record }
                }
                Stored::Inline => unreachable!("records are not encrypted on their own"),
            })
        };
        // How many processors there are takes longer to find out than to encrypt a chunk.
        if chunks.len() < 2 * MIN_SHARE {
            return chunks.iter().map(seal).collect();
        }
        let threads = available_parallelism().map_or(1, usize::from);
        let share = chunks
            .len()
            .div_ceil(threads.min(MAX_THREADS))
            .max(MIN_SHARE);
        scope(|scope| {
            let mut parts = chunks.chunks(share);
            let first = parts.next().unwrap_or_default();
            let others = parts
                .map(|part| scope.spawn(move || part.iter().map(seal).collect::<Vec<_>>()))
                .collect::<Vec<_>>();
            let mut sealed = first.iter().map(seal).collect::<Vec<_>>();
            for other in others {
                sealed.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            sealed
        })
    }

    /// Notes in the tree where a chunk is now, and lets it wait to be written there.
    fn note(&self, working: &mut Working, chunk: &Chunk, sealed: Option<Sealed>) -> Result<()> {
        let key = chunk.key;
        let content = working
            .dirty
            .remove(&(key.inode, key.sub))
            .expect("it was dirty when the batch began");
        if let (Some(place), Some(Sealed { bytes, tag, record })) = (chunk.place, sealed) {
            match place {
                Stored::Slot(slot) => self.slots.queue(slot, bytes),
                Stored::Row(id) => {
                    let row = ((Table::Chunk, id), Some(bytes.into()));
                    self.store.queue([row].into());
                }
                Stored::Inline => unreachable!("records are not encrypted on their own"),
            }
            working.tree.put(self, key, &record)?;
            self.keep_chunk(tag, Arc::new(content));
        } else if chunk.length > 0 {
            let record = ChunkRecord::Inline(&content[..chunk.length]).encode();
            working.tree.put(self, key, &record)?;
        } else {
            working.tree.remove(self, key)?;
        }
        if let Some(before) = chunk.before.filter(|before| Some(*before) != chunk.place) {
            working.free(before);
        }
        let (was, is) = (chunk.before.is_some(), chunk.length > 0);
        if was != is {
            let mut attributes = self.find(working, key.inode)?;
            attributes.stored = attributes.stored + u64::from(is) - u64::from(was);
            self.put(working, &attributes)?;
        }
        Ok(())
    }

    /// All slots that the tree names.
    fn named_slots(&self, working: &Working) -> Result<Vec<u64>> {
        let mut slots = Vec::new();
        let all = Key::new(0, Kind::Attributes, 0)..=Key::new(u64::MAX, Kind::History, u64::MAX);
        let mut failed = Ok(());
        working.tree.scan(self, all, false, &mut |key, record| {
            if key.kind == Kind::Chunk {
                match ChunkRecord::decode(record) {
                    Ok(record) => {
                        if let Stored::Slot(slot) = record.place() {
                            slots.push(slot);
                        }
                    }
                    Err(error) => {
                        failed = Err(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        failed.map(|()| slots)
    }
}
