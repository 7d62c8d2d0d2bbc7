//! The ephemeral file system: everything is in this process and in memory files, and ends with it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{fstat, FileType};
use rustix::io::{pwrite, Errno};
use sconify_shield::{EntryId, Index};

use super::directory::Name;
use super::image::Image;
use super::state::{create, now, set_times, Body, File, State};
use super::{Change, Content, FileSystem, Located, New, Renaming, Setting};
use crate::supervisor::tree::{Child, Metadata, WRITABLE_DEVICE};

/// Size that `stat` shows for directories.
const DIRECTORY_SIZE: u64 = 4096;
/// What the kernel gives contents in memory in pieces of.
const PAGE: u64 = 4096;
/// Bytes of names and values of extended attributes that one file may have.
const ATTRIBUTES_LIMIT: usize = 1 << 16;

/// The file system.
pub struct Ephemeral(Mutex<State>);

impl Ephemeral {
    /// An empty file system, whose regions begin with what an image has there. It keeps about so many memory files at most while nobody has them open, and of
    /// those that hold what the image has no more than some bytes.
    pub fn new(image: Option<Arc<Index>>, memories: usize, bytes: u64) -> Self {
        Self(Mutex::new(State {
            files: HashMap::new(),
            next: 1 << 32,
            by_memory: HashMap::new(),
            orphans: Vec::new(),
            demote_at: memories,
            memories,
            pristine: 0,
            pristine_at: bytes,
            pristine_limit: bytes,
            image: image.map(Image::new),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, in which what the image has in these directories is there.
    fn state_at(&self, directories: &[u64]) -> MutexGuard<'_, State> {
        let mut state = self.state();
        for directory in directories {
            state.expand(*directory);
        }
        state
    }

    /// Makes the root of a region, with all that the index lists beneath.
    pub fn plant(&self, prefix: &[u8]) -> u64 {
        self.state().plant(prefix)
    }
}

impl FileSystem for Ephemeral {
    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Option<u64>, Errno> {
        Ok(self.state_at(&[directory]).directory(directory)?.get(name))
    }

    fn parent(&self, directory: u64) -> Result<u64, Errno> {
        Ok(self.state().directory(directory)?.parent)
    }

    fn metadata(&self, number: u64) -> Result<Metadata, Errno> {
        let state = self.state_at(&[number]);
        let file = state.file(number)?;
        let mut metadata = Metadata {
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            inode: number,
            links: file.names.len() as u32,
            accessed: file.accessed,
            modified: file.modified,
            changed: file.changed,
            system: WRITABLE_DEVICE,
            ..Metadata::default()
        };
        match &file.body {
            Body::Memory(memory) => {
                let status = fstat(&*memory.file)?;
                (metadata.accessed, metadata.modified, metadata.changed) =
                    memory.times(&status, file.modified, file.changed);
                metadata.size = status.st_size as u64;
                metadata.blocks = status.st_blocks as u64;
            }
            Body::Idle(content) => set_content_size(&mut metadata, content.len() as u64),
            Body::Initial(_, size) => set_content_size(&mut metadata, *size),
            Body::Symlink(target) => metadata.size = target.len() as u64,
            Body::Directory(entries) => {
                let is_root = entries.parent == number;
                metadata.links = if is_root || metadata.links > 0 {
                    2 + entries.subdirectories
                } else {
                    0
                };
                metadata.set_size(DIRECTORY_SIZE);
            }
            Body::Special => {}
        }
        Ok(metadata)
    }

    fn target(&self, number: u64) -> Result<Vec<u8>, Errno> {
        match &self.state().file(number)?.body {
            Body::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Errno::INVAL),
        }
    }

    fn list(&self, directory: u64, from: u64) -> Result<Vec<(Child, u64)>, Errno> {
        let state = self.state_at(&[directory]);
        let entries = state.living(directory)?;
        let child = |name: &[u8], number: u64| Child {
            name: name.to_vec(),
            inode: number,
            kind: state
                .files
                .get(&number)
                .map_or(FileType::Unknown, |file| FileType::from_raw_mode(file.mode)),
        };
        let special = [(&b"."[..], directory), (b"..", entries.parent)];
        let special = (0..).zip(special).skip(from.min(2) as usize);
        let special = special.map(|(at, (name, number))| (child(name, number), at + 1));
        let named = entries
            .from(from)
            .map(|(name, number, next)| (child(name, number), next));
        Ok(special.chain(named).collect())
    }

    fn locate(&self, number: u64) -> Result<Located, Errno> {
        let state = self.state();
        let mut names: Vec<Name> = Vec::new();
        let mut at = number;
        let mut is_removed = false;
        loop {
            let file = state.file(at)?;
            if let Body::Directory(entries) = &file.body {
                if entries.parent == at {
                    break;
                }
            }
            is_removed |= file.names.is_empty();
            let Some((directory, name)) = file.names.first().or(file.last.as_ref()) else {
                return Err(Errno::NOENT);
            };
            names.push(Arc::clone(name));
            at = *directory;
        }
        names.reverse();
        Ok(Located {
            root: at,
            path: names.join(&b'/'),
            is_removed,
        })
    }

    fn create(&self, directory: u64, name: &[u8], new: &New) -> Result<u64, Errno> {
        let mut state = self.state_at(&[directory]);
        if state.living(directory)?.get(name).is_some() {
            return Err(Errno::EXIST);
        }
        let number = state.make(directory, new, true);
        state.name(number, directory, Name::from(name));
        state.touch(directory);
        Ok(number)
    }

    fn create_unnamed(&self, directory: u64, new: &New, linkable: bool) -> Result<u64, Errno> {
        let mut state = self.state();
        state.living(directory)?;
        let number = state.make(directory, new, linkable);
        let shown = Name::from(format!("#{number}").as_bytes());
        state.file_mut(number)?.last = Some((directory, shown));
        Ok(number)
    }

    fn link(&self, number: u64, directory: u64, name: &[u8]) -> Result<(), Errno> {
        let mut state = self.state_at(&[directory]);
        if state.living(directory)?.get(name).is_some() {
            return Err(Errno::EXIST);
        }
        let file = state.file_mut(number)?;
        if matches!(file.body, Body::Directory(_)) {
            return Err(Errno::PERM);
        }
        if file.names.is_empty() && !(file.linkable && file.last.is_some()) {
            return Err(Errno::NOENT);
        }
        file.changed = now();
        state.name(number, directory, Name::from(name));
        state.orphans.retain(|orphan| *orphan != number);
        state.touch(directory);
        Ok(())
    }

    fn remove(&self, directory: u64, name: &[u8], is_directory: bool) -> Result<(), Errno> {
        let mut state = self.state_at(&[directory]);
        let number = state.directory(directory)?.get(name).ok_or(Errno::NOENT)?;
        state.expand(number);
        state.check_replaceable(number, is_directory)?;
        state.unname(number, directory, name, true);
        // Only what never had a name may be linked without one.
        state.file_mut(number)?.linkable = false;
        state.touch(directory);
        Ok(())
    }

    fn rename(
        &self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        renaming: Renaming,
    ) -> Result<(), Errno> {
        let mut state = self.state_at(&[from.0, to.0]);
        let moved = state.directory(from.0)?.get(from.1).ok_or(Errno::NOENT)?;
        let victim = state.living(to.0)?.get(to.1);
        if let Some(victim) = victim {
            state.expand(victim);
        }
        match (victim, renaming) {
            (Some(_), Renaming::Keep) => return Err(Errno::EXIST),
            (None, Renaming::Exchange) => return Err(Errno::NOENT),
            _ => {}
        }
        let is_directory = state.is_directory(moved);
        // Nothing may come to stand beneath itself.
        if is_directory && state.is_within(to.0, moved) {
            return Err(Errno::INVAL);
        }
        if let Some(victim) = victim {
            if state.is_directory(victim) && state.is_within(from.0, victim) {
                return Err(if renaming == Renaming::Exchange {
                    Errno::INVAL
                } else {
                    Errno::NOTEMPTY
                });
            }
            if victim == moved {
                return Ok(());
            }
        }
        match victim {
            Some(victim) if renaming == Renaming::Exchange => {
                state.unname(moved, from.0, from.1, false);
                state.unname(victim, to.0, to.1, false);
                state.name(victim, from.0, Name::from(from.1));
                state.name(moved, to.0, Name::from(to.1));
            }
            _ => {
                if let Some(victim) = victim {
                    state.check_replaceable(victim, is_directory)?;
                    state.unname(victim, to.0, to.1, false);
                    state.file_mut(victim)?.linkable = false;
                }
                state.unname(moved, from.0, from.1, true);
                state.name(moved, to.0, Name::from(to.1));
            }
        }
        state.touch(from.0);
        state.touch(to.0);
        Ok(())
    }

    fn change(&self, number: u64, change: Change) -> Result<(), Errno> {
        const PERMISSIONS: u32 = 0o7777;
        let mut state = self.state();
        let file = state.file_mut(number)?;
        match change {
            Change::Mode(mode) => file.mode = file.mode & !PERMISSIONS | mode & PERMISSIONS,
            Change::Owner(uid, gid, mode) => {
                (file.uid, file.gid) = (uid, gid);
                file.mode = file.mode & !PERMISSIONS | mode & PERMISSIONS;
            }
            Change::Times(accessed, modified) => {
                file.accessed = accessed.unwrap_or(file.accessed);
                file.modified = modified.unwrap_or(file.modified);
                if let Body::Memory(memory) = &file.body {
                    set_times(&memory.file, accessed, modified)?;
                }
            }
        }
        file.changed = now();
        Ok(())
    }

    fn attribute(&self, number: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let state = self.state();
        let value = state.file(number)?.xattrs.get(name);
        value.cloned().ok_or(Errno::NODATA)
    }

    fn attributes(&self, number: u64) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.state().file(number)?.xattrs.keys().cloned().collect())
    }

    fn set_attribute(
        &self,
        number: u64,
        name: &[u8],
        value: Option<&[u8]>,
        setting: Setting,
    ) -> Result<(), Errno> {
        let mut state = self.state();
        let file = state.file_mut(number)?;
        let exists = file.xattrs.contains_key(name);
        match (value, setting) {
            (Some(_), Setting::Create) if exists => return Err(Errno::EXIST),
            (Some(_), Setting::Replace) | (None, _) if !exists => return Err(Errno::NODATA),
            (None, _) => drop(file.xattrs.remove(name)),
            (Some(value), _) => {
                let others = file.xattrs.iter().filter(|(other, _)| *other != name);
                let used: usize = others.map(|(name, value)| name.len() + value.len()).sum();
                if used + name.len() + value.len() > ATTRIBUTES_LIMIT {
                    return Err(Errno::NOSPC);
                }
                file.xattrs.insert(name.to_vec(), value.to_vec());
            }
        }
        file.changed = now();
        Ok(())
    }

    fn content(&self, number: u64) -> Result<Content, Errno> {
        let mut state = self.state();
        let content = match &state.file(number)?.body {
            Body::Memory(memory) => return Ok(Content::Memory(Arc::clone(&memory.file))),
            Body::Initial(id, _) => return Ok(Content::Initial(*id)),
            Body::Idle(content) => content.clone(),
            _ => return Err(Errno::INVAL),
        };
        let shown = state.file(number)?;
        let name = shown.names.first().or(shown.last.as_ref());
        let memory = create(name.map_or(&b""[..], |(_, name)| name))?;
        let mut done = 0;
        while done < content.len() {
            done += pwrite(&memory, &content[done..], done as u64)?;
        }
        state.hold(number, memory).map(Content::Memory)
    }

    fn load(&self, number: u64, copy: OwnedFd) -> Result<Arc<OwnedFd>, Errno> {
        let mut state = self.state();
        match &state.file(number)?.body {
            Body::Memory(memory) => Ok(Arc::clone(&memory.file)),
            _ => state.hold(number, copy),
        }
    }

    fn memory(&self, number: u64) -> Option<Arc<OwnedFd>> {
        match &self.state().file(number).ok()?.body {
            Body::Memory(memory) => Some(Arc::clone(&memory.file)),
            _ => None,
        }
    }

    fn pristine(&self, number: u64) -> Option<EntryId> {
        match &self.state().file(number).ok()?.body {
            Body::Initial(id, _) => Some(*id),
            Body::Memory(memory) => memory.pristine.map(|(id, _)| id),
            _ => None,
        }
    }

    fn spoil(&self, number: u64) {
        self.state().spoil(number);
    }

    fn of_memory(&self, memory: u64) -> Option<u64> {
        self.state().by_memory.get(&memory).copied()
    }

    fn keep(&self, number: u64) -> Result<(), Errno> {
        let mut state = self.state();
        state.orphans.retain(|orphan| *orphan != number);
        state.file(number).map(drop)
    }

    fn forget(&self, number: u64) {
        let mut state = self.state();
        match state.file(number) {
            Ok(file) if !file.names.is_empty() => {}
            // The root of a region never has a name.
            Ok(File {
                body: Body::Directory(entries),
                ..
            }) if entries.parent == number => {}
            Ok(File {
                body: Body::Directory(_) | Body::Special,
                ..
            }) => state.drop_file(number),
            Ok(_) => state.release(number),
            Err(_) => {}
        }
    }

    fn has_garbage(&self) -> bool {
        !self.state().orphans.is_empty()
    }

    fn sweep(&self) -> bool {
        let mut state = self.state();
        for number in std::mem::take(&mut state.orphans) {
            if state.is_open(number) {
                state.orphans.push(number);
            } else if state.file(number).is_ok_and(|file| file.names.is_empty()) {
                state.drop_file(number);
            }
        }
        !state.orphans.is_empty()
    }

    fn trim(&self) {
        self.state().demote();
    }
}

/// Sets the size of a content that has no memory file, as if it had one: of whole pages.
fn set_content_size(metadata: &mut Metadata, size: u64) {
    metadata.size = size;
    metadata.blocks = size.div_ceil(PAGE) * (PAGE / 512);
}

#[cfg(test)]
#[path = "ephemeral_tests.rs"]
mod tests;
