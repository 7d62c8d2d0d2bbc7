//! Verified contents in memory files: made at the first use, shared by all that open them, dropped when nobody does and memory runs short.

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::available_parallelism;

use rustix::fs::{
    fcntl_add_seals, fstat, ftruncate, memfd_create, open, openat2, FileType, MemfdFlags, Mode,
    OFlags, ResolveFlags, SealFlags, CWD,
};
use rustix::io::Errno;
use sconify_shield::{read_plain, Index, Kind, PackReader, ShieldError, Storage};
use zeroize::Zeroizing;

use crate::kernel::mapping;
use crate::kernel::process::is_sole_holder;

use super::program::{self, Interpreter};
use super::tree::{Name, Node, Tree};

/// Contents up to this size are decrypted into a buffer and written: cheaper than the page faults of a fresh mapping.
const WRITTEN_AT_ONCE: u64 = 1 << 20;
/// Longest name that the kernel takes for a memory file.
const NAME_LIMIT: usize = 249;

/// What a memory file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// To be read: the content as it is.
    Data,
    /// To be executed: the loader's path is replaced by that of a descriptor with this number.
    Program(Option<i32>),
}

/// A sealed, read-only memory file that holds a verified content.
pub struct MemoryFile {
    file: OwnedFd,
    size: u64,
    inode: u64,
}

impl MemoryFile {
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

    /// The descriptor that is kept.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.file
    }
}

type Slot = Arc<Mutex<Option<Arc<MemoryFile>>>>;

/// The contents of one tree.
pub struct Contents {
    packs: Vec<OnceLock<PackReader<File>>>,
    slots: Mutex<HashMap<(u64, Form), Slot>>,
    /// Which node a memory file shows, by the file's inode number, and in which form.
    nodes: RwLock<HashMap<u64, (Node, Form)>>,
    /// The device number of memory files.
    device: u64,
    bytes: AtomicU64,
    budget: u64,
}

impl Contents {
    /// Prepares to serve the packs of an index with about `budget` bytes of memory beyond what is in use.
    ///
    /// # Errors
    /// What making a memory file gives, `EACCES` where `vm.memfd_noexec` is 2.
    pub fn new(index: &Index, budget: u64) -> Result<Self, Errno> {
        Ok(Self {
            packs: index.packs().iter().map(|_| OnceLock::new()).collect(),
            slots: Mutex::default(),
            nodes: RwLock::default(),
            device: fstat(create(b"probe")?)?.st_dev,
            bytes: AtomicU64::new(0),
            budget,
        })
    }

    /// The node and form of a memory file of ours.
    pub fn node_of(&self, device: u64, inode: u64) -> Option<(Node, Form)> {
        if device != self.device {
            return None;
        }
        self.nodes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&inode)
            .copied()
    }

    /// The verified content of a node.
    ///
    /// # Errors
    /// `EIO` if it can't be had or does not verify; a line in the log then names the file and the check.
    pub fn get(&self, tree: &Tree, node: Node, form: Form) -> Result<Arc<MemoryFile>, Errno> {
        let key = (tree.metadata(node).inode, form);
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
            return Ok(Arc::clone(file));
        }
        let file = self.make(tree, node, form).map_err(|error| {
            error!("{}: {error}", Name(tree.path(node)));
            error.errno()
        })?;
        let file = Arc::new(file);
        *held = Some(Arc::clone(&file));
        drop(held);
        let before = self.bytes.fetch_add(file.size, Ordering::Relaxed);
        if before + file.size > self.budget {
            self.evict();
        }
        Ok(file)
    }

    fn make(&self, tree: &Tree, node: Node, form: Form) -> Result<MemoryFile, ContentError> {
        let metadata = tree.metadata(node);
        let draft = create(tree.path(node))?;
        match (node, form) {
            (Node::Injected(number), Form::Data) => write(&draft, tree.injected_content(number))?,
            (_, Form::Data) if metadata.size > WRITTEN_AT_ONCE => {
                ftruncate(&draft, metadata.size)?;
                mapping::fill(draft.as_fd(), metadata.size as usize, |target| {
                    self.read(tree, node, target)
                })??;
            }
            _ => {
                let mut content = self.bytes(tree, node)?;
                if let Form::Program(loader) = form {
                    program::redirect_interpreter(&mut content, loader)?;
                }
                write(&draft, &content)?;
            }
        }
        let status = fstat(&draft)?;
        let file = seal(&draft)?;
        self.nodes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(status.st_ino, (node, form));
        Ok(MemoryFile {
            file,
            size: metadata.size,
            inode: status.st_ino,
        })
    }

    /// The verified content of a node as bytes.
    fn bytes(&self, tree: &Tree, node: Node) -> Result<Zeroizing<Vec<u8>>, ContentError> {
        let mut content = Zeroizing::new(vec![0; tree.metadata(node).size as usize]);
        self.read(tree, node, &mut content)?;
        Ok(content)
    }

    fn read(&self, tree: &Tree, node: Node, target: &mut [u8]) -> Result<(), ContentError> {
        let entry = match node {
            Node::Entry(id) => tree.index().entry(id),
            Node::Injected(number) => {
                target.copy_from_slice(tree.injected_content(number));
                return Ok(());
            }
        };
        match entry.kind() {
            Kind::File {
                storage: Storage::Packed { pack, .. },
                ..
            } => {
                let threads = available_parallelism().map_or(1, NonZero::get);
                Ok(self
                    .pack(tree.index(), pack)?
                    .read_file(entry, target, threads)?)
            }
            Kind::File {
                storage: Storage::Plain { .. },
                ..
            } => Ok(read_plain(entry, &open_regular(entry.path())?, target)?),
            _ => Err(ContentError::Kernel(Errno::ACCESS)),
        }
    }

    /// How a program wants to be started.
    ///
    /// # Errors
    /// `EIO` as [`Contents::get`], `ENOEXEC` if it is nothing that can be started.
    pub fn interpreter(&self, tree: &Tree, node: Node) -> Result<Interpreter, Errno> {
        let data = self.get(tree, node, Form::Data)?;
        let file = File::from(data.reopen(OFlags::RDONLY)?);
        program::interpreter(|offset, length| {
            let mut bytes = vec![0; length];
            let mut done = 0;
            while done < length {
                match file.read_at(&mut bytes[done..], offset + done as u64) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => done += count,
                }
            }
            bytes.truncate(done);
            bytes
        })
    }

    fn pack(&self, index: &Index, number: u32) -> Result<&PackReader<File>, ContentError> {
        let cell = self
            .packs
            .get(number as usize)
            .ok_or(ContentError::Kernel(Errno::IO))?;
        if let Some(pack) = cell.get() {
            return Ok(pack);
        }
        let path = index.packs()[number as usize].file();
        let pack = PackReader::open(open_regular(path)?, index, number)?;
        Ok(cell.get_or_init(|| pack))
    }

    /// Drops what nobody has open until a quarter of the budget is free.
    fn evict(&self) {
        let target = self.budget / 4 * 3;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| {
            if self.bytes.load(Ordering::Relaxed) <= target {
                return true;
            }
            // A slot that somebody holds or waits for is in use, and so is a file that a worker is about to hand out.
            let Ok(held) = slot.try_lock() else {
                return true;
            };
            let Some(file) = &*held else {
                return Arc::strong_count(slot) > 1;
            };
            if Arc::strong_count(slot) > 1
                || Arc::strong_count(file) > 1
                || !is_sole_holder(file.file.as_fd())
            {
                return true;
            }
            self.nodes
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&file.inode);
            self.bytes.fetch_sub(file.size, Ordering::Relaxed);
            false
        });
    }
}

/// Why a content can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It does not verify, or can't be read.
    #[error(transparent)]
    Shield(#[from] ShieldError),
    /// Its file on the disk can't be opened.
    #[error("{file} can't be opened: {error}")]
    Open {
        /// The file, as a path in the container.
        file: String,
        /// What the kernel says.
        error: Errno,
    },
    /// It is no program that can be started.
    #[error("it can't be executed: {0}")]
    Program(#[from] program::ProgramError),
    /// The memory file can't be made.
    #[error("making its memory file: {0}")]
    Kernel(#[from] Errno),
}

impl ContentError {
    fn errno(&self) -> Errno {
        match self {
            Self::Kernel(error @ (Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC)) => {
                *error
            }
            Self::Program(error) => error.errno(),
            _ => Errno::IO,
        }
    }
}

fn create(path: &[u8]) -> Result<OwnedFd, Errno> {
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
    write(&draft, &program::blank())?;
    seal(&draft)
}

/// Seals a memory file; only the read-only descriptor stays: a file that is open for writing can't be executed.
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

fn write(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = rustix::io::write(file, bytes)?;
        bytes = &bytes[count..];
    }
    Ok(())
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
