//! Writes packs. While all processors compress and encrypt one batch of segments, this thread writes the batch before it and reads
//! the one after it, so memory is bounded by three batches; a batch goes on from one pack to the next.

use std::io::Write;
use std::sync::Mutex;
use std::thread;

use ring::digest;

use super::cache::CompressionCache;
use super::layout::{Input, Layout, PackContent};
use super::progress::Progress;
use super::{Builder, NewPack};
use crate::cipher::{Sealer, NONCE_SIZE, TAG_SIZE};
use crate::error::{display, ShieldError};
use crate::index::pack;
use crate::read_at::{read_full, ReadAt};
use crate::CHUNK_SIZE;

/// Chunks in a row that one thread works on, and that the cache keeps together.
const SEGMENT_SIZE: usize = 8 * CHUNK_SIZE;
/// Segments per batch: eight for each thread within these bounds. A segment takes two buffers of its size.
const BATCH_SEGMENTS: std::ops::RangeInclusive<usize> = 8..=32;
/// Half as fast again as level 3, and faster to decompress, for 4 % more bytes of programs and libraries.
pub(super) const COMPRESSION_LEVEL: i32 = 1;

/// What the index has to say about a chunk that was written.
#[derive(Clone, Copy, Default)]
pub(super) struct SealedChunk {
    pub(super) stored: u32,
    pub(super) plain: u32,
    pub(super) compressed: bool,
    pub(super) nonce: [u8; NONCE_SIZE],
    pub(super) tag: [u8; TAG_SIZE],
    /// SHA-256 of what is stored, if digests were asked for.
    pub(super) digest: [u8; 32],
}

/// A pack that was written.
pub(super) struct SealedPack {
    pub(super) chunks: Vec<SealedChunk>,
    pub(super) stored_bytes: u64,
}

/// Chunks in a row on their way: plaintext first, then what is written.
#[derive(Default)]
struct Segment {
    pack: usize,
    /// Number of its first chunk.
    first: u32,
    text: Vec<u8>,
    stored: Vec<u8>,
    chunks: Vec<SealedChunk>,
}

/// The segments stay allocated; only the first `used` count.
#[derive(Default)]
struct Batch {
    segments: Vec<Segment>,
    used: usize,
}

/// What one pack is sealed with.
struct PackSealer {
    id: [u8; 16],
    sealer: Sealer,
}

/// What all threads share.
struct Shared<'a> {
    packs: Vec<PackSealer>,
    cache: Option<&'a CompressionCache>,
    digests: bool,
}

/// What one thread has to itself.
struct Worker {
    compressor: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
    /// A segment as the cache keeps it: for each chunk the length of its compressed form (u32) and that form; length 0 if it is stored as it is.
    form: Vec<u8>,
}

/// Writes each pack of a layout to its output.
pub(super) fn write_packs<S: ReadAt + Sync, W: Write>(
    builder: &Builder<S>,
    layout: &Layout<'_, S>,
    outputs: &mut [W],
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<SealedPack>, ShieldError> {
    let seal_with = |pack: &NewPack| {
        let id = pack::pack_id(&pack.name);
        let sealer = Sealer::new(
            &builder.key.derive(&[b"sconify pack v1 encryption", &id]),
            &builder.key.derive(&[b"sconify pack v1 nonce", &id]),
        );
        PackSealer { id, sealer }
    };
    let shared = Shared {
        packs: builder.packs.iter().map(seal_with).collect(),
        cache: builder.cache.as_ref(),
        digests: builder.digests,
    };
    let mut workers = (0..threads)
        .map(|_| Worker::new())
        .collect::<Result<Vec<_>, _>>()?;
    let batch_size = (8 * threads).clamp(*BATCH_SEGMENTS.start(), *BATCH_SEGMENTS.end());
    let mut source = SegmentSource::new(layout);
    let mut sink = PackSink::new(builder, layout, outputs);

    let (mut before, mut current, mut after) =
        (Batch::default(), Batch::default(), Batch::default());
    source.read_batch(&mut current, batch_size)?;
    while current.used > 0 || before.used > 0 {
        let bytes = current.plain_bytes();
        let used = current.used;
        let work = Mutex::new(current.segments[..used].iter_mut());
        thread::scope(|scope| {
            let (work, shared) = (&work, &shared);
            for worker in workers.iter_mut().take(used) {
                scope.spawn(move || loop {
                    let next = work.lock().expect("no one panics with the lock").next();
                    let Some(segment) = next else { return };
                    worker.seal(segment, shared);
                });
            }
            sink.write(&mut before)?;
            source.read_batch(&mut after, batch_size)
        })?;
        progress.advance(bytes)?;
        std::mem::swap(&mut before, &mut current);
        std::mem::swap(&mut current, &mut after);
    }
    sink.finish()
}

impl Batch {
    fn plain_bytes(&self) -> u64 {
        self.segments[..self.used]
            .iter()
            .map(|segment| segment.text.len() as u64)
            .sum()
    }
}

impl Worker {
    fn new() -> Result<Self, ShieldError> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(COMPRESSION_LEVEL)
                .map_err(|error| ShieldError::io("zstd", error))?,
            compressed: Vec::with_capacity(zstd::zstd_safe::compress_bound(CHUNK_SIZE)),
            form: Vec::new(),
        })
    }

    /// Compresses each chunk if that saves enough, or takes what the cache has, then encrypts.
    fn seal(&mut self, segment: &mut Segment, shared: &Shared<'_>) {
        let name = shared.cache.map(|cache| cache.name(&segment.text));
        let known = match (shared.cache, &name) {
            (Some(cache), Some(name)) => {
                cache.load(name, &mut self.form) && is_form_of(&self.form, segment.text.len())
            }
            _ => false,
        };
        if !known {
            self.compress(&segment.text);
            if let (Some(cache), Some(name)) = (shared.cache, &name) {
                cache.save(name, &self.form);
            }
        }
        let PackSealer { id, sealer } = &shared.packs[segment.pack];
        segment.stored.clear();
        segment.chunks.clear();
        let mut form = &self.form[..];
        for (number, text) in (segment.first..).zip(segment.text.chunks(CHUNK_SIZE)) {
            let compressed = next_chunk(&mut form).expect("the form is that of this text");
            let start = segment.stored.len();
            segment.stored.extend_from_slice(compressed.unwrap_or(text));
            let (plain, compressed) = (text.len() as u32, compressed.is_some());
            let associated = pack::chunk_associated_data(id, number, plain, compressed);
            let stored = &mut segment.stored[start..];
            let (nonce, tag) = sealer.seal(&associated, stored);
            let mut digest = [0; 32];
            if shared.digests {
                digest.copy_from_slice(digest::digest(&digest::SHA256, stored).as_ref());
            }
            segment.chunks.push(SealedChunk {
                stored: stored.len() as u32,
                plain,
                compressed,
                nonce,
                tag,
                digest,
            });
        }
    }

    /// Makes the form of a text.
    fn compress(&mut self, text: &[u8]) {
        self.form.clear();
        for chunk in text.chunks(CHUNK_SIZE) {
            self.compressed.clear();
            let length = self
                .compressor
                .compress_to_buffer(chunk, &mut self.compressed);
            let compressed = length.is_ok_and(|length| {
                pack::stored_length_is_valid(length as u32, chunk.len() as u32, true)
            });
            if !compressed {
                self.compressed.clear();
            }
            self.form
                .extend_from_slice(&(self.compressed.len() as u32).to_le_bytes());
            self.form.extend_from_slice(&self.compressed);
        }
    }
}

/// Whether a form from the cache has a valid part for each chunk of a text of this length, and nothing else.
fn is_form_of(mut form: &[u8], length: usize) -> bool {
    let mut rest = length;
    while rest > 0 {
        let plain = rest.min(CHUNK_SIZE);
        let valid = next_chunk(&mut form).is_some_and(|compressed| {
            compressed.is_none_or(|compressed| {
                pack::stored_length_is_valid(compressed.len() as u32, plain as u32, true)
            })
        });
        if !valid {
            return false;
        }
        rest -= plain;
    }
    form.is_empty()
}

/// Takes the next chunk off a form: what it is compressed to, or the inner `None` if it is stored as it is.
fn next_chunk<'a>(form: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, rest) = form.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (compressed, rest) = rest.split_at_checked(length)?;
    *form = rest;
    Some((length > 0).then_some(compressed))
}

/// Writes sealed segments: pack after pack, each with its header.
struct PackSink<'a, W> {
    packs: &'a [NewPack],
    outputs: &'a mut [W],
    counts: Vec<u32>,
    sealed: Vec<SealedPack>,
}

impl<'a, W: Write> PackSink<'a, W> {
    fn new<S: ReadAt + Sync>(
        builder: &'a Builder<S>,
        layout: &Layout<'_, S>,
        outputs: &'a mut [W],
    ) -> Self {
        let counts = layout
            .packs
            .iter()
            .map(|pack| pack.chunk_lengths().len() as u32);
        Self {
            packs: &builder.packs,
            outputs,
            counts: counts.collect(),
            sealed: Vec::new(),
        }
    }

    /// Writes what has been sealed and empties the batch.
    fn write(&mut self, batch: &mut Batch) -> Result<(), ShieldError> {
        for segment in &batch.segments[..batch.used] {
            self.begin_up_to(segment.pack)?;
            self.outputs[segment.pack]
                .write_all(&segment.stored)
                .map_err(|error| self.failed(segment.pack, error))?;
            let sealed = &mut self.sealed[segment.pack];
            sealed.stored_bytes += segment.stored.len() as u64;
            sealed.chunks.extend_from_slice(&segment.chunks);
        }
        batch.used = 0;
        Ok(())
    }

    /// Ends the pack before and begins all up to this one. Outputs may be parts of one file, so each is flushed at its end.
    fn begin_up_to(&mut self, number: usize) -> Result<(), ShieldError> {
        while self.sealed.len() <= number {
            let next = self.sealed.len();
            if let Some(last) = next.checked_sub(1) {
                self.outputs[last]
                    .flush()
                    .map_err(|error| self.failed(last, error))?;
            }
            let header = pack::header(&pack::pack_id(&self.packs[next].name), self.counts[next]);
            self.outputs[next]
                .write_all(&header)
                .map_err(|error| self.failed(next, error))?;
            self.sealed.push(SealedPack {
                chunks: Vec::with_capacity(self.counts[next] as usize),
                stored_bytes: header.len() as u64,
            });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<SealedPack>, ShieldError> {
        if let Some(last) = self.packs.len().checked_sub(1) {
            self.begin_up_to(last)?;
            self.outputs[last]
                .flush()
                .map_err(|error| self.failed(last, error))?;
        }
        Ok(self.sealed)
    }

    fn failed(&self, pack: usize, error: std::io::Error) -> ShieldError {
        ShieldError::io(format!("pack {}", display(&self.packs[pack].name)), error)
    }
}

/// Cuts the contents of all packs into segments.
struct SegmentSource<'a, S> {
    packs: std::iter::Enumerate<std::slice::Iter<'a, PackContent<'a, S>>>,
    current: Option<PackSource<'a, S>>,
}

/// What is left of one pack.
struct PackSource<'a, S> {
    number: usize,
    files: std::slice::Iter<'a, Input<'a, S>>,
    /// The file that is being read, and how much of it has been.
    file: Option<(&'a Input<'a, S>, u64)>,
    position: u64,
    size: u64,
}

impl<'a, S: ReadAt + Sync> SegmentSource<'a, S> {
    fn new(layout: &'a Layout<'a, S>) -> Self {
        Self {
            packs: layout.packs.iter().enumerate(),
            current: None,
        }
    }

    fn read_batch(&mut self, batch: &mut Batch, limit: usize) -> Result<(), ShieldError> {
        batch.used = 0;
        while batch.used < limit {
            if batch.used == batch.segments.len() {
                batch.segments.push(Segment::default());
            }
            if !self.read(&mut batch.segments[batch.used])? {
                return Ok(());
            }
            batch.used += 1;
        }
        Ok(())
    }

    /// Fills a segment; returns whether there was one more.
    fn read(&mut self, segment: &mut Segment) -> Result<bool, ShieldError> {
        loop {
            match &mut self.current {
                Some(pack) if pack.position < pack.size => {
                    pack.read(segment)?;
                    return Ok(true);
                }
                _ => {}
            }
            let Some((number, content)) = self.packs.next() else {
                return Ok(false);
            };
            self.current = Some(PackSource {
                number,
                files: content.files.iter(),
                file: None,
                position: 0,
                size: content.size,
            });
        }
    }
}

impl<S: ReadAt> PackSource<'_, S> {
    fn read(&mut self, segment: &mut Segment) -> Result<(), ShieldError> {
        segment.pack = self.number;
        segment.first = (self.position / CHUNK_SIZE as u64) as u32;
        let length = (self.size - self.position).min(SEGMENT_SIZE as u64) as usize;
        segment.text.resize(length, 0);
        self.position += length as u64;
        self.fill(&mut segment.text)
    }

    fn fill(&mut self, mut text: &mut [u8]) -> Result<(), ShieldError> {
        while !text.is_empty() {
            let (input, position) = match self.file.take() {
                Some(current) => current,
                None => {
                    let input = self.files.next().expect("the pack is as long as its files");
                    check_size(input)?;
                    (input, 0)
                }
            };
            let count = (input.size - position).min(text.len() as u64);
            let (part, rest) = text.split_at_mut(count as usize);
            read_exactly(input, part, position)?;
            text = rest;
            if position + count < input.size {
                self.file = Some((input, position + count));
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
