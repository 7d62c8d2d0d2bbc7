//! Verified contents in memory files: made at the first use, shared by all that open them, dropped when nobody does and memory runs short.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use rustix::fs::{fstat, openat2, FileType, Mode, OFlags, ResolveFlags, CWD};
use rustix::io::{pread, Errno};
use sconify_shield::{EntryId, Kind, Storage, CHUNK_SIZE};

use crate::failure::Failure;
use crate::kernel::mapping;
use crate::kernel::process::is_sole_holder;

use super::content_error::ContentError;
use super::executed::Executed;
use super::huge_pages::HugePages;
use super::init;
use super::memory_file::{create, write, MemoryFile};
use super::packs::Packs;
use super::program::{self, Interpreter};
use super::reservation::{Reservation, Reservations};
use super::room::memory;
use super::tree::{Name, Node, Tree};
use super::writable::{self, Content, Inode};

/// What a memory file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// To be read: the content as it is.
    Data,
    /// To be executed: the loader's path is replaced by that of a descriptor with this number.
    Program(Option<i32>),
}

type Slot = Arc<Mutex<Option<Arc<MemoryFile>>>>;

/// The contents of one tree.
pub struct Contents {
    packs: Packs,
    /// What is executed of the writable regions.
    pub executed: Executed,
    slots: Mutex<HashMap<(u64, Form), Slot>>,
    /// Files of writable regions whose first content is being decrypted.
    loading: Mutex<HashMap<Inode, Arc<Mutex<()>>>>,
    /// How the packed programs that were asked for want to be started.
    interpreters: Mutex<HashMap<EntryId, Interpreter>>,
    /// Which node a memory file shows, by the file's inode number, and in which form.
    nodes: RwLock<HashMap<u64, (Node, Form)>>,
    /// The device number of memory files.
    device: u64,
    /// Sum of [`Contents::cost`] of all memory files.
    used: AtomicU64,
    /// More than this makes us look for files that nobody has open.
    evict_at: AtomicU64,
    budget: u64,
    least_cost: u64,
    huge_pages: HugePages,
    reservations: Reservations,
}

/// Contents of at least so many bytes are made only if there is room for them: the kernel would end the program for the lack of memory without a word.
const LARGE: u64 = 8 << 20;

impl Contents {
    /// Prepares to serve packs with about `budget` bytes of memory and `files` descriptors beyond what is in use.
    ///
    /// # Errors
    /// What making a memory file gives, `EACCES` where `vm.memfd_noexec` is 2.
    pub fn new(packs: Packs, budget: u64, files: u64) -> Result<Self, Errno> {
        Ok(Self {
            packs,
            executed: Executed::default(),
            slots: Mutex::default(),
            loading: Mutex::default(),
            interpreters: Mutex::default(),
            nodes: RwLock::default(),
            device: fstat(create(b"probe")?)?.st_dev,
            used: AtomicU64::new(0),
            evict_at: AtomicU64::new(budget),
            budget,
            least_cost: budget / files.max(1),
            huge_pages: HugePages::default(),
            reservations: Reservations::default(),
        })
    }

    /// The verified content of a node, as a whole.
    ///
    /// # Errors
    /// As [`Contents::get`].
    pub fn plaintext(&self, tree: &Tree, node: Node) -> Result<Vec<u8>, Errno> {
        let file = self.get(tree, node, Form::Data)?;
        Ok(file.bytes(0, tree.metadata(node).size as usize))
    }

    /// Whether this is the device of memory files.
    pub fn is_memory(&self, device: u64) -> bool {
        device == self.device
    }

    /// The node and form of a memory file of ours, by its inode number.
    pub fn node_of(&self, inode: u64) -> Option<(Node, Form)> {
        self.nodes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&inode)
            .copied()
    }

    /// A writable copy of what the image has at an entry of a writable region.
    ///
    /// # Errors
    /// As [`Contents::get`].
    pub fn copy(&self, tree: &Tree, id: EntryId) -> Result<OwnedFd, Errno> {
        let node = Node::Entry(id);
        let work = || {
            let file = writable::create(tree.index().entry(id).path())?;
            self.fill(tree, node, &file)?;
            Ok(file)
        };
        work().map_err(|error| failed(tree, node, &error))
    }

    /// The verified content of a node.
    ///
    /// # Errors
    /// What making it gives, such as `ENOMEM`; a line in the log then names the file. A content that was changed ends this process: an error, which the
    /// program might take for a file that it can do without, would let the host choose what the program does.
    pub fn get(&self, tree: &Tree, node: Node, form: Form) -> Result<Arc<MemoryFile>, Errno> {
        let file = self.get_any(tree, node, form)?;
        if let (Node::Writable(inode), Form::Program(_)) = (node, form) {
            self.executed.note(inode, &file);
        }
        Ok(file)
    }

    fn get_any(&self, tree: &Tree, node: Node, form: Form) -> Result<Arc<MemoryFile>, Errno> {
        let key = (tree.metadata(node).inode, form);
        if let Node::Writable(inode) = node {
            if tree.writable.pristine(inode).is_none() {
                return self.snapshot(tree, node, form);
            }
        }
        let slot = Arc::clone(
            self.slots
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key)
                .or_default(),
        );
        // Whoever comes second waits here until the first one has decrypted.
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*held {
            self.huge_pages.opened_again(file);
            return Ok(Arc::clone(file));
        }
        let file = self
            .make(tree, node, form)
            .map_err(|error| failed(tree, node, &error))?;
        let file = Arc::new(file);
        *held = Some(Arc::clone(&file));
        drop(held);
        let cost = self.cost(&file);
        let used = self.used.fetch_add(cost, Ordering::Relaxed) + cost;
        if used > self.evict_at.load(Ordering::Relaxed) {
            self.evict(self.budget / 4 * 3);
        }
        Ok(file)
    }

    /// The content of a regular file of a writable region, open for reading and writing.
    ///
    /// # Errors
    /// As [`Contents::get`].
    pub fn writable(&self, tree: &Tree, inode: Inode) -> Result<Arc<OwnedFd>, Errno> {
        let system = tree.writable.system(inode);
        if let Content::Memory(file) = system.content(inode.number)? {
            return Ok(file);
        }
        let turn = {
            let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(loading.entry(inode).or_default())
        };
        // Whoever comes second waits here until the first one has decrypted.
        let held = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match system.content(inode.number)? {
            Content::Memory(file) => Ok(file),
            Content::Initial(id) => self
                .copy(tree, id)
                .and_then(|copy| system.load(inode.number, copy)),
        };
        drop(held);
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        loading.remove(&inode);
        file
    }

    /// What a writable file holds now, to be executed: made anew each time, since it may change, but while it is executed. The last one is kept, because it tells
    /// what a process runs.
    fn snapshot(&self, tree: &Tree, node: Node, form: Form) -> Result<Arc<MemoryFile>, Errno> {
        let key = (tree.metadata(node).inode, form);
        if form != Form::Data {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.get(&key).cloned();
            drop(slots);
            let kept =
                slot.and_then(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone());
            if let Some(kept) = kept.filter(|kept| !is_sole_holder(kept.descriptor().as_fd())) {
                return Ok(kept);
            }
        }
        let file = self
            .make(tree, node, form)
            .map_err(|error| failed(tree, node, &error))?;
        let file = Arc::new(file);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::new(Mutex::new(Some(Arc::clone(&file))));
        self.used.fetch_add(self.cost(&file), Ordering::Relaxed);
        let old = slots.insert(key, slot);
        drop(slots);
        let old = old.and_then(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(old) = old {
            self.used.fetch_sub(self.cost(&old), Ordering::Relaxed);
            if is_sole_holder(old.descriptor().as_fd()) {
                let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
                nodes.remove(&old.inode);
            }
        }
        Ok(file)
    }

    fn make(&self, tree: &Tree, node: Node, form: Form) -> Result<MemoryFile, ContentError> {
        let metadata = tree.metadata(node);
        let draft = create(&tree.path(node))?;
        // Anything else has no content: its memory file is what can be held in its place.
        if metadata.is(FileType::RegularFile) {
            self.fill(tree, node, &draft)?;
        }
        if let Form::Program(loader) = form {
            mapping::edit(draft.as_fd(), metadata.size as usize, |content| {
                program::redirect_interpreter(content, loader)
            })??;
        }
        let file = MemoryFile::seal(&draft, metadata.size)?;
        self.nodes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(file.inode, (node, form));
        Ok(file)
    }

    /// Fills a new file with the content of a node. It is written, not mapped: that spares clearing the pages, and their faults.
    fn fill(&self, tree: &Tree, node: Node, file: &OwnedFd) -> Result<(), ContentError> {
        let room = self.find_room(tree, tree.metadata(node).size)?;
        let put = |offset, piece: &[u8]| {
            write(file, offset, piece)?;
            if let Some(room) = &room {
                room.written(piece.len() as u64);
            }
            Ok(())
        };
        let entry = match node {
            Node::Entry(id) => Some(id),
            Node::Writable(inode) => tree.writable.pristine(inode),
            Node::Injected(_) => None,
        };
        if let Some(id) = entry {
            let refused = OnceLock::new();
            let sink = |offset, piece: &[u8]| {
                put(offset, piece).map_err(|error: Errno| {
                    let _ = refused.set(error);
                    error.into()
                })
            };
            let copied = self.packs.copy(tree.index(), tree.index().entry(id), &sink);
            // A lack of memory is no damage.
            return refused.get().map_or(copied, |&error| Err(error.into()));
        }
        let inode = match node {
            Node::Injected(number) => {
                return Ok(put(0, tree.injected_content(number))?);
            }
            Node::Writable(inode) => inode,
            Node::Entry(_) => return Err(ContentError::Kernel(Errno::IO)),
        };
        let source = self.writable(tree, inode)?;
        let mut piece = vec![0; CHUNK_SIZE];
        let mut done = 0;
        loop {
            match pread(&*source, &mut piece, done)? {
                0 => return Ok(()),
                count => {
                    put(done, &piece[..count])?;
                    done += count as u64;
                }
            }
        }
    }

    /// How a program wants to be started.
    ///
    /// # Errors
    /// `EIO` as [`Contents::get`], `ENOEXEC` if it is nothing that can be started.
    pub fn interpreter(&self, tree: &Tree, node: Node) -> Result<Interpreter, Errno> {
        let entry = tree.entry(node).filter(|entry| {
            matches!(
                entry.kind(),
                Kind::File {
                    storage: Storage::Packed { .. },
                    ..
                }
            )
        });
        let Some(entry) = entry else {
            // It is verified as a whole or not at all, and may change.
            let data = self.get(tree, node, Form::Data)?;
            return program::interpreter(|offset, length| data.bytes(offset, length));
        };
        let known = || {
            self.interpreters
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(found) = known().get(&entry.id()) {
            return Ok(found.clone());
        }
        // A few pieces of it tell; as a whole it is wanted in another form.
        let failure = OnceCell::new();
        let found = program::interpreter(|offset, length| {
            let piece = self.packs.piece(tree.index(), entry, offset, length);
            piece.unwrap_or_else(|error| {
                let _ = failure.set(failed(tree, node, &error));
                Vec::new()
            })
        });
        if let Some(&error) = failure.get() {
            return Err(error);
        }
        let found = found?;
        known().insert(entry.id(), found.clone());
        Ok(found)
    }

    /// Bytes that a file counts for: at least so many that the descriptors suffice for the budget.
    fn cost(&self, file: &MemoryFile) -> u64 {
        file.size.max(self.least_cost)
    }

    /// Sets memory aside for a content of this many bytes, if it is a large one.
    ///
    /// # Errors
    /// [`ContentError::Room`] if there is less, whatever is dropped.
    fn find_room(&self, tree: &Tree, size: u64) -> Result<Option<Reservation<'_>>, ContentError> {
        if size < LARGE {
            return Ok(None);
        }
        let free = || memory().obtainable();
        let make_room = || self.release(tree, u64::MAX);
        let reserved = self.reservations.reserve(size, free, make_room);
        reserved
            .map(Some)
            .map_err(|free| ContentError::Room { size, free })
    }

    /// Drops so many bytes of what nobody has open, or all if there are fewer.
    pub fn release(&self, tree: &Tree, bytes: u64) {
        let used = self.used.load(Ordering::Relaxed);
        self.evict(used.saturating_sub(bytes));
        let dropped = used.saturating_sub(self.used.load(Ordering::Relaxed));
        if dropped < bytes {
            tree.writable.trim();
        }
    }

    /// Drops what nobody has open until `target` bytes are used.
    fn evict(&self, target: u64) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| {
            if self.used.load(Ordering::Relaxed) <= target {
                return true;
            }
            // A slot that somebody holds or waits for is in use, and so is a file that a worker is about to hand out.
            let Ok(held) = slot.try_lock() else {
                return true;
            };
            let Some(file) = &*held else {
                return Arc::strong_count(slot) > 1;
            };
            let is_wanted = Arc::strong_count(slot) > 1 || Arc::strong_count(file) > 1;
            if is_wanted || !is_sole_holder(file.descriptor().as_fd()) {
                return true;
            }
            self.nodes
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&file.inode);
            self.used.fetch_sub(self.cost(file), Ordering::Relaxed);
            false
        });
        // If everything is in use, it is not looked at again for each new file.
        let used = self.used.load(Ordering::Relaxed);
        self.evict_at
            .store(self.budget.max(used + used / 4), Ordering::Relaxed);
    }
}

/// Says why a content can't be had, and what the program is told.
fn failed(tree: &Tree, node: Node, error: &ContentError) -> Errno {
    let path = tree.path(node);
    if error.is_tampering() {
        end_tampered(&path, error);
    }
    error!("{}: {error}", Name(&path));
    error.errno()
}

/// Ends the program and this process: nothing goes on with a file system that the host has changed.
fn end_tampered(path: &[u8], error: &ContentError) -> ! {
    let failure = Failure::of_integrity(&Name(path), error);
    failure.report();
    init::end(failure.code().into());
}

/// Opens a regular file on the disk, no component of whose path is a symbolic link.
pub fn open_regular(path: &[u8]) -> Result<File, ContentError> {
    let failed = |error| ContentError::Open {
        file: String::from_utf8_lossy(path).into_owned(),
        error,
    };
    // A pipe in its place must not block us.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(failed)?;
    let status = fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(failed(Errno::INVAL));
    }
    Ok(File::from(file))
}

#[cfg(test)]
#[path = "contents_tests.rs"]
mod tests;
