//! Random operations on a tree of files, on a volume and on a native directory: each answer, error numbers included, and
//! the tree at the end must be the same. `PROPTEST_CASES` makes it longer.

mod harness;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::{assert_sound, create, new, open};
use proptest::prelude::*;
use rustix::fs::{renameat_with, RenameFlags, CWD};
use rustix::io::Errno;
use sconify_volume::{
    Changes, Expected, FileKind, NewKind, OpenFile, RenameMode, Volume, ROOT_INODE,
};

const HANDLES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Create(Name),
    Directory(Name),
    Symlink(Name),
    Link(Name, Name),
    Unlink(Name),
    RemoveDirectory(Name),
    Rename(Name, Name, u8),
    Write(Name, u16, u8),
    Truncate(Name, u16),
    Mode(Name, u16),
    Open(Name, usize),
    WriteOpen(usize, u8),
    ReadOpen(usize),
    Close(usize),
    List(Name),
    /// Of the volume only.
    Commit,
    Reopen,
}

/// A path of up to three components.
type Name = Vec<u8>;

fn name() -> impl Strategy<Value = Name> {
    let component = prop_oneof![Just(b'a'), Just(b'b'), Just(b'c')];
    proptest::collection::vec(component, 1..=3)
}

fn step() -> impl Strategy<Value = Step> {
    let handle = 0..HANDLES;
    prop_oneof![
        4 => name().prop_map(Step::Create),
        5 => name().prop_map(Step::Directory),
        1 => name().prop_map(Step::Symlink),
        2 => (name(), name()).prop_map(|(from, to)| Step::Link(from, to)),
        2 => name().prop_map(Step::Unlink),
        2 => name().prop_map(Step::RemoveDirectory),
        8 => (name(), name(), 0..3_u8).prop_map(|(from, to, mode)| Step::Rename(from, to, mode)),
        3 => (name(), 0..40_000_u16, any::<u8>()).prop_map(|(name, at, byte)| Step::Write(name, at, byte)),
        1 => (name(), 0..40_000_u16).prop_map(|(name, size)| Step::Truncate(name, size)),
        1 => (name(), 0..0o1000_u16).prop_map(|(name, mode)| Step::Mode(name, mode | 0o700)),
        3 => (name(), handle.clone()).prop_map(|(name, handle)| Step::Open(name, handle)),
        2 => (handle.clone(), any::<u8>()).prop_map(|(handle, byte)| Step::WriteOpen(handle, byte)),
        2 => handle.clone().prop_map(Step::ReadOpen),
        1 => handle.prop_map(Step::Close),
        1 => name().prop_map(Step::List),
        1 => Just(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

/// What a step answered.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Done,
    Content(Vec<u8>),
    Names(Vec<Vec<u8>>),
    Failed(Errno),
}

struct OnVolume {
    directory: tempfile::TempDir,
    volume: Option<Arc<Volume>>,
    handles: [Option<OpenFile>; HANDLES],
}

impl OnVolume {
    fn volume(&self) -> &Arc<Volume> {
        self.volume.as_ref().unwrap()
    }

    /// The directory that a path is in.
    fn above(&self, name: &Name) -> Result<u64, Errno> {
        let mut directory = ROOT_INODE;
        for component in &name[..name.len() - 1] {
            directory = self.child(directory, *component)?;
        }
        let found = self.volume().attributes(directory).unwrap();
        match found.kind {
            FileKind::Directory => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn child(&self, directory: u64, component: u8) -> Result<u64, Errno> {
        let found = self.volume().lookup(directory, &[component]);
        let found = found.map_err(|error| error.errno())?;
        match found.kind {
            // All links of the test lead nowhere.
            FileKind::Symlink => Err(Errno::NOENT),
            _ => Ok(found.inode),
        }
    }

    fn find(&self, name: &Name) -> Result<u64, Errno> {
        let above = self.above(name)?;
        self.child(above, name[name.len() - 1])
    }

    fn apply(&mut self, step: &Step) -> Result<Answer, Errno> {
        let volume = Arc::clone(self.volume());
        let last = |name: &Name| [name[name.len() - 1]];
        let errno = |error: sconify_volume::VolumeError| error.errno();
        let done = Ok(Answer::Done);
        match step {
            Step::Create(name) => volume
                .create_inode(self.above(name)?, &last(name), &new(NewKind::Regular))
                .map_err(errno)
                .and(done),
            Step::Directory(name) => volume
                .create_inode(self.above(name)?, &last(name), &new(NewKind::Directory))
                .map_err(errno)
                .and(done),
            Step::Symlink(name) => volume
                .create_inode(
                    self.above(name)?,
                    &last(name),
                    &new(NewKind::Symlink(b"nowhere")),
                )
                .map_err(errno)
                .and(done),
            Step::Link(from, to) => {
                let found = volume
                    .lookup(self.above(from)?, &last(from))
                    .map_err(errno)?;
                let above = self.above(to)?;
                volume
                    .link(found.inode, above, &last(to))
                    .map_err(errno)
                    .and(done)
            }
            Step::Unlink(name) => volume
                .unlink(self.above(name)?, &last(name))
                .map_err(errno)
                .and(done),
            Step::RemoveDirectory(name) => volume
                .remove_directory(self.above(name)?, &last(name))
                .map_err(errno)
                .and(done),
            Step::Rename(from, to, mode) => {
                let mode = [
                    RenameMode::Replace,
                    RenameMode::NoReplace,
                    RenameMode::Exchange,
                ][usize::from(*mode)];
                let (above_from, above_to) = (self.above(from)?, self.above(to)?);
                volume
                    .rename(above_from, &last(from), above_to, &last(to), mode)
                    .map_err(errno)
                    .and(done)
            }
            Step::Write(name, offset, byte) => {
                let data = vec![*byte; usize::from(*offset) / 2 + 1];
                let inode = self.find(name)?;
                volume
                    .write_at(inode, u64::from(*offset), &data)
                    .map_err(errno)
                    .and(done)
            }
            Step::Truncate(name, size) => volume
                .truncate(self.find(name)?, u64::from(*size))
                .map_err(errno)
                .and(done),
            Step::Mode(name, mode) => {
                let changes = Changes {
                    mode: Some(u32::from(*mode)),
                    ..Changes::default()
                };
                volume
                    .set_attributes(self.find(name)?, &changes)
                    .map_err(errno)
                    .and(done)
            }
            Step::Open(name, handle) => {
                let inode = self.find(name)?;
                match volume.attributes(inode).unwrap().kind {
                    FileKind::Directory => return Err(Errno::ISDIR),
                    _ => self.handles[*handle] = Some(volume.open_file(inode).map_err(errno)?),
                }
                done
            }
            Step::WriteOpen(handle, byte) => {
                let file = self.handles[*handle].as_ref().ok_or(Errno::BADF)?;
                volume
                    .write_at(file.inode(), 7, &[*byte; 3_000])
                    .map_err(errno)
                    .and(done)
            }
            Step::ReadOpen(handle) => {
                let file = self.handles[*handle].as_ref().ok_or(Errno::BADF)?;
                let mut content = vec![0; 100_000];
                let read = volume
                    .read_at(file.inode(), 0, &mut content)
                    .map_err(errno)?;
                content.truncate(read);
                Ok(Answer::Content(content))
            }
            Step::Close(handle) => self.handles[*handle]
                .take()
                .map(drop)
                .ok_or(Errno::BADF)
                .and(done),
            Step::List(name) => {
                let mut names = Vec::new();
                let (inode, mut cookie) = (self.find(name)?, 0);
                loop {
                    let entries = volume.read_directory(inode, cookie, 2).map_err(errno)?;
                    let Some(last) = entries.last() else { break };
                    cookie = last.cookie;
                    names.extend(entries.into_iter().map(|entry| entry.name));
                }
                assert_eq!(names[..2], [b".".to_vec(), b"..".to_vec()]);
                let mut names = names.split_off(2);
                names.sort();
                Ok(Answer::Names(names))
            }
            Step::Commit => volume.commit().map_err(errno).and(done),
            Step::Reopen if self.handles.iter().all(Option::is_none) => {
                volume.commit().unwrap();
                drop((volume, self.volume.take()));
                self.volume = Some(open(self.directory.path(), &Expected::Any).unwrap());
                done
            }
            Step::Reopen => done,
        }
    }

    fn tree(&self) -> BTreeMap<PathBuf, (u32, u32, u64, Vec<u8>)> {
        let mut tree = BTreeMap::new();
        let mut left = vec![(PathBuf::new(), ROOT_INODE)];
        while let Some((path, directory)) = left.pop() {
            for entry in self.volume().read_directory(directory, 2, 1_000).unwrap() {
                let path = path.join(std::ffi::OsStr::from_bytes(&entry.name));
                let found = self.volume().attributes(entry.inode).unwrap();
                let mut content = vec![0; usize::try_from(found.size).unwrap()];
                match entry.kind {
                    FileKind::Directory => left.push((path.clone(), entry.inode)),
                    FileKind::Symlink => content = self.volume().read_link(entry.inode).unwrap(),
                    _ => {
                        self.volume().read_at(entry.inode, 0, &mut content).unwrap();
                    }
                }
                let mode = found.kind.mode_bits() | found.mode;
                let mode = if entry.kind == FileKind::Symlink {
                    0
                } else {
                    mode
                };
                tree.insert(path, (mode, found.links, found.size, content));
            }
        }
        tree
    }
}

struct Native {
    directory: tempfile::TempDir,
    handles: [Option<File>; HANDLES],
}

impl Native {
    fn path(&self, name: &Name) -> PathBuf {
        name.iter()
            .fold(self.directory.path().to_owned(), |path, component| {
                path.join(char::from(*component).to_string())
            })
    }

    fn apply(&mut self, step: &Step) -> Result<Answer, Errno> {
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap();
        let done = Ok(Answer::Done);
        let set_mode =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        match step {
            Step::Create(name) => {
                let path = self.path(name);
                File::create_new(&path).map_err(errno)?;
                set_mode(&path, 0o644).map_err(errno).and(done)
            }
            Step::Directory(name) => {
                let path = self.path(name);
                fs::create_dir(&path).map_err(errno)?;
                set_mode(&path, 0o644).map_err(errno).and(done)
            }
            Step::Symlink(name) => std::os::unix::fs::symlink("nowhere", self.path(name))
                .map_err(errno)
                .and(done),
            Step::Link(from, to) => fs::hard_link(self.path(from), self.path(to))
                .map_err(errno)
                .and(done),
            Step::Unlink(name) => fs::remove_file(self.path(name)).map_err(errno).and(done),
            Step::RemoveDirectory(name) => fs::remove_dir(self.path(name)).map_err(errno).and(done),
            Step::Rename(from, to, mode) => {
                let flags = [
                    RenameFlags::empty(),
                    RenameFlags::NOREPLACE,
                    RenameFlags::EXCHANGE,
                ][usize::from(*mode)];
                renameat_with(CWD, self.path(from), CWD, self.path(to), flags).and(done)
            }
            Step::Write(name, offset, byte) => {
                let data = vec![*byte; usize::from(*offset) / 2 + 1];
                let file = File::options()
                    .write(true)
                    .open(self.path(name))
                    .map_err(errno)?;
                file.write_all_at(&data, u64::from(*offset))
                    .map_err(errno)
                    .and(done)
            }
            Step::Truncate(name, size) => {
                let file = File::options()
                    .write(true)
                    .open(self.path(name))
                    .map_err(errno)?;
                file.set_len(u64::from(*size)).map_err(errno).and(done)
            }
            Step::Mode(name, mode) => set_mode(&self.path(name), u32::from(*mode))
                .map_err(errno)
                .and(done),
            Step::Open(name, handle) => {
                let options = File::options().read(true).write(true).open(self.path(name));
                self.handles[*handle] = Some(options.map_err(errno)?);
                done
            }
            Step::WriteOpen(handle, byte) => {
                let file = self.handles[*handle].as_ref().ok_or(Errno::BADF)?;
                file.write_all_at(&[*byte; 3_000], 7)
                    .map_err(errno)
                    .and(done)
            }
            Step::ReadOpen(handle) => {
                let file = self.handles[*handle].as_ref().ok_or(Errno::BADF)?;
                let mut content = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
                file.read_exact_at(&mut content, 0).map_err(errno)?;
                Ok(Answer::Content(content))
            }
            Step::Close(handle) => self.handles[*handle]
                .take()
                .map(drop)
                .ok_or(Errno::BADF)
                .and(done),
            Step::List(name) => {
                let entries = fs::read_dir(self.path(name)).map_err(errno)?;
                let mut names = entries
                    .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
                    .collect::<Vec<_>>();
                names.sort();
                Ok(Answer::Names(names))
            }
            Step::Commit | Step::Reopen => done,
        }
    }

    fn tree(&self) -> BTreeMap<PathBuf, (u32, u32, u64, Vec<u8>)> {
        let mut tree = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(self.directory.path().join(&directory)).unwrap() {
                let entry = entry.unwrap();
                let path = directory.join(entry.file_name());
                let found = fs::symlink_metadata(entry.path()).unwrap();
                let described = if found.is_dir() {
                    left.push(path.clone());
                    // How a file system counts names and bytes of directories is its own affair.
                    (found.mode(), 0, 0, vec![])
                } else if found.is_symlink() {
                    let target = fs::read_link(entry.path()).unwrap();
                    let target = target.as_os_str().as_bytes().to_vec();
                    (0, found.nlink() as u32, found.len(), target)
                } else {
                    let content = fs::read(entry.path()).unwrap();
                    (found.mode(), found.nlink() as u32, found.len(), content)
                };
                tree.insert(path, described);
            }
        }
        tree
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
    ) })]

    #[test]
    fn a_volume_answers_as_a_native_directory(steps in proptest::collection::vec(step(), 1..120)) {
        let directory = tempfile::tempdir().unwrap();
        let volume = Some(create(directory.path()));
        let mut volume = OnVolume { directory, volume, handles: Default::default() };
        let mut native = Native {
            directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            handles: Default::default(),
        };
        for (number, step) in steps.iter().enumerate() {
            let ours = volume.apply(step).unwrap_or_else(Answer::Failed);
            let theirs = native.apply(step).unwrap_or_else(Answer::Failed);
            prop_assert_eq!(ours, theirs, "step {}: {:?}", number, step);
        }
        let mut ours = volume.tree();
        for (mode, links, size, content) in ours.values_mut() {
            if *mode & 0o170_000 == 0o040_000 {
                (*links, *size, *content) = (0, 0, vec![]);
            }
        }
        prop_assert_eq!(ours, native.tree());
        assert_sound(volume.volume());
        volume.handles = Default::default();
        assert_sound(volume.volume());
    }
}
