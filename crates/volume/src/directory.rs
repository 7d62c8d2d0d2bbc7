//! Changes of directories: create, link, unlink.

use rustix::io::Errno;

use crate::attributes::{Attributes, FileKind, Time};
use crate::entries::{check_name, Entry};
use crate::error::{Result, VolumeError};
use crate::node::{Key, Kind};
use crate::volume::{Volume, Working};
use crate::{MAX_NAME, MAX_TARGET};

const SET_GROUP: u32 = 0o2000;
/// Names that one inode may have.
const MAX_LINKS: u32 = u32::MAX - 1;

/// What a new inode shall be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct New<'a> {
    /// Its type, with what belongs to that.
    pub kind: NewKind<'a>,
    /// Permission, set-id and sticky bits, the caller's umask already taken off.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory passes its own on.
    pub gid: u32,
}

/// The type of a new inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum NewKind<'a> {
    Regular,
    Directory,
    /// With its target.
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    /// With major and minor number.
    CharDevice(u32, u32),
    /// With major and minor number.
    BlockDevice(u32, u32),
}

impl NewKind<'_> {
    fn kind(&self) -> FileKind {
        match self {
            Self::Regular => FileKind::Regular,
            Self::Directory => FileKind::Directory,
            Self::Symlink(_) => FileKind::Symlink,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
            Self::CharDevice(..) => FileKind::CharDevice,
            Self::BlockDevice(..) => FileKind::BlockDevice,
        }
    }
}

impl Volume {
    /// Finds a name in a directory; `.` and `..` too.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENAMETOOLONG.
    pub fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        let working = self.read();
        let attributes = self.directory(&working, directory)?;
        match name {
            b"." => Ok(attributes),
            b".." => self.find(&working, attributes.parent),
            _ if name.len() > MAX_NAME => Err(Errno::NAMETOOLONG.into()),
            _ => {
                let entry = self.entry(&working, directory, name)?;
                self.find(&working, entry.ok_or(Errno::NOENT)?.inode)
            }
        }
    }

    /// Creates an inode under a new name.
    ///
    /// # Errors
    /// EEXIST, ENOENT, ENOTDIR, ENAMETOOLONG, EINVAL; ENOSPC if the disk is full.
    pub fn create_inode(&self, directory: u64, name: &[u8], new: &New<'_>) -> Result<Attributes> {
        let mut working = self.change()?;
        let mut above = self.directory(&working, directory)?;
        if matches!(name, b"." | b"..") {
            return Err(Errno::EXIST.into());
        }
        check_name(name)?;
        if self.entry(&working, directory, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        if above.links == 0 {
            return Err(Errno::NOENT.into());
        }
        let is_directory = new.kind == NewKind::Directory;
        if is_directory && above.links >= MAX_LINKS {
            return Err(Errno::MLINK.into());
        }
        self.check_room(&mut working, 0)?;
        let target = match new.kind {
            NewKind::Symlink(target) => check_target(target)?,
            _ => b"",
        };
        let inherits = above.mode & SET_GROUP != 0;
        let owner = (new.uid, if inherits { above.gid } else { new.gid });
        let kind = new.kind.kind();
        let mut attributes = Attributes::new(working.next_inode, kind, new.mode, owner);
        attributes.size = target.len() as u64;
        if is_directory {
            attributes.links = 2;
            attributes.parent = directory;
            attributes.mode |= above.mode & SET_GROUP;
        }
        if let NewKind::CharDevice(major, minor) | NewKind::BlockDevice(major, minor) = new.kind {
            attributes.device = (major, minor);
        }
        let entry = Entry {
            slot: self.free_slot(&working, directory, name)?,
            inode: attributes.inode,
            kind: attributes.kind,
        };
        self.prepare(
            &mut working,
            &[(directory, Some(entry.slot)), (entry.inode, None)],
        )?;
        if is_directory {
            above.links += 1;
        }
        above.touch();
        working.next_inode += 1;
        self.put(&mut working, &attributes)?;
        self.put_parts(&mut working, entry.inode, Kind::Target, target)?;
        self.put(&mut working, &above)?;
        self.put_entry(&mut working, directory, name, entry)?;
        Ok(attributes)
    }

    /// Gives an inode another name.
    ///
    /// # Errors
    /// EEXIST, ENOENT (also for an inode without any name), ENOTDIR, EPERM for a directory, EMLINK, ENAMETOOLONG.
    pub fn link(&self, inode: u64, directory: u64, name: &[u8]) -> Result<Attributes> {
        let mut working = self.change()?;
        let mut attributes = self.find(&working, inode)?;
        let mut above = self.directory(&working, directory)?;
        check_name(name)?;
        if self.entry(&working, directory, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        if attributes.kind == FileKind::Directory {
            return Err(Errno::PERM.into());
        }
        if above.links == 0 || attributes.links == 0 {
            return Err(Errno::NOENT.into());
        }
        if attributes.links >= MAX_LINKS {
            return Err(Errno::MLINK.into());
        }
        let entry = Entry {
            slot: self.free_slot(&working, directory, name)?,
            inode,
            kind: attributes.kind,
        };
        self.prepare(
            &mut working,
            &[(directory, Some(entry.slot)), (inode, None)],
        )?;
        attributes.links += 1;
        attributes.ctime = Time::now();
        above.touch();
        self.put(&mut working, &attributes)?;
        self.put(&mut working, &above)?;
        self.put_entry(&mut working, directory, name, entry)?;
        Ok(attributes)
    }

    /// Removes a name that is no directory's. The inode goes with its last name, or when it is closed.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EISDIR.
    pub fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        let inode = {
            let mut working = self.change_to_free()?;
            let above = self.directory(&working, directory)?;
            if matches!(name, b"." | b"..") {
                return Err(Errno::ISDIR.into());
            }
            let entry = self.existing(&working, directory, name)?;
            if entry.kind == FileKind::Directory {
                return Err(Errno::ISDIR.into());
            }
            self.remove_entry(&mut working, above, entry)?;
            entry.inode
        };
        self.reap(inode)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY, EINVAL for `.`.
    pub fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        let inode = {
            let mut working = self.change_to_free()?;
            let above = self.directory(&working, directory)?;
            match name {
                b"." => return Err(Errno::INVAL.into()),
                b".." => return Err(Errno::NOTEMPTY.into()),
                _ => {}
            }
            let entry = self.existing(&working, directory, name)?;
            if entry.kind != FileKind::Directory {
                return Err(Errno::NOTDIR.into());
            }
            if !self.is_empty(&working, entry.inode)? {
                return Err(Errno::NOTEMPTY.into());
            }
            self.remove_entry(&mut working, above, entry)?;
            entry.inode
        };
        self.reap(inode)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// ENOENT, or EINVAL if the inode is no link.
    pub fn read_link(&self, inode: u64) -> Result<Vec<u8>> {
        let working = self.read();
        match self.find(&working, inode)?.kind {
            FileKind::Symlink => self.get_parts(&working, inode, Kind::Target),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// Looks a name up that must be there.
    pub(crate) fn existing(&self, working: &Working, directory: u64, name: &[u8]) -> Result<Entry> {
        if name.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG.into());
        }
        self.entry(working, directory, name)?
            .ok_or_else(|| Errno::NOENT.into())
    }

    /// Takes a name away, and one link off its inode.
    pub(crate) fn remove_entry(
        &self,
        working: &mut Working,
        mut above: Attributes,
        entry: Entry,
    ) -> Result<()> {
        let directory = above.inode;
        self.prepare(
            working,
            &[(directory, Some(entry.slot)), (entry.inode, None)],
        )?;
        above.touch();
        if entry.kind == FileKind::Directory {
            above.links -= 1;
        }
        self.put(working, &above)?;
        self.drop_link(working, entry.inode)?;
        let key = Key::new(directory, Kind::Entry, entry.slot);
        working.tree.remove(self, key)?;
        Ok(())
    }

    /// Takes one link off an inode whose records were prepared; the last one makes it an orphan.
    pub(crate) fn drop_link(&self, working: &mut Working, inode: u64) -> Result<()> {
        let mut attributes = self.find(working, inode)?;
        attributes.links = match attributes.kind {
            FileKind::Directory => 0,
            _ => attributes.links.saturating_sub(1),
        };
        attributes.ctime = Time::now();
        self.put(working, &attributes)?;
        if attributes.links == 0 {
            let key = Key::new(0, Kind::Orphan, inode);
            working.tree.put(self, key, &[])?;
        }
        Ok(())
    }

    /// Reads what a change of these inodes, and of entries in them, will need.
    pub(crate) fn prepare(
        &self,
        working: &mut Working,
        places: &[(u64, Option<u64>)],
    ) -> Result<()> {
        let keys = places
            .iter()
            .flat_map(|(inode, slot)| {
                [
                    Some(Key::new(*inode, Kind::Attributes, 0)),
                    Some(Key::new(*inode, Kind::Target, 0)),
                    Some(Key::new(0, Kind::Orphan, *inode)),
                    slot.map(|slot| Key::new(*inode, Kind::Entry, slot)),
                ]
            })
            .flatten()
            .collect::<Vec<_>>();
        working.tree.prepare(self, &keys)
    }
}

fn check_target(target: &[u8]) -> Result<&[u8]> {
    match target.len() {
        0 => Err(VolumeError::Refused(Errno::NOENT)),
        length if length > MAX_TARGET => Err(Errno::NAMETOOLONG.into()),
        _ if target.contains(&0) => Err(Errno::INVAL.into()),
        _ => Ok(target),
    }
}
