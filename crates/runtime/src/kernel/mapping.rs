//! Mappings: of memory files that are changed in place, and of a part of our own file.

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

/// A part of a file, mapped for reading. Its bytes come from the host's disk when they are first touched, and the host may change them at any time.
pub struct Mapping {
    address: *const u8,
    size: usize,
}

// SAFETY: the mapping is only read, and stays until it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes from `offset` on, a multiple of the page size. A file that becomes shorter later ends this process by a signal.
    ///
    /// # Errors
    /// `ENOMEM`, `EINVAL` and the like.
    pub fn of(file: BorrowedFd, offset: u64, size: usize) -> Result<Self, Errno> {
        if size == 0 {
            return Ok(Self {
                address: ptr::null(),
                size,
            });
        }
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice; its result is checked.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(last_error());
        }
        Ok(Self {
            address: address.cast(),
            size,
        })
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies bytes from `offset` on; returns how many there were.
    pub fn copy(&self, offset: usize, target: &mut [u8]) -> usize {
        let count = self.size.saturating_sub(offset).min(target.len());
        if count > 0 {
            // SAFETY: the range is within the mapping. No reference to it is made, since the host may change it meanwhile; only the copy is ever looked at.
            unsafe {
                ptr::copy_nonoverlapping(self.address.add(offset), target.as_mut_ptr(), count);
            }
        }
        count
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.size > 0 {
            // SAFETY: the mapping made in `of`; nobody has a reference to it.
            unsafe { libc::munmap(self.address.cast_mut().cast(), self.size) };
        }
    }
}
