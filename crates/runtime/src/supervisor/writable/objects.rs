//! What the kernel must have itself of a file: directories that are open or entered, pipes, sockets; and of any file of which the program holds the place only.
//!
//! The program holds an ephemeral directory by a real one, which is empty and has no name: it is made, opened and removed at once, so nothing of it remains
//! on the disk or could be changed there. Its device and inode number tell which directory it stands for. Pipes are made alike. Only sockets keep a name as long as
//! they are bound, because the kernel finds a socket by its path: an opaque one in a directory that can't be listed.
//!
//! For what is held with `O_PATH` there is an empty memory file, whatever its type: the kernel does not say which contents are held so.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{
    chmodat, fchmod, fstat, lstat, mkdirat, mknodat, open, openat, unlinkat, AtFlags, FileType,
    Mode, OFlags, CWD,
};
use rustix::io::Errno;

use super::Inode;
use crate::kernel::process;
use crate::supervisor::memory_file::{self, MemoryFile};
use crate::supervisor::task::{join, Task};
use crate::supervisor::tree::Node;

/// Where directories, pipes and sockets may be made, the best first: memory before disks.
const PLACES: &[&str] = &["/dev/shm", "/run", "/tmp", "/var/tmp", "/"];
/// When there are more objects than this, those that no process has are looked for.
const SWEEP_AT: usize = 512;
/// What was handed out within this time may be on its way to its process.
const GRACE: Duration = Duration::from_secs(10);
/// Names of sockets that are remembered after they were removed.
const NAMES: usize = 4096;
/// Bytes of randomness in a name.
const RANDOM: usize = 12;

/// The device and the inode number of something of the kernel's.
type Identity = (u64, u64);

struct Placeholder {
    file: OwnedFd,
    used: Instant,
}

/// What stands for a file that is held by its place only.
struct Held {
    file: Arc<MemoryFile>,
    identity: Identity,
    /// Whether the file has lost its last name: it goes when this goes.
    is_lost: bool,
}

impl Held {
    /// Whether it is just being handed out.
    fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.file) > 1
    }
}

/// When to look next whether somebody holds what has no name: each look goes through all processes, so they become rare.
struct Looks {
    next: Instant,
    pause: Duration,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            next: Instant::now(),
            pause: Duration::from_millis(200),
        }
    }
}

impl Looks {
    fn put_off(&mut self) {
        self.next = Instant::now() + self.pause;
        self.pause = (2 * self.pause).min(Duration::from_secs(60));
    }
}

/// A named pipe.
pub struct Pipe {
    /// It, to be opened.
    pub file: OwnedFd,
    /// How often it has been opened for writing.
    pub writers: AtomicU64,
}

#[derive(Default)]
struct State {
    directories: HashMap<Inode, Placeholder>,
    pipes: HashMap<Inode, (Arc<Pipe>, Instant)>,
    held: HashMap<Node, Held>,
    looks: Looks,
    by_identity: HashMap<Identity, Node>,
    /// The addresses of bound sockets, and what stands there.
    sockets: HashMap<Inode, (Vec<u8>, Identity)>,
    /// What the program called the address of a socket, the latest last.
    given: VecDeque<(Vec<u8>, Vec<u8>)>,
    sweep_at: usize,
}

/// The place for objects, and the directory of the sockets there.
struct Place {
    path: Vec<u8>,
    directory: OwnedFd,
    sockets: OnceLock<Vec<u8>>,
}

/// All objects.
#[derive(Default)]
pub struct Objects {
    state: Mutex<State>,
    place: OnceLock<Option<Place>>,
}

impl Objects {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Result<&Place, Errno> {
        let find = || {
            let found = PLACES.iter().find_map(|path| Place::at(path).ok());
            if found.is_none() {
                error!(
                    "no directory of {PLACES:?} can be written: directories of writable regions can't be opened; let the container have /dev/shm"
                );
            }
            found
        };
        self.place.get_or_init(find).as_ref().ok_or(Errno::ROFS)
    }

    /// Opens the kernel's part of a directory anew; with it come files whose objects were given up because nobody has them.
    ///
    /// # Errors
    /// `EROFS` if there is no place; `EMFILE` and the like.
    pub fn directory(&self, inode: Inode) -> Result<(OwnedFd, Vec<Inode>), Errno> {
        let mut state = self.state();
        let mut unused = Vec::new();
        if !state.directories.contains_key(&inode) {
            unused = state.sweep_if_many();
            let file = self.place()?.directory()?;
            let identity = identity(&file)?;
            state.by_identity.insert(identity, Node::Writable(inode));
            let used = Instant::now();
            state.directories.insert(inode, Placeholder { file, used });
        }
        let placeholder = state.directories.get_mut(&inode).ok_or(Errno::IO)?;
        placeholder.used = Instant::now();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        reopen(&placeholder.file, flags).map(|file| (file, unused))
    }

    /// The kernel's part of a pipe.
    ///
    /// # Errors
    /// `EROFS` if there is no place; `EMFILE` and the like.
    pub fn pipe(&self, inode: Inode) -> Result<Arc<Pipe>, Errno> {
        let mut state = self.state();
        if let Some((pipe, used)) = state.pipes.get_mut(&inode) {
            *used = Instant::now();
            return Ok(Arc::clone(pipe));
        }
        let file = self.place()?.pipe()?;
        let identity = identity(&file)?;
        let pipe = Arc::new(Pipe {
            file,
            writers: AtomicU64::new(0),
        });
        state.by_identity.insert(identity, Node::Writable(inode));
        let entry = (Arc::clone(&pipe), Instant::now());
        state.pipes.insert(inode, entry);
        Ok(pipe)
    }

    /// What stands for a file, called `name`, that the program holds by its place only. It counts as held while the caller has it. With it come files as with
    /// [`Objects::directory`]. `is_lost` says whether the file has no name any more.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn hold(
        &self,
        node: Node,
        name: &[u8],
        is_lost: bool,
    ) -> Result<(Arc<MemoryFile>, Vec<Inode>), Errno> {
        let mut state = self.state();
        if let Some(held) = state.held.get(&node) {
            return Ok((Arc::clone(&held.file), Vec::new()));
        }
        let unused = state.sweep_if_many();
        let file = Arc::new(MemoryFile::seal(&memory_file::create(name)?, 0)?);
        let identity = identity(file.descriptor())?;
        state.by_identity.insert(identity, node);
        let held = Held {
            file: Arc::clone(&file),
            identity,
            is_lost,
        };
        state.held.insert(node, held);
        Ok((file, unused))
    }

    /// Which file an object of the kernel's stands for.
    pub fn of(&self, device: u64, inode: u64) -> Option<Node> {
        self.state().by_identity.get(&(device, inode)).copied()
    }

    /// An address at which a new socket can be bound.
    ///
    /// # Errors
    /// `EROFS` if there is no place.
    pub fn fresh_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(join(self.place()?.sockets()?, &random_name()?))
    }

    /// Notes that a socket was bound at `address`, for which the program has another name.
    ///
    /// # Errors
    /// What the permissions of its name give.
    pub fn bound(&self, inode: Inode, address: &[u8], given: &[u8]) -> Result<(), Errno> {
        // Who may connect is decided by the file that the program sees.
        chmodat(CWD, address, Mode::from_raw_mode(0o777), AtFlags::empty())?;
        let identity = identity_at(address)?;
        let mut state = self.state();
        state.sockets.insert(inode, (address.to_vec(), identity));
        if state.given.len() >= NAMES {
            state.given.pop_front();
        }
        state.given.push_back((address.to_vec(), given.to_vec()));
        Ok(())
    }

    /// The address of a socket that is bound, unless the host has put something else there.
    pub fn address(&self, inode: Inode) -> Option<Vec<u8>> {
        let (address, identity) = self.state().sockets.get(&inode).cloned()?;
        (identity_at(&address) == Ok(identity)).then_some(address)
    }

    /// The socket that is bound at an address.
    pub fn at_address(&self, address: &[u8]) -> Option<Inode> {
        let state = self.state();
        let mut sockets = state.sockets.iter();
        let found = sockets.find(|(_, (bound, _))| bound == address);
        found.map(|(inode, _)| *inode)
    }

    /// What the program called an address.
    pub fn given(&self, address: &[u8]) -> Option<Vec<u8>> {
        let state = self.state();
        let found = state.given.iter().rev().find(|(one, _)| one == address);
        found.map(|(_, given)| given.clone())
    }

    /// Whether sockets were bound at all.
    pub fn has_sockets(&self) -> bool {
        !self.state().given.is_empty()
    }

    /// Gives up the object of a file that has lost its last name; returns whether the program may still have it.
    pub fn removed(&self, inode: Inode) -> bool {
        let mut state = self.state();
        if let Some((address, _)) = state.sockets.remove(&inode) {
            let _ = unlinkat(CWD, address, AtFlags::empty());
        }
        // The program may still have a directory; we need not. Should it be opened once more, it gets another object.
        let is_open =
            state.directories.remove(&inode).is_some() || state.pipes.contains_key(&inode);
        let held = state.held.get_mut(&Node::Writable(inode));
        let is_held = held.map(|held| held.is_lost = true).is_some();
        if is_held {
            state.looks = Looks::default();
        }
        is_open || is_held
    }

    /// Gives up what stands for files that have lost their names and that nobody holds any more: those files, and whether there are others still.
    pub fn sweep_lost(&self) -> (Vec<Inode>, bool) {
        let mut state = self.state();
        if !state.held.values().any(|held| held.is_lost) {
            return (Vec::new(), false);
        }
        if Instant::now() < state.looks.next {
            return (Vec::new(), true);
        }
        let used = in_use();
        let mut unused = Vec::new();
        let State {
            held, by_identity, ..
        } = &mut *state;
        held.retain(|node, held| {
            let is_used = used
                .as_ref()
                .is_none_or(|used| used.contains(&held.identity));
            let keeps = !held.is_lost || held.is_wanted() || is_used;
            if let (false, Node::Writable(inode)) = (keeps, node) {
                by_identity.remove(&held.identity);
                unused.push(*inode);
            }
            keeps
        });
        let is_left = held.values().any(|held| held.is_lost);
        state.looks.put_off();
        (unused, is_left)
    }

    /// Removes what stands on the disk.
    pub fn clear(&self) {
        for (_, (address, _)) in self.state().sockets.drain() {
            let _ = unlinkat(CWD, address, AtFlags::empty());
        }
        if let Some(Some(place)) = self.place.get() {
            if let Some(sockets) = place.sockets.get() {
                let _ = unlinkat(CWD, &**sockets, AtFlags::REMOVEDIR);
            }
        }
    }
}

impl State {
    /// Drops the objects that no process has, if there are many; returns their files.
    fn sweep_if_many(&mut self) -> Vec<Inode> {
        let count = self.by_identity.len();
        if count < self.sweep_at.max(SWEEP_AT) {
            return Vec::new();
        }
        let Some(used) = in_use() else {
            self.sweep_at = 2 * count;
            return Vec::new();
        };
        let now = Instant::now();
        let is_recent = |since: Instant| now.duration_since(since) < GRACE;
        let mut kept = HashSet::new();
        let mut unused = HashSet::new();
        let (directories, pipes, held) = (&self.directories, &self.pipes, &self.held);
        self.by_identity.retain(|identity, node| {
            let held = held.get(node).filter(|held| held.identity == *identity);
            let is_wanted = match (held, &node) {
                (Some(held), _) => held.is_wanted(),
                (None, Node::Writable(inode)) => {
                    let directory = directories.get(inode);
                    let pipe = pipes.get(inode);
                    directory.is_some_and(|directory| is_recent(directory.used))
                        || pipe.is_some_and(|(pipe, since)| {
                            Arc::strong_count(pipe) > 1 || is_recent(*since)
                        })
                }
                (None, _) => false,
            };
            let keeps = used.contains(identity) || is_wanted;
            if let Node::Writable(inode) = node {
                if keeps { &mut kept } else { &mut unused }.insert(*inode);
            }
            keeps
        });
        unused.retain(|inode| !kept.contains(inode));
        self.directories.retain(|inode, _| !unused.contains(inode));
        self.pipes.retain(|inode, _| !unused.contains(inode));
        let by_identity = &self.by_identity;
        self.held
            .retain(|_, held| by_identity.contains_key(&held.identity));
        self.sweep_at = 2 * self.by_identity.len();
        unused.into_iter().collect()
    }
}

impl Place {
    /// Tries a directory of the disk by making one in it.
    fn at(path: &str) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = Self {
            path: path.as_bytes().to_vec(),
            directory: open(path, flags, Mode::empty())?,
            sockets: OnceLock::new(),
        };
        place.directory()?;
        Ok(place)
    }

    /// A directory of the kernel's that has no name.
    fn directory(&self) -> Result<OwnedFd, Errno> {
        let name = random_name()?;
        mkdirat(&self.directory, &*name, Mode::from_raw_mode(0o700))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &*name, flags, Mode::empty());
        unlinkat(&self.directory, &*name, AtFlags::REMOVEDIR)?;
        let file = file?;
        // Who may enter is decided by the directory that the program sees. Nobody can make anything in this one.
        fchmod(&file, Mode::from_raw_mode(0o777))?;
        Ok(file)
    }

    /// A pipe of the kernel's that has no name any more.
    fn pipe(&self) -> Result<OwnedFd, Errno> {
        let name = random_name()?;
        mknodat(
            &self.directory,
            &*name,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &*name, flags, Mode::empty());
        unlinkat(&self.directory, &*name, AtFlags::empty())?;
        file
    }

    /// The directory for sockets: everybody may make some there, nobody can list them.
    fn sockets(&self) -> Result<&[u8], Errno> {
        if let Some(path) = self.sockets.get() {
            return Ok(path);
        }
        let path = join(&self.path, &random_name()?);
        mkdirat(CWD, &*path, Mode::from_raw_mode(0o700))?;
        chmodat(CWD, &*path, Mode::from_raw_mode(0o1733), AtFlags::empty())?;
        Ok(self.sockets.get_or_init(|| path))
    }
}

/// Opens an object anew.
///
/// # Errors
/// `EMFILE` and the like.
pub fn reopen(file: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(
        format!("/proc/self/fd/{}", file.as_raw_fd()),
        flags | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )
}

fn identity(file: &OwnedFd) -> Result<Identity, Errno> {
    let status = fstat(file)?;
    Ok((status.st_dev, status.st_ino))
}

fn identity_at(path: &[u8]) -> Result<Identity, Errno> {
    let status = lstat(path)?;
    Ok((status.st_dev, status.st_ino))
}

fn random_name() -> Result<Vec<u8>, Errno> {
    let mut bytes = [0; RANDOM];
    process::random(&mut bytes)?;
    Ok(format!(".sconify-{}", hex::encode(bytes)).into_bytes())
}

/// What all processes but this one have open or are in; `None` if one of them can't be looked into.
fn in_use() -> Option<HashSet<Identity>> {
    let ours = std::process::id() as i32;
    let mut used = HashSet::new();
    for process in Task::all() {
        if process.0 == ours {
            continue;
        }
        let descriptors = process.numbers("fd");
        let threads = process.numbers("task");
        // A process that has ended meanwhile has nothing open.
        let (descriptors, threads) = match (descriptors, threads) {
            (Ok(descriptors), Ok(threads)) => (descriptors, threads),
            (Err(Errno::ACCESS | Errno::PERM), _) => return None,
            _ => continue,
        };
        let links = descriptors
            .into_iter()
            .map(|number| (process, format!("fd/{number}")));
        let places = threads
            .into_iter()
            .flat_map(|thread| ["cwd", "root"].map(|name| (Task(thread), name.to_owned())));
        for (task, link) in links.chain(places) {
            if let Ok(status) = task.status_of(&link) {
                used.insert((status.st_dev, status.st_ino));
            }
        }
    }
    Some(used)
}
