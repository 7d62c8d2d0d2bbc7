//! Opening: `open`, `openat`, `openat2`, `creat`.

use rustix::fs::{openat, openat2, FileType, Mode, OFlags, ResolveFlags, CWD};
use rustix::io::Errno;

use crate::kernel::thread::with_file_system_identity;

use super::call::{want, Answer, Call, Identity, Reply, Target};
use super::contents::Form;
use super::directories::open_anew;
use super::pipe;
use super::redirect;
use super::restricted;
use super::synchronous;
use super::tree::{last, Node};
use super::writable::{Inode, Kind, New, Spot};

/// Flags that an open file keeps; all others act when it is opened.
const KEPT: OFlags = OFlags::ACCMODE
    .union(OFlags::APPEND)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOATIME)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC)
    .union(OFlags::DIRECT);
/// `O_TMPFILE` holds `O_DIRECTORY`; this is what it has beyond that.
const UNNAMED: OFlags = OFlags::TMPFILE.difference(OFlags::DIRECTORY);

/// What an `open` asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The flags.
    pub flags: OFlags,
    /// Permission bits of a new file.
    pub mode: u32,
    /// Whether all links on the path have been followed, so that none may be found any more.
    pub is_walked: bool,
}

impl Wanted {
    /// Whether the content would be read, written or cut.
    fn access(&self) -> u32 {
        let mut wanted = match self.flags & OFlags::ACCMODE {
            OFlags::RDONLY => want::READ,
            OFlags::WRONLY => want::WRITE,
            _ => want::READ | want::WRITE,
        };
        if self.flags.contains(OFlags::TRUNC) {
            wanted |= want::WRITE;
        }
        wanted
    }

    fn only_names(&self) -> bool {
        self.flags.contains(OFlags::PATH)
    }

    fn creates(&self) -> bool {
        self.flags.contains(OFlags::CREATE) && !self.only_names()
    }

    fn is_exclusive(&self) -> bool {
        self.creates() && self.flags.contains(OFlags::EXCL)
    }

    /// Whether a link at the end of the path is followed.
    fn follows(&self) -> bool {
        !self.flags.contains(OFlags::NOFOLLOW) && !self.is_exclusive()
    }

    fn is_unnamed(&self) -> bool {
        self.flags.contains(UNNAMED) && !self.only_names()
    }

    fn check(&self) -> Result<(), Errno> {
        let directory = self.flags.contains(OFlags::DIRECTORY);
        let writes = self.flags & OFlags::ACCMODE != OFlags::RDONLY;
        if (self.creates() && directory) || (self.is_unnamed() && (!directory || !writes)) {
            return Err(Errno::INVAL);
        }
        Ok(())
    }
}

/// Serves an `open` of `path` relative to `directory`.
pub fn open(call: &Call, directory: i32, path: usize, flags: OFlags, mode: u32) -> Reply {
    let wanted = Wanted {
        flags,
        mode,
        is_walked: false,
    };
    open_path(call, directory, &call.path(path)?, wanted)
}

/// Serves `openat2` (`struct open_how`: flags, mode, resolve; 64 bits each).
pub fn open_how(call: &Call) -> Reply {
    const KNOWN: usize = 24;
    const PAGE: usize = 4096;
    let size = call.address(3) as usize;
    if size < KNOWN {
        return Err(Errno::INVAL);
    }
    if size > PAGE {
        return Err(Errno::TOOBIG);
    }
    let mut how = vec![0; size];
    let memories = &call.shield.memories;
    memories.read_exact(call.task, call.address(2), &mut how)?;
    if how[KNOWN..].iter().any(|&byte| byte != 0) {
        return Err(Errno::TOOBIG);
    }
    let word = |at: usize| u64::from_le_bytes(how[at..at + 8].try_into().expect("eight bytes"));
    let (flags, mode, resolve) = (word(0), word(8), word(16));
    let known =
        OFlags::all().bits() | OFlags::TMPFILE.bits() | libc::O_LARGEFILE as u32 | 0o100_000;
    if flags & !u64::from(known) != 0 || mode & !0o7777 != 0 {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::from_bits_retain(flags as u32);
    if mode != 0 && !flags.intersects(OFlags::CREATE | UNNAMED) {
        return Err(Errno::INVAL);
    }
    let beside = flags - (OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC);
    if flags.contains(OFlags::PATH) && !beside.is_empty() {
        return Err(Errno::INVAL);
    }
    let restrictions = restricted::restrictions(resolve)?;
    let path = call.path(1)?;
    let wanted = Wanted {
        flags,
        mode: mode as u32,
        is_walked: !restrictions.is_empty(),
    };
    if restrictions.is_empty() {
        return open_path(call, call.int(0), &path, wanted);
    }
    open_located(call, &path, wanted, |path, follow| {
        restricted::locate(call, call.int(0), path, restrictions, follow)
    })
}

fn open_path(call: &Call, directory: i32, path: &[u8], wanted: Wanted) -> Reply {
    open_located(call, path, wanted, |path, follow| {
        call.locate_name(directory, path, last(follow))
    })
}

/// Opens what `locate` finds by a path and whether a link at its end is followed.
fn open_located(
    call: &Call,
    path: &[u8],
    wanted: Wanted,
    locate: impl Fn(&[u8], bool) -> Result<(Target, Option<Spot>), Errno>,
) -> Reply {
    wanted.check()?;
    // A slash means a directory, which is not made so: that counts before what is there.
    let end = path.iter().rposition(|&byte| byte != b'/');
    if let Some(end) = end.filter(|end| wanted.creates() && end + 1 < path.len()) {
        return match locate(&path[..=end], false)? {
            (Target::Host, _) => Ok(Answer::Pass),
            _ => Err(Errno::ISDIR),
        };
    }
    loop {
        let found = locate(path, wanted.follows())?;
        if let Some(answer) = open_found(call, found, wanted)? {
            return Ok(answer);
        }
    }
}

/// Opens what a path leads to; `None` if there was nothing and somebody else has made something meanwhile.
fn open_found(
    call: &Call,
    found: (Target, Option<Spot>),
    wanted: Wanted,
) -> Result<Option<Answer>, Errno> {
    let reply = match found {
        (Target::Node(Node::Writable(inode)), spot) => open_writable(call, inode, spot, wanted),
        (Target::Node(node), _) => open_node(call, node, wanted),
        (Target::Missing, Some(spot)) if wanted.creates() => return create(call, spot, wanted),
        (Target::Missing, None) if wanted.creates() => Err(Errno::ROFS),
        (Target::Missing | Target::Undeclared, _) => Err(Errno::NOENT),
        (Target::Host, _) => Ok(Answer::Pass),
        (Target::HostAt(path), _) => open_host(call, &path, wanted),
    };
    reply.map(Some)
}

/// What an open of something of this type can't be.
fn check_type(kind: FileType, wanted: Wanted) -> Result<(), Errno> {
    if wanted.is_exclusive() {
        return Err(Errno::EXIST);
    }
    match kind {
        FileType::Symlink if wanted.flags.contains(OFlags::DIRECTORY) => Err(Errno::NOTDIR),
        FileType::Symlink if wanted.only_names() => Ok(()),
        FileType::Symlink => Err(Errno::LOOP),
        FileType::Directory if wanted.only_names() || wanted.is_unnamed() => Ok(()),
        FileType::Directory if wanted.access() & want::WRITE != 0 || wanted.creates() => {
            Err(Errno::ISDIR)
        }
        FileType::Directory => Ok(()),
        _ if wanted.flags.contains(OFlags::DIRECTORY) => Err(Errno::NOTDIR),
        _ => Ok(()),
    }
}

fn open_node(call: &Call, node: Node, wanted: Wanted) -> Reply {
    let metadata = call.shield.tree.metadata(node);
    let kind = FileType::from_raw_mode(metadata.mode);
    check_type(kind, wanted)?;
    if wanted.only_names() {
        return hold(call, node, wanted);
    }
    match kind {
        FileType::Directory if wanted.is_unnamed() => return Err(Errno::ROFS),
        FileType::Directory | FileType::RegularFile => {}
        // Device nodes and pipes of an image mean the host's devices.
        _ => return Err(Errno::ACCESS),
    }
    call.permit(node, wanted.access(), Identity::FileSystem)?;
    let close_on_exec = wanted.flags.contains(OFlags::CLOEXEC);
    if kind == FileType::Directory {
        let kept = call.shield.directories.open(&call.shield.tree, node)?;
        return call.give(&*kept, close_on_exec);
    }
    let file = call
        .shield
        .contents
        .get(&call.shield.tree, node, Form::Data)?;
    // These show in F_GETFL; none of them changes what a regular file gives.
    let kept = wanted.flags & (OFlags::NONBLOCK | OFlags::NOATIME | OFlags::APPEND);
    call.give(file.reopen(OFlags::RDONLY | kept)?, close_on_exec)
}

/// Gives the caller a descriptor that holds a place and nothing else: `O_PATH`.
fn hold(call: &Call, node: Node, wanted: Wanted) -> Reply {
    let tree = &call.shield.tree;
    let close_on_exec = wanted.flags.contains(OFlags::CLOEXEC);
    if tree.metadata(node).is(FileType::Directory) {
        let directory = open_anew(tree, node)?;
        return redirect::give_place(call, &directory, close_on_exec);
    }
    let held = tree.writable.hold(node, &tree.path(node))?;
    redirect::give_place(call, held.descriptor(), close_on_exec)
}

fn open_writable(call: &Call, inode: Inode, spot: Option<Spot>, wanted: Wanted) -> Reply {
    let node = Node::Writable(inode);
    let writable = &call.shield.tree.writable;
    let metadata = writable.metadata(inode)?;
    let kind = FileType::from_raw_mode(metadata.mode);
    if kind != FileType::Directory && spot.as_ref().is_some_and(|spot| spot.slash) {
        return Err(Errno::NOTDIR);
    }
    check_type(kind, wanted)?;
    if wanted.only_names() {
        return hold(call, node, wanted);
    }
    if wanted.is_unnamed() && kind == FileType::Directory {
        return create_unnamed(call, inode, wanted);
    }
    call.permit(node, wanted.access(), Identity::FileSystem)?;
    let close_on_exec = wanted.flags.contains(OFlags::CLOEXEC);
    match kind {
        FileType::Directory => {
            let kept = call.shield.directories.open(&call.shield.tree, node)?;
            call.give(&*kept, close_on_exec)
        }
        FileType::RegularFile => {
            if wanted.flags.contains(OFlags::NOATIME) && !call.subject()?.owns(&metadata) {
                return Err(Errno::PERM);
            }
            give_content(call, inode, spot.as_ref(), wanted)
        }
        FileType::Fifo => pipe::open(call, inode, wanted.flags),
        _ => Err(Errno::NXIO),
    }
}

/// Gives the caller a new open file of a content.
fn give_content(call: &Call, inode: Inode, spot: Option<&Spot>, wanted: Wanted) -> Reply {
    let writes = wanted.access() & want::WRITE != 0;
    let executed = &call.shield.contents.executed;
    let content = call.shield.content(inode)?;
    let _not_executed = writes.then(|| executed.write(inode)).transpose()?;
    call.shield.watches.opening(inode, spot, &content);
    if writes {
        let system = call.shield.tree.writable.system(inode);
        system.spoil(inode.number);
    }
    let mut flags = wanted.flags & (KEPT | OFlags::TRUNC);
    if call.shield.tree.writable.volume(inode).is_some() {
        // There is no disk beneath that could be written directly; older kernels refuse it.
        flags.remove(OFlags::DIRECT);
    }
    let file = super::writable::reopen(&content, flags)?;
    if synchronous::concerns(call.shield, inode, flags) {
        return synchronous::give(call, file, wanted.flags.contains(OFlags::CLOEXEC));
    }
    call.give_alone(file, wanted.flags.contains(OFlags::CLOEXEC))
}

/// Makes a file at a free name and opens it; `None` if somebody was faster.
fn create(call: &Call, spot: Spot, wanted: Wanted) -> Result<Option<Answer>, Errno> {
    if spot.slash {
        return Err(Errno::ISDIR);
    }
    let mode = wanted.mode & 0o7777 & !call.credentials()?.umask;
    let system = call.shield.tree.writable.system(spot.directory);
    let new = new_in(call, spot.directory, Kind::File, mode)?;
    match system.create(spot.directory.number, &spot.name, &new) {
        // What was made in this call may be opened in every way, whatever its mode says.
        Ok(number) => {
            call.shield.watches.created(&spot, None, false);
            let inode = Inode {
                number,
                ..spot.directory
            };
            // There is nothing to cut.
            let flags = wanted.flags - OFlags::TRUNC;
            give_content(call, inode, Some(&spot), Wanted { flags, ..wanted }).map(Some)
        }
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(error),
    }
}

fn create_unnamed(call: &Call, directory: Inode, wanted: Wanted) -> Reply {
    let mode = wanted.mode & 0o7777 & !call.credentials()?.umask;
    let new = new_in(call, directory, Kind::File, mode)?;
    let writable = &call.shield.tree.writable;
    let linkable = !wanted.flags.contains(OFlags::EXCL);
    let system = writable.system(directory);
    let number = system.create_unnamed(directory.number, &new, linkable)?;
    let inode = Inode {
        number,
        ..directory
    };
    let reply = give_content(call, inode, None, wanted);
    writable.removed(inode);
    reply
}

/// Something new in a writable directory, in which the caller must be allowed to make it.
///
/// # Errors
/// `EACCES`.
pub fn new_in(call: &Call, directory: Inode, kind: Kind, mode: u32) -> Result<New, Errno> {
    let node = Node::Writable(directory);
    call.permit(node, want::WRITE | want::EXECUTE, Identity::FileSystem)?;
    let parent = call.shield.tree.writable.metadata(directory)?;
    let file_type = match &kind {
        Kind::Directory => FileType::Directory,
        _ => FileType::RegularFile,
    };
    let (uid, gid, mode) = call.subject()?.new_file(&parent, mode, file_type);
    Ok(New {
        kind,
        mode,
        uid,
        gid,
    })
}

/// Opens a path of the host for the caller: the kernel would not find it by the caller's own arguments, which pass a link of the index.
fn open_host(call: &Call, path: &[u8], wanted: Wanted) -> Reply {
    if wanted.only_names() {
        let walked = [OFlags::empty(), OFlags::NOFOLLOW][usize::from(wanted.is_walked)];
        return redirect::open_place(call, path, wanted.flags | walked);
    }
    let credentials = call.credentials()?;
    let makes = wanted.creates() || wanted.is_unnamed();
    let mode = if makes { wanted.mode } else { 0 };
    let mode = Mode::from_raw_mode(mode & 0o7777 & !credentials.umask);
    let flags = wanted.flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = with_file_system_identity(
        credentials.uid.file_system,
        credentials.gid.file_system,
        || match wanted.is_walked {
            true => openat2(CWD, path, flags, mode, ResolveFlags::NO_SYMLINKS),
            false => openat(CWD, path, flags, mode),
        },
    )?;
    call.give(file, wanted.flags.contains(OFlags::CLOEXEC))
}
