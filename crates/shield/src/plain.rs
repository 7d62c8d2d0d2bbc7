//! Authenticated plain files: the content stands in the image, its hash in the index.

use std::io;

use ring::digest;

use crate::error::{display, ShieldError};
use crate::index::{Entry, Kind, Storage};
use crate::read_at::{read_full, ReadAt};
use crate::CHUNK_SIZE;

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
        digest::digest(&digest::SHA256, target).as_ref() == sha256,
    )
}

/// Hands the content of a plain file to `sink`, piece after piece, each with its offset; what `sink` got counts only if this succeeds.
///
/// # Errors
/// As [`read_plain`]; [`ShieldError::Io`] with what `sink` gives.
pub fn copy_plain<R: ReadAt + ?Sized>(
    entry: Entry<'_>,
    reader: &R,
    sink: &dyn Fn(u64, &[u8]) -> io::Result<()>,
) -> Result<(), ShieldError> {
    let (size, sha256) = expected(entry, reader)?;
    let io = |error| ShieldError::io(display(entry.path()), error);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; CHUNK_SIZE];
    let mut done = 0;
    while done < size {
        let wanted = (size - done).min(CHUNK_SIZE as u64) as usize;
        let read = read_full(reader, &mut piece[..wanted], done).map_err(io)?;
        context.update(&piece[..read]);
        sink(done, &piece[..read]).map_err(io)?;
        done += read as u64;
        if read < wanted {
            break;
        }
    }
    check(entry, done, context.finish().as_ref() == sha256)
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
