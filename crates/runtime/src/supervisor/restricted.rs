//! `openat2` with restrictions (`RESOLVE_...`): paths that are walked name by name.
//!
//! Each name is looked up in the directory that the one before it led to, and `..` goes back to where the walk came from: whatever others move meanwhile
//! does not lead out of a directory that must not be left. The rules are those of `fs/namei.c`.

use rustix::fs::{lstat, major, minor, readlinkat, FileType, ResolveFlags, CWD};
use rustix::io::Errno;
use sconify_shield::Kind;

use crate::kernel::thread::with_file_system_identity;

use super::call::{want, Base, Call, Identity, Target};
use super::procfs;
use super::task::join;
use super::tree::{Node, Place, Start};
use super::writable::{parent, Last, Spot};

/// Symbolic links followed on one path, as in the kernel.
const LINK_LIMIT: u32 = 40;
/// Both say that a directory is not left.
const SCOPED: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::IN_ROOT);

/// The restrictions that `struct open_how` has in its field `resolve`.
///
/// # Errors
/// `EINVAL` if there are unknown ones, or two that exclude each other; `EAGAIN` if only what is cached is wanted: the caller asks again without.
pub fn restrictions(resolve: u64) -> Result<ResolveFlags, Errno> {
    const KNOWN: u64 = 0x3f;
    let flags = ResolveFlags::from_bits_retain(resolve);
    if resolve & !KNOWN != 0 || flags.contains(SCOPED) {
        return Err(Errno::INVAL);
    }
    if flags.contains(ResolveFlags::CACHED) {
        return Err(Errno::AGAIN);
    }
    Ok(flags)
}

/// Finds out where a path leads, as [`Call::locate_name`] does. Nothing of the host's part is left to the program's own arguments.
///
/// # Errors
/// As the kernel would give: `EXDEV` for what leads out, `ELOOP` for links that are not wanted.
pub fn locate(
    call: &Call,
    directory: i32,
    path: &[u8],
    restrictions: ResolveFlags,
    follow: bool,
) -> Result<(Target, Option<Spot>), Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let is_absolute = path.starts_with(b"/");
    if is_absolute && restrictions.contains(ResolveFlags::BENEATH) {
        return Err(Errno::XDEV);
    }
    let start = if is_absolute && !restrictions.intersects(SCOPED) {
        Base::Path(b"/".to_vec())
    } else {
        call.base(directory)?
    };
    let mut walk = Walk {
        call,
        restrictions,
        trail: vec![start],
        links: 0,
        system: (0, 0),
    };
    walk.system = walk.system_of(&walk.here())?;
    walk.follow(path.to_vec(), follow)
}

struct Walk<'a> {
    call: &'a Call<'a>,
    restrictions: ResolveFlags,
    /// The directories from the one that the walk began in to the one that it is in.
    trail: Vec<Base>,
    links: u32,
    /// The device number of the file system that the walk began in.
    system: (u32, u32),
}

impl Walk<'_> {
    fn follow(&mut self, mut rest: Vec<u8>, follow: bool) -> Result<(Target, Option<Spot>), Errno> {
        while let Some((name, after)) = first(&rest) {
            match name {
                b"." => {}
                b".." => self.leave()?,
                _ => {
                    let is_last = after.iter().all(|&byte| byte == b'/');
                    let (target, spot) = self.look_up(name)?;
                    let kind = self.kind(&target)?;
                    match kind {
                        Some(FileType::Directory) if is_last => return Ok((target, spot)),
                        Some(FileType::Directory) => self.trail.push(base(self.call, target)),
                        Some(FileType::Symlink) if follow || !after.is_empty() => {
                            let mut path = self.link(&target)?;
                            if path.starts_with(b"/") {
                                self.go_to_root()?;
                            }
                            path.extend_from_slice(after);
                            rest = path;
                            continue;
                        }
                        None if !is_last => return Err(Errno::NOENT),
                        Some(_) if !after.is_empty() => return Err(Errno::NOTDIR),
                        _ => {
                            let slash = !after.is_empty();
                            return Ok((target, spot.map(|spot| Spot { slash, ..spot })));
                        }
                    }
                }
            }
            rest = after.to_vec();
        }
        Ok((self.here(), None))
    }

    fn directory(&self) -> &Base {
        self.trail.last().expect("the walk is somewhere")
    }

    /// The directory that the walk is in.
    fn here(&self) -> Target {
        match self.directory() {
            Base::Inode(inode) => Target::Node(Node::Writable(*inode)),
            Base::Path(path) => match self.call.directory_at(path) {
                Some(id) => Target::Node(Node::Entry(id)),
                None => Target::HostAt(path.clone()),
            },
        }
    }

    /// What has this name in the directory that the walk is in.
    fn look_up(&self, name: &[u8]) -> Result<(Target, Option<Spot>), Errno> {
        let call = self.call;
        let search = |node| call.permit(node, want::EXECUTE, Identity::FileSystem);
        let (start, path) = match self.directory() {
            Base::Inode(inode) => (Start::Inode(*inode), name.to_vec()),
            Base::Path(path) => {
                if let Some(id) = call.directory_at(path) {
                    search(Node::Entry(id))?;
                }
                (Start::Root, join(path, name))
            }
        };
        let (place, spot) = call.shield.tree.walk(&start, &path, Last::Keep, &search)?;
        let target = match place {
            Place::Node(node) => Target::Node(node),
            Place::Missing => Target::Missing,
            Place::Undeclared => Target::Undeclared,
            Place::Host(path) => {
                procfs::inspect(call, &path, false)?;
                Target::HostAt(path)
            }
        };
        Ok((target, spot))
    }

    /// The type of what was found; `None` if there is nothing.
    ///
    /// # Errors
    /// `EXDEV` if it is on another file system and may not be.
    fn kind(&self, target: &Target) -> Result<Option<FileType>, Errno> {
        let kind = match target {
            Target::Node(node) => {
                FileType::from_raw_mode(self.call.shield.tree.metadata(*node).mode)
            }
            Target::HostAt(path) => match self.status_of_host(path) {
                Ok(status) => FileType::from_raw_mode(status.st_mode),
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error),
            },
            _ => return Ok(None),
        };
        self.check_system(target)?;
        Ok(Some(kind))
    }

    fn status_of_host(&self, path: &[u8]) -> Result<rustix::fs::Stat, Errno> {
        let credentials = self.call.credentials()?;
        let (uid, gid) = (credentials.uid.file_system, credentials.gid.file_system);
        with_file_system_identity(uid, gid, || lstat(path))
    }

    fn system_of(&self, target: &Target) -> Result<(u32, u32), Errno> {
        match target {
            Target::Node(node) => Ok(self.call.shield.tree.metadata(*node).system),
            Target::HostAt(path) => {
                let device = self.status_of_host(path)?.st_dev;
                Ok((major(device), minor(device)))
            }
            _ => Err(Errno::NOENT),
        }
    }

    fn check_system(&self, target: &Target) -> Result<(), Errno> {
        let may_be_elsewhere = !self.restrictions.contains(ResolveFlags::NO_XDEV);
        if may_be_elsewhere || self.system_of(target)? == self.system {
            Ok(())
        } else {
            Err(Errno::XDEV)
        }
    }

    /// Goes to the directory above.
    fn leave(&mut self) -> Result<(), Errno> {
        if self.trail.len() > 1 {
            self.trail.pop();
            return Ok(());
        }
        if self.restrictions.contains(ResolveFlags::BENEATH) {
            return Err(Errno::XDEV);
        }
        if self.restrictions.contains(ResolveFlags::IN_ROOT) {
            return Ok(());
        }
        let writable = &self.call.shield.tree.writable;
        let path = match self.directory() {
            Base::Inode(inode) => match writable.path(*inode) {
                (path, false) => path,
                (_, true) => return Err(Errno::NOENT),
            },
            Base::Path(path) => path.clone(),
        };
        let above = parent(&path).unwrap_or(b"/").to_vec();
        let place = self.call.shield.tree.resolve(&above, false)?;
        self.trail = vec![match place {
            Place::Node(Node::Writable(inode)) => Base::Inode(inode),
            _ => Base::Path(above),
        }];
        self.check_system(&self.here())
    }

    /// Goes to what a leading `/` means.
    fn go_to_root(&mut self) -> Result<(), Errno> {
        if self.restrictions.contains(ResolveFlags::BENEATH) {
            return Err(Errno::XDEV);
        }
        if self.restrictions.contains(ResolveFlags::IN_ROOT) {
            self.trail.truncate(1);
            return Ok(());
        }
        self.trail = vec![Base::Path(b"/".to_vec())];
        self.check_system(&self.here())
    }

    /// What a symbolic link says, if it may be followed.
    fn link(&mut self, target: &Target) -> Result<Vec<u8>, Errno> {
        self.links += 1;
        let is_refused = self.restrictions.contains(ResolveFlags::NO_SYMLINKS);
        if is_refused || self.links > LINK_LIMIT {
            return Err(Errno::LOOP);
        }
        let tree = &self.call.shield.tree;
        match target {
            Target::Node(Node::Entry(id)) => match tree.index().entry(*id).kind() {
                Kind::Symlink { target } => Ok(target.to_vec()),
                _ => Err(Errno::INVAL),
            },
            Target::Node(Node::Writable(inode)) => {
                let system = tree.writable.system(*inode);
                Ok(system.target(inode.number)?.to_vec())
            }
            Target::HostAt(path) => self.link_of_host(path),
            _ => Err(Errno::NOENT),
        }
    }

    fn link_of_host(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let process = self.call.credentials()?.process;
        match path {
            b"/proc/self" => return Ok(process.to_string().into_bytes()),
            b"/proc/thread-self" => {
                return Ok(format!("{process}/task/{}", self.call.task.0).into_bytes());
            }
            _ => {}
        }
        // Below a process they lead to the thing itself, which is on another file system.
        let is_magic = path
            .strip_prefix(b"/proc/")
            .is_some_and(|rest| rest.contains(&b'/'));
        if is_magic {
            let refused = self.restrictions.contains(ResolveFlags::NO_MAGICLINKS);
            return Err(if refused { Errno::LOOP } else { Errno::XDEV });
        }
        Ok(readlinkat(CWD, path, Vec::new())?.into_bytes())
    }
}

/// A directory that was found, to go on in.
fn base(call: &Call, directory: Target) -> Base {
    match directory {
        Target::Node(Node::Writable(inode)) => Base::Inode(inode),
        Target::Node(node) => Base::Path(call.shield.tree.path(node).into_owned()),
        Target::HostAt(path) => Base::Path(path),
        Target::Host | Target::Missing | Target::Undeclared => Base::Path(Vec::new()),
    }
}

/// The first name of a path and what follows it, slashes first; `None` if it has nothing but slashes.
fn first(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = path.iter().position(|&byte| byte != b'/')?;
    let path = &path[start..];
    let end = path.iter().position(|&byte| byte == b'/');
    Some(path.split_at(end.unwrap_or(path.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restrictions_are_known_or_refused() {
        let beneath = libc::RESOLVE_BENEATH;
        assert_eq!(restrictions(beneath), Ok(ResolveFlags::BENEATH));
        assert_eq!(
            restrictions(beneath | libc::RESOLVE_IN_ROOT),
            Err(Errno::INVAL)
        );
        assert_eq!(
            restrictions(beneath | libc::RESOLVE_CACHED),
            Err(Errno::AGAIN)
        );
        assert_eq!(restrictions(0x40), Err(Errno::INVAL));
        assert_eq!(restrictions(1 << 32 | beneath), Err(Errno::INVAL));
    }

    #[test]
    fn a_path_is_taken_apart_name_by_name() {
        assert_eq!(first(b"//a//b/"), Some((&b"a"[..], &b"//b/"[..])));
        assert_eq!(first(b"b"), Some((&b"b"[..], &b""[..])));
        assert_eq!(first(b"//"), None);
        assert_eq!(first(b""), None);
    }
}
