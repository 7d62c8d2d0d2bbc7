//! Memory files as mappings: changed in place, and put into huge pages.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::{ptr, slice};

use rustix::io::Errno;

use super::{check, last_error};

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
/// The page that one entry of a page directory maps on x86-64.
const HUGE_PAGE: usize = 2 << 20;
/// Files below this size have no use of huge pages.
pub const HALF_A_HUGE_PAGE: u64 = HUGE_PAGE as u64 / 2;

/// Puts the first `size` bytes of a memory file into huge pages, the last ones if they fill at least half of one. It is read as fast as a file of a disk then,
/// whose page cache has large pages, too.
///
/// A kernel gives memory files no huge pages by itself unless the host's administrator has said so (`shmem_enabled`); `MADV_COLLAPSE` asks for them where
/// that is not `deny` (`shmem_huge_global_enabled` in `mm/shmem.c`). What the file holds is copied; whoever has it open or mapped keeps it.
///
/// # Errors
/// `EINVAL` if the kernel can't (before 6.1) or may not; `EAGAIN` if pages are in use just now, `ENOMEM` if no huge page is free: the rest stands in small
/// ones.
pub fn use_huge_pages(file: BorrowedFd, size: u64) -> Result<(), Errno> {
    let length = (size as usize + HUGE_PAGE / 2) / HUGE_PAGE * HUGE_PAGE;
    if length == 0 {
        return Ok(());
    }
    // Only what is aligned to a huge page in the address space, too, can become one.
    let reserved = Window::reserve(length + HUGE_PAGE)?;
    let skipped = reserved.address.align_offset(HUGE_PAGE);
    let (read, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_FIXED);
    // SAFETY: `skipped` is less than a huge page, so this replaces a part of the reserved addresses, to which nothing refers.
    let address = unsafe {
        let address = reserved.address.byte_add(skipped);
        libc::mmap(address, length, read, flags, file.as_raw_fd(), 0)
    };
    if address == libc::MAP_FAILED {
        return Err(last_error());
    }
    for offset in (0..length).step_by(HUGE_PAGE) {
        // SAFETY: a part of the mapping just made; what it holds stays as it is.
        let status =
            unsafe { libc::madvise(address.byte_add(offset), HUGE_PAGE, libc::MADV_COLLAPSE) };
        check(status.into())?;
    }
    Ok(())
}

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

    /// Addresses that nothing else gets.
    fn reserve(size: usize) -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice; its result is checked.
        let address = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_NONE, flags, -1, 0) };
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

    /// How many KiB of a file are mapped as huge pages, where all of it is mapped.
    fn mapped_huge(file: &std::fs::File, size: usize) -> u64 {
        let reserved = Window::reserve(size + 2 * HUGE_PAGE).unwrap();
        let skipped = reserved.address.align_offset(HUGE_PAGE);
        let length = size.next_multiple_of(HUGE_PAGE);
        let (read, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_FIXED);
        // SAFETY: within what was reserved; the pages of the file are read, which has `size` bytes.
        let address = unsafe {
            let address = reserved.address.byte_add(skipped);
            libc::mmap(address, length, read, flags, file.as_raw_fd(), 0);
            for offset in (0..size).step_by(PAGE) {
                address.byte_add(offset).cast::<u8>().read_volatile();
            }
            address as usize
        };
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let from = maps.find(&format!("{address:x}-")).unwrap();
        let line = |name: &str| {
            maps[from..]
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
        };
        let value = line("ShmemPmdMapped:").trim().strip_suffix(" kB").unwrap();
        value.parse().unwrap()
    }

    #[test]
    fn large_files_stand_in_huge_pages_and_small_ones_do_not() {
        let mode = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
        let release = rustix::system::uname();
        let mut numbers = release.release().to_str().unwrap().split(['.', '-']);
        let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
        let can = (number(), number()) >= (6, 1) && mode.is_ok_and(|mode| !mode.contains("[deny]"));
        let half = HUGE_PAGE / 2;
        for (size, huge) in [
            (1, 0),
            (half - 1, 0),
            (half, 1),
            (HUGE_PAGE, 1),
            (3 * half - 1, 1),
            (5 * half, 3),
        ] {
            let mut file = tempfile();
            let content: Vec<u8> = (0..size).map(|at| (at / 7) as u8).collect();
            file.write_all(&content).unwrap();
            rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE).unwrap();
            let expected = if can || huge == 0 {
                Ok(())
            } else {
                Err(Errno::INVAL)
            };
            assert_eq!(
                use_huge_pages(file.as_fd(), size as u64),
                expected,
                "{size}"
            );
            let pages = if can { huge } else { 0 };
            assert_eq!(
                mapped_huge(&file, size),
                pages * (HUGE_PAGE as u64 >> 10),
                "{size}"
            );
            let mut read = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut read).unwrap();
            assert!(read == content, "{size}");
        }
    }

    fn tempfile() -> std::fs::File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        rustix::fs::memfd_create("test", flags).unwrap().into()
    }
}
