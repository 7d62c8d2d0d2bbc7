//! Runs a program as our child under a seccomp filter and serves its path system calls from the protected file system.
//!
//! What happens, in order: the index is opened and verified; the program and its loader are verified and copied to memory files; a child is
//! forked that puts itself under the filter, hands us its listener and executes the program; worker threads serve what the filter traps; the
//! calling thread does the duties of process 1 until the child ends.
//!
//! The host is the adversary, the program is not. So the index alone decides what a path means, no byte of the disk reaches the program unverified, and whatever
//! can't be decided is refused; but a path that the program gave may be read from its memory and left to the kernel.

mod attributes;
mod call;
mod content_error;
mod contents;
mod crew;
pub mod debugging;
mod directories;
mod durability;
mod embedded;
mod execute;
mod executed;
pub mod health;
mod huge_pages;
mod init;
mod look;
mod memories;
mod memory_file;
mod names;
mod objects;
mod open;
mod packs;
mod pipe;
mod prepare;
mod pressure;
mod procfs;
mod program;
mod record;
mod redirect;
mod reservation;
mod restricted;
mod rights;
mod room;
mod serve;
mod signals;
mod sockets;
mod synchronous;
mod task;
mod templates;
mod tree;
mod visitors;
mod watches;
mod writable;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;

use rustix::fs::{major, minor, statfs};
use rustix::io::Errno;
use sconify_shield::{Index, ShieldError};

use crate::executor::{Dlopen, Executor, ExitStatus, FileSystem, Launch, Origin};
use crate::kernel::filter::{self, Rules};
use crate::kernel::notify::Listener;
use crate::kernel::process::{self, StartError};
use crate::kernel::signal::SignalMask;

use contents::Contents;
use embedded::EmbeddedPacks;
use memories::Memories;
use objects::Objects;
use packs::Packs;
use prepare::{Prepared, Surroundings, Workshop};
use room::budget;
use tree::{Name, Node, Tree};
use writable::Inode;

const PROC_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;
/// Device numbers of `/dev/null`.
const NULL: (u32, u32) = (1, 3);

/// What the workers serve from.
pub(crate) struct Shield {
    listener: Listener,
    tree: Tree,
    contents: Contents,
    directories: directories::Directories,
    memories: Memories,
    objects: Objects,
    /// Held for reading while a thread is traced, for writing while children are reaped.
    tracing: RwLock<()>,
    watches: watches::Watches,
    cookie: u64,
    child: i32,
    /// A program that does nothing, for `exec` of scripts.
    blank: OwnedFd,
    /// Whether `/proc` and `/sys` are the kernel's, not something that the host put there.
    has_procfs: bool,
    has_sysfs: bool,
}

impl Shield {
    /// What a memory file of ours shows.
    fn memory_node(&self, device: u64, inode: u64) -> Option<Node> {
        if !self.contents.is_memory(device) {
            return None;
        }
        match self.contents.node_of(inode) {
            Some((node, _)) => Some(node),
            None => {
                let writable = &self.tree.writable;
                let found = writable.of_memory(inode).map(Node::Writable);
                found.or_else(|| writable.objects.of(device, inode))
            }
        }
    }

    /// The content of a regular file of a writable region.
    ///
    /// # Errors
    /// What making a memory file gives.
    fn content(&self, inode: Inode) -> Result<Arc<OwnedFd>, Errno> {
        self.contents.writable(&self.tree, inode)
    }
}

/// Runs programs on a plain kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Supervisor;

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// The index can't be read.
    #[error("the index {path} can't be read: {reason}")]
    Index {
        /// Where it should stand.
        path: String,
        /// What was found.
        reason: String,
    },
    /// The index does not verify.
    #[error("the index {path}: {source}")]
    NotVerified {
        /// Where it stands.
        path: String,
        /// The check that failed.
        source: ShieldError,
    },
    /// The program, its loader or its interpreter can't be had.
    #[error("{path} can't be executed: {error}")]
    Program {
        /// The program, or what it needs to start.
        path: String,
        /// What `execve` would give.
        error: Errno,
    },
    /// The working directory is not one of the protected file system.
    #[error("the working directory {path}: {error}")]
    WorkingDirectory {
        /// The directory.
        path: String,
        /// What `chdir` would give.
        error: Errno,
    },
    /// A file whose placeholders are to be filled in.
    #[error("{path} can't get the secrets of the session: {reason}")]
    Template {
        /// The file.
        path: String,
        /// What keeps it from them.
        reason: String,
    },
    /// A volume and the image don't fit.
    #[error("volume at {path}: {reason}")]
    Volume {
        /// Where it is to be mounted.
        path: String,
        /// What does not fit.
        reason: String,
    },
    /// The kernel or the container lacks something.
    #[error("{what}; the kernel is {kernel}, 5.19 or later is needed (6.6 for speed)")]
    Unsupported {
        /// What is lacking.
        what: String,
        /// The release of the kernel.
        kernel: String,
    },
}

fn unsupported(what: impl Into<String>) -> SupervisorError {
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    SupervisorError::Unsupported {
        what: what.into(),
        kernel,
    }
}

impl From<StartError> for SupervisorError {
    fn from(error: StartError) -> Self {
        unsupported(error.to_string())
    }
}

impl Executor for Supervisor {
    type Error = SupervisorError;

    /// Runs the program. To be called while the process has one thread; it is left with worker threads, to be ended soon.
    fn run(&self, launch: Launch) -> Result<ExitStatus, SupervisorError> {
        let has_procfs = is_file_system("/proc", PROC_MAGIC);
        if !has_procfs {
            return Err(unsupported("/proc is not mounted"));
        }
        process::protect_self();
        let mask = SignalMask::block_all();
        let (index, packs) = open_file_system(launch.file_system, &launch.program)?;
        let contents =
            Contents::new(packs, budget(), process::descriptor_ceiling() / 2).map_err(|error| {
                unsupported(format!(
                    "executable memory files can't be made ({error}); is vm.memfd_noexec 2?"
                ))
            })?;
        let memories = usize::try_from(process::descriptor_ceiling() / 4).unwrap_or(usize::MAX);
        let volumes = durability::mount(launch.volumes, &index)?;
        let has_volumes = !volumes.is_empty();
        let mut tree = Tree::new(index, launch.injected_files, memories, volumes);
        templates::fill_in(&mut tree, &contents, launch.templates)?;

        let mut cookie = [0; 8];
        process::random(&mut cookie)
            .map_err(|error| unsupported(format!("no random numbers: {error}")))?;
        let cookie = u64::from_le_bytes(cookie);
        let blank = memory_file::blank_program()
            .map_err(|error| unsupported(format!("no memory files: {error}")))?;
        let objects = Objects::new(launch.dlopen);
        let surroundings = Surroundings {
            cookie,
            environment: launch.environment,
            working_directory: launch.working_directory,
            descriptor_limit: process::descriptor_limit(),
        };
        let workshop = Workshop {
            tree: &tree,
            contents: &contents,
            objects: &objects,
            surroundings: &surroundings,
        };
        let Prepared { image, plan } = workshop.prepare(&launch.program, launch.arguments)?;
        let check = health::of_program(&tree, &launch.program).and_then(|check| {
            workshop
                .prepare(&check.program, check.arguments)
                .inspect_err(|error| warn!("the health check will fail: {error}"))
                .ok()
        });
        let null = (check.is_some() || launch.debug)
            .then(null_device)
            .transpose()
            .map_err(|error| unsupported(format!("/dev/null: {error}")))?;
        let rules = Rules {
            cookie,
            fork: launch.fork,
            maps: launch.dlopen != Dlopen::Any,
            volumes: has_volumes,
        };
        let filter = filter::program(rules);
        let started = process::start(&image, &filter, &mask, null.as_ref())?;
        let child = started.process;
        drop(image);
        info!("started {} as process {child}", Name(&launch.program));
        process::raise_descriptor_limit();
        let shield = Shield {
            listener: Listener::new(started.listener),
            tree,
            contents,
            directories: directories::Directories::default(),
            memories: Memories::default(),
            objects,
            tracing: RwLock::new(()),
            watches: watches::Watches::default(),
            cookie,
            child,
            blank,
            has_procfs,
            has_sysfs: is_file_system("/sys", SYSFS_MAGIC),
        };
        let workers = serve::Workers::start(shield, (plan, launch.program));
        // Before the program, which could take the names.
        if let (Some(orders), Some(null)) = (started.orders, null) {
            let orders = Arc::new(Mutex::new(orders));
            if let Some(check) = check {
                health::serve(Arc::clone(&orders), check.image, null)
                    .unwrap_or_else(|error| warn!("the health check will fail: {error}"));
            }
            if launch.debug {
                warn!("this session is in debug mode: whoever may run commands in this container sees what the program sees");
                debugging::serve(orders, Arc::clone(&workers), surroundings)
                    .unwrap_or_else(|error| warn!("debugging commands will fail: {error}"));
            }
        }
        if let Some(attendant) = launch.attendant {
            let end = || init::end(attendant().into());
            let attendant = thread::Builder::new().name("attend".to_owned());
            attendant
                .spawn(end)
                .map_err(|error| unsupported(format!("no thread can be started: {error}")))?;
        }
        durability::keep(&workers);
        started.gate.release()?;
        let end = init::supervise(child, &workers.shield().tracing);
        durability::finish(workers.shield());
        workers.shield().tree.writable.objects.clear();
        Ok(end)
    }
}

fn open_file_system(
    file_system: FileSystem,
    program: &[u8],
) -> Result<(Index, Packs), SupervisorError> {
    let path = match &file_system.origin {
        Origin::Disk(path) => path,
        Origin::Embedded(_) => program,
    };
    let path = String::from_utf8_lossy(path).into_owned();
    let not_verified = |source| SupervisorError::NotVerified {
        path: path.clone(),
        source,
    };
    let unreadable = |reason: String| SupervisorError::Index {
        path: path.clone(),
        reason,
    };
    let open =
        |bytes: &[u8]| Index::open(bytes, &file_system.key, &file_system.tag).map_err(not_verified);
    match file_system.origin {
        Origin::Disk(path) => {
            let mut file =
                contents::open_regular(&path).map_err(|error| unreadable(error.to_string()))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)
                .map_err(|error| unreadable(error.to_string()))?;
            let index = open(&bytes)?;
            let packs = Packs::new(&index, None);
            Ok((index, packs))
        }
        Origin::Embedded(embedded) => {
            if file_system.key.commitment() != embedded.commitment {
                return Err(not_verified(ShieldError::BadKey {
                    what: "the file system key",
                    got: "another one".to_owned(),
                    expected: "the one that the launch manifest commits to",
                }));
            }
            let index = open(&embedded.index)?;
            let packs = EmbeddedPacks::new(&index, embedded).map_err(unreadable)?;
            let packs = Packs::new(&index, Some(packs));
            Ok((index, packs))
        }
    }
}

/// The kernel's `/dev/null`, not something that the host put there.
fn null_device() -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null")?;
    let status = file.metadata()?;
    let device = (major(status.rdev()), minor(status.rdev()));
    if status.file_type().is_char_device() && device == NULL {
        Ok(file.into())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn is_file_system(path: &str, magic: i64) -> bool {
    statfs(path).is_ok_and(|status| status.f_type == magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_null_device_is_the_kernels() {
        assert!(null_device().is_ok());
    }
}
