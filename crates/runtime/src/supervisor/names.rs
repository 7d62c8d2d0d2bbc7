//! Calls that make, move and take away names. Protected regions answer as a read-only file system does; the host's part is the kernel's.

use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use super::call::{want, Answer, Call, Identity, Reply, Target};
use super::open::new_in;
use super::tree::Node;
use super::writable::{Inode, Kind, Last, Renaming, Spot};

/// Longest target of a symbolic link.
const TARGET_LIMIT: usize = 4095;
/// Bits of a mode that `mkdir` takes, those of the owners' ids aside.
const MODE: u32 = 0o1777;

/// A path as two arguments: a directory's descriptor and the number of the argument that holds the path.
pub type At = (i32, usize);

/// Makes what `kind` says, with the bits of `mode` that the caller's umask leaves.
fn make(call: &Call, at: At, kind: Kind, mode: u32) -> Reply {
    let path = call.path(at.1)?;
    match call.locate_name(at.0, &path, Last::Name)? {
        (Target::Node(_), _) => Err(Errno::EXIST),
        (Target::Undeclared, _) => Err(Errno::NOENT),
        (Target::Missing, Some(spot)) => {
            if spot.slash && kind != Kind::Directory {
                return Err(Errno::NOENT);
            }
            let new = new_in(call, spot.directory, kind, mode)?;
            let system = call.shield.tree.writable.system(spot.directory);
            let is_directory = new.kind == Kind::Directory;
            system.create(spot.directory.number, &spot.name, &new)?;
            call.shield.watches.created(&spot, None, is_directory);
            Ok(Answer::Value(0))
        }
        (Target::Missing, None) if path.ends_with(b"/") && kind != Kind::Directory => {
            Err(Errno::NOENT)
        }
        (Target::Missing, None) => Err(Errno::ROFS),
        (Target::Host, _) => Ok(Answer::Pass),
        (Target::HostAt(path), _) => refuse_detour(&path),
    }
}

/// Serves `mkdir`.
pub fn make_directory(call: &Call, at: At, mode: u32) -> Reply {
    let umask = call.credentials()?.umask;
    make(call, at, Kind::Directory, mode & MODE & !umask)
}

/// Serves `mknod`.
pub fn make_node(call: &Call, at: At, mode: u32) -> Reply {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile | FileType::Unknown if mode & libc::S_IFMT != libc::S_IFMT => {
            Kind::File
        }
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        // Devices are the host's.
        FileType::CharacterDevice | FileType::BlockDevice => {
            return match call.locate(at.0, &call.path(at.1)?, false)? {
                Target::Host => Ok(Answer::Pass),
                Target::Node(_) => Err(Errno::EXIST),
                _ => Err(Errno::PERM),
            };
        }
        FileType::Directory => return Err(Errno::PERM),
        _ => return Err(Errno::INVAL),
    };
    let umask = call.credentials()?.umask;
    make(call, at, kind, mode & 0o7777 & !umask)
}

/// Serves `symlink`; the target is the path in the argument `target`.
pub fn make_link(call: &Call, target: usize, at: At) -> Reply {
    let target = call.path(target)?;
    if target.is_empty() {
        return Err(Errno::NOENT);
    }
    if target.len() > TARGET_LIMIT {
        return Err(Errno::NAMETOOLONG);
    }
    make(call, at, Kind::Symlink(target), 0o777)
}

/// Checks that the caller may take a name from a file.
fn check_take(call: &Call, spot: &Spot, inode: Inode) -> Result<(), Errno> {
    let writable = &call.shield.tree.writable;
    let directory = Node::Writable(spot.directory);
    call.permit(directory, want::WRITE | want::EXECUTE, Identity::FileSystem)?;
    let (directory, file) = (
        writable.metadata(spot.directory)?,
        writable.metadata(inode)?,
    );
    if call.subject()?.may_take(&directory, &file) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// Whether a file has lost its last name.
fn is_nameless(call: &Call, inode: Inode) -> bool {
    let metadata = call.shield.tree.writable.metadata(inode);
    metadata.map_or(true, |metadata| metadata.links == 0)
}

/// Serves `unlink` and `rmdir`.
pub fn remove(call: &Call, at: At, is_directory: bool) -> Reply {
    let path = call.path(at.1)?;
    let (inode, spot) = match call.locate_name(at.0, &path, Last::Name)? {
        (Target::Node(Node::Writable(inode)), Some(spot)) => (inode, spot),
        (Target::Node(node), None) => {
            return Err(match (is_directory, last(&path), node) {
                (true, b".", _) => Errno::INVAL,
                (true, b"..", _) => Errno::NOTEMPTY,
                (false, b"." | b"..", _) => Errno::ISDIR,
                (true, _, Node::Writable(_)) => Errno::BUSY,
                (false, _, Node::Writable(_)) => Errno::ISDIR,
                _ => Errno::ROFS,
            });
        }
        (Target::Missing, Some(_)) | (Target::Undeclared, _) => return Err(Errno::NOENT),
        (Target::Node(_) | Target::Missing, _) => return Err(Errno::ROFS),
        (Target::Host, _) => return Ok(Answer::Pass),
        (Target::HostAt(path), _) => return refuse_detour(&path),
    };
    let writable = &call.shield.tree.writable;
    let found = writable.metadata(inode)?;
    if spot.slash && !found.is(FileType::Directory) {
        return Err(Errno::NOTDIR);
    }
    check_take(call, &spot, inode)?;
    if writable.is_pinned(inode) {
        return Err(Errno::BUSY);
    }
    let system = writable.system(inode);
    system.remove(spot.directory.number, &spot.name, is_directory)?;
    let is_last = is_nameless(call, inode);
    let watches = &call.shield.watches;
    watches.losing(inode, is_directory, is_last);
    writable.removed(inode);
    watches.given_up(inode);
    watches.removed(&spot, is_directory);
    Ok(Answer::Value(0))
}

/// Serves `rename` with its variants.
pub fn rename(call: &Call, old: At, new: At, flags: u32) -> Reply {
    let flags = RenameFlags::from_bits_retain(flags);
    let renaming = if flags.is_empty() {
        Renaming::Replace
    } else if flags == RenameFlags::NOREPLACE {
        Renaming::Keep
    } else if flags == RenameFlags::EXCHANGE {
        Renaming::Exchange
    } else {
        return Err(Errno::INVAL);
    };
    let (old_path, new_path) = (call.path(old.1)?, call.path(new.1)?);
    let (old, old_spot) = call.locate_name(old.0, &old_path, Last::Name)?;
    let (new, new_spot) = call.locate_name(new.0, &new_path, Last::Name)?;
    match (&old, &new) {
        (Target::HostAt(path), _) | (_, Target::HostAt(path)) => return refuse_detour(path),
        (Target::Host, Target::Host) => return Ok(Answer::Pass),
        (Target::Undeclared, _) | (_, Target::Undeclared) => return Err(Errno::NOENT),
        (Target::Host, _) | (_, Target::Host) => return Err(Errno::XDEV),
        _ => {}
    }
    let is_writable = |target: &Target, spot: &Option<Spot>| {
        spot.is_some() || matches!(target, Target::Node(Node::Writable(_)))
    };
    match (is_writable(&old, &old_spot), is_writable(&new, &new_spot)) {
        (true, true) => {}
        (false, false) => {
            let is_dots = |path: &[u8]| matches!(last(path), b"." | b"..");
            return Err(match (is_dots(&old_path), is_dots(&new_path)) {
                (false, true) if renaming == Renaming::Keep => Errno::EXIST,
                (false, false) => Errno::ROFS,
                _ => Errno::BUSY,
            });
        }
        _ => return Err(Errno::XDEV),
    }
    let Some(old_spot) = old_spot else {
        return Err(Errno::BUSY);
    };
    let Some(new_spot) = new_spot else {
        return Err(if renaming == Renaming::Keep {
            Errno::EXIST
        } else {
            Errno::BUSY
        });
    };
    let Target::Node(Node::Writable(moved)) = old else {
        return Err(Errno::NOENT);
    };
    let victim = match new {
        Target::Node(Node::Writable(victim)) => Some(victim),
        _ => None,
    };
    if moved.system != new_spot.directory.system {
        return Err(Errno::XDEV);
    }
    rename_within(call, (moved, &old_spot), (victim, &new_spot), renaming)
}

/// Renames within one file system, once it is known what stands where.
fn rename_within(
    call: &Call,
    (moved, from): (Inode, &Spot),
    (victim, to): (Option<Inode>, &Spot),
    renaming: Renaming,
) -> Reply {
    let writable = &call.shield.tree.writable;
    if renaming == Renaming::Keep && victim.is_some() {
        return Err(Errno::EXIST);
    }
    let is_directory = |inode| Ok::<_, Errno>(writable.metadata(inode)?.is(FileType::Directory));
    let moves_directory = is_directory(moved)?;
    if renaming == Renaming::Exchange {
        let Some(victim) = victim else {
            return Err(Errno::NOENT);
        };
        if to.slash && !is_directory(victim)? {
            return Err(Errno::NOTDIR);
        }
    }
    if !moves_directory && (from.slash || to.slash && renaming != Renaming::Exchange) {
        return Err(Errno::NOTDIR);
    }
    if victim == Some(moved) {
        return Ok(Answer::Value(0));
    }
    check_take(call, from, moved)?;
    match victim {
        Some(victim) => check_take(call, to, victim)?,
        None => call.permit(
            Node::Writable(to.directory),
            want::WRITE | want::EXECUTE,
            Identity::FileSystem,
        )?,
    }
    // A directory that gets another one above it is written itself: its `..` changes.
    if from.directory != to.directory {
        let exchanged = victim.filter(|_| renaming == Renaming::Exchange);
        for inode in std::iter::once(moved).chain(exchanged) {
            if is_directory(inode)? {
                call.permit(Node::Writable(inode), want::WRITE, Identity::FileSystem)?;
            }
        }
    }
    if writable.is_pinned(moved) || victim.is_some_and(|victim| writable.is_pinned(victim)) {
        return Err(Errno::BUSY);
    }
    writable.system(moved).rename(
        (from.directory.number, &from.name),
        (to.directory.number, &to.name),
        renaming,
    )?;
    let watches = &call.shield.watches;
    let replaced = victim.filter(|_| renaming != Renaming::Exchange);
    let lost = replaced.map(|victim| (victim, is_nameless(call, victim)));
    watches.moved((moved, moves_directory), from, to, lost);
    if let Some(other) = victim.filter(|_| renaming == Renaming::Exchange) {
        watches.moved((other, is_directory(other)?), to, from, None);
    }
    if let Some(victim) = replaced {
        writable.removed(victim);
        watches.given_up(victim);
    }
    Ok(Answer::Value(0))
}

/// Serves `link` with its variants.
pub fn link(call: &Call, old: At, new: At, flags: i32) -> Reply {
    if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    let (old_path, new_path) = (call.path(old.1)?, call.path(new.1)?);
    let by_descriptor = old_path.is_empty() && flags & libc::AT_EMPTY_PATH != 0;
    let old = if by_descriptor {
        call.node_of_descriptor(old.0)
            .map_or(Target::Host, Target::Node)
    } else {
        call.locate(old.0, &old_path, flags & libc::AT_SYMLINK_FOLLOW != 0)?
    };
    let (new, spot) = call.locate_name(new.0, &new_path, Last::Name)?;
    match (&old, &new) {
        (Target::HostAt(path), _) | (_, Target::HostAt(path)) => return refuse_detour(path),
        (Target::Host, Target::Host) => return Ok(Answer::Pass),
        (Target::Undeclared | Target::Missing, _) | (_, Target::Undeclared) => {
            return Err(Errno::NOENT)
        }
        (_, Target::Node(_)) => return Err(Errno::EXIST),
        (Target::Host, _) | (_, Target::Host) => return Err(Errno::XDEV),
        _ => {}
    }
    let (inode, spot) = match (old, spot) {
        (Target::Node(Node::Writable(inode)), Some(spot)) => (inode, spot),
        (Target::Node(Node::Writable(_)), None) | (_, Some(_)) => return Err(Errno::XDEV),
        _ => return Err(Errno::ROFS),
    };
    if inode.system != spot.directory.system {
        return Err(Errno::XDEV);
    }
    if spot.slash {
        return Err(Errno::NOENT);
    }
    let writable = &call.shield.tree.writable;
    let metadata = writable.metadata(inode)?;
    let subject = call.subject()?;
    if by_descriptor && !subject.may_link_descriptors() && !subject.owns(&metadata) {
        return Err(Errno::NOENT);
    }
    if !subject.may_link(&metadata) {
        return Err(Errno::PERM);
    }
    call.permit(
        Node::Writable(spot.directory),
        want::WRITE | want::EXECUTE,
        Identity::FileSystem,
    )?;
    let system = writable.system(inode);
    system.link(inode.number, spot.directory.number, &spot.name)?;
    call.shield.watches.created(&spot, Some(inode), false);
    Ok(Answer::Value(0))
}

/// The last component of a path.
fn last(path: &[u8]) -> &[u8] {
    path.split(|&byte| byte == b'/')
        .rfind(|part| !part.is_empty())
        .unwrap_or_default()
}

/// The kernel can't carry out a change whose path passes a link of the index.
pub fn refuse_detour(path: &[u8]) -> Reply {
    warn!(
        "{}: not changed: the path that the program gave passes a symbolic link that only the index has; use this path",
        super::tree::Name(path)
    );
    Err(Errno::ACCESS)
}
