//! Memory files that are filled in place.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{ptr, slice};

use rustix::io::Errno;

use super::last_error;

/// Lets `fill` write the content of a file through a shared mapping of its first `size` bytes.
///
/// # Errors
/// `ENOMEM` if it can't be mapped; whatever `fill` returns is the inner result.
pub fn fill<T>(
    file: BorrowedFd,
    size: usize,
    fill: impl FnOnce(&mut [u8]) -> T,
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
    let result = fill(unsafe { slice::from_raw_parts_mut(address.cast(), size) });
    // SAFETY: the mapping made above; the slice is no longer used.
    unsafe { libc::munmap(address, size) };
    Ok(result)
}
