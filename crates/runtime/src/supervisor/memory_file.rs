//! Sealed memory files: what a verified content stands in while it is in use.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{fcntl_add_seals, fstat, memfd_create, open, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::{pread, pwrite, Errno};

use crate::kernel::mapping::HALF_A_HUGE_PAGE;

use super::program;

/// Longest name that the kernel takes for a memory file.
const NAME_LIMIT: usize = 249;

/// A sealed, read-only memory file that holds a verified content.
pub struct MemoryFile {
    file: OwnedFd,
    /// Bytes of the content.
    pub size: u64,
    /// The inode number of the memory file.
    pub inode: u64,
    was_asked: AtomicBool,
}

impl MemoryFile {
    /// Seals a file that holds a content of `size` bytes; only the read-only descriptor stays: a file that is open for writing can't be executed.
    ///
    /// # Errors
    /// What sealing and opening it give.
    pub fn seal(draft: &OwnedFd, size: u64) -> Result<Self, Errno> {
        Ok(Self {
            inode: fstat(draft)?.st_ino,
            file: seal(draft)?,
            size,
            was_asked: AtomicBool::new(false),
        })
    }

    /// Whether this is the first time that it is asked about, and it is large enough for huge pages.
    pub fn may_move(&self) -> bool {
        self.size >= HALF_A_HUGE_PAGE && !self.was_asked.swap(true, Ordering::Relaxed)
    }

    /// Opens it anew: an open file with its own offset.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        open(
            format!("/proc/self/fd/{}", self.file.as_raw_fd()),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    /// Up to `length` bytes from `offset` on; fewer only at the end.
    pub fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut done = 0;
        while done < length {
            match pread(&self.file, &mut bytes[done..], offset + done as u64) {
                Ok(0) | Err(_) => break,
                Ok(count) => done += count,
            }
        }
        bytes.truncate(done);
        bytes
    }

    /// The descriptor that is kept.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.file
    }
}

/// A new memory file, to be written, that is called after this path.
///
/// # Errors
/// `EMFILE` and the like; `EACCES` where `vm.memfd_noexec` is 2.
pub fn create(path: &[u8]) -> Result<OwnedFd, Errno> {
    let name = &path[..path.len().min(NAME_LIMIT)];
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 know no such flag; there all memory files are executable.
        Err(Errno::INVAL) => memfd_create(name, flags),
        result => result,
    }
}

/// A memory file with [`program::blank`].
///
/// # Errors
/// What making a memory file gives.
pub fn blank_program() -> Result<OwnedFd, Errno> {
    let draft = create(b"blank")?;
    write(&draft, 0, &program::blank())?;
    seal(&draft)
}

fn seal(draft: &OwnedFd) -> Result<OwnedFd, Errno> {
    fcntl_add_seals(
        draft,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    open(
        format!("/proc/self/fd/{}", draft.as_raw_fd()),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Writes all of the bytes at this offset.
///
/// # Errors
/// `ENOMEM` and the like.
pub fn write(file: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = pwrite(file, bytes, offset)?;
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}
