//! Path resolution inside the index: the way the kernel walks paths, without asking the disk.

use std::borrow::Cow;

use crate::index::{EntryId, Index, Kind, Region, RegionKind};
use crate::path::{self, NAME_LIMIT, PATH_LIMIT};

/// How many symbolic links one resolution follows, as in the kernel.
const LINK_LIMIT: u32 = 40;

/// Where a path leads. All paths in it are absolute; *canonical* ones are normal and pass no symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// To an entry of the index; its path is canonical.
    Entry {
        /// The entry.
        id: EntryId,
    },
    /// To nothing, in a directory that exists. The name could only be created, and protected regions refuse that.
    Missing {
        /// The canonical path of what is missing.
        path: Vec<u8>,
        /// The directory.
        parent: EntryId,
    },
    /// Into a region of kind host: the kernel shall go on.
    Host {
        /// The canonical path to the point of entry, then the components that are left, as they were given: they may
        /// hold `.`, `..` (which never lead out of the region by name), symbolic links and a final slash.
        path: Vec<u8>,
    },
    /// Into a writable region, whose tree the index does not know.
    Writable {
        /// As in [`Resolved::Host`], but `..` may lead out of the region: where to, its own links decide.
        path: Vec<u8>,
        /// [`RegionKind::Ephemeral`] or [`RegionKind::Volume`].
        kind: RegionKind,
    },
    /// To something that the index does not list, beneath no region.
    Undeclared {
        /// The canonical path to the first unknown component, then the components that are left.
        path: Vec<u8>,
    },
}

/// Why a path leads nowhere; each has its `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// `ENOTDIR`: a component that is not the last one, or that a slash follows, is no directory.
    #[error("not a directory")]
    NotDirectory,
    /// `ELOOP`: more than 40 symbolic links.
    #[error("too many levels of symbolic links")]
    Loop,
    /// `ENOENT`: a component before the last one is missing, or the path is empty or not absolute.
    #[error("no such file or directory")]
    NoEntry,
    /// `ENAMETOOLONG`: the path is longer than 4095 bytes or a component longer than 255.
    #[error("file name too long")]
    NameTooLong,
}

impl Index {
    /// Follows an absolute path, normal or not, as the kernel would: component by component, through the symbolic links
    /// of the index, `..` after them. A final slash (or `/.`) demands a directory and follows a final link.
    ///
    /// The walk ends where a host or writable region begins, unless other regions lie beneath that point and the
    /// path goes on. A `..` that leads out of a host region again (by name: what the host's links do is not known here) is
    /// followed in the index, so that no path reaches protected names through the kernel.
    ///
    /// # Errors
    /// [`ResolveError`], with the meaning of the kernel's error numbers.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Resolved, ResolveError> {
        if path.len() > PATH_LIMIT {
            return Err(ResolveError::NameTooLong);
        }
        if path.first() != Some(&b'/') {
            return Err(ResolveError::NoEntry);
        }
        if let Some(kind) = outside_kind(self.region_of(b"/")) {
            if !self.has_region_beneath(b"/") {
                return Ok(outside(kind, path.to_vec()));
            }
        }
        let mut rest = Cow::Borrowed(path);
        let mut position = 0;
        let mut directory = EntryId::ROOT;
        // The region of that directory: those of the directories above are looked up no more.
        let mut region = self.region_of(b"/");
        let mut links = 0;
        loop {
            let Some(component) = next_component(&rest, &mut position) else {
                return Ok(self.resolved_directory(directory));
            };
            let after = &rest[position..];
            let is_last = after.iter().all(|&byte| byte == b'/');
            match component {
                b"." => continue,
                b".." => {
                    directory = self.parent(directory);
                    region = self.region_of(self.entry(directory).path());
                    continue;
                }
                _ if component.len() > NAME_LIMIT => return Err(ResolveError::NameTooLong),
                _ => {}
            }
            let child = self.child(directory, component);
            let child_path = match child {
                Some(id) => Cow::Borrowed(self.entry(id).path()),
                None => Cow::Owned(path::join(self.entry(directory).path(), component)),
            };
            let child_region = self.region_at(&child_path).or(region);
            if let Some(kind) = outside_kind(child_region) {
                let goes_on =
                    self.has_region_beneath(&child_path) && after.iter().any(|&byte| byte != b'/');
                if !goes_on {
                    if let Some(way_out) =
                        (kind == RegionKind::Host).then(|| way_out(after)).flatten()
                    {
                        position += way_out;
                        continue;
                    }
                    return Ok(outside(kind, [&child_path, after].concat()));
                }
            }
            let Some(child) = child else {
                return if child_region.is_none() {
                    Ok(Resolved::Undeclared {
                        path: [&child_path, after].concat(),
                    })
                } else if is_last {
                    Ok(Resolved::Missing {
                        path: child_path.into_owned(),
                        parent: directory,
                    })
                } else {
                    Err(ResolveError::NoEntry)
                };
            };
            match self.entry(child).kind() {
                Kind::Directory => (directory, region) = (child, child_region),
                Kind::Symlink { target } if follow_last || !after.is_empty() => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(ResolveError::Loop);
                    }
                    if target[0] == b'/' {
                        directory = EntryId::ROOT;
                        region = self.region_of(b"/");
                    }
                    rest = Cow::Owned([target, after].concat());
                    position = 0;
                }
                _ if after.is_empty() => return Ok(Resolved::Entry { id: child }),
                _ => return Err(ResolveError::NotDirectory),
            }
        }
    }

    /// What the walk found when it ended at a directory that the index lists.
    fn resolved_directory(&self, id: EntryId) -> Resolved {
        let path = self.entry(id).path();
        match outside_kind(self.region_of(path)) {
            Some(kind) => outside(kind, path.to_vec()),
            None => Resolved::Entry { id },
        }
    }
}

/// The kind of a region if the index does not decide what is in it.
fn outside_kind(region: Option<&Region>) -> Option<RegionKind> {
    let kind = region?.kind();
    matches!(
        kind,
        RegionKind::Host | RegionKind::Ephemeral | RegionKind::Volume
    )
    .then_some(kind)
}

fn outside(kind: RegionKind, path: Vec<u8>) -> Resolved {
    match kind {
        RegionKind::Host => Resolved::Host { path },
        kind => Resolved::Writable { path, kind },
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

/// If `rest`, taken by name, leaves the directory that it starts in: how many bytes of it do so.
fn way_out(rest: &[u8]) -> Option<usize> {
    let mut position = 0;
    let mut depth = 0_usize;
    while let Some(component) = next_component(rest, &mut position) {
        match component {
            b"." => {}
            b".." if depth == 0 => return Some(position),
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    None
}
