//! Memory files that are changed in place.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{ptr, slice};

use rustix::io::Errno;

use super::last_error;

/// Lets `edit` change the first `size` bytes of a file, all of which it has, where they stand.
///
/// # Errors
/// `ENOMEM` if it can't be mapped; whatever `edit` returns is the inner result.
pub fn edit<T>(
    file: BorrowedFd,
    size: usize,
    edit: impl FnOnce(&mut [u8]) -> T,
) -> Result<T, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice; its result is checked.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(last_error());
    }
    // SAFETY: the mapping is `size` bytes long, and nobody else has the file: it was made by the caller and is not yet released.
    let result = edit(unsafe { slice::from_raw_parts_mut(address.cast(), size) });
    // SAFETY: the mapping made above; the slice is no longer used.
    unsafe { libc::munmap(address, size) };
    Ok(result)
}
