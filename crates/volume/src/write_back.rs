//! Taking over content that a caller keeps itself, such as memory that programs have mapped: whole chunks, then size and times.

use crate::attributes::Time;
use crate::error::Result;
use crate::node::{Key, Kind};
use crate::plaintext::Plaintext;
use crate::volume::Volume;
use crate::CHUNK_SIZE;

/// The times that a caller keeps of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the content or of the inode; an older one than the volume's is not taken.
    pub ctime: Time,
}

impl Volume {
    /// Replaces whole chunks of a file that has, or will have, `size` bytes. A chunk of zeros becomes a hole; what a chunk has beyond
    /// the end of the file must be zeros.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EINVAL; ENOSPC before anything was changed.
    pub fn put_chunks(&self, inode: u64, chunks: Vec<(u64, Plaintext)>, size: u64) -> Result<()> {
        let mut working = self.change()?;
        let mut attributes = self.regular(&working, inode)?;
        self.check_room(&mut working, chunks.len())?;
        let key = Key::new(inode, Kind::Attributes, 0);
        working.tree.prepare(self, &[key])?;
        for (index, content) in chunks {
            assert_eq!(content.len(), CHUNK_SIZE, "chunks are whole");
            let end = (index + 1).saturating_mul(CHUNK_SIZE as u64).min(size);
            attributes.size = attributes.size.max(end);
            working.dirty.insert((inode, index), content);
        }
        self.put(&mut working, &attributes)
    }

    /// Gives a file the size and the times that the caller keeps.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EINVAL, EFBIG.
    pub fn settle(&self, inode: u64, size: u64, times: &Times) -> Result<()> {
        let before = self.attributes(inode)?;
        if before.size > size {
            self.truncate(inode, size)?;
        }
        let mut working = self.change_to_free()?;
        let mut attributes = self.regular(&working, inode)?;
        attributes.size = size;
        attributes.atime = times.atime;
        attributes.mtime = times.mtime;
        attributes.ctime = before.ctime.max(times.ctime);
        self.put(&mut working, &attributes)
    }
}
