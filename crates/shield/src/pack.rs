//! Reading packs (format, section 2).

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use ring::digest;
use zeroize::Zeroizing;

use crate::error::{display, ShieldError};
use crate::index::pack::HEADER_SIZE;
use crate::index::{Chunk, Entry, Index, Kind, Pack, Storage};
use crate::read_at::{read_full, ReadAt};
use crate::CHUNK_SIZE;

/// The least work that is worth a thread of its own, in bytes of plaintext.
pub(crate) const BYTES_PER_THREAD: usize = 1 << 20;

/// A pack that has been checked against the index, and the bytes behind it.
pub struct PackReader<R> {
    reader: R,
    pack: Arc<Pack>,
    /// SHA-256 of each chunk as it is stored, where the pack is measured.
    digests: Option<Box<[[u8; 32]]>>,
}

impl<R: ReadAt> PackReader<R> {
    /// Checks the header and the length of a pack. Chunks are checked when they are read.
    ///
    /// # Errors
    /// [`ShieldError::CorruptPack`] and [`ShieldError::Truncated`] if it is not the pack that the index describes,
    /// [`ShieldError::BadInput`] if the index has no such pack, [`ShieldError::Io`].
    pub fn open(reader: R, index: &Index, number: u32) -> Result<Self, ShieldError> {
        let Some(pack) = index.packs().get(number as usize) else {
            return Err(ShieldError::input(
                b"pack",
                format!("the index has no pack {number}"),
            ));
        };
        let file = || display(pack.file());
        let corrupt = |reason| ShieldError::CorruptPack {
            pack: display(pack.name()),
            file: file(),
            reason,
        };
        let found = reader
            .size()
            .map_err(|error| ShieldError::io(file(), error))?;
        let expected = pack.stored_len();
        if found < expected {
            return Err(ShieldError::Truncated {
                what: format!("pack {} in {}", display(pack.name()), file()),
                found,
                expected,
            });
        }
        if found > expected {
            return Err(corrupt(format!(
                "it has {found} bytes, expected {expected}"
            )));
        }
        let mut header = [0; HEADER_SIZE];
        read_full(&reader, &mut header, 0).map_err(|error| ShieldError::io(file(), error))?;
        if header != pack.header() {
            return Err(corrupt(
                "its header is not the one that the index describes".to_owned(),
            ));
        }
        Ok(Self {
            reader,
            pack: Arc::clone(pack),
            digests: None,
        })
    }

    /// This reader, which refuses chunks that do not have these SHA-256 digests as they are stored: one for each chunk. An authentication tag keeps out whoever
    /// lacks the key; a digest keeps out whoever has it too.
    ///
    /// # Errors
    /// [`ShieldError::CorruptPack`] if there are more or fewer digests than chunks.
    pub fn measured(self, digests: &[[u8; 32]]) -> Result<Self, ShieldError> {
        if digests.len() != self.pack.chunk_count() as usize {
            return Err(ShieldError::CorruptPack {
                pack: display(self.pack.name()),
                file: display(self.pack.file()),
                reason: format!(
                    "it has {} chunks, expected {}: as many as digests",
                    self.pack.chunk_count(),
                    digests.len()
                ),
            });
        }
        Ok(Self {
            digests: Some(digests.into()),
            ..self
        })
    }

    /// What the index says about the pack.
    pub fn pack(&self) -> &Pack {
        &self.pack
    }

    /// Decrypts one chunk.
    ///
    /// # Errors
    /// [`ShieldError::CorruptChunk`], [`ShieldError::Io`]; [`ShieldError::BadInput`] if there is no such chunk.
    pub fn read_chunk(&self, number: u32) -> Result<Zeroizing<Vec<u8>>, ShieldError> {
        let Some(chunk) = self.pack.chunk(number) else {
            return Err(ShieldError::input(
                self.pack.name(),
                format!("the pack has no chunk {number}"),
            ));
        };
        let mut text = Zeroizing::new(vec![0; chunk.plain as usize]);
        self.fill(
            u64::from(number) * CHUNK_SIZE as u64,
            &mut text,
            self.pack.file(),
        )?;
        Ok(text)
    }

    /// Fills `target` from `offset` of the pack's plaintext. On every error `target` is wiped.
    ///
    /// # Errors
    /// [`ShieldError::CorruptChunk`], [`ShieldError::Io`]; [`ShieldError::BadInput`] if the pack ends before `target`.
    pub fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), ShieldError> {
        self.check_range(offset, target.len())?;
        self.fill(offset, target, self.pack.file())
            .inspect_err(|_| target.fill(0))
    }

    /// Fills `target` with the whole content of a file. On every error `target` is wiped.
    ///
    /// Big files are decrypted by up to `threads` threads (0 counts as 1), this one included.
    ///
    /// # Errors
    /// As [`PackReader::read`]; [`ShieldError::BadInput`] as well if the entry is no file of this pack or `target`
    /// does not have its size.
    pub fn read_file(
        &self,
        entry: Entry<'_>,
        target: &mut [u8],
        threads: usize,
    ) -> Result<(), ShieldError>
    where
        R: Sync,
    {
        let (offset, size) = self.place_of(entry)?;
        if target.len() != size {
            return Err(ShieldError::input(
                entry.path(),
                format!("the target has {} bytes, expected {size}", target.len()),
            ));
        }
        let threads = threads.min(target.len() / BYTES_PER_THREAD).max(1);
        self.fill_parallel(offset, target, entry.path(), threads)
            .inspect_err(|_| target.fill(0))
    }

    /// Hands the whole content of a file to `sink`, in pieces of at most [`CHUNK_SIZE`] bytes, each with its offset in the file, in no order and from up to
    /// `threads` threads (0 counts as 1), this one included. So no piece leaves the processor's cache between being decrypted and being handed over. On every
    /// error what `sink` got is worthless.
    ///
    /// # Errors
    /// As [`PackReader::read_file`]; [`ShieldError::Io`] with what `sink` gives.
    pub fn copy_file(
        &self,
        entry: Entry<'_>,
        threads: usize,
        sink: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
    ) -> Result<(), ShieldError>
    where
        R: Sync,
    {
        let (offset, size) = self.place_of(entry)?;
        if size == 0 {
            return Ok(());
        }
        let skipped = (offset % CHUNK_SIZE as u64) as usize;
        let pieces = (skipped + size).div_ceil(CHUNK_SIZE);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut scratch = Scratch::default();
            let mut plain = Zeroizing::new(vec![0; CHUNK_SIZE]);
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces {
                    return Ok(());
                }
                let start = (piece * CHUNK_SIZE).saturating_sub(skipped);
                let end = ((piece + 1) * CHUNK_SIZE - skipped).min(size);
                let part = &mut plain[..end - start];
                let copied = self
                    .fill_with(offset + start as u64, part, entry.path(), &mut scratch)
                    .and_then(|()| {
                        sink(start as u64, part)
                            .map_err(|error| ShieldError::io(display(entry.path()), error))
                    });
                if copied.is_err() {
                    // The others need not go on.
                    next.store(pieces, Ordering::Relaxed);
                    return copied;
                }
            }
        };
        let threads = threads.min(size / BYTES_PER_THREAD).max(1);
        thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            workers.into_iter().fold(own, |result, worker| {
                result.and(
                    worker
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                )
            })
        })
    }

    /// Where a file stands in the plaintext of this pack, and how many bytes it has.
    fn place_of(&self, entry: Entry<'_>) -> Result<(u64, usize), ShieldError> {
        let Kind::File {
            size,
            storage: Storage::Packed { pack, offset },
        } = entry.kind()
        else {
            return Err(ShieldError::input(
                entry.path(),
                "it is not a file in a pack",
            ));
        };
        if pack != self.pack.number() {
            return Err(ShieldError::input(
                entry.path(),
                format!("it is in pack {pack}, not in {}", self.pack.number()),
            ));
        }
        let size = usize::try_from(size)
            .map_err(|_| ShieldError::input(entry.path(), "it is larger than memory"))?;
        self.check_range(offset, size)?;
        Ok((offset, size))
    }

    fn check_range(&self, offset: u64, length: usize) -> Result<(), ShieldError> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.pack.plaintext_len() => Ok(()),
            _ => Err(ShieldError::input(
                self.pack.name(),
                format!(
                    "the pack holds {} bytes, asked for {length} at {offset}",
                    self.pack.plaintext_len()
                ),
            )),
        }
    }

    fn fill_parallel(
        &self,
        offset: u64,
        target: &mut [u8],
        file: &[u8],
        threads: usize,
    ) -> Result<(), ShieldError>
    where
        R: Sync,
    {
        // Each share ends at the end of a chunk, so that no chunk is decrypted twice.
        let skipped = (offset % CHUNK_SIZE as u64) as usize;
        let share = (skipped + target.len())
            .div_ceil(threads)
            .next_multiple_of(CHUNK_SIZE)
            .max(CHUNK_SIZE);
        let head = target.len().min(share - skipped);
        let (own, others) = target.split_at_mut(head);
        thread::scope(|scope| {
            let mut position = offset + head as u64;
            let workers: Vec<_> = others
                .chunks_mut(share)
                .map(|part| {
                    let start = position;
                    position += part.len() as u64;
                    scope.spawn(move || self.fill(start, part, file))
                })
                .collect();
            let mut result = self.fill(offset, own, file);
            for worker in workers {
                result = result.and(
                    worker
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                );
            }
            result
        })
    }

    /// Decrypts chunk after chunk into `target`, which lies within the pack.
    fn fill(&self, offset: u64, target: &mut [u8], file: &[u8]) -> Result<(), ShieldError> {
        self.fill_with(offset, target, file, &mut Scratch::default())
    }

    fn fill_with(
        &self,
        mut offset: u64,
        mut target: &mut [u8],
        file: &[u8],
        scratch: &mut Scratch,
    ) -> Result<(), ShieldError> {
        while !target.is_empty() {
            let number = (offset / CHUNK_SIZE as u64) as u32;
            let chunk = self.pack.chunk(number).expect("the range has been checked");
            let start = (offset % CHUNK_SIZE as u64) as usize;
            let (part, rest) = target.split_at_mut(target.len().min(chunk.plain as usize - start));
            let wanted = start..start + part.len();
            self.fill_chunk(number, chunk, wanted, part, scratch, file)?;
            offset += part.len() as u64;
            target = rest;
        }
        Ok(())
    }

    /// Decrypts the `wanted` bytes of one chunk into `part`, which is as long.
    fn fill_chunk(
        &self,
        number: u32,
        chunk: &Chunk,
        wanted: Range<usize>,
        part: &mut [u8],
        scratch: &mut Scratch,
        file: &[u8],
    ) -> Result<(), ShieldError> {
        let corrupt = |reason| ShieldError::CorruptChunk {
            file: display(file),
            pack_file: display(self.pack.file()),
            chunk: number,
            reason,
        };
        let fetch = |text: &mut [u8]| {
            let read = read_full(&self.reader, text, chunk.offset)
                .map_err(|error| ShieldError::io(display(self.pack.file()), error))?;
            if read != text.len() {
                return Err(corrupt("the pack ends within it"));
            }
            if let Some(digests) = &self.digests {
                if digest::digest(&digest::SHA256, text).as_ref() != digests[number as usize] {
                    return Err(corrupt("it is not the one that was measured"));
                }
            }
            self.pack
                .open_chunk(number, chunk, text)
                .map_err(|_| corrupt("it does not authenticate"))
        };
        let whole = wanted.len() == chunk.plain as usize;
        if whole && !chunk.compressed {
            return fetch(part);
        }
        let text = scratch.stored(chunk.stored);
        fetch(text)?;
        if !chunk.compressed {
            part.copy_from_slice(&text[wanted]);
            return Ok(());
        }
        let damaged = || corrupt("it authenticates but does not decompress to its length");
        if whole {
            scratch.decompress(chunk.stored, part).ok_or_else(damaged)
        } else {
            let plain = scratch.decompress_aside(chunk).ok_or_else(damaged)?;
            part.copy_from_slice(&plain[wanted]);
            Ok(())
        }
    }
}

/// Buffers that one thread uses for chunk after chunk; wiped at the end since they hold plaintext.
#[derive(Default)]
struct Scratch {
    stored: Zeroizing<Vec<u8>>,
    plain: Zeroizing<Vec<u8>>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl Scratch {
    fn stored(&mut self, length: u32) -> &mut [u8] {
        self.stored.resize(CHUNK_SIZE, 0);
        &mut self.stored[..length as usize]
    }

    /// Decompresses what [`Scratch::stored`] holds; `None` if it does not fill `target` exactly.
    fn decompress(&mut self, stored: u32, target: &mut [u8]) -> Option<()> {
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(zstd::bulk::Decompressor::new().ok()?),
        };
        let length = decompressor
            .decompress_to_buffer(&self.stored[..stored as usize], target)
            .ok()?;
        (length == target.len()).then_some(())
    }

    fn decompress_aside(&mut self, chunk: &Chunk) -> Option<&[u8]> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(CHUNK_SIZE, 0);
        let result = self.decompress(chunk.stored, &mut plain[..chunk.plain as usize]);
        self.plain = plain;
        result.map(|()| &self.plain[..chunk.plain as usize])
    }
}
