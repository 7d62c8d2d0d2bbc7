//! Walking a path through the inodes of a writable region, the way the kernel walks.

use std::borrow::Cow;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{parent, Inode, Spot, Writable};
use crate::supervisor::task::join;

/// Symbolic links followed on one path, as in the kernel.
pub const LINK_LIMIT: u32 = 40;
/// Longest name of a file.
const NAME_LIMIT: usize = 255;
/// Longest path without its NUL.
const PATH_LIMIT: usize = 4095;

/// What becomes of a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is followed.
    Follow,
    /// It is followed only if a slash stands behind it.
    Keep,
    /// It is what the call is about: calls that make, move or remove a name.
    Name,
}

/// Where a walk ended.
#[derive(Debug)]
pub enum Walked {
    /// At an inode; the name that led there, unless the path ended otherwise than with a name.
    Found(Inode, Option<Spot>),
    /// At a name that nothing has.
    Free(Spot),
    /// Outside: this absolute path goes on.
    Outside(Vec<u8>),
}

impl Writable {
    /// Walks `rest`, relative to a directory. `search` says whether the caller may search a directory; `links` counts symbolic links.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn walk(
        &self,
        start: Inode,
        rest: &[u8],
        last: Last,
        links: &mut u32,
        search: &dyn Fn(Inode) -> Result<(), Errno>,
    ) -> Result<Walked, Errno> {
        let mut rest = Cow::Borrowed(rest);
        let mut position = 0;
        let mut directory = start;
        let mut spot = None;
        loop {
            let Some(component) = next_component(&rest, &mut position) else {
                return Ok(Walked::Found(directory, spot));
            };
            let component = component.to_vec();
            let after = &rest[position..];
            if component.len() > NAME_LIMIT {
                return Err(Errno::NAMETOOLONG);
            }
            search(directory)?;
            let system = self.system(directory);
            match &component[..] {
                b"." => {
                    spot = None;
                    continue;
                }
                b".." => {
                    spot = None;
                    if let Some(root) = self.roots.iter().find(|root| root.inode == directory) {
                        let above = parent(&root.prefix).unwrap_or(b"/");
                        return Ok(Walked::Outside(join(above, after)));
                    }
                    directory.number = system.parent(directory.number)?;
                    continue;
                }
                _ => {}
            }
            let is_last = after.iter().all(|&byte| byte == b'/');
            let here = || Spot {
                directory,
                name: component.clone(),
                slash: !after.is_empty(),
            };
            let Some(number) = system.lookup(directory.number, &component)? else {
                return if is_last {
                    Ok(Walked::Free(here()))
                } else {
                    Err(Errno::NOENT)
                };
            };
            let child = Inode {
                number,
                ..directory
            };
            let is_subject = last == Last::Name && is_last;
            if let Some(prefix) = self.junctions.get(&child).filter(|_| !is_subject) {
                return Ok(Walked::Outside([prefix, after].concat()));
            }
            match FileType::from_raw_mode(system.metadata(number)?.mode) {
                FileType::Directory => {
                    spot = is_last.then(here);
                    directory = child;
                }
                FileType::Symlink
                    if last == Last::Follow
                        || !is_last
                        || (last == Last::Keep && !after.is_empty()) =>
                {
                    *links += 1;
                    if *links > LINK_LIMIT {
                        return Err(Errno::LOOP);
                    }
                    let target = system.target(number)?;
                    let path = [&target[..], after].concat();
                    if path.len() > PATH_LIMIT {
                        return Err(Errno::NAMETOOLONG);
                    }
                    if target.starts_with(b"/") {
                        return Ok(Walked::Outside(path));
                    }
                    rest = Cow::Owned(path);
                    position = 0;
                    spot = None;
                }
                FileType::Symlink => return Ok(Walked::Found(child, Some(here()))),
                _ if after.is_empty() => return Ok(Walked::Found(child, Some(here()))),
                _ => return Err(Errno::NOTDIR),
            }
        }
    }
}

/// The next component from `position` on, which moves behind it; `None` if only slashes are left.
fn next_component<'a>(path: &'a [u8], position: &mut usize) -> Option<&'a [u8]> {
    let start = *position + path[*position..].iter().position(|&byte| byte != b'/')?;
    let length = path[start..]
        .iter()
        .position(|&byte| byte == b'/')
        .unwrap_or(path.len() - start);
    *position = start + length;
    Some(&path[start..start + length])
}
