//! Encodes and encrypts the index (format, section 3).

use super::layout::{Layout, Place};
use super::seal::SealedChunk;
use super::{Builder, Content, Metadata};
use crate::cipher::{Cipher, SyntheticNonces, NONCE_SIZE, TAG_SIZE};
use crate::error::ShieldError;
use crate::index::{type_byte, Index, BODY_LIMIT, MAGIC, STORAGE_PACKED, STORAGE_PLAIN};
use crate::keys::{FileSystemKey, RootTag};
use crate::read_at::ReadAt;
use crate::wire::{put_bytes, put_count};

const COMPRESSION_LEVEL: i32 = 3;

/// Checks that a reader will accept the index, by having the reader's own parser read one that lacks only what
/// the contents decide.
pub(super) fn check<S: ReadAt + Sync>(
    builder: &Builder<S>,
    layout: &Layout<'_, S>,
) -> Result<(), ShieldError> {
    match Index::parse(blank_body(builder, layout)?, &builder.key) {
        Ok(_) => Ok(()),
        Err(ShieldError::CorruptIndex(reason)) => Err(ShieldError::BadInput {
            what: "the file system".to_owned(),
            reason,
        }),
        Err(error) => Err(error),
    }
}

/// The most bytes that the index can have: its body has the length that it will have, whatever the contents are.
pub(super) fn largest<S: ReadAt + Sync>(
    builder: &Builder<S>,
    layout: &Layout<'_, S>,
) -> Result<usize, ShieldError> {
    let body = blank_body(builder, layout)?.len();
    let text = size_of::<u64>() + zstd::zstd_safe::compress_bound(body);
    Ok(MAGIC.len() + NONCE_SIZE + text + TAG_SIZE)
}

/// The body, but for what the contents decide: hashes, nonces, tags and stored lengths.
fn blank_body<S: ReadAt + Sync>(
    builder: &Builder<S>,
    layout: &Layout<'_, S>,
) -> Result<Vec<u8>, ShieldError> {
    let chunks: Vec<Vec<SealedChunk>> = layout
        .packs
        .iter()
        .map(|pack| {
            let chunk = |length| SealedChunk {
                stored: length,
                plain: length,
                ..Default::default()
            };
            pack.chunk_lengths().map(chunk).collect()
        })
        .collect();
    let hashes = vec![[0; 32]; layout.plain.len()];
    body(builder, layout, &hashes, &chunks)
}

/// Encodes the body; `hashes` go with [`Layout::plain`], `chunks` with the packs.
pub(super) fn body<S: ReadAt + Sync>(
    builder: &Builder<S>,
    layout: &Layout<'_, S>,
    hashes: &[[u8; 32]],
    chunks: &[Vec<SealedChunk>],
) -> Result<Vec<u8>, ShieldError> {
    let mut out = Vec::new();
    put_count(&mut out, builder.regions.len());
    for (prefix, (kind, reason)) in &builder.regions {
        put_bytes(&mut out, prefix);
        out.push(kind.number());
        put_bytes(&mut out, reason.as_bytes());
    }
    put_count(&mut out, builder.packs.len());
    for (pack, chunks) in builder.packs.iter().zip(chunks) {
        put_bytes(&mut out, &pack.name);
        put_bytes(&mut out, &pack.file);
        put_count(&mut out, chunks.len());
        for chunk in chunks {
            out.extend_from_slice(&chunk.stored.to_le_bytes());
            out.extend_from_slice(&chunk.plain.to_le_bytes());
            out.push(u8::from(chunk.compressed));
            out.extend_from_slice(&chunk.nonce);
            out.extend_from_slice(&chunk.tag);
        }
    }
    put_count(&mut out, builder.entries.len());
    let mut places = layout.places.iter();
    for (path, entry) in &builder.entries {
        put_bytes(&mut out, path);
        put_content(
            &mut out,
            &entry.metadata,
            &entry.content,
            &mut places,
            hashes,
        );
    }
    put_count(&mut out, builder.omitted.len());
    for path in &builder.omitted {
        put_bytes(&mut out, path);
    }
    if out.len() as u64 > BODY_LIMIT {
        return Err(ShieldError::BadInput {
            what: "the file system".to_owned(),
            reason: format!(
                "its index has {} bytes, expected at most {BODY_LIMIT}",
                out.len()
            ),
        });
    }
    Ok(out)
}

/// Encodes what follows the path of an entry.
fn put_content<'a, S>(
    out: &mut Vec<u8>,
    metadata: &Metadata,
    content: &Content<S>,
    places: &mut impl Iterator<Item = &'a Place>,
    hashes: &[[u8; 32]],
) {
    out.push(match content {
        Content::File { .. } => type_byte::FILE,
        Content::Directory => type_byte::DIRECTORY,
        Content::Symlink(_) => type_byte::SYMLINK,
        Content::CharDevice(..) => type_byte::CHAR_DEVICE,
        Content::BlockDevice(..) => type_byte::BLOCK_DEVICE,
        Content::Fifo => type_byte::FIFO,
    });
    out.extend_from_slice(&metadata.mode.to_le_bytes());
    out.extend_from_slice(&metadata.uid.to_le_bytes());
    out.extend_from_slice(&metadata.gid.to_le_bytes());
    out.extend_from_slice(&metadata.mtime.to_le_bytes());
    out.extend_from_slice(&metadata.mtime_nsec.to_le_bytes());
    out.extend_from_slice(&metadata.inode.to_le_bytes());
    put_count(out, metadata.xattrs.len());
    for (name, value) in &metadata.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
    match content {
        Content::File { size, .. } => match places.next().expect("each file has its place") {
            Place::Packed { pack, offset } => {
                out.push(STORAGE_PACKED);
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&pack.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Place::Plain(number) => {
                out.push(STORAGE_PLAIN);
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&hashes[*number]);
            }
        },
        Content::Symlink(target) => put_bytes(out, target),
        Content::CharDevice(major, minor) | Content::BlockDevice(major, minor) => {
            out.extend_from_slice(&major.to_le_bytes());
            out.extend_from_slice(&minor.to_le_bytes());
        }
        Content::Directory | Content::Fifo => {}
    }
}

/// Compresses and encrypts a body.
pub(super) fn seal(key: &FileSystemKey, body: &[u8]) -> Result<(Vec<u8>, RootTag), ShieldError> {
    let compressed = zstd::bulk::compress(body, COMPRESSION_LEVEL)
        .map_err(|error| ShieldError::io("zstd", error))?;
    let mut text = Vec::with_capacity(8 + compressed.len());
    text.extend_from_slice(&(body.len() as u64).to_le_bytes());
    text.extend_from_slice(&compressed);
    let nonces = SyntheticNonces::new(&key.derive(&[b"sconify index v1 nonce"]));
    let nonce = nonces.nonce(MAGIC, &text);
    let cipher = Cipher::new(&key.derive(&[b"sconify index v1 encryption"]));
    let tag = cipher.seal(nonce, MAGIC, &mut text);
    let index = [&MAGIC[..], &nonce, &text, &tag].concat();
    Ok((index, RootTag::new(tag)))
}
