//! Writes packs. While all processors compress and encrypt one batch of chunks, this thread writes the batch before it and reads
//! the one after it, so memory is bounded by three batches.

use std::io::Write;
use std::sync::Mutex;
use std::thread;

use super::layout::{Input, PackContent};
use super::progress::Progress;
use super::NewPack;
use crate::cipher::{Sealer, NONCE_SIZE, TAG_SIZE};
use crate::error::{display, ShieldError};
use crate::index::pack;
use crate::keys::FileSystemKey;
use crate::read_at::{read_full, ReadAt};

/// Chunks per batch: eight for each thread within these bounds. A chunk takes two buffers of 64 KiB.
const BATCH_CHUNKS: std::ops::RangeInclusive<usize> = 16..=64;
const COMPRESSION_LEVEL: i32 = 3;

/// What the index has to say about a chunk that was written.
#[derive(Clone, Copy, Default)]
pub(super) struct SealedChunk {
    pub(super) stored: u32,
    pub(super) plain: u32,
    pub(super) compressed: bool,
    pub(super) nonce: [u8; NONCE_SIZE],
    pub(super) tag: [u8; TAG_SIZE],
}

/// A pack that was written.
pub(super) struct SealedPack {
    pub(super) chunks: Vec<SealedChunk>,
    pub(super) stored_bytes: u64,
}

/// A chunk on its way: plaintext until it is sealed, then what is written.
#[derive(Default)]
struct Slot {
    number: u32,
    text: Vec<u8>,
    compressed: Vec<u8>,
    sealed: SealedChunk,
}

/// Chunks in a row. The slots stay allocated; only the first `used` count.
#[derive(Default)]
struct Batch {
    slots: Vec<Slot>,
    used: usize,
}

pub(super) fn write_pack<S: ReadAt + Sync, W: Write>(
    key: &FileSystemKey,
    new: &NewPack,
    content: &PackContent<'_, S>,
    output: &mut W,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<SealedPack, ShieldError> {
    let id = pack::pack_id(&new.name);
    let sealer = Sealer::new(
        &key.derive(&[b"sconify pack v1 encryption", &id]),
        &key.derive(&[b"sconify pack v1 nonce", &id]),
    );
    let mut compressors = (0..threads)
        .map(|_| zstd::bulk::Compressor::new(COMPRESSION_LEVEL))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ShieldError::io("zstd", error))?;
    let batch_size = (8 * threads).clamp(*BATCH_CHUNKS.start(), *BATCH_CHUNKS.end());
    let mut source = ChunkSource::new(content);
    let mut written = SealedPack {
        chunks: Vec::with_capacity(source.lengths.len()),
        stored_bytes: pack::HEADER_SIZE as u64,
    };
    let failed = |error| ShieldError::io(format!("pack {}", display(&new.name)), error);
    output
        .write_all(&pack::header(&id, source.lengths.len() as u32))
        .map_err(failed)?;

    let (mut before, mut current, mut after) =
        (Batch::default(), Batch::default(), Batch::default());
    source.read_batch(&mut current, batch_size)?;
    while current.used > 0 || before.used > 0 {
        let bytes = current.plain_bytes();
        let used = current.used;
        let work = Mutex::new(current.slots[..used].iter_mut());
        thread::scope(|scope| {
            let (work, sealer, id) = (&work, &sealer, &id);
            for compressor in compressors.iter_mut().take(used) {
                scope.spawn(move || loop {
                    let next = work.lock().expect("no one panics with the lock").next();
                    let Some(slot) = next else { return };
                    slot.seal(compressor, sealer, id);
                });
            }
            before.write(output, &mut written).map_err(failed)?;
            source.read_batch(&mut after, batch_size)
        })?;
        progress.advance(bytes)?;
        std::mem::swap(&mut before, &mut current);
        std::mem::swap(&mut current, &mut after);
    }
    output.flush().map_err(failed)?;
    Ok(written)
}

impl Batch {
    fn plain_bytes(&self) -> u64 {
        self.slots[..self.used]
            .iter()
            .map(|slot| slot.text.len() as u64)
            .sum()
    }

    /// Writes what has been sealed and empties the batch.
    fn write<W: Write>(&mut self, output: &mut W, written: &mut SealedPack) -> std::io::Result<()> {
        for slot in &self.slots[..self.used] {
            output.write_all(&slot.text)?;
            written.stored_bytes += u64::from(slot.sealed.stored);
            written.chunks.push(slot.sealed);
        }
        self.used = 0;
        Ok(())
    }
}

impl Slot {
    /// Compresses if that saves enough, then encrypts.
    fn seal(
        &mut self,
        compressor: &mut zstd::bulk::Compressor<'_>,
        sealer: &Sealer,
        id: &[u8; 16],
    ) {
        let plain = self.text.len() as u32;
        self.compressed.clear();
        self.compressed
            .reserve(zstd::zstd_safe::compress_bound(self.text.len()));
        let length = compressor.compress_to_buffer(&self.text, &mut self.compressed);
        let compressed =
            length.is_ok_and(|length| pack::stored_length_is_valid(length as u32, plain, true));
        if compressed {
            std::mem::swap(&mut self.text, &mut self.compressed);
        }
        let associated = pack::chunk_associated_data(id, self.number, plain, compressed);
        let (nonce, tag) = sealer.seal(&associated, &mut self.text);
        let stored = self.text.len() as u32;
        self.sealed = SealedChunk {
            stored,
            plain,
            compressed,
            nonce,
            tag,
        };
    }
}

/// Cuts the contents of a pack's files into chunks.
struct ChunkSource<'a, S, L> {
    files: std::slice::Iter<'a, Input<'a, S>>,
    /// The file that is being read, and how much of it has been.
    current: Option<(&'a Input<'a, S>, u64)>,
    lengths: L,
    number: u32,
}

impl<'a, S: ReadAt> ChunkSource<'a, S, ()> {
    #[allow(clippy::new_ret_no_self)]
    fn new(
        content: &'a PackContent<'a, S>,
    ) -> ChunkSource<'a, S, impl ExactSizeIterator<Item = u32>> {
        ChunkSource {
            files: content.files.iter(),
            current: None,
            lengths: content.chunk_lengths(),
            number: 0,
        }
    }
}

impl<S: ReadAt, L: ExactSizeIterator<Item = u32>> ChunkSource<'_, S, L> {
    fn read_batch(&mut self, batch: &mut Batch, limit: usize) -> Result<(), ShieldError> {
        batch.used = 0;
        while batch.used < limit {
            let Some(length) = self.lengths.next() else {
                return Ok(());
            };
            if batch.used == batch.slots.len() {
                batch.slots.push(Slot::default());
            }
            let slot = &mut batch.slots[batch.used];
            slot.number = self.number;
            slot.text.resize(length as usize, 0);
            self.fill(&mut slot.text)?;
            self.number += 1;
            batch.used += 1;
        }
        Ok(())
    }

    fn fill(&mut self, mut text: &mut [u8]) -> Result<(), ShieldError> {
        while !text.is_empty() {
            let (input, position) = match self.current.take() {
                Some(current) => current,
                None => {
                    let input = self
                        .files
                        .next()
                        .expect("the chunks are as long as the files");
                    check_size(input)?;
                    (input, 0)
                }
            };
            let count = (input.size - position).min(text.len() as u64);
            let (part, rest) = text.split_at_mut(count as usize);
            read_exactly(input, part, position)?;
            text = rest;
            if position + count < input.size {
                self.current = Some((input, position + count));
            }
        }
        Ok(())
    }
}

/// Checks that a source still has the size that was given for it.
pub(super) fn check_size<S: ReadAt>(input: &Input<'_, S>) -> Result<(), ShieldError> {
    let found = input
        .source
        .size()
        .map_err(|error| ShieldError::io(display(input.path), error))?;
    if found == input.size {
        return Ok(());
    }
    Err(ShieldError::BadSource {
        path: display(input.path),
        reason: format!("its source has {found} bytes, expected {}", input.size),
    })
}

/// Fills `buffer` from a source.
pub(super) fn read_exactly<S: ReadAt>(
    input: &Input<'_, S>,
    buffer: &mut [u8],
    position: u64,
) -> Result<(), ShieldError> {
    let count = read_full(input.source, buffer, position)
        .map_err(|error| ShieldError::io(display(input.path), error))?;
    if count == buffer.len() {
        return Ok(());
    }
    Err(ShieldError::BadSource {
        path: display(input.path),
        reason: format!(
            "its source ends after {} bytes, expected {}",
            position + count as u64,
            input.size
        ),
    })
}
