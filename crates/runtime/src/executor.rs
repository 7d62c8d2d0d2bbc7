//! The seam behind which a program is launched: the supervisor on plain kernels, an enclave's library OS elsewhere.

use std::ffi::CString;
use std::fs::File;
use std::ops::Range;

use sconify_shield::{FileSystemKey, RootTag};

use zeroize::Zeroizing;

use crate::placeholders::Values;
use crate::volumes::OpenVolume;

/// Where the protected file system stands and what opens it.
pub struct FileSystem {
    /// Where its index and packs are.
    pub origin: Origin,
    /// The file system key.
    pub key: FileSystemKey,
    /// The root tag that the policy keeps.
    pub tag: RootTag,
}

/// Where index and packs of a protected file system are. Nothing of them is verified yet.
pub enum Origin {
    /// In files on the host's disk: the path of the index, as this process sees it; the index names those of the packs.
    Disk(Vec<u8>),
    /// In the file of this process.
    Embedded(Embedded),
}

/// A file system in the file of this process, whose measurement covers it.
pub struct Embedded {
    /// The index, encrypted.
    pub index: Vec<u8>,
    /// SHA-256 of each chunk of each pack, in their order.
    pub digests: Vec<[u8; 32]>,
    /// The file of this process.
    pub file: File,
    /// Where the packs stand in it, without gaps, in the order of the index.
    pub packs: Range<u64>,
    /// What only the right file system key has.
    pub commitment: [u8; 32],
}

/// A file that exists in memory only and shadows whatever stands at its path.
pub struct InjectedFile {
    /// Absolute, normal path.
    pub path: Vec<u8>,
    /// Its content; a secret as a rule.
    pub content: Zeroizing<Vec<u8>>,
    /// Permission bits.
    pub mode: u32,
}

/// Protected files with placeholders, which the program sees with the values in them.
#[derive(Default)]
pub struct Templates {
    /// The files.
    pub files: Vec<Template>,
    /// Every placeholder that they may hold, `$$SCONE::name$$` for instance, with its value.
    pub placeholders: Values,
}

/// A protected file with placeholders.
pub struct Template {
    /// Absolute, normal path.
    pub path: Vec<u8>,
    /// Permission bits that the program sees.
    pub mode: u32,
}

/// What goes on beside the program; when it returns, the program is ended and this process exits with the code that it returns.
pub type Attendant = Box<dyn FnOnce() -> u8 + Send>;

/// Which shared objects the program may map after its start (`SCONE_ALLOW_DLOPEN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dlopen {
    /// 0: none outside the program's own closure.
    Closure,
    /// 1: protected ones.
    Protected,
    /// 2: host paths too.
    Any,
}

/// Everything that a program needs to run. The policy gave it; nothing in it comes from the host.
pub struct Launch {
    /// Path of the program in the protected file system.
    pub program: Vec<u8>,
    /// `argv`, at least one.
    pub arguments: Vec<CString>,
    /// `envp`, `NAME=value`.
    pub environment: Vec<CString>,
    /// The working directory, absolute.
    pub working_directory: Vec<u8>,
    /// The protected file system.
    pub file_system: FileSystem,
    /// Files that exist in memory only.
    pub injected_files: Vec<InjectedFile>,
    /// Protected files whose placeholders are filled in.
    pub templates: Templates,
    /// Volumes, each at a path where the image expects one.
    pub volumes: Vec<OpenVolume>,
    /// Which shared objects may be mapped.
    pub dlopen: Dlopen,
    /// Whether `fork` and its kin may make processes (threads are always allowed).
    pub fork: bool,
    /// Whether whoever may start processes in the container may run commands beside the program, and see what it sees.
    pub debug: bool,
    /// Runs in a thread of its own while the program runs.
    pub attendant: Option<Attendant>,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By `exit` with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

/// Runs one program to its end.
pub trait Executor {
    /// Why it could not be run.
    type Error: std::error::Error;

    /// Runs the program and returns how it ended.
    fn run(&self, launch: Launch) -> Result<ExitStatus, Self::Error>;
}
