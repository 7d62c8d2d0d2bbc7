//! Looking at files without opening them: `stat` and its kin, `access`, `readlink`, `statfs`, extended attributes.

use rustix::fs::{accessat, lstat, readlinkat, stat, statfs, Access, AtFlags, FileType, CWD};
use rustix::io::Errno;
use sconify_shield::Kind;

use crate::kernel::thread::with_file_system_identity;

use super::call::{want, Answer, Call, Identity, Reply, Target};
use super::procfs;
use super::record::{self, Layout};
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
        call.directory_at(&call.task.working_directory()?)
            .map(Node::Entry)
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
    if path.is_empty() {
        return Ok(Answer::Pass);
    }
    let answer = |target: &[u8]| {
        let count = target.len().min(size as usize);
        call.write(call.address(buffer), &target[..count])?;
        Ok(Answer::Value(count as i64))
    };
    let shown =
        |path: &[u8]| procfs::shown_target(call, path).map(|node| call.shield.tree.path(node));
    match call.locate(directory, &path, false)? {
        Target::Node(Node::Entry(id)) => match call.shield.tree.index().entry(id).kind() {
            Kind::Symlink { target } => answer(target),
            _ => Err(Errno::INVAL),
        },
        Target::Node(Node::Injected(_)) => Err(Errno::INVAL),
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => match shown(&call.absolute(directory, &path)?) {
            Some(target) => answer(target),
            None => Ok(Answer::Pass),
        },
        Target::HostAt(path) => match shown(&path) {
            Some(target) => answer(target),
            None => answer(readlinkat(CWD, &*path, Vec::new())?.as_bytes()),
        },
    }
}

/// Serves `statfs`: everything of ours is on the file system of the root, read-only.
pub fn file_system(call: &Call, path: usize, buffer: usize) -> Reply {
    let path = call.path(path)?;
    let (on_disk, read_only) = match call.locate(libc::AT_FDCWD, &path, true)? {
        Target::Node(_) => (b"/".to_vec(), true),
        Target::Missing | Target::Undeclared => return Err(Errno::NOENT),
        Target::Host => return Ok(Answer::Pass),
        Target::HostAt(path) => (path, false),
    };
    let mut status = statfs(&*on_disk)?;
    if read_only {
        status.f_flags |= libc::ST_RDONLY as libc::c_long;
    }
    call.write(call.address(buffer), &record::of_file_system(&status))?;
    Ok(Answer::Value(0))
}

/// Which file an extended attribute call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The path in the first argument; whether a final link is followed.
    Path(bool),
    /// The descriptor in the first argument.
    Descriptor,
}

impl Subject {
    /// The node, or `None` if the kernel shall answer.
    pub fn node(self, call: &Call) -> Result<Option<Node>, Errno> {
        match self {
            Self::Descriptor => Ok(call.node_of_descriptor(call.int(0))),
            Self::Path(follow) => match call.locate(libc::AT_FDCWD, &call.path(0)?, follow)? {
                Target::Node(node) => Ok(Some(node)),
                Target::Missing | Target::Undeclared => Err(Errno::NOENT),
                Target::Host => Ok(None),
                // Reached through a link of the index only, and nothing that programs look for there.
                Target::HostAt(_) => Err(Errno::OPNOTSUPP),
            },
        }
    }
}

/// Serves the `getxattr` family.
pub fn attribute(call: &Call, subject: Subject) -> Reply {
    let Some(node) = subject.node(call)? else {
        return Ok(Answer::Pass);
    };
    let name = call.path(1)?;
    let value = call
        .shield
        .tree
        .entry(node)
        .and_then(|entry| entry.xattr(&name))
        .ok_or(Errno::NODATA)?;
    if name.starts_with(b"user.") {
        call.permit(node, want::READ, Identity::FileSystem)?;
    }
    copy_out(call, value, 2, 3)
}

/// Serves the `listxattr` family.
pub fn attribute_names(call: &Call, subject: Subject) -> Reply {
    let Some(node) = subject.node(call)? else {
        return Ok(Answer::Pass);
    };
    let mut names = Vec::new();
    if let Some(entry) = call.shield.tree.entry(node) {
        for (name, _) in entry.xattrs() {
            names.extend_from_slice(name);
            names.push(0);
        }
    }
    copy_out(call, &names, 1, 2)
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

/// Serves `inotify_add_watch`: what is ours never changes, so directories may be watched, in vain; files, which the disk need not have, not.
pub fn watch(call: &Call) -> Reply {
    match call.locate(libc::AT_FDCWD, &call.path(1)?, true)? {
        Target::Node(node) if call.shield.tree.metadata(node).is(FileType::Directory) => {
            Ok(Answer::Pass)
        }
        Target::Node(_) | Target::HostAt(_) => Err(Errno::ACCESS),
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => Ok(Answer::Pass),
    }
}

/// Serves `chroot`: only to where the root is anyway.
pub fn change_root(call: &Call) -> Reply {
    match call.locate(libc::AT_FDCWD, &call.path(0)?, true)? {
        Target::Node(Node::Entry(sconify_shield::EntryId::ROOT)) => Ok(Answer::Value(0)),
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        _ => Err(Errno::PERM),
    }
}
