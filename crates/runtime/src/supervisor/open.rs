//! Opening: `open`, `openat`, `creat`.

use rustix::fs::{openat, FileType, Mode, OFlags, CWD};
use rustix::io::Errno;

use crate::kernel::thread::with_file_system_identity;

use super::call::{want, Answer, Call, Identity, Reply, Target};
use super::contents::Form;
use super::tree::Node;

/// Serves an `open` of `path` relative to `directory`.
pub fn open(call: &Call, directory: i32, path: usize, flags: OFlags, mode: u32) -> Reply {
    let path = call.path(path)?;
    let creates_new = flags.contains(OFlags::CREATE | OFlags::EXCL);
    let follow = !flags.contains(OFlags::NOFOLLOW) && !creates_new;
    match call.locate(directory, &path, follow)? {
        Target::Node(node) => open_node(call, node, flags),
        Target::Missing if flags.contains(OFlags::CREATE) && !flags.contains(OFlags::PATH) => {
            Err(Errno::ROFS)
        }
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => Ok(Answer::Pass),
        Target::HostAt(path) => open_host(call, &path, flags, mode),
    }
}

fn open_node(call: &Call, node: Node, flags: OFlags) -> Reply {
    let metadata = call.shield.tree.metadata(node);
    let kind = FileType::from_raw_mode(metadata.mode);
    let only_names = flags.contains(OFlags::PATH);
    let access = flags & OFlags::ACCMODE;
    let writes = access != OFlags::RDONLY
        || flags.intersects(OFlags::TRUNC)
        || flags.contains(OFlags::TMPFILE);
    if !only_names && flags.contains(OFlags::CREATE | OFlags::EXCL) {
        return Err(Errno::EXIST);
    }
    match kind {
        FileType::Symlink => return Err(Errno::LOOP),
        FileType::Directory if !only_names && flags.contains(OFlags::TMPFILE) => {
            return Err(Errno::ROFS)
        }
        FileType::Directory if !only_names && (writes || flags.contains(OFlags::CREATE)) => {
            return Err(Errno::ISDIR)
        }
        FileType::Directory => {}
        _ if flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
        FileType::RegularFile => {}
        // Device nodes and pipes of an image mean the host's devices.
        _ => return Err(Errno::ACCESS),
    }
    // The kernel injects no `O_PATH` descriptors: who asks for one gets one for reading, and must be allowed to read.
    let wanted = if writes && !only_names {
        want::WRITE
    } else {
        want::READ
    };
    call.permit(node, wanted, Identity::FileSystem)?;
    let close_on_exec = flags.contains(OFlags::CLOEXEC);
    if kind == FileType::Directory {
        let Node::Entry(id) = node else {
            return Err(Errno::NOTDIR);
        };
        let kept = call.shield.directories.open(&call.shield.tree, id)?;
        return call.give(&*kept, close_on_exec);
    }
    let file = call
        .shield
        .contents
        .get(&call.shield.tree, node, Form::Data)?;
    // These show in F_GETFL; none of them changes what a regular file gives.
    let kept = flags & (OFlags::NONBLOCK | OFlags::NOATIME | OFlags::APPEND);
    call.give(file.reopen(OFlags::RDONLY | kept)?, close_on_exec)
}

/// Opens a path of the host for the caller: the kernel would not find it by the caller's own arguments, which pass a link of the index.
fn open_host(call: &Call, path: &[u8], flags: OFlags, mode: u32) -> Reply {
    let credentials = call.credentials()?;
    let mode = Mode::from_raw_mode(mode & 0o7777 & !credentials.umask);
    let file = with_file_system_identity(
        credentials.uid.file_system,
        credentials.gid.file_system,
        || openat(CWD, path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, mode),
    )?;
    call.give(file, flags.contains(OFlags::CLOEXEC))
}
