//! Compresses and encrypts segments. Each thread has a [`Worker`]; they share a [`Sealing`].

use ring::digest;

use super::cache::CompressionCache;
use super::source::Segment;
use super::{Builder, NewPack};
use crate::cipher::{Cipher, SyntheticNonces, NONCE_SIZE, TAG_SIZE};
use crate::error::ShieldError;
use crate::index::pack;
use crate::keys::FileSystemKey;
use crate::read_at::ReadAt;
use crate::CHUNK_SIZE;

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

/// A segment as it is written.
#[derive(Default)]
pub(super) struct SealedSegment {
    pub(super) pack: usize,
    pub(super) stored: Vec<u8>,
    pub(super) chunks: Vec<SealedChunk>,
}

/// What one pack is sealed with.
struct PackSealer {
    id: [u8; 16],
    cipher: Cipher,
    /// None if chunks have their numbers for nonces.
    nonces: Option<SyntheticNonces>,
}

impl PackSealer {
    fn new(key: &FileSystemKey, pack: &NewPack, fresh: bool) -> Self {
        let id = pack::pack_id(&pack.name);
        let nonces = || SyntheticNonces::new(&key.derive(&[b"sconify pack v1 nonce", &id]));
        Self {
            id,
            cipher: Cipher::new(&key.derive(&[b"sconify pack v1 encryption", &id])),
            nonces: (!fresh).then(nonces),
        }
    }

    /// Encrypts what is stored of a chunk, where it stands.
    fn seal(
        &self,
        number: u32,
        plain: u32,
        compressed: bool,
        stored: &mut [u8],
    ) -> ([u8; NONCE_SIZE], [u8; TAG_SIZE]) {
        let associated = pack::chunk_associated_data(&self.id, number, plain, compressed);
        let nonce = match &self.nonces {
            Some(nonces) => nonces.nonce(&associated, stored),
            None => pack::numbered_nonce(number),
        };
        (nonce, self.cipher.seal(nonce, &associated, stored))
    }
}

/// What all threads share.
pub(super) struct Sealing<'a> {
    packs: Vec<PackSealer>,
    cache: Option<&'a CompressionCache>,
    digests: bool,
}

impl<'a> Sealing<'a> {
    pub(super) fn new<S>(builder: &'a Builder<S>) -> Self {
        let seal_with = |pack| PackSealer::new(&builder.key, pack, builder.fresh_key);
        Self {
            packs: builder.packs.iter().map(seal_with).collect(),
            cache: builder.cache.as_ref(),
            digests: builder.digests,
        }
    }
}

/// What one thread has to itself.
pub(super) struct Worker {
    compressor: zstd::bulk::Compressor<'static>,
    text: Vec<u8>,
    compressed: Vec<u8>,
    /// A segment as the cache keeps it: for each chunk the length of its compressed form (u32) and that form; length 0 if it is stored as it is.
    form: Vec<u8>,
}

impl Worker {
    pub(super) fn new() -> Result<Self, ShieldError> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(COMPRESSION_LEVEL)
                .map_err(|error| ShieldError::io("zstd", error))?,
            text: Vec::new(),
            compressed: Vec::with_capacity(zstd::zstd_safe::compress_bound(CHUNK_SIZE)),
            form: Vec::new(),
        })
    }

    /// Reads a segment, compresses each chunk if that saves enough, or takes what the cache has, then encrypts. Returns
    /// the bytes that were read.
    pub(super) fn seal<S: ReadAt>(
        &mut self,
        segment: &Segment<'_, S>,
        sealing: &Sealing<'_>,
        sealed: &mut SealedSegment,
    ) -> Result<u64, ShieldError> {
        segment.read(&mut self.text)?;
        let name = sealing
            .cache
            .map(|cache| cache.name(&self.text, &mut self.compressed));
        let known = match (sealing.cache, &name) {
            (Some(cache), Some(name)) => {
                cache.load(name, &mut self.form) && is_form_of(&self.form, self.text.len())
            }
            _ => false,
        };
        if !known {
            self.compress();
            if let (Some(cache), Some(name)) = (sealing.cache, &name) {
                cache.save(name, &self.form, &mut sealed.stored);
            }
        }
        let sealer = &sealing.packs[segment.pack];
        sealed.pack = segment.pack;
        sealed.stored.clear();
        sealed.chunks.clear();
        let mut form = &self.form[..];
        for (number, text) in (segment.first..).zip(self.text.chunks(CHUNK_SIZE)) {
            let compressed = next_chunk(&mut form).expect("the form is that of this text");
            let start = sealed.stored.len();
            sealed.stored.extend_from_slice(compressed.unwrap_or(text));
            let (plain, compressed) = (text.len() as u32, compressed.is_some());
            let stored = &mut sealed.stored[start..];
            let (nonce, tag) = sealer.seal(number, plain, compressed, stored);
            let mut digest = [0; 32];
            if sealing.digests {
                digest.copy_from_slice(digest::digest(&digest::SHA256, stored).as_ref());
            }
            sealed.chunks.push(SealedChunk {
                stored: stored.len() as u32,
                plain,
                compressed,
                nonce,
                tag,
                digest,
            });
        }
        Ok(self.text.len() as u64)
    }

    /// Makes the form of a text.
    fn compress(&mut self) {
        self.form.clear();
        for chunk in self.text.chunks(CHUNK_SIZE) {
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
