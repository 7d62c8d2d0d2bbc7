//! The file system of a volume: names and attributes are the encrypted store's, contents are memory files that are written back to it.
//!
//! What a program has written is in the store after `fsync` and its kin, when the program ends, and otherwise within about a second; see
//! `docs/decisions/0013-volumes-are-written-back.md`.

mod fingerprint;
mod held;
mod names;
mod noted;
mod operations;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use sconify_volume::{Attributes, Changes, FileKind, OpenFile, Volume, VolumeError, ROOT_INODE};

use super::Inode;
use crate::failure::{Code, Failure};
use crate::kernel::mapping::Window;
use crate::supervisor::init;
use crate::volumes::{OpenVolume, Reports};
use fingerprint::Fingerprints;
use held::HeldFile;
use names::Names;

/// The numbers of inodes that programs see are this much apart from those of the next file system.
const NUMBER_SHIFT: u32 = 40;
/// Pause between two write-backs in the background.
const PAUSE: Duration = Duration::from_millis(500);
/// A content that nobody has open is kept in memory so long.
const KEPT: Duration = Duration::from_secs(10);
/// How long the end of the program waits for the CAS to record the last state.
const LAST_REPORT: Duration = Duration::from_secs(10);

/// A volume as a file system.
pub struct VolumeSystem {
    name: String,
    prefix: Vec<u8>,
    /// Which of the file systems it is.
    number: u16,
    volume: Arc<Volume>,
    reports: Option<Arc<Reports>>,
    is_read_only: bool,
    prints: Fingerprints,
    /// Bytes that one content may have in memory.
    limit: u64,
    /// Held while a name changes, so that the volume and what is known of it stay the same.
    names: Mutex<Names>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    files: HashMap<u64, Arc<HeldFile>>,
    by_memory: HashMap<u64, u64>,
    /// Regular files without a name that may be open.
    orphans: Vec<u64>,
    /// What may be somebody's working directory, open, bound or held by its place, and so outlives its name.
    nameless: HashMap<u64, OpenFile>,
    /// Files that were made without a name and may get one.
    linkable: HashMap<u64, bool>,
}

impl VolumeSystem {
    /// Lets programs use a volume. `limit` is the number of bytes that one content may have.
    ///
    /// # Errors
    /// What random numbers fail with.
    pub fn new(open: OpenVolume, number: u16, limit: u64) -> Result<Self, Errno> {
        Ok(Self {
            name: open.name,
            prefix: open.path,
            number,
            volume: open.volume,
            reports: open.reports,
            is_read_only: open.is_read_only,
            prints: Fingerprints::new()?,
            limit,
            names: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// Where it is mounted.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Its name in the session.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether nothing of it may be changed.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Its top directory.
    pub fn top(&self) -> Inode {
        Inode {
            system: self.number,
            number: ROOT_INODE,
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error number that a program gets. What the host has changed ends the program: nothing goes on with it.
    fn errno(&self, error: VolumeError) -> Errno {
        match &error {
            VolumeError::NotAuthentic { .. } | VolumeError::Stale { .. } => {
                let path = String::from_utf8_lossy(&self.prefix);
                let what = format!("The volume {} at {path} was changed", self.name);
                let failure = Failure::new(Code::Integrity, what, &error)
                    .mended_by("put a backup of the newest state back");
                failure.report();
                init::end(failure.code().into());
            }
            VolumeError::Refused(_) | VolumeError::Full(_) | VolumeError::ReadOnly => {}
            other => warn!("volume {}: {other}", self.name),
        }
        error.errno()
    }

    fn done<T>(&self, result: Result<T, VolumeError>) -> Result<T, Errno> {
        result.map_err(|error| self.errno(error))
    }

    fn attributes_of(&self, number: u64) -> Result<Attributes, Errno> {
        self.done(self.volume.attributes(number))
    }

    fn file(&self, number: u64) -> Option<Arc<HeldFile>> {
        self.held().files.get(&number).cloned()
    }

    fn shown(&self, number: u64) -> u64 {
        u64::from(self.number) << NUMBER_SHIFT | number
    }

    /// Gives the owner and the mode of the image's directory to the top of a new volume.
    ///
    /// # Errors
    /// What the volume fails with.
    pub fn adopt(&self, mode: u32, uid: u32, gid: u32) -> Result<(), Errno> {
        let changes = Changes {
            mode: Some(mode),
            uid: Some(uid),
            gid: Some(gid),
            ..Changes::default()
        };
        self.done(self.volume.set_attributes(ROOT_INODE, &changes))?;
        let state = self.done(self.volume.commit())?;
        if let Some(reports) = &self.reports {
            // Nobody reports yet, so nobody can wait for it.
            reports.note(state);
        }
        Ok(())
    }

    /// Makes everything durable that was given to the volume.
    fn commit(&self) -> Result<(), Errno> {
        if let Some(reports) = &self.reports {
            reports.admit();
        }
        let state = self.done(self.volume.commit())?;
        if let Some(reports) = &self.reports {
            reports.committed(state);
        }
        Ok(())
    }

    fn write_back(&self, file: &HeldFile) -> Result<(), Errno> {
        self.done(file.write_back(&self.volume, &self.prints))
    }

    /// `fsync` of a file, a directory or anything else.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`; it was not lost, and the next attempt gives it again.
    pub fn sync(&self, number: u64) -> Result<(), Errno> {
        if let Some(file) = self.file(number) {
            self.write_back(&file)?;
        }
        self.commit()
    }

    /// `sync`; of all errors the first one is told. With `mapped_only`, contents that are mapped nowhere may be left out.
    ///
    /// # Errors
    /// As [`VolumeSystem::sync`].
    pub fn sync_all(&self, mapped_only: bool) -> Result<(), Errno> {
        let mut result = Ok(());
        for file in self.all_held() {
            if !mapped_only || file.is_mapped() {
                result = result.and(self.write_back(&file));
            }
        }
        result.and(self.commit())
    }

    fn all_held(&self) -> Vec<Arc<HeldFile>> {
        self.held().files.values().cloned().collect()
    }

    /// Lets `copy` write to a part of a file's content, in a program's place; see [`noted::Noted::write`].
    ///
    /// # Errors
    /// What `copy` gives.
    pub fn write(
        &self,
        number: u64,
        offset: u64,
        length: usize,
        copy: impl FnOnce(&Window) -> Result<usize, Errno>,
    ) -> Result<Option<usize>, Errno> {
        let Some(file) = self.file(number) else {
            return Ok(None);
        };
        match file.memory() {
            Some(memory) => file.noted().write(memory, offset, length, copy),
            None => Ok(None),
        }
    }

    /// Notes that the program may write to a file through a mapping.
    pub fn note_mapping(&self, number: u64) {
        if let Some(file) = self.file(number) {
            file.note_mapping();
        }
    }

    /// Writes back for ever, and gives up contents that nobody has open.
    pub fn keep_for_ever(&self) {
        let mut last = Ok(());
        loop {
            thread::sleep(PAUSE);
            let mut result = Ok(());
            for file in self.all_held() {
                if file.is_due() {
                    result = result.and(self.write_back(&file));
                }
            }
            result = result.and(self.commit());
            if result != last {
                match result {
                    Ok(()) => warn!("volume {}: changes are stored again", self.name),
                    Err(error) => {
                        error!("volume {}: changes are in memory only: {error}", self.name)
                    }
                }
                last = result;
            }
            self.tidy();
        }
    }

    /// Gives up contents that nobody has open and that are in the volume.
    fn tidy(&self) {
        for (number, file) in self.idle() {
            if self.write_back(&file).is_err() {
                continue;
            }
            drop(file);
            self.drop_idle(number);
        }
    }

    fn idle(&self) -> Vec<(u64, Arc<HeldFile>)> {
        let held = self.held();
        let idle = held.files.iter().filter(|(_, file)| {
            file.idle() >= KEPT && Arc::strong_count(file) == 1 && !file.is_open()
        });
        // Nobody can open or map them while this is locked.
        idle.inspect(|(_, file)| file.forget_mappings())
            .map(|(number, file)| (*number, Arc::clone(file)))
            .collect()
    }

    /// Drops a content, unless somebody has it now or has changed it meanwhile.
    fn drop_idle(&self, number: u64) {
        let mut held = self.held();
        let is_idle = held
            .files
            .get(&number)
            .is_some_and(|file| Arc::strong_count(file) == 1 && !file.is_open() && file.is_clean());
        if is_idle {
            self.take(&mut held, number);
        }
    }

    /// Takes a content out of memory; the inode goes with it if it has no name.
    fn take(&self, held: &mut Held, number: u64) {
        if let Some(file) = held.files.remove(&number) {
            if let Some(memory) = file.memory_inode() {
                held.by_memory.remove(&memory);
            }
        }
    }

    /// Reports for ever what is committed.
    pub fn report_for_ever(&self) {
        if let Some(reports) = &self.reports {
            reports.run(|name, reason| {
                let cause = std::io::Error::other(reason.to_owned());
                let what = format!("Another run has taken the volume {name} over");
                let failure = Failure::new(Code::Superseded, what, &cause)
                    .mended_by("let one service at a time write to a volume; what this one wrote since is not in it");
                failure.report();
                init::end(failure.code().into());
            });
        }
    }

    /// Stores everything at the end of the program, has it recorded, and closes the store.
    pub fn finish(&self) {
        if let Err(error) = self.sync_all(false) {
            error!("volume {}: the last changes are lost: {error}", self.name);
        }
        if let Some(reports) = &self.reports {
            if !reports.finish(LAST_REPORT) {
                warn!(
                    "volume {}: the CAS was not told of the last commits; the next start tells it",
                    self.name
                );
            }
        }
        if let Err(error) = self.volume.close_shared() {
            debug!("volume {}: {error}", self.name);
        }
    }

    /// Keeps what is about to lose a name and may be open.
    fn keep_nameless(&self, number: u64, kind: FileKind) -> Result<(), Errno> {
        if kind != FileKind::Regular && kind != FileKind::Symlink {
            let handle = self.done(self.volume.open_file(number))?;
            self.held().nameless.insert(number, handle);
        }
        Ok(())
    }

    fn is_removed(&self, number: u64) -> bool {
        self.volume
            .attributes(number)
            .map_or(true, |attributes| attributes.links == 0)
    }

    /// Notes that a name was taken from a file, or given to another one.
    fn lost(&self, names: &mut Names, directory: u64, name: &[u8], number: u64, is_free: bool) {
        let is_last = self.is_removed(number);
        if is_free {
            names.forget_name(directory, name, number, is_last);
        } else {
            names.forget_place(directory, name, number, is_last);
        }
        self.held().linkable.remove(&number);
    }

    fn find(&self, directory: u64, name: &[u8]) -> Result<Option<Attributes>, Errno> {
        match self.volume.lookup(directory, name) {
            Ok(attributes) => Ok(Some(attributes)),
            Err(VolumeError::Refused(Errno::NOENT)) => Ok(None),
            Err(error) => Err(self.errno(error)),
        }
    }
}
