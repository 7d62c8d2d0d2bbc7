//! Changing and finding what is stored of a file: truncate, holes, removal.
//!
//! A large file has millions of chunks. They are removed in steps, the last ones first, so that memory is bounded and other
//! threads get their turn; after a crash between two steps the file is shorter by those that were taken.

use std::ops::ControlFlow;

use rustix::io::Errno;

use crate::chunk::ChunkRecord;
use crate::content::{first, last};
use crate::error::Result;
use crate::node::{Key, Kind};
use crate::volume::{Volume, Working};
use crate::{CHUNK_SIZE, MAX_FILE_SIZE};

/// Chunks that are removed in one step.
const STEP: usize = 1_024;

impl Volume {
    /// Sets the size of a file; what it gains reads as zeros.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EINVAL, EFBIG.
    pub fn truncate(&self, inode: u64, size: u64) -> Result<()> {
        if size > MAX_FILE_SIZE {
            return Err(Errno::FBIG.into());
        }
        let kept = size.div_ceil(CHUNK_SIZE as u64);
        loop {
            let mut working = self.change_to_free()?;
            let mut attributes = self.regular(&working, inode)?;
            let prepared = [Key::new(inode, Kind::Attributes, 0)];
            working.tree.prepare(self, &prepared)?;
            let within = usize::try_from(size % CHUNK_SIZE as u64).expect("chunks are short");
            if size < attributes.size && within > 0 && self.is_stored(&working, inode, kept - 1)? {
                let made = self.make_dirty(&mut working, inode, kept - 1);
                self.named(&working, inode, made)?;
                let content = working.dirty.get_mut(&(inode, kept - 1));
                content.expect("it was made dirty")[within..].fill(0);
            }
            let done = match self.remove_chunks(&mut working, inode, kept..u64::MAX)? {
                None => {
                    attributes = self.find(&working, inode)?;
                    attributes.size = size;
                    true
                }
                Some(removed_from) => {
                    attributes = self.find(&working, inode)?;
                    attributes.size = attributes.size.min(removed_from * CHUNK_SIZE as u64);
                    false
                }
            };
            attributes.touch();
            self.put(&mut working, &attributes)?;
            if done {
                return Ok(());
            }
        }
    }

    /// Makes a range read as zeros and gives its room back; the size stays.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EINVAL.
    pub fn punch_hole(&self, inode: u64, offset: u64, length: u64) -> Result<()> {
        loop {
            let mut working = self.change_to_free()?;
            let mut attributes = self.regular(&working, inode)?;
            let range = offset..offset.saturating_add(length).min(attributes.size);
            if range.is_empty() {
                return Ok(());
            }
            let prepared = [Key::new(inode, Kind::Attributes, 0)];
            working.tree.prepare(self, &prepared)?;
            for (index, within) in [first(range.clone()), last(range.clone())] {
                if within.len() < CHUNK_SIZE && self.is_stored(&working, inode, index)? {
                    let made = self.make_dirty(&mut working, inode, index);
                    self.named(&working, inode, made)?;
                    let content = working.dirty.get_mut(&(inode, index));
                    content.expect("it was made dirty")[within].fill(0);
                }
            }
            let size = CHUNK_SIZE as u64;
            // The last chunk of the file is whole if the range covers all of it that there is.
            let end = if range.end == attributes.size {
                range.end.div_ceil(size)
            } else {
                range.end / size
            };
            let whole = range.start.div_ceil(size)..end;
            let more =
                !whole.is_empty() && self.remove_chunks(&mut working, inode, whole)?.is_some();
            attributes = self.find(&working, inode)?;
            attributes.touch();
            self.put(&mut working, &attributes)?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Makes a file at least so large that the range is in it. The disk must have room for the range now; it is not set
    /// aside.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EINVAL, EFBIG, ENOSPC.
    pub fn allocate(&self, inode: u64, offset: u64, length: u64) -> Result<()> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= MAX_FILE_SIZE)
            .ok_or(Errno::FBIG)?;
        if length == 0 {
            return Err(Errno::INVAL.into());
        }
        let mut working = self.change()?;
        if self.available(&working)? < length {
            return Err(Errno::NOSPC.into());
        }
        let mut attributes = self.regular(&working, inode)?;
        if end > attributes.size {
            attributes.size = end;
            attributes.touch();
            self.put(&mut working, &attributes)?;
        }
        Ok(())
    }

    /// The first offset from `offset` on that holds data (`SEEK_DATA`), to the chunk.
    ///
    /// # Errors
    /// ENXIO if there is none.
    pub fn seek_data(&self, inode: u64, offset: u64) -> Result<u64> {
        let working = self.read();
        let size = self.regular(&working, inode)?.size;
        let index = offset / CHUNK_SIZE as u64;
        match self.next_chunk(&working, inode, index)? {
            Some(found) if offset < size => Ok(offset.max(found * CHUNK_SIZE as u64)),
            _ => Err(Errno::NXIO.into()),
        }
    }

    /// The first offset from `offset` on that is in a hole or at the end (`SEEK_HOLE`), to the chunk.
    ///
    /// # Errors
    /// ENXIO if `offset` is not in the file.
    pub fn seek_hole(&self, inode: u64, offset: u64) -> Result<u64> {
        let working = self.read();
        let size = self.regular(&working, inode)?.size;
        if offset >= size {
            return Err(Errno::NXIO.into());
        }
        let mut index = offset / CHUNK_SIZE as u64;
        while self.next_chunk(&working, inode, index)? == Some(index) {
            index += 1;
        }
        Ok(size.min(offset.max(index * CHUNK_SIZE as u64)))
    }

    /// Removes an inode that has no name and is not open, in steps.
    pub(crate) fn reap(&self, inode: u64) -> Result<()> {
        loop {
            let mut working = if self.access == crate::Access::ReadOnly {
                return Ok(());
            } else {
                self.write()
            };
            let unused = !working.handles.contains_key(&inode)
                && self
                    .find(&working, inode)
                    .is_ok_and(|attributes| attributes.links == 0);
            if !unused {
                return Ok(());
            }
            working.version += 1;
            let keys = [
                Key::new(inode, Kind::Attributes, 0),
                Key::new(0, Kind::Orphan, inode),
            ];
            working.tree.prepare(self, &keys)?;
            if self
                .remove_chunks(&mut working, inode, 0..u64::MAX)?
                .is_none()
            {
                for kind in [Kind::Target, Kind::Xattrs] {
                    self.put_parts(&mut working, inode, kind, &[])?;
                }
                for key in keys {
                    working.tree.remove(self, key)?;
                }
                return Ok(());
            }
            if self.is_over_limit(&working) {
                drop(working);
                self.commit()?;
            }
        }
    }

    /// Removes what was open without a name when the volume was used last.
    pub(crate) fn reap_orphans(&self) -> Result<()> {
        let mut orphans = Vec::new();
        let range = Key::new(0, Kind::Orphan, 0)..=Key::new(0, Kind::Orphan, u64::MAX);
        self.read().tree.scan(self, range, false, &mut |key, _| {
            orphans.push(key.sub);
            ControlFlow::Continue(())
        })?;
        orphans.into_iter().try_for_each(|inode| self.reap(inode))
    }

    /// Removes chunks of a range, the last ones first. Returns the number of the last one removed if there may be more,
    /// or None.
    fn remove_chunks(
        &self,
        working: &mut Working,
        inode: u64,
        range: std::ops::Range<u64>,
    ) -> Result<Option<u64>> {
        let keys =
            Key::new(inode, Kind::Chunk, range.start)..=Key::new(inode, Kind::Chunk, range.end - 1);
        let mut found = Vec::new();
        working.tree.scan(self, keys, true, &mut |key, record| {
            found.push((
                key,
                ChunkRecord::decode(record).map(|record| record.place()),
            ));
            if found.len() < STEP {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        let more = (found.len() == STEP).then(|| found[STEP - 1].0.sub);
        let from = more.unwrap_or(range.start);
        let mut attributes = self.find(working, inode)?;
        for (key, stored) in found {
            working.tree.prepare(self, &[key])?;
            working.free(stored?);
            working.tree.remove(self, key)?;
            attributes.stored -= 1;
            self.put(working, &attributes)?;
        }
        let dirty = working
            .dirty
            .range((inode, from)..(inode, range.end))
            .map(|(place, _)| *place)
            .collect::<Vec<_>>();
        for place in dirty {
            working.dirty.remove(&place);
        }
        Ok(more)
    }

    fn is_stored(&self, working: &Working, inode: u64, index: u64) -> Result<bool> {
        Ok(self.next_chunk(working, inode, index)? == Some(index))
    }

    /// The first chunk from `index` on that is stored or will be.
    fn next_chunk(&self, working: &Working, inode: u64, index: u64) -> Result<Option<u64>> {
        let dirty = working
            .dirty
            .range((inode, index)..=(inode, u64::MAX))
            .next()
            .map(|((_, index), _)| *index);
        let mut stored = None;
        let keys = Key::new(inode, Kind::Chunk, index)..=Key::new(inode, Kind::Chunk, u64::MAX);
        working.tree.scan(self, keys, false, &mut |key, _| {
            stored = Some(key.sub);
            ControlFlow::Break(())
        })?;
        Ok(match (dirty, stored) {
            (Some(dirty), Some(stored)) => Some(dirty.min(stored)),
            (one, other) => one.or(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::chunks;

    #[test]
    fn ranges_are_cut_into_chunks() {
        let size = CHUNK_SIZE as u64;
        let cut = |range| chunks(range).collect::<Vec<_>>();
        assert_eq!(cut(0..1), [(0, 0..1)]);
        assert_eq!(
            cut(size - 1..size + 1),
            [(0, CHUNK_SIZE - 1..CHUNK_SIZE), (1, 0..1)]
        );
        assert_eq!(cut(size..2 * size), [(1, 0..CHUNK_SIZE)]);
        assert_eq!(last(size - 1..size + 1), (1, 0..1));
        assert_eq!(last(3..9), (0, 3..9));
    }
}
