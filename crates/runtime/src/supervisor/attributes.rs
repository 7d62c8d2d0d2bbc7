//! Calls that change what a file is like, not where it stands: mode, owner, times, length, extended attributes.

use rustix::fs::{fstat, ftruncate, FileType};
use rustix::io::Errno;

use super::call::{want, Answer, Call, Identity, Reply, Target};
use super::names::{refuse_detour, At};
use super::rights::STICKY;
use super::tree::{last, Node};
use super::writable::{now, Change, Inode, Setting, Spot, Time};
use crate::kernel::signal;

/// Longest value of an extended attribute.
const VALUE_LIMIT: usize = 1 << 16;
/// Longest name of one.
const NAME_LIMIT: usize = 255;

/// Which file a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A path; whether a final link is followed.
    Path(At, bool),
    /// A path, or the descriptor in front of it if the path is empty (or null).
    PathOrDescriptor(At, bool),
    /// A descriptor.
    Descriptor(i32),
}

/// What a call that changes something may change.
enum Changed {
    /// This file, which the path may have ended with a name of.
    Inode(Inode, Option<Spot>),
    /// The kernel's business.
    Kernel,
}

impl Subject {
    /// The path in argument `index`, taken from the flags in argument `flags`.
    pub fn with_flags(call: &Call, directory: i32, index: usize, flags: usize) -> Self {
        let flags = call.int(flags);
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        if flags & libc::AT_EMPTY_PATH != 0 {
            Self::PathOrDescriptor((directory, index), follow)
        } else {
            Self::Path((directory, index), follow)
        }
    }

    /// The node, or `None` if the kernel shall answer.
    ///
    /// # Errors
    /// `ENOENT`; what the path gives.
    pub fn node(self, call: &Call) -> Result<Option<Node>, Errno> {
        match self.target(call)?.0 {
            Target::Node(node) => Ok(Some(node)),
            Target::Missing | Target::Undeclared => Err(Errno::NOENT),
            Target::Host => Ok(None),
            // Reached through a link of the index only, and nothing that programs look for there.
            Target::HostAt(_) => Err(Errno::OPNOTSUPP),
        }
    }

    fn target(self, call: &Call) -> Result<(Target, Option<Spot>), Errno> {
        let of_descriptor = |descriptor| {
            let node = if descriptor == libc::AT_FDCWD {
                call.node_of_link(call.task, "cwd")
            } else {
                call.node_of_descriptor(descriptor)
            };
            Ok((node.map_or(Target::Host, Target::Node), None))
        };
        match self {
            Self::Descriptor(descriptor) => {
                let found = of_descriptor(descriptor)?;
                if matches!(found.0, Target::Node(_)) && call.task.holds_place(descriptor)? {
                    return Err(Errno::BADF);
                }
                Ok(found)
            }
            Self::PathOrDescriptor((descriptor, index), _) if call.address(index) == 0 => {
                of_descriptor(descriptor)
            }
            Self::PathOrDescriptor((directory, index), follow) => {
                let path = call.path(index)?;
                if path.is_empty() {
                    of_descriptor(directory)
                } else {
                    call.locate_name(directory, &path, last(follow))
                }
            }
            Self::Path((directory, index), follow) => {
                call.locate_name(directory, &call.path(index)?, last(follow))
            }
        }
    }

    fn changed(self, call: &Call) -> Result<Changed, Errno> {
        let (target, spot) = self.target(call)?;
        match target {
            Target::Node(Node::Writable(inode))
                if !call.shield.tree.writable.is_read_only(inode) =>
            {
                Ok(Changed::Inode(inode, spot))
            }
            Target::Node(_) => Err(Errno::ROFS),
            Target::Missing | Target::Undeclared => Err(Errno::NOENT),
            Target::Host => Ok(Changed::Kernel),
            Target::HostAt(path) => refuse_detour(&path).map(|_| Changed::Kernel),
        }
    }
}

/// Lets `work` change the file that a call is about; returned is whether attributes were.
fn change(call: &Call, subject: Subject, work: impl FnOnce(Inode) -> Result<bool, Errno>) -> Reply {
    match subject.changed(call)? {
        Changed::Inode(inode, spot) => {
            let watches = &call.shield.watches;
            if work(inode)? && !watches.are_idle() {
                let writable = &call.shield.tree.writable;
                let place = spot.map(|spot| (spot.directory, spot.name));
                let place = place.or_else(|| writable.place(inode));
                let is_directory = writable.metadata(inode)?.is(FileType::Directory);
                watches.changed(inode, place, is_directory);
            }
            Ok(Answer::Value(0))
        }
        Changed::Kernel => Ok(Answer::Pass),
    }
}

fn apply(call: &Call, inode: Inode, change: Change) -> Result<bool, Errno> {
    let system = call.shield.tree.writable.system(inode);
    system.change(inode.number, change)?;
    // Who sets one time only says that the file was read or written, of which its content tells.
    Ok(!matches!(
        change,
        Change::Times(None, _) | Change::Times(_, None)
    ))
}

/// Serves `chmod` and its kin.
pub fn change_mode(call: &Call, subject: Subject, mode: u32) -> Reply {
    change(call, subject, |inode| {
        let metadata = call.shield.tree.writable.metadata(inode)?;
        if metadata.is(FileType::Symlink) {
            return Err(Errno::OPNOTSUPP);
        }
        let mode = call.subject()?.change_mode(&metadata, mode)?;
        apply(call, inode, Change::Mode(mode))
    })
}

/// Serves `chown` and its kin.
pub fn change_owner(call: &Call, subject: Subject, uid: u32, gid: u32) -> Reply {
    let given = |id: u32| (id != u32::MAX).then_some(id);
    change(call, subject, |inode| {
        let metadata = call.shield.tree.writable.metadata(inode)?;
        let mode = call
            .subject()?
            .change_owner(&metadata, given(uid), given(gid))?;
        let uid = given(uid).unwrap_or(metadata.uid);
        let gid = given(gid).unwrap_or(metadata.gid);
        apply(call, inode, Change::Owner(uid, gid, mode))
    })
}

/// How the times of a file are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Two `timespec`, with `UTIME_NOW` and `UTIME_OMIT`.
    Nanoseconds,
    /// Two `timeval`.
    Microseconds,
    /// Two seconds.
    Seconds,
}

/// One of the two times that are given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Now,
    Omit,
    At(Time),
}

impl Clock {
    fn read(self, call: &Call, index: usize) -> Result<[Moment; 2], Errno> {
        let address = call.address(index);
        if address == 0 {
            return Ok([Moment::Now; 2]);
        }
        let mut bytes = [0; 32];
        let length = if self == Self::Seconds { 16 } else { 32 };
        let memories = &call.shield.memories;
        memories.read_exact(call.task, address, &mut bytes[..length])?;
        let word = |at: usize| {
            i64::from_le_bytes(bytes[8 * at..8 * at + 8].try_into().expect("eight bytes"))
        };
        let moment = |at: usize| {
            let (seconds, part) = match self {
                Self::Seconds => return Ok(Moment::At((word(at), 0))),
                _ => (word(2 * at), word(2 * at + 1)),
            };
            match (self, part) {
                (Self::Nanoseconds, libc::UTIME_NOW) => Ok(Moment::Now),
                (Self::Nanoseconds, libc::UTIME_OMIT) => Ok(Moment::Omit),
                (Self::Nanoseconds, 0..1_000_000_000) => Ok(Moment::At((seconds, part as u32))),
                (Self::Microseconds, 0..1_000_000) => Ok(Moment::At((seconds, part as u32 * 1000))),
                _ => Err(Errno::INVAL),
            }
        };
        Ok([moment(0)?, moment(1)?])
    }
}

/// Serves `utimensat` and its kin; the times are in argument `times`.
pub fn change_times(call: &Call, subject: Subject, times: usize, clock: Clock) -> Reply {
    let moments = match clock.read(call, times) {
        // Nanoseconds are looked at only when the path is found.
        Err(Errno::INVAL) if clock == Clock::Nanoseconds => {
            return change(call, subject, |_| Err(Errno::INVAL));
        }
        moments => moments?,
    };
    if moments == [Moment::Omit; 2] {
        return Ok(Answer::Value(0));
    }
    change(call, subject, |inode| {
        let metadata = call.shield.tree.writable.metadata(inode)?;
        if !call.subject()?.owns(&metadata) {
            // Who may write may say that it was now.
            if moments != [Moment::Now; 2] {
                return Err(Errno::PERM);
            }
            call.permit(Node::Writable(inode), want::WRITE, Identity::FileSystem)?;
        }
        let time = |moment| match moment {
            Moment::Now => Some(now()),
            Moment::Omit => None,
            Moment::At(time) => Some(time),
        };
        apply(
            call,
            inode,
            Change::Times(time(moments[0]), time(moments[1])),
        )
    })
}

/// Serves `truncate`.
pub fn truncate(call: &Call, subject: Subject, length: i64) -> Reply {
    let Ok(length) = u64::try_from(length) else {
        return Err(Errno::INVAL);
    };
    if let (Target::Node(node), _) = subject.target(call)? {
        match FileType::from_raw_mode(call.shield.tree.metadata(node).mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
    }
    change(call, subject, |inode| {
        call.permit(Node::Writable(inode), want::WRITE, Identity::FileSystem)?;
        let content = call.shield.content(inode)?;
        let _not_executed = call.shield.contents.executed.write(inode)?;
        let grows = length > fstat(&*content)?.st_size as u64;
        if grows && length > call.task.file_size_limit()? {
            signal::send(call.task.0, libc::SIGXFSZ);
            return Err(Errno::FBIG);
        }
        let system = call.shield.tree.writable.system(inode);
        system.spoil(inode.number);
        ftruncate(&*content, length)?;
        Ok(false)
    })
}

/// Serves the `getxattr` family.
pub fn attribute(call: &Call, subject: Subject) -> Reply {
    let Some(node) = subject.node(call)? else {
        return Ok(Answer::Pass);
    };
    let name = name(call)?;
    if name.starts_with(b"user.") {
        call.permit(node, want::READ, Identity::FileSystem)?;
    } else if !is_known(&name) {
        return Err(Errno::OPNOTSUPP);
    }
    let value = match node {
        Node::Writable(inode) => {
            let system = call.shield.tree.writable.system(inode);
            system.attribute(inode.number, &name)?
        }
        _ => {
            let entry = call.shield.tree.entry(node);
            let value = entry.and_then(|entry| entry.xattr(&name));
            value.ok_or(Errno::NODATA)?.to_vec()
        }
    };
    copy_out(call, &value, 2, 3)
}

/// Serves the `listxattr` family.
pub fn attribute_names(call: &Call, subject: Subject) -> Reply {
    let names = match subject.node(call)? {
        None => return Ok(Answer::Pass),
        Some(Node::Writable(inode)) => {
            let system = call.shield.tree.writable.system(inode);
            let administers = call.subject()?.administers();
            let mut names = system.attributes(inode.number)?;
            names.retain(|name| administers || !name.starts_with(b"trusted."));
            names
        }
        Some(node) => {
            let entry = call.shield.tree.entry(node);
            let names = entry.into_iter().flat_map(|entry| entry.xattrs());
            names.map(|(name, _)| name.to_vec()).collect()
        }
    };
    let mut bytes = Vec::new();
    for name in names {
        bytes.extend(name);
        bytes.push(0);
    }
    copy_out(call, &bytes, 1, 2)
}

/// Serves the `setxattr` family, and `removexattr` if `removes`.
pub fn set_attribute(call: &Call, subject: Subject, removes: bool) -> Reply {
    let setting = match call.int(4) {
        _ if removes => Setting::Any,
        0 => Setting::Any,
        libc::XATTR_CREATE => Setting::Create,
        libc::XATTR_REPLACE => Setting::Replace,
        _ => return Err(Errno::INVAL),
    };
    let name = name(call)?;
    let value = if removes {
        None
    } else {
        let size = call.address(3) as usize;
        if size > VALUE_LIMIT {
            return Err(Errno::TOOBIG);
        }
        let mut value = vec![0; size];
        let memories = &call.shield.memories;
        memories.read_exact(call.task, call.address(2), &mut value)?;
        Some(value)
    };
    change(call, subject, |inode| {
        check_attribute(call, inode, &name)?;
        let system = call.shield.tree.writable.system(inode);
        system.set_attribute(inode.number, &name, value.as_deref(), setting)?;
        Ok(true)
    })
}

/// Whether the caller may set an extended attribute of this name.
fn check_attribute(call: &Call, inode: Inode, name: &[u8]) -> Result<(), Errno> {
    let metadata = call.shield.tree.writable.metadata(inode)?;
    let subject = call.subject()?;
    if name.starts_with(b"user.") {
        let kind = FileType::from_raw_mode(metadata.mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Err(Errno::PERM);
        }
        if kind == FileType::Directory && metadata.mode & STICKY != 0 && !subject.owns(&metadata) {
            return Err(Errno::PERM);
        }
        return call.permit(Node::Writable(inode), want::WRITE, Identity::FileSystem);
    }
    match (is_known(name), subject.administers()) {
        (true, true) => Ok(()),
        (true, false) => Err(Errno::PERM),
        (false, _) => Err(Errno::OPNOTSUPP),
    }
}

fn is_known(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"security.")
}

/// The name of an extended attribute, in the second argument.
fn name(call: &Call) -> Result<Vec<u8>, Errno> {
    match call.path(1) {
        Ok(name) if name.is_empty() || name.len() > NAME_LIMIT => Err(Errno::RANGE),
        Err(Errno::NAMETOOLONG) => Err(Errno::RANGE),
        result => result,
    }
}

/// Copies a value of variable length the way extended attributes want it: size 0 asks for the length.
fn copy_out(call: &Call, value: &[u8], buffer: usize, size: usize) -> Reply {
    let size = call.address(size) as usize;
    if size != 0 {
        if size < value.len() {
            return Err(Errno::RANGE);
        }
        call.write(call.address(buffer), value)?;
    }
    Ok(Answer::Value(value.len() as i64))
}
