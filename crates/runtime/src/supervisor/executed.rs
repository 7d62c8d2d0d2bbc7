//! Files of writable regions that are executed: nobody may write them meanwhile, and what somebody may write can't be executed (`ETXTBSY`).
//!
//! A program runs in a copy of its own, so nothing would go wrong. But installers count on it, and so do programs that replace themselves.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

use rustix::fs::{fstat, FileType, OFlags};
use rustix::io::Errno;

use crate::kernel::process::is_sole_holder;

use super::memory_file::MemoryFile;
use super::task::Task;
use super::tree::Node;
use super::writable::Inode;
use super::Shield;

/// What is executed.
#[derive(Default)]
pub struct Executed {
    /// Files that are about to be executed, and by how many. Held for reading while a file is opened to be written.
    starting: RwLock<HashMap<Inode, usize>>,
    /// The copies in which files were executed.
    copies: Mutex<HashMap<Inode, Vec<Weak<MemoryFile>>>>,
}

/// A file is about to be executed, until this is dropped.
pub struct Starting<'a> {
    executed: &'a Executed,
    inode: Inode,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        let mut starting = self.executed.starting();
        if let Some(count) = starting.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                starting.remove(&self.inode);
            }
        }
    }
}

impl Executed {
    fn starting(&self) -> RwLockWriteGuard<'_, HashMap<Inode, usize>> {
        self.starting
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn copies(&self) -> MutexGuard<'_, HashMap<Inode, Vec<Weak<MemoryFile>>>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes in which copy a file is executed.
    pub fn note(&self, inode: Inode, copy: &Arc<MemoryFile>) {
        let mut copies = self.copies();
        let of_file = copies.entry(inode).or_default();
        of_file.retain(|one| one.upgrade().is_some_and(|one| !Arc::ptr_eq(&one, copy)));
        of_file.push(Arc::downgrade(copy));
    }

    /// Lets a file be opened to be written; what is returned is to be kept until the program has the descriptor.
    ///
    /// # Errors
    /// `ETXTBSY` if the file is executed.
    pub fn write(&self, inode: Inode) -> Result<RwLockReadGuard<'_, impl Sized>, Errno> {
        let starting = self.starting.read().unwrap_or_else(PoisonError::into_inner);
        if starting.contains_key(&inode) || self.runs(inode) {
            return Err(Errno::TXTBSY);
        }
        Ok(starting)
    }

    /// Whether a process runs a file.
    fn runs(&self, inode: Inode) -> bool {
        let mut copies = self.copies();
        let Some(of_file) = copies.get_mut(&inode) else {
            return false;
        };
        // A process that ends lets go of its program a moment late; its link is gone at once.
        let runs = |copy: &Weak<MemoryFile>| {
            copy.upgrade()
                .is_some_and(|copy| !is_sole_holder(copy.descriptor().as_fd()) && is_program(&copy))
        };
        of_file.retain(runs);
        let is_running = !of_file.is_empty();
        if !is_running {
            copies.remove(&inode);
        }
        is_running
    }
}

/// Begins to execute a node, which nobody may write from now on.
///
/// # Errors
/// `ETXTBSY` if somebody may write it already.
pub fn begin(shield: &Shield, node: Node) -> Result<Option<Starting<'_>>, Errno> {
    let Node::Writable(inode) = node else {
        return Ok(None);
    };
    // Here, since it may take a while, and others wait for the lock.
    let _loaded = content(shield, inode)?;
    let executed = &shield.contents.executed;
    let mut starting = executed.starting();
    if is_written(shield, inode)? {
        return Err(Errno::TXTBSY);
    }
    *starting.entry(inode).or_default() += 1;
    Ok(Some(Starting { executed, inode }))
}

/// Whether a process has a file open, or mapped, to write it.
fn is_written(shield: &Shield, inode: Inode) -> Result<bool, Errno> {
    let Some(content) = content(shield, inode)? else {
        return Ok(false);
    };
    if is_sole_holder(content.as_fd()) {
        return Ok(false);
    }
    let status = fstat(&*content)?;
    let identity = (status.st_dev, status.st_ino);
    Ok(others().any(|process| writes(process, identity)))
}

/// The content of a file that was open to be written sometime: what is still the image's was not.
fn content(shield: &Shield, inode: Inode) -> Result<Option<Arc<OwnedFd>>, Errno> {
    let writable = &shield.tree.writable;
    let is_regular = writable.metadata(inode)?.is(FileType::RegularFile);
    if is_regular && writable.pristine(inode).is_none() {
        shield.content(inode).map(Some)
    } else {
        Ok(None)
    }
}

/// Whether a process has something of this device and inode number open, or mapped, to write it.
fn writes(process: Task, identity: (u64, u64)) -> bool {
    let opened = process.numbers("fd").unwrap_or_default();
    let mut found = opened.into_iter().filter(|&descriptor| {
        process
            .descriptor_status(descriptor)
            .is_ok_and(|status| (status.st_dev, status.st_ino) == identity)
    });
    found.any(|descriptor| {
        process
            .descriptor_position(descriptor)
            .is_ok_and(|position| {
                !position.flags.contains(OFlags::PATH)
                    && position.flags & OFlags::ACCMODE != OFlags::RDONLY
            })
    }) || process
        .shared_mappings()
        .is_ok_and(|inodes| inodes.contains(&identity.1))
}

/// Whether a copy is what a process runs.
fn is_program(copy: &MemoryFile) -> bool {
    others().any(|process| {
        process
            .status_of("exe")
            .is_ok_and(|status| status.st_ino == copy.inode)
    })
}

/// All processes but this one.
fn others() -> impl Iterator<Item = Task> {
    let ours = std::process::id() as i32;
    Task::all().filter(move |task| task.0 != ours)
}
