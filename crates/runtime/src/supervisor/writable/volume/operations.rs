//! The calls of a file system on a volume: names and attributes at once, contents as memory files.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{fstat, FileType};
use rustix::io::Errno;
use sconify_volume::{
    Changes, FileKind, NewKind, RenameMode, Time as VolumeTime, MAX_NAME, ROOT_INODE,
};

use super::super::state::set_times;
use super::super::{Change, Content, FileSystem, Kind, Located, New, Renaming, Setting, Time};
use super::held::HeldFile;
use super::names::unpacked;
use super::VolumeSystem;
use crate::supervisor::tree::{Child, Metadata, WRITABLE_DEVICE};

/// Size that `stat` shows for directories.
const DIRECTORY_SIZE: u64 = 4096;
/// Names that a listing gives at once.
const LISTED: usize = 4096;

fn volume_time((seconds, nanoseconds): Time) -> VolumeTime {
    VolumeTime {
        seconds,
        nanoseconds,
    }
}

fn time(time: VolumeTime) -> Time {
    (time.seconds, time.nanoseconds)
}

impl FileSystem for VolumeSystem {
    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Option<u64>, Errno> {
        let found = self.find(directory, name)?;
        if let Some(attributes) = &found {
            self.names().place(attributes.inode, directory, name);
        }
        Ok(found.map(|attributes| attributes.inode))
    }

    fn parent(&self, directory: u64) -> Result<u64, Errno> {
        let attributes = self.attributes_of(directory)?;
        match attributes.kind {
            FileKind::Directory => Ok(attributes.parent),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn metadata(&self, number: u64) -> Result<Metadata, Errno> {
        let attributes = self.attributes_of(number)?;
        let mut metadata = Metadata {
            mode: attributes.kind.mode_bits() | attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            inode: self.shown(number),
            links: attributes.links,
            size: attributes.size,
            blocks: attributes.blocks(),
            accessed: time(attributes.atime),
            modified: time(attributes.mtime),
            changed: time(attributes.ctime),
            device: attributes.device,
            system: (
                WRITABLE_DEVICE.0,
                WRITABLE_DEVICE.1 + u32::from(self.number),
            ),
        };
        if attributes.kind == FileKind::Directory {
            metadata.set_size(DIRECTORY_SIZE);
        }
        if let Some(file) = self.file(number) {
            if let Some(memory) = file.memory() {
                let status = fstat(&**memory)?;
                let (modified, changed) = file.noted().times(&status);
                metadata.accessed = (status.st_atime, status.st_atime_nsec as u32);
                metadata.modified = modified;
                metadata.changed = metadata.changed.max(changed);
                metadata.size = status.st_size as u64;
                metadata.blocks = status.st_blocks as u64;
            }
        }
        Ok(metadata)
    }

    fn target(&self, number: u64) -> Result<Vec<u8>, Errno> {
        self.done(self.volume.read_link(number))
    }

    fn list(&self, directory: u64, from: u64) -> Result<Vec<(Child, u64)>, Errno> {
        let attributes = self.attributes_of(directory)?;
        match attributes.kind {
            FileKind::Directory if attributes.links == 0 => return Err(Errno::NOENT),
            FileKind::Directory => {}
            _ => return Err(Errno::NOTDIR),
        }
        let child = |name: &[u8], number: u64, kind: FileType| Child {
            name: name.to_vec(),
            inode: self.shown(number),
            kind,
        };
        let special = [(&b"."[..], directory), (b"..", attributes.parent)];
        let special = (0..).zip(special).skip(from.min(2) as usize);
        let special =
            special.map(|(at, (name, number))| (child(name, number, FileType::Directory), at + 1));
        let mut names = self.names();
        let listing = self.done(names.listing(&self.volume, directory))?;
        let named = listing.from(from).map(|(name, entry, next)| {
            let (number, kind) = unpacked(entry);
            (child(name, number, kind), next)
        });
        Ok(special.chain(named).take(LISTED).collect())
    }

    fn locate(&self, number: u64) -> Result<Located, Errno> {
        let is_removed = self.attributes_of(number)?.links == 0;
        let mut parts = Vec::new();
        let mut at = number;
        while at != ROOT_INODE {
            if let Some((directory, name)) = self.names().place_of(at) {
                parts.push(name);
                at = directory;
                continue;
            }
            // Forgotten, or one of several names is gone: looked for in the whole volume.
            let path = self.volume.path_of(at).ok_or(Errno::NOENT)?;
            parts.push(Arc::from(path.strip_prefix(b"/").unwrap_or(&path)));
            break;
        }
        parts.reverse();
        Ok(Located {
            root: ROOT_INODE,
            path: parts.join(&b'/'),
            is_removed,
        })
    }

    fn create(&self, directory: u64, name: &[u8], new: &New) -> Result<u64, Errno> {
        let kind = match &new.kind {
            Kind::File => NewKind::Regular,
            Kind::Directory => NewKind::Directory,
            Kind::Symlink(target) => NewKind::Symlink(target),
            Kind::Fifo => NewKind::Fifo,
            Kind::Socket => NewKind::Socket,
        };
        let new = sconify_volume::New {
            kind,
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
        };
        let mut names = self.names();
        let made = self.done(self.volume.create_inode(directory, name, &new))?;
        names.note(directory, name, made.inode, made.kind);
        Ok(made.inode)
    }

    fn create_unnamed(&self, directory: u64, new: &New, linkable: bool) -> Result<u64, Errno> {
        if self.attributes_of(directory)?.links == 0 {
            return Err(Errno::NOENT);
        }
        let new = sconify_volume::New {
            kind: NewKind::Regular,
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
        };
        let handle = self.done(self.volume.create_unnamed(&new))?;
        let number = handle.inode();
        let shown = format!("#{number}");
        self.names().place(number, directory, shown.as_bytes());
        let mut held = self.held();
        held.files.insert(number, Arc::new(HeldFile::new(handle)));
        held.linkable.insert(number, linkable);
        Ok(number)
    }

    fn link(&self, number: u64, directory: u64, name: &[u8]) -> Result<(), Errno> {
        let attributes = self.attributes_of(number)?;
        let mut names = self.names();
        if attributes.links > 0 {
            self.done(self.volume.link(number, directory, name))?;
        } else {
            let mut held = self.held();
            if attributes.kind != FileKind::Regular || held.linkable.get(&number) != Some(&true) {
                return Err(Errno::NOENT);
            }
            self.done(self.volume.name_unnamed(number, directory, name))?;
            held.linkable.remove(&number);
            held.orphans.retain(|orphan| *orphan != number);
        }
        names.note(directory, name, number, attributes.kind);
        Ok(())
    }

    fn remove(&self, directory: u64, name: &[u8], is_directory: bool) -> Result<(), Errno> {
        let mut names = self.names();
        let found = self.find(directory, name)?.ok_or(Errno::NOENT)?;
        self.keep_nameless(found.inode, found.kind)?;
        self.done(if is_directory {
            self.volume.remove_directory(directory, name)
        } else {
            self.volume.unlink(directory, name)
        })?;
        self.lost(&mut names, directory, name, found.inode, true);
        Ok(())
    }

    fn rename(
        &self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        renaming: Renaming,
    ) -> Result<(), Errno> {
        // A file that replaces another one is complete whenever it is there: no commit has the name without the content.
        if let Some(moved) = self.find(from.0, from.1)? {
            if let Some(file) = self.file(moved.inode) {
                self.write_back(&file)?;
            }
        }
        let mode = match renaming {
            Renaming::Replace => RenameMode::Replace,
            Renaming::Keep => RenameMode::NoReplace,
            Renaming::Exchange => RenameMode::Exchange,
        };
        let mut names = self.names();
        let moved = self.find(from.0, from.1)?.ok_or(Errno::NOENT)?;
        let victim = if to.1.len() <= MAX_NAME {
            self.find(to.0, to.1)?
        } else {
            None
        };
        if let Some(victim) = &victim {
            self.keep_nameless(victim.inode, victim.kind)?;
        }
        self.done(self.volume.rename(from.0, from.1, to.0, to.1, mode))?;
        match victim {
            Some(victim) if victim.inode == moved.inode => {}
            Some(victim) if renaming == Renaming::Exchange => {
                names.note(from.0, from.1, victim.inode, victim.kind);
                names.note(to.0, to.1, moved.inode, moved.kind);
            }
            victim => {
                if let Some(victim) = victim {
                    self.lost(&mut names, to.0, to.1, victim.inode, false);
                }
                names.forget_name(from.0, from.1, moved.inode, false);
                names.note(to.0, to.1, moved.inode, moved.kind);
            }
        }
        Ok(())
    }

    fn change(&self, number: u64, change: Change) -> Result<(), Errno> {
        let changes = match change {
            Change::Mode(mode) => Changes {
                mode: Some(mode),
                ..Changes::default()
            },
            Change::Owner(uid, gid, mode) => Changes {
                mode: Some(mode),
                uid: Some(uid),
                gid: Some(gid),
                ..Changes::default()
            },
            Change::Times(accessed, modified) => {
                if let Some(file) = self.file(number) {
                    if let Some(memory) = file.memory() {
                        set_times(memory, accessed, modified)?;
                    }
                }
                Changes {
                    atime: accessed.map(volume_time),
                    mtime: modified.map(volume_time),
                    ..Changes::default()
                }
            }
        };
        self.done(self.volume.set_attributes(number, &changes))
            .map(drop)
    }

    fn attribute(&self, number: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut all = self.done(self.volume.xattrs(number))?;
        all.remove(name).ok_or(Errno::NODATA)
    }

    fn attributes(&self, number: u64) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.done(self.volume.xattrs(number))?.into_keys().collect())
    }

    fn set_attribute(
        &self,
        number: u64,
        name: &[u8],
        value: Option<&[u8]>,
        setting: Setting,
    ) -> Result<(), Errno> {
        let exists = match setting {
            Setting::Any => None,
            Setting::Create => Some(false),
            Setting::Replace => Some(true),
        };
        self.done(match value {
            Some(value) => self.volume.set_xattr(number, name, value, exists),
            None => self.volume.remove_xattr(number, name),
        })
    }

    fn content(&self, number: u64) -> Result<Content, Errno> {
        let file = {
            let mut held = self.held();
            match held.files.get(&number) {
                Some(file) => Arc::clone(file),
                None => {
                    if self.attributes_of(number)?.kind != FileKind::Regular {
                        return Err(Errno::INVAL);
                    }
                    let handle = self.done(self.volume.open_file(number))?;
                    let file = Arc::new(HeldFile::new(handle));
                    held.files.insert(number, Arc::clone(&file));
                    file
                }
            }
        };
        file.touch();
        let name = self.names().place_of(number);
        let name = name.map_or_else(|| Arc::from(&b""[..]), |(_, name)| name);
        let memory = self.done(file.load(&self.volume, &self.prints, &name, self.limit))?;
        if let Some(inode) = file.memory_inode() {
            self.held().by_memory.insert(inode, number);
        }
        Ok(Content::Memory(memory))
    }

    fn load(&self, number: u64, _copy: OwnedFd) -> Result<Arc<OwnedFd>, Errno> {
        // What a volume has is never the image's.
        match self.content(number)? {
            Content::Memory(memory) => Ok(memory),
            Content::Initial(_) => Err(Errno::IO),
        }
    }

    fn of_memory(&self, memory: u64) -> Option<u64> {
        self.held().by_memory.get(&memory).copied()
    }

    fn keep(&self, number: u64) -> Result<(), Errno> {
        let handle = self.done(self.volume.open_file(number))?;
        let mut held = self.held();
        held.orphans.retain(|orphan| *orphan != number);
        held.nameless.entry(number).or_insert(handle);
        Ok(())
    }

    fn forget(&self, number: u64) {
        if !self.is_removed(number) {
            let handle = self.held().nameless.remove(&number);
            drop(handle);
            return;
        }
        let nameless = {
            let mut held = self.held();
            match held.files.get(&number).cloned() {
                Some(file) if Arc::strong_count(&file) > 2 || file.is_open() => {
                    held.orphans.push(number);
                    return;
                }
                Some(_) => self.take(&mut held, number),
                None => {}
            }
            held.linkable.remove(&number);
            held.nameless.remove(&number)
        };
        // Its content is removed here, which may take a while.
        drop(nameless);
        self.names().drop_inode(number);
    }

    fn has_garbage(&self) -> bool {
        !self.held().orphans.is_empty()
    }

    fn sweep(&self) -> bool {
        let orphans = std::mem::take(&mut self.held().orphans);
        for number in orphans {
            self.forget(number);
        }
        self.has_garbage()
    }
}
