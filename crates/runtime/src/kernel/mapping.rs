//! Memory files that are changed in place.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
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
    let window = Window::open(file, size)?;
    // SAFETY: the mapping is `size` bytes long, and nobody else has the file: it was made by the caller and is not yet released.
    Ok(edit(unsafe {
        slice::from_raw_parts_mut(window.address.cast(), size)
    }))
}

const PAGE: usize = 4096;

/// A memory file that others have too, mapped to be written.
pub struct Window {
    address: *mut libc::c_void,
    size: usize,
}

// SAFETY: the address is that of a mapping which lives as long as this, and which only the kernel writes to.
unsafe impl Send for Window {}

impl Window {
    /// Maps the first `size` bytes of a file.
    ///
    /// # Errors
    /// `ENOMEM` if it can't be mapped; `EINVAL` if `size` is 0.
    pub fn open(file: BorrowedFd, size: usize) -> Result<Self, Errno> {
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
        Ok(Self { address, size })
    }

    /// How many bytes are mapped.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies up to `length` bytes of `source`, from its `position` on, to `offset`; returns how many. The kernel copies, so that a file that has become
    /// shorter meanwhile is an error instead of a signal.
    ///
    /// The times of the file stay: the kernel moves them when a page is mapped because it is written to, so the pages are mapped for reading first, which
    /// lets them be written too. Should one be taken away in between, the times move.
    ///
    /// # Errors
    /// `EFAULT` if the file ends before `offset`; what reading gives.
    pub fn copy_from(
        &self,
        source: impl AsFd,
        position: u64,
        offset: usize,
        length: usize,
    ) -> Result<usize, Errno> {
        let length = length.min(self.size.saturating_sub(offset));
        let position = i64::try_from(position).map_err(|_| Errno::FAULT)?;
        let begin = offset.min(self.size) / PAGE * PAGE;
        // SAFETY: a range of whole pages of the mapping, whose last one the kernel gave as a whole; nothing is read by us.
        let mapped = unsafe {
            libc::madvise(
                self.address.byte_add(begin),
                (offset + length).next_multiple_of(PAGE) - begin,
                libc::MADV_POPULATE_READ,
            )
        };
        if mapped != 0 {
            return Err(last_error());
        }
        // SAFETY: the kernel writes to `length` bytes from `offset` on, all of them in the mapping. No reference to what it holds exists anywhere.
        let count = unsafe {
            libc::pread(
                source.as_fd().as_raw_fd(),
                self.address.byte_add(offset.min(self.size)),
                length,
                position,
            )
        };
        usize::try_from(count).map_err(|_| last_error())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, of which nobody else knows the address.
        unsafe { libc::munmap(self.address, self.size) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_window_writes_to_the_file_and_leaves_its_times() {
        let mut file = tempfile();
        file.write_all(&[1; 10]).unwrap();
        let mut source = tempfile();
        source.write_all(b"abcdef").unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        let window = Window::open(file.as_fd(), 10).unwrap();
        assert_eq!(window.copy_from(&source, 2, 8, 4), Ok(2));
        assert_eq!(window.copy_from(&source, 1, 0, 3), Ok(3));
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"bcd\x01\x01\x01\x01\x01cd");
        assert_eq!(file.metadata().unwrap().modified().unwrap(), before);
    }

    #[test]
    fn a_file_that_has_become_shorter_is_an_error() {
        let mut file = tempfile();
        file.write_all(&[1; 3 * 4096]).unwrap();
        let mut source = tempfile();
        source.write_all(&[2; 4096]).unwrap();
        let window = Window::open(file.as_fd(), 3 * 4096).unwrap();
        file.set_len(1).unwrap();
        assert_eq!(
            window.copy_from(&source, 0, 2 * 4096, 4096),
            Err(Errno::FAULT)
        );
    }

    fn tempfile() -> std::fs::File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        rustix::fs::memfd_create("test", flags).unwrap().into()
    }
}
