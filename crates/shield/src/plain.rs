//! Authenticated plain files: the content stands in the image, its hash in the index.

use std::io;
use std::sync::mpsc;
use std::thread;

use ring::digest::{digest, Context, SHA256};

use crate::error::{display, ShieldError};
use crate::index::{Entry, Kind, Storage};
use crate::pack::BYTES_PER_THREAD;
use crate::read_at::{read_full, ReadAt};
use crate::CHUNK_SIZE;

/// Pieces that the hasher of a file may be behind.
const PIECES_AHEAD: usize = 4;

/// Reads a plain file into `target` and checks its size and hash. Does not release anything else: on every error
/// `target` is wiped.
///
/// # Errors
/// [`ShieldError::CorruptFile`] if size or hash differ from the index, [`ShieldError::Io`] if reading fails,
/// [`ShieldError::BadInput`] if the entry is no plain file or `target` does not have its size.
pub fn read_plain<R: ReadAt + ?Sized>(
    entry: Entry<'_>,
    reader: &R,
    target: &mut [u8],
) -> Result<(), ShieldError> {
    let result = read_and_check(entry, reader, target);
    if result.is_err() {
        target.fill(0);
    }
    result
}

fn read_and_check<R: ReadAt + ?Sized>(
    entry: Entry<'_>,
    reader: &R,
    target: &mut [u8],
) -> Result<(), ShieldError> {
    let (size, sha256) = expected(entry, reader)?;
    if target.len() as u64 != size {
        return Err(ShieldError::input(
            entry.path(),
            format!("the target has {} bytes, expected {size}", target.len()),
        ));
    }
    let read = read_full(reader, target, 0)
        .map_err(|error| ShieldError::io(display(entry.path()), error))?;
    check(
        entry,
        read as u64,
        digest(&SHA256, target).as_ref() == sha256,
    )
}

/// Hands the content of a plain file to `sink`, piece after piece, each with its offset; what `sink` got counts only if this succeeds.
///
/// If there are `threads` to spare, a big file is hashed by one of its own, behind the one that reads it and hands it on.
///
/// # Errors
/// As [`read_plain`]; [`ShieldError::Io`] with what `sink` gives.
pub fn copy_plain<R: ReadAt + ?Sized>(
    entry: Entry<'_>,
    reader: &R,
    threads: usize,
    sink: &dyn Fn(u64, &[u8]) -> io::Result<()>,
) -> Result<(), ShieldError> {
    let (size, sha256) = expected(entry, reader)?;
    let (copied, digest) = if threads > 1 && size >= BYTES_PER_THREAD as u64 {
        thread::scope(|scope| {
            let (pieces, received) = mpsc::sync_channel::<Vec<u8>>(PIECES_AHEAD);
            let hasher = scope.spawn(move || {
                let mut context = Context::new(&SHA256);
                for piece in received {
                    context.update(&piece);
                }
                context.finish()
            });
            // What is hashed is what `sink` got: a second look at the file could be at another one.
            let copied = copy(reader, size, |offset, piece| {
                let sent = pieces.send(piece.to_vec());
                debug_assert!(sent.is_ok(), "the hasher takes all pieces");
                sink(offset, piece)
            });
            drop(pieces);
            let digest = hasher
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (copied, digest)
        })
    } else {
        let mut context = Context::new(&SHA256);
        let copied = copy(reader, size, |offset, piece| {
            context.update(piece);
            sink(offset, piece)
        });
        (copied, context.finish())
    };
    let copied = copied.map_err(|error| ShieldError::io(display(entry.path()), error))?;
    check(entry, copied, digest.as_ref() == sha256)
}

/// Reads up to `size` bytes and hands them on in pieces; returns how many there were.
fn copy<R: ReadAt + ?Sized>(
    reader: &R,
    size: u64,
    mut sink: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut piece = vec![0; size.min(CHUNK_SIZE as u64) as usize];
    let mut done = 0;
    while done < size {
        let wanted = (size - done).min(CHUNK_SIZE as u64) as usize;
        let read = read_full(reader, &mut piece[..wanted], done)?;
        sink(done, &piece[..read])?;
        done += read as u64;
        if read < wanted {
            break;
        }
    }
    Ok(done)
}

/// The size and hash of a plain file, after a look at the size that it has.
fn expected<'a, R: ReadAt + ?Sized>(
    entry: Entry<'a>,
    reader: &R,
) -> Result<(u64, &'a [u8; 32]), ShieldError> {
    let Kind::File {
        size,
        storage: Storage::Plain { sha256 },
    } = entry.kind()
    else {
        return Err(ShieldError::input(
            entry.path(),
            "it is not an authenticated plain file",
        ));
    };
    let found = reader
        .size()
        .map_err(|error| ShieldError::io(display(entry.path()), error))?;
    if found != size {
        let reason = format!("it has {found} bytes, expected {size}");
        return Err(corrupt(entry, reason));
    }
    Ok((size, sha256))
}

/// Judges what was read of a plain file.
fn check(entry: Entry<'_>, read: u64, is_authentic: bool) -> Result<(), ShieldError> {
    if read != entry.size() {
        let expected = entry.size();
        let reason = format!("it ends after {read} bytes, expected {expected}");
        return Err(corrupt(entry, reason));
    }
    if !is_authentic {
        let reason = "its SHA-256 differs from the one in the index";
        return Err(corrupt(entry, reason.to_owned()));
    }
    Ok(())
}

fn corrupt(entry: Entry<'_>, reason: String) -> ShieldError {
    ShieldError::CorruptFile {
        path: display(entry.path()),
        reason,
    }
}
