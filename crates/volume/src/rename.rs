//! Rename, in all its ways.

use rustix::io::Errno;

use crate::attributes::{Attributes, FileKind, Time};
use crate::entries::{check_name, Entry};
use crate::error::Result;
use crate::node::{Key, Kind};
use crate::volume::{Volume, Working};

/// What becomes of an entry that has the new name already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// The call is refused: `RENAME_NOREPLACE`.
    NoReplace,
    /// It gets the old name: `RENAME_EXCHANGE`.
    Exchange,
}

/// A name and the directory that it is in.
struct Place<'a> {
    directory: u64,
    name: &'a [u8],
}

impl Volume {
    /// Moves an entry to another name or directory, at once for everybody, crashes included.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EISDIR, ENOTEMPTY, EEXIST, EINVAL if a directory would be moved into itself, EBUSY for `.` and
    /// `..`, ENAMETOOLONG.
    pub fn rename(
        &self,
        from_directory: u64,
        from_name: &[u8],
        to_directory: u64,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        let from = Place {
            directory: from_directory,
            name: from_name,
        };
        let to = Place {
            directory: to_directory,
            name: to_name,
        };
        let mut working = self.change()?;
        let replaced = self.rename_in(&mut working, &from, &to, mode)?;
        drop(working);
        replaced.map_or(Ok(()), |inode| self.reap(inode))
    }

    fn rename_in(
        &self,
        working: &mut Working,
        from: &Place<'_>,
        to: &Place<'_>,
        mode: RenameMode,
    ) -> Result<Option<u64>> {
        let above_from = self.directory(working, from.directory)?;
        let above_to = self.directory(working, to.directory)?;
        if [from.name, to.name]
            .iter()
            .any(|name| matches!(*name, b"." | b".."))
        {
            return Err(Errno::BUSY.into());
        }
        let source = self.existing(working, from.directory, from.name)?;
        check_name(to.name)?;
        if above_to.links == 0 {
            return Err(Errno::NOENT.into());
        }
        let target = self.entry(working, to.directory, to.name)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EXIST.into()),
            (RenameMode::Exchange, None) => return Err(Errno::NOENT.into()),
            _ => {}
        }
        if target.is_some_and(|target| target.inode == source.inode) {
            // Two names of one inode: nothing is done.
            return Ok(None);
        }
        // In the order in which Linux looks, for programs that tell by the error.
        if self.is_inside(working, to.directory, source)? {
            return Err(Errno::INVAL.into());
        }
        if let Some(target) = target {
            if self.is_inside(working, from.directory, target)? {
                return Err(match mode {
                    RenameMode::Exchange => Errno::INVAL.into(),
                    _ => Errno::NOTEMPTY.into(),
                });
            }
        }
        match target {
            Some(target) if mode == RenameMode::Exchange => {
                self.exchange(working, (from, source), (to, target), above_from, above_to)?;
                Ok(None)
            }
            _ => {
                if let Some(target) = target {
                    self.check_replaceable(working, source, target)?;
                }
                self.replace(working, (from, source), (to, target), above_from, above_to)?;
                Ok(target.map(|target| target.inode))
            }
        }
    }

    fn replace(
        &self,
        working: &mut Working,
        (from, source): (&Place<'_>, Entry),
        (to, target): (&Place<'_>, Option<Entry>),
        mut above_from: Attributes,
        mut above_to: Attributes,
    ) -> Result<()> {
        let slot = match target {
            Some(target) => target.slot,
            None => self.free_slot(working, to.directory, to.name)?,
        };
        let mut places = vec![
            (from.directory, Some(source.slot)),
            (to.directory, Some(slot)),
            (source.inode, None),
        ];
        places.extend(target.map(|target| (target.inode, None)));
        self.prepare(working, &places)?;
        let is_directory = source.kind == FileKind::Directory;
        above_from.touch();
        above_to.touch();
        if from.directory == to.directory {
            if is_directory && target.is_some() {
                above_to.links -= 1;
            }
        } else {
            if is_directory {
                above_from.links -= 1;
                above_to.links += u32::from(target.is_none());
            }
            self.put(working, &above_from)?;
        }
        self.put(working, &above_to)?;
        if let Some(target) = target {
            self.drop_link(working, target.inode)?;
        }
        self.moved(working, source.inode, to.directory)?;
        let key = Key::new(from.directory, Kind::Entry, source.slot);
        working.tree.remove(self, key)?;
        self.put_entry(working, to.directory, to.name, Entry { slot, ..source })
    }

    fn exchange(
        &self,
        working: &mut Working,
        (from, source): (&Place<'_>, Entry),
        (to, target): (&Place<'_>, Entry),
        mut above_from: Attributes,
        mut above_to: Attributes,
    ) -> Result<()> {
        self.prepare(
            working,
            &[
                (from.directory, Some(source.slot)),
                (to.directory, Some(target.slot)),
                (source.inode, None),
                (target.inode, None),
            ],
        )?;
        above_from.touch();
        above_to.touch();
        if from.directory != to.directory {
            let is_directory = |entry: Entry| u32::from(entry.kind == FileKind::Directory);
            let (leaving, coming) = (is_directory(source), is_directory(target));
            above_from.links = above_from.links - leaving + coming;
            above_to.links = above_to.links - coming + leaving;
            self.put(working, &above_from)?;
        }
        self.put(working, &above_to)?;
        self.moved(working, source.inode, to.directory)?;
        self.moved(working, target.inode, from.directory)?;
        let (source_slot, target_slot) = (source.slot, target.slot);
        self.put_entry(
            working,
            from.directory,
            from.name,
            Entry {
                slot: source_slot,
                ..target
            },
        )?;
        self.put_entry(
            working,
            to.directory,
            to.name,
            Entry {
                slot: target_slot,
                ..source
            },
        )
    }

    fn moved(&self, working: &mut Working, inode: u64, directory: u64) -> Result<()> {
        let mut attributes = self.find(working, inode)?;
        attributes.ctime = Time::now();
        if attributes.kind == FileKind::Directory {
            attributes.parent = directory;
        }
        self.put(working, &attributes)
    }

    fn check_replaceable(&self, working: &Working, source: Entry, target: Entry) -> Result<()> {
        match (
            source.kind == FileKind::Directory,
            target.kind == FileKind::Directory,
        ) {
            (true, false) => Err(Errno::NOTDIR.into()),
            (false, true) => Err(Errno::ISDIR.into()),
            (true, true) if !self.is_empty(working, target.inode)? => Err(Errno::NOTEMPTY.into()),
            _ => Ok(()),
        }
    }

    /// Whether a directory is an entry or beneath it.
    fn is_inside(&self, working: &Working, directory: u64, entry: Entry) -> Result<bool> {
        let mut above = directory;
        while entry.kind == FileKind::Directory && above != crate::ROOT_INODE {
            if above == entry.inode {
                return Ok(true);
            }
            above = self.find(working, above)?.parent;
        }
        Ok(false)
    }
}
