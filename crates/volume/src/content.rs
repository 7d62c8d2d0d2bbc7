//! Reading and writing the content of files.

use std::ops::Range;
use std::panic::resume_unwind;
use std::thread::{available_parallelism, scope};

use crate::attributes::{Attributes, FileKind};
use crate::error::Result;
use crate::node::{Key, Kind};
use crate::plaintext::Plaintext;
use crate::volume::{Volume, Working};
use crate::{CHUNK_SIZE, MAX_FILE_SIZE};
use rustix::io::Errno;

/// Bytes that are read or written before other threads get a chance.
const PIECE: usize = 4 << 20;

/// Bytes that are worth a thread.
const MIN_SHARE: usize = 16 * CHUNK_SIZE;
/// Threads that read one piece.
const MAX_THREADS: usize = 8;

/// Where to write.
#[derive(Clone, Copy)]
enum Position {
    At(u64),
    End,
}

impl Volume {
    /// Reads content at an offset into `buffer`; returns how many bytes there were: fewer than asked for at the end of
    /// the file only.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EINVAL if the inode is no file; [`crate::VolumeError::NotAuthentic`] with the file's path.
    pub fn read_at(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        for piece in buffer.chunks_mut(PIECE) {
            let working = self.read();
            let attributes = self.regular(&working, inode)?;
            let from = offset.saturating_add(done as u64);
            let length = attributes.size.saturating_sub(from).min(piece.len() as u64);
            let piece = &mut piece[..usize::try_from(length).expect("pieces are short")];
            if piece.is_empty() {
                break;
            }
            let read = self.read_piece(&working, inode, from, piece);
            self.named(&working, inode, read)?;
            done += piece.len();
        }
        Ok(done)
    }

    /// Writes content at an offset; what lies between the end of the file and the offset becomes a hole. Returns the
    /// number of bytes written: fewer than given only if the disk was full or failed after some.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EINVAL, EFBIG, ENOSPC.
    pub fn write_at(&self, inode: u64, offset: u64, data: &[u8]) -> Result<usize> {
        self.write_pieces(inode, Position::At(offset), data)
            .map(|(written, _)| written)
    }

    /// Writes content at the end of the file, wherever that is, in one step up to 4 MiB. Returns the number of bytes
    /// written and the offset behind them.
    ///
    /// # Errors
    /// As [`Volume::write_at`].
    pub fn append(&self, inode: u64, data: &[u8]) -> Result<(usize, u64)> {
        self.write_pieces(inode, Position::End, data)
    }

    fn write_pieces(
        &self,
        inode: u64,
        mut position: Position,
        data: &[u8],
    ) -> Result<(usize, u64)> {
        let (mut done, mut end) = (0, 0);
        let mut pieces = data.chunks(PIECE.min(self.dirty_limit.max(CHUNK_SIZE)));
        // Without bytes nothing is changed, but it is checked that the file can be written.
        let mut piece = pieces.next().unwrap_or_default();
        loop {
            match self.write_piece(inode, position, piece) {
                Ok(behind) => end = behind,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            done += piece.len();
            position = Position::At(end);
            match pieces.next() {
                Some(next) => piece = next,
                None => break,
            }
        }
        Ok((done, end))
    }

    fn write_piece(&self, inode: u64, position: Position, data: &[u8]) -> Result<u64> {
        let mut working = self.change()?;
        let mut attributes = self.regular(&working, inode)?;
        let offset = match position {
            Position::At(offset) => offset,
            Position::End => attributes.size,
        };
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= MAX_FILE_SIZE)
            .ok_or(Errno::FBIG)?;
        if data.is_empty() {
            return Ok(offset);
        }
        self.check_room(&mut working, data.len() / CHUNK_SIZE + 2)?;
        let key = Key::new(inode, Kind::Attributes, 0);
        working.tree.prepare(self, &[key])?;
        // The first and the last chunk may keep bytes that they have: those are read before anything is changed.
        for (index, within) in [first(offset..end), last(offset..end)] {
            if within.len() < CHUNK_SIZE {
                let made = self.make_dirty(&mut working, inode, index);
                self.named(&working, inode, made)?;
            }
        }
        let mut rest = data;
        for (index, within) in chunks(offset..end) {
            let (piece, after) = rest.split_at(within.len());
            rest = after;
            if piece.len() == CHUNK_SIZE {
                working.dirty.insert((inode, index), piece.to_vec().into());
                continue;
            }
            let content = working.dirty.get_mut(&(inode, index));
            content.expect("it was made dirty")[within].copy_from_slice(piece);
        }
        attributes.size = attributes.size.max(end);
        attributes.touch();
        self.put(&mut working, &attributes)?;
        Ok(end)
    }

    /// Reads a piece, by several threads if it is long: most of the time goes into decryption.
    fn read_piece(
        &self,
        working: &Working,
        inode: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        // How many processors there are takes longer to find out than to decrypt a chunk.
        if buffer.len() < 2 * MIN_SHARE {
            return self.read_part(working, inode, offset, buffer);
        }
        let threads = available_parallelism().map_or(1, usize::from);
        let share = (buffer.len() / threads.min(MAX_THREADS)).next_multiple_of(CHUNK_SIZE);
        if share >= buffer.len() {
            return self.read_part(working, inode, offset, buffer);
        }
        scope(|scope| {
            let mut parts = (0..).zip(buffer.chunks_mut(share.max(MIN_SHARE)));
            let first = parts.next();
            let others = parts
                .map(|(number, part)| {
                    let from = offset + number * share.max(MIN_SHARE) as u64;
                    scope.spawn(move || self.read_part(working, inode, from, part))
                })
                .collect::<Vec<_>>();
            let mut done = match first {
                Some((_, part)) => self.read_part(working, inode, offset, part),
                None => Ok(()),
            };
            for other in others {
                done = done.and(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            done
        })
    }

    fn read_part(
        &self,
        working: &Working,
        inode: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let mut rest = buffer;
        for (index, within) in chunks(offset..offset + rest.len() as u64) {
            let (piece, after) = rest.split_at_mut(within.len());
            if let Some(content) = working.dirty.get(&(inode, index)) {
                piece.copy_from_slice(&content[within]);
            } else {
                match self.load_chunk(working, inode, index)? {
                    Some(content) => piece.copy_from_slice(&content[within]),
                    None => piece.fill(0),
                }
            }
            rest = after;
        }
        Ok(())
    }

    /// Copies a chunk to where it can be changed.
    pub(crate) fn make_dirty(&self, working: &mut Working, inode: u64, index: u64) -> Result<()> {
        if !working.dirty.contains_key(&(inode, index)) {
            let content = match self.load_chunk(working, inode, index)? {
                Some(content) => content.to_vec(),
                None => vec![0; CHUNK_SIZE],
            };
            working
                .dirty
                .insert((inode, index), Plaintext::from(content));
        }
        Ok(())
    }

    pub(crate) fn regular(&self, working: &Working, inode: u64) -> Result<Attributes> {
        let attributes = self.find(working, inode)?;
        match attributes.kind {
            FileKind::Regular => Ok(attributes),
            FileKind::Directory => Err(Errno::ISDIR.into()),
            _ => Err(Errno::INVAL.into()),
        }
    }
}

/// The chunks of a range of bytes, each with the part of it that is in the range.
pub(crate) fn chunks(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let size = CHUNK_SIZE as u64;
    let indexes = range.start / size..range.end.div_ceil(size);
    indexes.map(move |index| {
        let begin = index * size;
        let within = |offset: u64| {
            usize::try_from(offset.saturating_sub(begin).min(size)).expect("chunks are short")
        };
        (index, within(range.start)..within(range.end))
    })
}

/// The first chunk of a range that is not empty.
pub(crate) fn first(range: Range<u64>) -> (u64, Range<usize>) {
    chunks(range).next().expect("the range is not empty")
}

/// The last chunk of a range that is not empty.
pub(crate) fn last(range: Range<u64>) -> (u64, Range<usize>) {
    let begin = (range.end - 1) / CHUNK_SIZE as u64 * CHUNK_SIZE as u64;
    first(range.start.max(begin)..range.end)
}
