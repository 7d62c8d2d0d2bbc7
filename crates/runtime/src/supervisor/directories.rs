//! Open directories. The program gets a real, empty directory: that of the disk, or, in a writable region, one without a name. So everything that the kernel
//! does with it works; its listing comes from the index or from the region.
//!
//! The position in a listing is the offset of the open file, which we share: of every directory that we hand out we keep a duplicate. Which one belongs to a
//! descriptor of the program is proven by moving its offset and looking whether the descriptor follows.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::fs::{openat2, seek, tell, FileType, Mode, OFlags, ResolveFlags, SeekFrom, CWD};
use rustix::io::Errno;
use sconify_shield::EntryId;

use super::call::{want, Answer, Base, Call, Identity, Reply};
use super::redirect;
use super::task::{Position, Task};
use super::tree::{Child, Name, Node, Place, Tree};

/// Offsets from here on are probes; listings are shorter.
const PROBE: u64 = 1 << 30;
/// When more duplicates than this are kept, those that nobody else has are looked for.
const SWEEP_AT: usize = 256;

/// The listing of one open directory, by the index.
struct Kept {
    directory: Node,
    file: Arc<OwnedFd>,
}

struct Registry {
    kept: Vec<Kept>,
    sweep_at: usize,
    probes: u64,
}

/// All directories that were handed out.
pub struct Directories(Mutex<Registry>);

impl Default for Directories {
    fn default() -> Self {
        Self(Mutex::new(Registry {
            kept: Vec::new(),
            sweep_at: SWEEP_AT,
            probes: 0,
        }))
    }
}

impl Directories {
    /// Opens a directory for the program.
    ///
    /// # Errors
    /// `EIO` if the disk has something else there; `ENOTDIR` if it is none.
    pub fn open(&self, tree: &Tree, directory: Node) -> Result<Arc<OwnedFd>, Errno> {
        let file = Arc::new(open_anew(tree, directory)?);
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if registry.kept.len() >= registry.sweep_at {
            registry.sweep();
        }
        registry.kept.push(Kept {
            directory,
            file: Arc::clone(&file),
        });
        Ok(file)
    }

    /// Finds the duplicate of a descriptor of the caller.
    fn find(
        &self,
        call: &Call,
        directory: Node,
        descriptor: i32,
        at: Position,
    ) -> Result<Option<Arc<OwnedFd>>, Errno> {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let probe = registry.next_probe();
        // The latest opened first: it is most often the one.
        let candidates = registry
            .kept
            .iter()
            .rev()
            .filter(|kept| kept.directory == directory);
        for Kept { file, .. } in candidates {
            if tell(file) != Ok(at.offset) {
                continue;
            }
            seek(file, SeekFrom::Start(probe))?;
            let position = call.task.descriptor_position(descriptor);
            seek(file, SeekFrom::Start(at.offset))?;
            if position.is_ok_and(|position| position.offset == probe) {
                return Ok(Some(Arc::clone(file)));
            }
        }
        Ok(None)
    }

    /// Drops the duplicates of a directory, whose open files then are the program's alone.
    fn release(&self, directory: Node) {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (released, kept) = std::mem::take(&mut registry.kept)
            .into_iter()
            .partition::<Vec<_>, _>(|kept| kept.directory == directory);
        registry.kept = kept;
        drop(registry);
        for Kept { file, .. } in released {
            // The worker that gave it to the program drops its own in a moment.
            while Arc::strong_count(&file) > 1 {
                thread::yield_now();
            }
        }
    }
}

impl Registry {
    fn next_probe(&mut self) -> u64 {
        self.probes = (self.probes + 1) % PROBE;
        PROBE + self.probes
    }

    /// Drops the duplicates that no process follows.
    fn sweep(&mut self) {
        let mut moved = Vec::with_capacity(self.kept.len());
        for kept in std::mem::take(&mut self.kept) {
            let Ok(offset) = tell(&kept.file) else {
                continue;
            };
            let probe = self.next_probe();
            if seek(&kept.file, SeekFrom::Start(probe)).is_ok() {
                moved.push((kept, offset, probe));
            }
        }
        let followed = offsets_of_others();
        for (kept, offset, probe) in moved {
            // The program may have moved it meanwhile.
            let is_followed = tell(&kept.file) != Ok(probe) || followed.contains(&probe);
            if is_followed || Arc::strong_count(&kept.file) > 1 {
                if tell(&kept.file) == Ok(probe) {
                    let _ = seek(&kept.file, SeekFrom::Start(offset));
                }
                self.kept.push(kept);
            }
        }
        self.sweep_at = (2 * self.kept.len()).max(SWEEP_AT);
    }
}

/// The offsets that look like probes of all descriptors of all processes but this one.
fn offsets_of_others() -> HashSet<u64> {
    let ours = std::process::id() as i32;
    let mut offsets = HashSet::new();
    for task in Task::all().filter(|task| task.0 != ours) {
        let found = task
            .numbers("fdinfo")
            .unwrap_or_default()
            .into_iter()
            .filter_map(|descriptor| task.descriptor_position(descriptor).ok())
            .map(|position| position.offset)
            .filter(|offset| *offset >= PROBE);
        offsets.extend(found);
    }
    offsets
}

/// Opens the directory of the kernel's that stands for one of ours.
///
/// # Errors
/// As [`Directories::open`].
pub fn open_anew(tree: &Tree, directory: Node) -> Result<OwnedFd, Errno> {
    match directory {
        Node::Entry(id) => open_on_disk(tree, id),
        Node::Writable(inode) => tree.writable.open_directory(inode),
        Node::Injected(_) => Err(Errno::NOTDIR),
    }
}

/// Opens the directory of the disk that stands for one of the index. No component of its path may be a link.
///
/// # Errors
/// `EIO` if the disk has something else there.
pub fn open_on_disk(tree: &Tree, directory: EntryId) -> Result<OwnedFd, Errno> {
    let path = tree.index().entry(directory).path();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(|error| match error {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => error,
        _ => {
            error!("{}: the index has a directory here, but the disk of the container has not: {error}", Name(path));
            Errno::IO
        }
    })
}

/// Serves `getdents64`, and `getdents` if `is_old`.
pub fn list(call: &Call, is_old: bool) -> Reply {
    let descriptor = call.int(0);
    // What is no directory, or none with a path, is told so by the kernel.
    let is_directory =
        |status: &rustix::fs::Stat| FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    if !call
        .task
        .descriptor_status(descriptor)
        .is_ok_and(|status| is_directory(&status))
    {
        return match call.task.descriptor_status(descriptor) {
            Err(Errno::ACCESS | Errno::PERM) => Err(Errno::ACCESS),
            _ => Ok(Answer::Pass),
        };
    }
    let directory = match call.base(descriptor)? {
        Base::Inode(inode) => Node::Writable(inode),
        Base::Path(path) => match call.shield.tree.resolve(&path, false)? {
            Place::Node(node @ Node::Entry(_)) if *call.shield.tree.path(node) == path => node,
            Place::Host(_) => return Ok(Answer::Pass),
            _ => {
                error!(
                    "{}: an open directory stands at a path where the index has none",
                    Name(&path)
                );
                return Err(Errno::IO);
            }
        },
    };
    let position = call.task.descriptor_position(descriptor)?;
    if position.flags.contains(OFlags::PATH) {
        return Err(Errno::BADF);
    }
    let file = call
        .shield
        .directories
        .find(call, directory, descriptor, position)?;
    let children = match directory {
        Node::Writable(inode) => {
            let system = call.shield.tree.writable.system(inode);
            system.list(inode.number, position.offset)?
        }
        _ => call.shield.tree.list_from(directory, position.offset),
    };
    let size = call.address(2) as u32 as usize;
    let (records, end) = encode(&children, size, is_old)?;
    call.write(call.address(1), &records)?;
    let length = records.len() as i64;
    match (file, end) {
        (Some(file), Some(end)) => {
            seek(&file, SeekFrom::Start(end))?;
        }
        // Nobody but the caller has this open file: it is made to move it.
        (None, Some(end)) => return redirect::seek(call, descriptor, end, length),
        (_, None) => {}
    }
    Ok(Answer::Value(length))
}

/// Serves `flock`: a lock of an open directory ends when the program closes it, so we must not have it too.
pub fn lock(call: &Call) -> Reply {
    let status = call.task.descriptor_status(call.int(0));
    let is_directory =
        status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Directory);
    if is_directory {
        if let Some(node) = call.node_of_descriptor(call.int(0)) {
            call.shield.directories.release(node);
        }
    }
    Ok(Answer::Pass)
}

/// Serves `getcwd`.
pub fn working_directory(call: &Call) -> Reply {
    let Some(Base::Inode(inode)) = call.base_of(call.task, "cwd")? else {
        return Ok(Answer::Pass);
    };
    let (mut path, is_removed) = call.shield.tree.writable.path(inode);
    if is_removed {
        return Err(Errno::NOENT);
    }
    path.push(0);
    if call.address(1) < path.len() as u64 {
        return Err(Errno::RANGE);
    }
    call.write(call.address(0), &path)?;
    Ok(Answer::Value(path.len() as i64))
}

/// Serves `fchdir`: the kernel lets everybody enter the directories that stand for writable ones.
pub fn enter(call: &Call) -> Reply {
    let descriptor = call.int(0);
    if let Ok(Base::Inode(inode)) = call.base(descriptor) {
        call.permit(Node::Writable(inode), want::EXECUTE, Identity::FileSystem)?;
    }
    Ok(Answer::Pass)
}

/// Encodes as many records as fit, and the position behind them. Each child comes with the position behind it.
fn encode(
    children: &[(Child, u64)],
    size: usize,
    is_old: bool,
) -> Result<(Vec<u8>, Option<u64>), Errno> {
    const HEAD: usize = 18; // inode, offset, length
    let mut bytes = Vec::with_capacity(size.min(32_768));
    let mut position = None;
    for (child, next) in children {
        // Name, its NUL, and the type: before the name in the new layout, in the last byte in the old one.
        let length = (HEAD + child.name.len() + 2).next_multiple_of(8);
        if bytes.len() + length > size {
            break;
        }
        let end = bytes.len() + length;
        bytes.extend(child.inode.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        bytes.extend((length as u16).to_le_bytes());
        let kind = type_of(child.kind);
        if !is_old {
            bytes.push(kind);
        }
        bytes.extend_from_slice(&child.name);
        bytes.resize(end, 0);
        if is_old {
            bytes[end - 1] = kind;
        }
        position = Some(*next);
    }
    if position.is_none() && !children.is_empty() {
        return Err(Errno::INVAL);
    }
    Ok((bytes, position))
}

fn type_of(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => libc::DT_REG,
        FileType::Directory => libc::DT_DIR,
        FileType::Symlink => libc::DT_LNK,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::Fifo => libc::DT_FIFO,
        FileType::Socket => libc::DT_SOCK,
        FileType::Unknown => libc::DT_UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children(count: usize) -> Vec<(Child, u64)> {
        let child = |number: usize| Child {
            name: vec![b'n'; number + 1],
            inode: number as u64 + 5,
            kind: FileType::Directory,
        };
        (0..count).map(child).zip(1..).collect()
    }

    #[test]
    fn listings_are_cut_at_the_end_of_the_buffer_and_go_on_from_there() {
        let children = children(40);
        for is_old in [false, true] {
            let (mut from, mut names) = (0, Vec::new());
            loop {
                let (bytes, end) = encode(&children[from as usize..], 100, is_old).unwrap();
                assert!(bytes.len() <= 100);
                let Some(end) = end else {
                    break;
                };
                let mut at = 0;
                while at < bytes.len() {
                    let length = usize::from(u16::from_le_bytes(
                        bytes[at + 16..at + 18].try_into().unwrap(),
                    ));
                    let record = &bytes[at..at + length];
                    let (kind, name) = if is_old {
                        (record[length - 1], &record[18..])
                    } else {
                        (record[18], &record[19..])
                    };
                    assert_eq!(kind, libc::DT_DIR);
                    names.push(name.iter().take_while(|byte| **byte == b'n').count());
                    from = u64::from_le_bytes(record[8..16].try_into().unwrap());
                    at += length;
                }
                assert_eq!(from, end);
            }
            assert_eq!(names, (1..=40).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_buffer_too_small_for_one_name_is_invalid() {
        assert_eq!(encode(&children(1), 20, false), Err(Errno::INVAL));
        assert_eq!(encode(&[], 20, false), Ok((vec![], None)));
    }
}
