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
mod contents;
mod directories;
mod durability;
mod embedded;
mod execute;
pub mod health;
mod init;
mod look;
mod names;
mod objects;
mod open;
mod packs;
mod pipe;
mod procfs;
mod program;
mod record;
mod redirect;
mod rights;
mod serve;
mod sockets;
mod synchronous;
mod task;
mod tree;
mod writable;

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, RwLock};

use rustix::fs::{statfs, FileType, OFlags};
use rustix::io::Errno;
use sconify_shield::{Index, ShieldError};

use crate::executor::{Dlopen, Executor, ExitStatus, FileSystem, Launch, Origin};
use crate::kernel::filter::{self, Rules};
use crate::kernel::notify::Listener;
use crate::kernel::process::{self, Image, StartError};
use crate::kernel::signal::SignalMask;
use crate::kernel::standby::Standby;

use contents::{Contents, Form};
use embedded::EmbeddedPacks;
use execute::Plan;
use objects::Objects;
use packs::Packs;
use task::Memories;
use tree::{Name, Node, Place, Tree};
use writable::Inode;

const PROC_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

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
            None => self.tree.writable.of_memory(inode).map(Node::Writable),
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
        let tree = Tree::new(index, launch.injected_files, memories, volumes);

        let mut cookie = [0; 8];
        process::random(&mut cookie)
            .map_err(|error| unsupported(format!("no random numbers: {error}")))?;
        let cookie = u64::from_le_bytes(cookie);
        let blank = contents::blank_program()
            .map_err(|error| unsupported(format!("no memory files: {error}")))?;
        let objects = Objects::new(launch.dlopen);
        let prepare = |program: &[u8], arguments| {
            let environment = launch.environment.clone();
            let directory = &launch.working_directory;
            let first = First::prepare(
                &tree,
                &contents,
                cookie,
                program,
                arguments,
                environment,
                directory,
            )?;
            objects
                .admit(&tree, &contents, first.plan.program)
                .map_err(|error| SupervisorError::Program {
                    path: String::from_utf8_lossy(&tree.path(first.plan.program)).into_owned(),
                    error,
                })?;
            Ok::<_, SupervisorError>(first)
        };
        let First { image, plan, shown } = prepare(&launch.program, launch.arguments)?;
        let standby = health::of_program(&tree, &launch.program).and_then(|check| {
            let null =
                health::null_device().map_err(|error| unsupported(format!("/dev/null: {error}")));
            let prepared = null.and_then(|null| {
                let image = prepare(&check.program, check.arguments)?.image;
                Ok(Standby { image, null })
            });
            prepared
                .inspect_err(|error: &SupervisorError| warn!("the health check will fail: {error}"))
                .ok()
        });
        let rules = Rules {
            cookie,
            fork: launch.fork,
            maps: launch.dlopen != Dlopen::Any,
            volumes: has_volumes,
        };
        let filter = filter::program(rules);
        let started = process::start(&image, &filter, &mask, standby.as_ref())?;
        let child = started.process;
        drop((image, standby));
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
            cookie,
            child,
            blank,
            has_procfs,
            has_sysfs: is_file_system("/sys", SYSFS_MAGIC),
        };
        let workers = serve::Workers::start(shield, (plan, shown));
        if let Some(orders) = started.orders {
            // Before the program, which could take the name.
            if let Err(error) = health::serve(orders) {
                warn!("the health check will fail: its socket can't be made: {error}");
            }
        }
        durability::keep(&workers);
        started.gate.release()?;
        let end = init::supervise(child, &workers.shield().tracing);
        durability::finish(workers.shield());
        workers.shield().tree.writable.objects.clear();
        Ok(end)
    }
}

/// The first program, ready to be executed.
struct First {
    image: Image,
    plan: Plan,
    /// The path that it is known by.
    shown: Vec<u8>,
}

impl First {
    fn prepare(
        tree: &Tree,
        contents: &Contents,
        cookie: u64,
        program: &[u8],
        arguments: Vec<CString>,
        environment: Vec<CString>,
        working_directory: &[u8],
    ) -> Result<Self, SupervisorError> {
        let failed = |path: &[u8]| {
            let path = String::from_utf8_lossy(path).into_owned();
            move |error| SupervisorError::Program { path, error }
        };
        let find = |path: &[u8]| match tree.resolve(path, true)? {
            Place::Node(node) => execute::check_executable(&tree.metadata(node)).map(|()| node),
            Place::Missing | Place::Undeclared => Err(Errno::NOENT),
            Place::Host(_) => Err(Errno::ACCESS),
        };
        let node = find(program).map_err(failed(program))?;
        let plan = Plan::make(tree, contents, node, program, find).map_err(failed(program))?;
        let number = match plan.loader {
            Some(_) => Some(
                execute::loader_number(process::descriptor_limit())
                    .ok_or_else(|| unsupported("the limit of open files is too low"))?,
            ),
            None => None,
        };
        let open = |node, form| {
            let file = contents.get(tree, node, form)?;
            file.reopen(OFlags::RDONLY)
        };
        let loader = match (&plan.loader, number) {
            (Some((loader, path, _)), Some(number)) => {
                Some((open(*loader, Form::Data).map_err(failed(path))?, number))
            }
            _ => None,
        };
        let is_script = !plan.script_arguments.is_empty();
        let script_arguments = plan
            .script_arguments
            .iter()
            .map(|text| process::c_string(text));
        let mut all: Vec<_> = script_arguments
            .collect::<Result<_, _>>()
            .map_err(failed(program))?;
        all.extend(arguments.into_iter().skip(usize::from(is_script)));
        let image = Image {
            program: open(plan.program, Form::Program(number))
                .map_err(failed(&tree.path(plan.program)))?,
            loader,
            arguments: all,
            environment,
            working_directory: open_working_directory(tree, working_directory)?,
            cookie,
        };
        Ok(Self {
            image,
            plan,
            shown: program.to_vec(),
        })
    }
}

fn open_working_directory(tree: &Tree, path: &[u8]) -> Result<OwnedFd, SupervisorError> {
    let attempt = || match tree.resolve(path, true)? {
        Place::Node(Node::Entry(id)) if tree.index().entry(id).is_directory() => {
            directories::open_on_disk(tree, id)
        }
        Place::Node(node @ Node::Writable(inode))
            if tree.metadata(node).is(FileType::Directory) =>
        {
            tree.writable.open_directory(inode)
        }
        Place::Node(_) => Err(Errno::NOTDIR),
        Place::Missing | Place::Undeclared => Err(Errno::NOENT),
        Place::Host(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&*path, flags, rustix::fs::Mode::empty())
        }
    };
    attempt().map_err(|error| SupervisorError::WorkingDirectory {
        path: String::from_utf8_lossy(path).into_owned(),
        error,
    })
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

fn is_file_system(path: &str, magic: i64) -> bool {
    statfs(path).is_ok_and(|status| status.f_type == magic)
}

/// Bytes of verified contents that may be kept beyond what is open: a quarter of the memory that the container may use.
fn budget() -> u64 {
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limit = limits
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    limit.unwrap_or(u64::MAX).min(process::memory().total) / 4
}
