//! Files without a name (`O_TMPFILE`): they live while they are open, unless they get one.

use std::sync::Arc;

use rustix::io::Errno;

use crate::attributes::{Attributes, FileKind, Time};
use crate::directory::New;
use crate::entries::{check_name, Entry};
use crate::error::Result;
use crate::node::{Key, Kind};
use crate::volume::{OpenFile, Volume};

impl Volume {
    /// Creates a regular file that has no name, open.
    ///
    /// # Errors
    /// ENOSPC if the disk is full.
    pub fn create_unnamed(self: &Arc<Self>, new: &New<'_>) -> Result<OpenFile> {
        let mut working = self.change()?;
        self.check_room(&mut working, 0)?;
        let kind = FileKind::Regular;
        let mut attributes =
            Attributes::new(working.next_inode, kind, new.mode, (new.uid, new.gid));
        attributes.links = 0;
        let inode = attributes.inode;
        self.prepare(&mut working, &[(inode, None)])?;
        working.next_inode += 1;
        self.put(&mut working, &attributes)?;
        let orphan = Key::new(0, Kind::Orphan, inode);
        working.tree.put(&**self, orphan, &[])?;
        *working.handles.entry(inode).or_default() += 1;
        drop(working);
        Ok(OpenFile::new(Arc::clone(self), inode))
    }

    /// Gives an open file that never had a name its first one.
    ///
    /// # Errors
    /// EEXIST, ENOENT, ENOTDIR, ENAMETOOLONG; EINVAL if the file has a name.
    pub fn name_unnamed(&self, inode: u64, directory: u64, name: &[u8]) -> Result<()> {
        let mut working = self.change()?;
        let mut attributes = self.find(&working, inode)?;
        let mut above = self.directory(&working, directory)?;
        check_name(name)?;
        if self.entry(&working, directory, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        if above.links == 0 {
            return Err(Errno::NOENT.into());
        }
        if attributes.links != 0 || attributes.kind != FileKind::Regular {
            return Err(Errno::INVAL.into());
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
        attributes.links = 1;
        attributes.ctime = Time::now();
        above.touch();
        self.put(&mut working, &attributes)?;
        self.put(&mut working, &above)?;
        working
            .tree
            .remove(self, Key::new(0, Kind::Orphan, inode))?;
        self.put_entry(&mut working, directory, name, entry)
    }
}
