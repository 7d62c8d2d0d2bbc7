//! Following paths through the index, the writable regions and the host's part.

use std::borrow::Cow;
use std::sync::PoisonError;

use rustix::fs::lstat;
use rustix::io::Errno;
use sconify_shield::{Region, RegionKind, ResolveError, Resolved};

use crate::supervisor::task::{join, os_path};
use crate::supervisor::writable::{Inode, Last, Spot, Walked};

use super::{Name, Node, Tree};

/// Regions that one path may pass.
const CROSSINGS_LIMIT: usize = 64;
/// Undeclared paths are spoken of once each, up to this many.
const MENTIONS: usize = 4096;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To something of ours.
    Node(Node),
    /// To nothing, in a protected or writable directory.
    Missing,
    /// Into the host's part: the path as the kernel should take it.
    Host(Vec<u8>),
    /// To something that nobody declared.
    Undeclared,
}

/// Where a path begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// At the root: the path is absolute.
    Root,
    /// At a directory of a writable region.
    Inode(Inode),
}

impl Tree {
    /// Follows an absolute path, whoever may search the directories on the way.
    ///
    /// # Errors
    /// As the kernel would for this path.
    pub fn resolve(&self, path: &[u8], follow: bool) -> Result<Place, Errno> {
        self.walk(&Start::Root, path, last(follow), &|_| Ok(()))
            .map(|(place, _)| place)
    }

    /// Follows a path; also says which name in a writable directory it ends with, if it ends with one. `search` says whether the caller may search a
    /// directory of a writable region, or one that leads to such a region.
    ///
    /// # Errors
    /// As the kernel would for this path.
    pub fn walk(
        &self,
        start: &Start,
        path: &[u8],
        last: Last,
        search: &dyn Fn(Node) -> Result<(), Errno>,
    ) -> Result<(Place, Option<Spot>), Errno> {
        let walked = self.walk_regions(start, path, last, search);
        if self.injected.is_empty() {
            return walked;
        }
        let canonical = match &walked {
            Ok((Place::Node(node), _)) => self.path(*node),
            Ok((_, Some(spot))) => {
                Cow::Owned(join(&self.writable.path(spot.directory).0, &spot.name))
            }
            Ok((Place::Host(path), _)) => Cow::Borrowed(&path[..]),
            _ => match self.index.resolve(path, last == Last::Follow) {
                Ok(Resolved::Missing { path, .. } | Resolved::Undeclared { path }) => {
                    Cow::Owned(path)
                }
                _ => Cow::Borrowed(path),
            },
        };
        match self.by_path.get(&*canonical) {
            Some(&number) => Ok((Place::Node(Node::Injected(number)), None)),
            None => walked,
        }
    }

    fn walk_regions(
        &self,
        start: &Start,
        path: &[u8],
        last: Last,
        search: &dyn Fn(Node) -> Result<(), Errno>,
    ) -> Result<(Place, Option<Spot>), Errno> {
        let mut links = 0;
        let mut next = match start {
            Start::Root => Cow::Borrowed(path),
            Start::Inode(inode) => {
                match self.walk_writable(*inode, path, last, &mut links, search)? {
                    Walked::Outside(path) => Cow::Owned(path),
                    walked => return Ok(placed(walked)),
                }
            }
        };
        for _ in 0..CROSSINGS_LIMIT {
            let resolved = self.resolve_in_index(&next, last)?;
            let (path, kind) = match resolved {
                Resolved::Writable { path, kind } => (path, kind),
                resolved => return Ok((self.place(resolved), None)),
            };
            let prefix = self.index.region_of(&path).map(Region::prefix);
            let prefix = prefix.unwrap_or_default();
            let Some((root, above)) = self.writable.enter(prefix) else {
                return Ok((self.unserved(&path, kind), None));
            };
            let rest = &path[prefix.len()..];
            if let Some(above) = above.filter(|above| !self.open_directories[above.0 as usize]) {
                let directories = std::iter::once(above).chain(self.directories_above(above));
                for directory in directories {
                    search(Node::Entry(directory))?;
                }
            }
            match self.walk_writable(root, rest, last, &mut links, search)? {
                Walked::Outside(path) => next = Cow::Owned(path),
                walked => return Ok(placed(walked)),
            }
        }
        Err(Errno::LOOP)
    }

    fn resolve_in_index(&self, path: &[u8], last: Last) -> Result<Resolved, Errno> {
        let result = match self.index.resolve(path, last == Last::Follow) {
            // The name itself is meant; that only a directory may have a slash behind it is looked at later.
            Err(ResolveError::NotDirectory) if last == Last::Name && path.ends_with(b"/") => {
                let end = path.iter().rposition(|&byte| byte != b'/').unwrap_or(0);
                self.index.resolve(&path[..=end], false)
            }
            result => result,
        };
        result.map_err(|error| match error {
            ResolveError::NotDirectory => Errno::NOTDIR,
            ResolveError::Loop => Errno::LOOP,
            ResolveError::NoEntry => Errno::NOENT,
            ResolveError::NameTooLong => Errno::NAMETOOLONG,
        })
    }

    fn walk_writable(
        &self,
        start: Inode,
        rest: &[u8],
        last: Last,
        links: &mut u32,
        search: &dyn Fn(Node) -> Result<(), Errno>,
    ) -> Result<Walked, Errno> {
        let search = |inode| search(Node::Writable(inode));
        self.writable.walk(start, rest, last, links, &search)
    }

    fn place(&self, resolved: Resolved) -> Place {
        match resolved {
            Resolved::Entry { id } => Place::Node(Node::Entry(id)),
            Resolved::Missing { .. } => Place::Missing,
            Resolved::Host { path } => Place::Host(path),
            Resolved::Writable { path, kind } => self.unserved(&path, kind),
            Resolved::Undeclared { path } => {
                self.mention(&path);
                Place::Undeclared
            }
        }
    }

    fn unserved(&self, path: &[u8], kind: RegionKind) -> Place {
        if self.is_first_mention(path) {
            let region = self.index.region_of(path);
            error!(
                "{}: refused: the region {} is {}, which this runtime can't serve",
                Name(path),
                Name(region.map_or(&b"/"[..], |region| region.prefix())),
                kind.name()
            );
        }
        Place::Undeclared
    }

    /// Says, once for each path, that it is undeclared and how to declare it.
    fn mention(&self, path: &[u8]) {
        if !self.is_first_mention(path) {
            return;
        }
        let name = Name(path);
        if self.index.was_omitted(path) {
            warn!(
                "{name}: refused: it is in no region (undeclared); the native image has it: convert with \
                 --plain-file={name}, or with --dir for its directory"
            );
        } else if lstat(os_path(path)).is_ok() {
            warn!(
                "{name}: refused: it is in no region (undeclared), yet the container has it: convert with \
                 --host-path={name} if the program may see what the host puts there"
            );
        } else {
            debug!("{name}: refused: it is in no region (undeclared)");
        }
    }

    fn is_first_mention(&self, path: &[u8]) -> bool {
        let mut mentioned = self
            .mentioned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        mentioned.len() < MENTIONS && mentioned.insert(path.to_vec())
    }
}

/// Whether a link at the end of a path is followed.
pub fn last(follow: bool) -> Last {
    if follow {
        Last::Follow
    } else {
        Last::Keep
    }
}

/// The place that a walk in a writable region ended at.
fn placed(walked: Walked) -> (Place, Option<Spot>) {
    match walked {
        Walked::Found(inode, spot) => (Place::Node(Node::Writable(inode)), spot),
        Walked::Free(spot) => (Place::Missing, Some(spot)),
        Walked::Outside(path) => (Place::Host(path), None),
    }
}
