//! What the index knows about a pack.

use std::sync::Arc;

use ring::digest;

use super::parse::corrupt;
use crate::cipher::{Cipher, NONCE_SIZE, TAG_SIZE};
use crate::error::{display, ShieldError};
use crate::keys::FileSystemKey;
use crate::wire::Decoder;
use crate::CHUNK_SIZE;

/// The first bytes of a pack.
const MAGIC: &[u8; 8] = b"SCNPACK1";
/// Bytes in front of the first chunk.
pub(crate) const HEADER_SIZE: usize = 32;
/// Bytes of a chunk's description in the index.
const CHUNK_RECORD_SIZE: usize = 4 + 4 + 1 + NONCE_SIZE + TAG_SIZE;

/// What the index says about one chunk, and where it stands in the pack.
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) stored: u32,
    pub(crate) plain: u32,
    pub(crate) compressed: bool,
    pub(crate) nonce: [u8; NONCE_SIZE],
    pub(crate) tag: [u8; TAG_SIZE],
}

/// A pack as the index describes it.
pub struct Pack {
    number: u32,
    name: Box<[u8]>,
    file: Box<[u8]>,
    id: [u8; 16],
    chunks: Vec<Chunk>,
    length: u64,
    cipher: Cipher,
}

impl Pack {
    /// The pack's number in the index.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The pack's name, unique in the index: the prefix of its region.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Where the pack stands in the image.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// How many chunks it has.
    pub fn chunk_count(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// Bytes of content.
    pub fn plaintext_len(&self) -> u64 {
        self.chunks.last().map_or(0, |last| {
            (self.chunks.len() as u64 - 1) * CHUNK_SIZE as u64 + u64::from(last.plain)
        })
    }

    /// Bytes of the pack itself, header included.
    pub fn stored_len(&self) -> u64 {
        self.length
    }

    pub(crate) fn header(&self) -> [u8; HEADER_SIZE] {
        header(&self.id, self.chunk_count())
    }

    pub(crate) fn chunk(&self, number: u32) -> Option<&Chunk> {
        self.chunks.get(number as usize)
    }

    /// Decrypts a chunk where it stands; on failure `text` holds rubbish.
    pub(crate) fn open_chunk(
        &self,
        number: u32,
        chunk: &Chunk,
        text: &mut [u8],
    ) -> Result<(), crate::cipher::NotAuthentic> {
        let associated = chunk_associated_data(&self.id, number, chunk.plain, chunk.compressed);
        self.cipher.open(chunk.nonce, &associated, chunk.tag, text)
    }

    pub(super) fn parse(
        decoder: &mut Decoder<'_>,
        pack_number: u32,
        key: &FileSystemKey,
    ) -> Result<Arc<Self>, ShieldError> {
        let name = decoder.path()?;
        let file = decoder.path()?;
        let count = decoder.u32()?;
        let mut chunks = Vec::with_capacity(decoder.room_for(count, CHUNK_RECORD_SIZE));
        let mut offset = HEADER_SIZE as u64;
        for number in 0..count {
            let chunk =
                parse_chunk(decoder, offset, number + 1 == count).map_err(|error| match error {
                    ShieldError::CorruptIndex(reason) => corrupt(format!(
                        "chunk {number} of pack {}: {reason}",
                        display(name)
                    )),
                    error => error,
                })?;
            offset += u64::from(chunk.stored);
            chunks.push(chunk);
        }
        let id = pack_id(name);
        let cipher = Cipher::new(&key.derive(&[b"sconify pack v1 encryption", &id]));
        Ok(Arc::new(Self {
            number: pack_number,
            name: name.into(),
            file: file.into(),
            id,
            chunks,
            length: offset,
            cipher,
        }))
    }
}

fn parse_chunk(decoder: &mut Decoder<'_>, offset: u64, last: bool) -> Result<Chunk, ShieldError> {
    let stored = decoder.u32()?;
    let plain = decoder.u32()?;
    let compressed = match decoder.u8()? {
        0 => false,
        1 => true,
        other => return Err(corrupt(format!("unknown compression {other}"))),
    };
    let chunk = Chunk {
        offset,
        stored,
        plain,
        compressed,
        nonce: decoder.array()?,
        tag: decoder.array()?,
    };
    let full = CHUNK_SIZE as u32;
    if plain == 0 || plain > full || (plain < full && !last) {
        return Err(corrupt(format!(
            "it has {plain} bytes of content, expected {full} (in the last one 1 to {full})"
        )));
    }
    if !stored_length_is_valid(stored, plain, compressed) {
        return Err(corrupt(format!(
            "{stored} bytes are stored for {plain} bytes of content"
        )));
    }
    Ok(chunk)
}

/// Whether a chunk may be stored in that many bytes: compression must have saved an eighth.
pub(crate) fn stored_length_is_valid(stored: u32, plain: u32, compressed: bool) -> bool {
    if compressed {
        stored > 0 && stored <= plain - plain.div_ceil(8)
    } else {
        stored == plain
    }
}

/// The identity of the pack of this name, which its keys are derived from.
pub(crate) fn pack_id(name: &[u8]) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"sconify pack v1 id");
    context.update(name);
    context.finish().as_ref()[..16]
        .try_into()
        .expect("SHA-256 gives 32 bytes")
}

/// The first bytes of a pack file.
pub(crate) fn header(id: &[u8; 16], chunk_count: u32) -> [u8; HEADER_SIZE] {
    let mut header = [0; HEADER_SIZE];
    header[..8].copy_from_slice(MAGIC);
    header[8..24].copy_from_slice(id);
    header[24..28].copy_from_slice(&chunk_count.to_le_bytes());
    header
}

/// The nonce of a chunk under a key that encrypts nothing else: its number (u64) and zeros.
pub(crate) fn numbered_nonce(number: u32) -> [u8; NONCE_SIZE] {
    let mut nonce = [0; NONCE_SIZE];
    nonce[..8].copy_from_slice(&u64::from(number).to_le_bytes());
    nonce
}

/// What is authenticated along with a chunk: its place and form.
pub(crate) fn chunk_associated_data(
    id: &[u8; 16],
    number: u32,
    plain: u32,
    compressed: bool,
) -> [u8; 50] {
    let mut data = [0; 50];
    data[..21].copy_from_slice(b"sconify pack v1 chunk");
    data[21..37].copy_from_slice(id);
    data[37..45].copy_from_slice(&u64::from(number).to_le_bytes());
    data[45..49].copy_from_slice(&plain.to_le_bytes());
    data[49] = u8::from(compressed);
    data
}
