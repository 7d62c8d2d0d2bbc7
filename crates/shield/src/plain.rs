//! Authenticated plain files: the content stands in the image, its hash in the index.

use ring::digest;

use crate::error::{display, ShieldError};
use crate::index::{Entry, Kind, Storage};
use crate::read_at::{read_full, ReadAt};

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
    if target.len() as u64 != size {
        return Err(ShieldError::input(
            entry.path(),
            format!("the target has {} bytes, expected {size}", target.len()),
        ));
    }
    let corrupt = |reason| ShieldError::CorruptFile {
        path: display(entry.path()),
        reason,
    };
    let io = |error| ShieldError::io(display(entry.path()), error);
    let found = reader.size().map_err(io)?;
    if found != size {
        return Err(corrupt(format!("it has {found} bytes, expected {size}")));
    }
    let read = read_full(reader, target, 0).map_err(io)?;
    if read as u64 != size {
        return Err(corrupt(format!(
            "it ends after {read} bytes, expected {size}"
        )));
    }
    if digest::digest(&digest::SHA256, target).as_ref() != sha256 {
        return Err(corrupt(
            "its SHA-256 differs from the one in the index".to_owned(),
        ));
    }
    Ok(())
}
