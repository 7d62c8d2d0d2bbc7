//! Looking at files without opening them: `stat` and its kin, `access`, `readlink`, `statfs`, extended attributes.

use rustix::fs::{accessat, lstat, readlinkat, stat, statfs, Access, AtFlags, FileType, CWD};
use rustix::io::Errno;
use sconify_shield::Kind;

use crate::kernel::process;
use crate::kernel::thread::with_file_system_identity;

use super::call::{Answer, Call, Identity, Reply, Target};
use super::procfs;
use super::record::{self, Layout};
use super::room::memory;
use super::tree::Node;

/// Serves `stat`, `lstat`, `newfstatat`, `statx`: writes what `layout` says to `buffer`.
pub fn look(
    call: &Call,
    directory: i32,
    path: usize,
    flags: AtFlags,
    layout: Layout,
    buffer: usize,
) -> Reply {
    // statx and newer fstatat take a null pointer for an empty path.
    let path = match call.address(path) {
        0 if flags.contains(AtFlags::EMPTY_PATH) => Vec::new(),
        _ => call.path(path)?,
    };
    if path.is_empty() && flags.contains(AtFlags::EMPTY_PATH) {
        return look_at_descriptor(call, directory, layout, buffer);
    }
    let follow = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
    match call.locate(directory, &path, follow)? {
        Target::Node(node) => write_record(call, node, layout, buffer),
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => Ok(Answer::Pass),
        Target::HostAt(path) => {
            let credentials = call.credentials()?;
            let status = with_file_system_identity(
                credentials.uid.file_system,
                credentials.gid.file_system,
                || {
                    if follow {
                        stat(&*path)
                    } else {
                        lstat(&*path)
                    }
                },
            )?;
            call.write(call.address(buffer), &record::of_host(&status, layout))?;
            Ok(Answer::Value(0))
        }
    }
}

/// Serves `fstat` and looks at descriptors.
pub fn look_at_descriptor(call: &Call, descriptor: i32, layout: Layout, buffer: usize) -> Reply {
    let node = if descriptor == libc::AT_FDCWD {
        call.node_of_link(call.task, "cwd")
    } else {
        call.node_of_descriptor(descriptor)
    };
    match node {
        Some(node) => write_record(call, node, layout, buffer),
        // Whatever else is open was opened by the kernel, and shows only itself.
        None => Ok(Answer::Pass),
    }
}

fn write_record(call: &Call, node: Node, layout: Layout, buffer: usize) -> Reply {
    let metadata = call.shield.tree.metadata(node);
    call.write(call.address(buffer), &record::of(&metadata, layout))?;
    Ok(Answer::Value(0))
}

/// Serves `access`, `faccessat`, `faccessat2`.
pub fn access(call: &Call, directory: i32, path: usize, wanted: i32, flags: AtFlags) -> Reply {
    if wanted & !7 != 0 {
        return Err(Errno::INVAL);
    }
    let identity = if flags.contains(AtFlags::EACCESS) {
        Identity::FileSystem
    } else {
        Identity::Real
    };
    let path = call.path(path)?;
    let follow = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
    let target = if path.is_empty() && flags.contains(AtFlags::EMPTY_PATH) {
        call.node_of_descriptor(directory)
            .map_or(Target::Host, Target::Node)
    } else {
        call.locate(directory, &path, follow)?
    };
    match target {
        Target::Node(node) => {
            if !call.shield.tree.metadata(node).is(FileType::Symlink) {
                call.permit(node, wanted as u32, identity)?;
            }
            Ok(Answer::Value(0))
        }
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => Ok(Answer::Pass),
        Target::HostAt(path) => {
            let credentials = call.credentials()?;
            let access = Access::from_bits_truncate(wanted as u32);
            with_file_system_identity(
                credentials.uid.file_system,
                credentials.gid.file_system,
                || accessat(CWD, &*path, access, AtFlags::EACCESS),
            )?;
            Ok(Answer::Value(0))
        }
    }
}

/// Serves `readlink` and `readlinkat`.
pub fn readlink(call: &Call, directory: i32, path: usize, buffer: usize, size: usize) -> Reply {
    let size = call.int(size);
    if size <= 0 {
        return Err(Errno::INVAL);
    }
    let path = call.path(path)?;
    let answer = |target: &[u8]| {
        let count = target.len().min(size as usize);
        call.write(call.address(buffer), &target[..count])?;
        Ok(Answer::Value(count as i64))
    };
    let shown =
        |path: &[u8]| procfs::shown_target(call, path).map(|node| call.shield.tree.path(node));
    let target = if path.is_empty() {
        // The link that a descriptor stands for.
        match call.node_of_descriptor(directory) {
            Some(node) if call.shield.tree.metadata(node).is(FileType::Symlink) => {
                Target::Node(node)
            }
            _ => return Ok(Answer::Pass),
        }
    } else {
        call.locate(directory, &path, false)?
    };
    match target {
        Target::Node(Node::Entry(id)) => match call.shield.tree.index().entry(id).kind() {
            Kind::Symlink { target } => answer(target),
            _ => Err(Errno::INVAL),
        },
        Target::Node(Node::Injected(_)) => Err(Errno::INVAL),
        Target::Node(Node::Writable(inode)) => {
            let system = call.shield.tree.writable.system(inode);
            answer(&system.target(inode.number)?)
        }
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => match shown(&call.absolute(directory, &path)?) {
            Some(target) => answer(&target),
            None => Ok(Answer::Pass),
        },
        Target::HostAt(path) => match shown(&path) {
            Some(target) => answer(&target),
            None => answer(readlinkat(CWD, &*path, Vec::new())?.as_bytes()),
        },
    }
}

/// Serves `statfs`: what is protected is on the file system of the root, read-only; what is ephemeral is in memory, and what
/// is on a volume is on the volume's disk.
pub fn file_system(call: &Call, path: usize, buffer: usize) -> Reply {
    let path = call.path(path)?;
    match call.locate(libc::AT_FDCWD, &path, true)? {
        Target::Node(node) => write_file_system(call, node, buffer),
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => Ok(Answer::Pass),
        Target::HostAt(path) => {
            let status = record::of_file_system(&statfs(&*path)?);
            call.write(call.address(buffer), &status)?;
            Ok(Answer::Value(0))
        }
    }
}

/// Serves `fstatfs`.
pub fn file_system_of(call: &Call, descriptor: i32, buffer: usize) -> Reply {
    match call.node_of_descriptor(descriptor) {
        Some(node) => write_file_system(call, node, buffer),
        None => Ok(Answer::Pass),
    }
}

fn write_file_system(call: &Call, node: Node, buffer: usize) -> Reply {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let mut status = statfs("/")?;
    if let Node::Writable(inode) = node {
        match call.shield.tree.writable.volume(inode) {
            // The disk has the room.
            Some(volume) => status = statfs(volume.prefix())?,
            None => {
                let (room, page) = (memory(), process::memory().page);
                status.f_bsize = page as i64;
                status.f_frsize = page as i64;
                status.f_blocks = room.total / page;
                status.f_bfree = room.free / page;
                status.f_bavail = status.f_bfree;
            }
        }
        status.f_type = TMPFS_MAGIC;
        status.f_flags &= !(libc::ST_RDONLY as libc::c_long);
    } else {
        status.f_flags |= libc::ST_RDONLY as libc::c_long;
    }
    call.write(call.address(buffer), &record::of_file_system(&status))?;
    Ok(Answer::Value(0))
}

/// Serves `chroot`: only to where the root is anyway.
pub fn change_root(call: &Call) -> Reply {
    match call.locate(libc::AT_FDCWD, &call.path(0)?, true)? {
        Target::Node(node) if *call.shield.tree.path(node) == *b"/" => Ok(Answer::Value(0)),
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        _ => Err(Errno::PERM),
    }
}
