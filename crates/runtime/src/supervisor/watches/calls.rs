//! `inotify_init1`, `inotify_add_watch`, `inotify_rm_watch`.

use rustix::fs::{inotify, FileType};
use rustix::io::Errno;

use crate::kernel::thread::with_file_system_identity;

use super::super::call::{want, Answer, Call, Identity, Reply, Target};
use super::super::procfs::absolute_self;
use super::super::tree::Node;
use super::super::writable::Inode;
use super::{Instance, Subject};

/// Bits that an instance may be made with.
const KNOWN: i32 = libc::IN_CLOEXEC | libc::IN_NONBLOCK;
/// Ways of asking, next to the kinds of events.
const WAYS: u32 = libc::IN_ONLYDIR
    | libc::IN_DONT_FOLLOW
    | libc::IN_EXCL_UNLINK
    | libc::IN_MASK_ADD
    | libc::IN_MASK_CREATE
    | libc::IN_ISDIR
    | libc::IN_ONESHOT
    | libc::IN_UNMOUNT
    | libc::IN_Q_OVERFLOW
    | libc::IN_IGNORED;

/// Serves `inotify_init` and `inotify_init1`.
pub fn initialise(call: &Call, flags: i32) -> Reply {
    if flags & !KNOWN != 0 {
        return Err(Errno::INVAL);
    }
    let waits = flags & libc::IN_NONBLOCK == 0;
    let end = call.shield.watches.instance(waits)?;
    call.give_alone(end, flags & libc::IN_CLOEXEC != 0)
}

/// Runs `work` with the instance in the first argument; `pipe` is its number.
fn with_instance<T>(
    call: &Call,
    work: impl FnOnce(&mut Instance, u64) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let status = call
        .task
        .descriptor_status(call.int(0))
        .map_err(|error| match error {
            Errno::NOENT => Errno::BADF,
            error => error,
        })?;
    let mut state = call.shield.watches.lock();
    let instance = match FileType::from_raw_mode(status.st_mode) {
        FileType::Fifo => state.instances.get_mut(&status.st_ino),
        _ => None,
    };
    work(instance.ok_or(Errno::INVAL)?, status.st_ino)
}

/// Serves `inotify_add_watch`.
pub fn add(call: &Call) -> Reply {
    let mask = call.int(2) as u32;
    if mask & (libc::IN_ALL_EVENTS | WAYS) == 0 {
        return Err(Errno::INVAL);
    }
    with_instance(call, |_, _| {
        let both = libc::IN_MASK_ADD | libc::IN_MASK_CREATE;
        (mask & both != both).then_some(()).ok_or(Errno::INVAL)
    })?;
    let follow = mask & libc::IN_DONT_FOLLOW == 0;
    let path = call.path(1)?;
    let number = match call.locate(libc::AT_FDCWD, &path, follow)? {
        Target::Node(node) => add_node(call, node, mask)?,
        Target::Missing | Target::Undeclared => return Err(Errno::NOENT),
        Target::Host => {
            let path = call.absolute(libc::AT_FDCWD, &path)?;
            add_host(call, absolute_self(call, path), mask)?
        }
        Target::HostAt(path) => add_host(call, path, mask)?,
    };
    Ok(Answer::Value(number.into()))
}

fn add_node(call: &Call, node: Node, mask: u32) -> Result<i32, Errno> {
    let kind = FileType::from_raw_mode(call.shield.tree.metadata(node).mode);
    if mask & libc::IN_ONLYDIR != 0 && kind != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    if kind != FileType::Symlink {
        call.permit(node, want::READ, Identity::FileSystem)?;
    }
    let number = with_instance(call, |instance, _| instance.add(Subject::Node(node), mask))?;
    let watches = &call.shield.watches;
    watches.recount(&mut watches.lock());
    if let Node::Writable(inode) = node {
        follow(call, inode, kind)?;
    }
    Ok(number)
}

/// Has the kernel tell us of the contents that are in memory: of the file that is watched, or of those in the directory that is. Of others it does when they
/// are opened.
fn follow(call: &Call, inode: Inode, kind: FileType) -> Result<(), Errno> {
    let writable = &call.shield.tree.writable;
    let watches = &call.shield.watches;
    let follow = |file: Inode, place| {
        if let Some(memory) = writable.system(file).memory(file.number) {
            watches.follow(&mut watches.lock(), file, place, &memory);
        }
    };
    match kind {
        FileType::RegularFile => {
            let memory = call.shield.content(inode)?;
            let place = writable.place(inode);
            watches.follow(&mut watches.lock(), inode, place, &memory);
        }
        FileType::Directory => {
            for (child, _) in writable.system(inode).list(inode.number, 2)? {
                if child.kind == FileType::RegularFile {
                    let found = writable.system(inode).lookup(inode.number, &child.name)?;
                    let Some(number) = found else { continue };
                    follow(Inode { number, ..inode }, Some((inode, child.name)));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn add_host(call: &Call, path: Vec<u8>, mask: u32) -> Result<i32, Errno> {
    let credentials = call.credentials()?;
    with_instance(call, |instance, pipe| {
        let host = call.shield.watches.host(instance, pipe)?;
        let flags = inotify::WatchFlags::from_bits_retain(mask);
        let number = with_file_system_identity(
            credentials.uid.file_system,
            credentials.gid.file_system,
            || inotify::add_watch(host, &*path, flags),
        )?;
        // Whether there may be one already the kernel has decided.
        instance.add(Subject::Host(number), mask & !libc::IN_MASK_CREATE)
    })
}

/// Serves `inotify_rm_watch`.
pub fn remove(call: &Call) -> Reply {
    with_instance(call, |instance, _| {
        let subject = instance.remove(call.int(1)).ok_or(Errno::INVAL)?;
        if let (Subject::Host(number), Some(host)) = (subject, &instance.host) {
            let _ = inotify::remove_watch(host, number);
        }
        Ok(())
    })?;
    let watches = &call.shield.watches;
    watches.recount(&mut watches.lock());
    Ok(Answer::Value(0))
}
