//! Calls that would change the tree. Ours is read-only, so the answers are those of a read-only file system; the host's part is the kernel's.

use rustix::io::Errno;

use super::call::{Answer, Call, Reply, Target};
use super::look::Subject;

/// What a call wants to do to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make something new there.
    Create,
    /// Take it away.
    Remove,
    /// Change what is there; whether a final link is followed.
    Alter(bool),
}

/// Serves a call that changes one path.
pub fn change(call: &Call, directory: i32, path: usize, change: Change) -> Reply {
    let path = call.path(path)?;
    let target = call.locate(directory, &path, change == Change::Alter(true))?;
    match (target, change) {
        (Target::Node(_), Change::Create) => Err(Errno::EXIST),
        (Target::Missing, Change::Alter(_)) | (Target::Undeclared, _) => Err(Errno::NOENT),
        (Target::Node(_) | Target::Missing, _) => Err(Errno::ROFS),
        (Target::Host, _) => Ok(Answer::Pass),
        (Target::HostAt(path), _) => refuse_detour(&path),
    }
}

/// Serves a call that changes the path in its second argument, or the descriptor in its first one if the path is empty and the flags allow that.
pub fn change_at(call: &Call, flags: usize, change_to: Change) -> Reply {
    if call.int(flags) & libc::AT_EMPTY_PATH != 0 && call.path(1)?.is_empty() {
        return change_descriptor(call, call.int(0));
    }
    change(call, call.int(0), 1, change_to)
}

/// Serves `rename` and `link` with their variants: two paths, of which the second is made.
pub fn pair(
    call: &Call,
    old: (i32, usize),
    new: (i32, usize),
    follow_old: bool,
    alters_old: bool,
) -> Reply {
    let (old_path, new_path) = (call.path(old.1)?, call.path(new.1)?);
    let old = call.locate(old.0, &old_path, follow_old)?;
    let new = call.locate(new.0, &new_path, false)?;
    match (old, new) {
        (Target::HostAt(path), _) | (_, Target::HostAt(path)) => refuse_detour(&path),
        (Target::Host, Target::Host) => Ok(Answer::Pass),
        (Target::Undeclared, _) | (_, Target::Undeclared) => Err(Errno::NOENT),
        (Target::Host, _) | (_, Target::Host) => Err(Errno::XDEV),
        (Target::Missing, _) if !alters_old => Err(Errno::NOENT),
        (_, Target::Node(_)) if !alters_old => Err(Errno::EXIST),
        _ => Err(Errno::ROFS),
    }
}

/// Serves calls that change a file by descriptor.
pub fn change_descriptor(call: &Call, descriptor: i32) -> Reply {
    match call.node_of_descriptor(descriptor) {
        Some(_) => Err(Errno::ROFS),
        None => Ok(Answer::Pass),
    }
}

/// Serves `setxattr`, `removexattr` and their variants.
pub fn change_attribute(call: &Call, subject: Subject) -> Reply {
    match subject.node(call)? {
        Some(_) => Err(Errno::ROFS),
        None => Ok(Answer::Pass),
    }
}

/// The kernel can't carry out a change whose path passes a link of the index.
fn refuse_detour(path: &[u8]) -> Reply {
    warn!(
        "{}: not changed: the path that the program gave passes a symbolic link that only the index has; use this path",
        super::tree::Name(path)
    );
    Err(Errno::ACCESS)
}
