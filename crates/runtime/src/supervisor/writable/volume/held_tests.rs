use std::sync::Arc;
use std::thread::sleep;

use sconify_volume::{FileSystemKey, New, NewKind, Options, ROOT_INODE};

use super::*;

/// A volume with one file in it, and what holds it.
struct Fixture {
    _directory: tempfile::TempDir,
    volume: Arc<Volume>,
    prints: Fingerprints,
    number: u64,
    file: HeldFile,
}

const NO_LIMIT: u64 = u64::MAX;

impl Fixture {
    fn new(content: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = FileSystemKey::new([1; 32]);
        let volume = Volume::create(directory.path(), &key, &Options::default()).unwrap();
        let volume = Arc::new(volume);
        let new = New {
            kind: NewKind::Regular,
            mode: 0o600,
            uid: 0,
            gid: 0,
        };
        let made = volume.create_inode(ROOT_INODE, b"file", &new).unwrap();
        volume.write_at(made.inode, 0, content).unwrap();
        volume.commit().unwrap();
        Self {
            file: HeldFile::new(volume.open_file(made.inode).unwrap()),
            number: made.inode,
            prints: Fingerprints::new().unwrap(),
            volume,
            _directory: directory,
        }
    }

    fn load(&self) -> Arc<OwnedFd> {
        let loaded = self
            .file
            .load(&self.volume, &self.prints, b"file", NO_LIMIT);
        loaded.unwrap()
    }

    fn write_back(&self) {
        self.file.write_back(&self.volume, &self.prints).unwrap();
    }

    /// The content that the volume has.
    fn stored(&self) -> Vec<u8> {
        let size = self.volume.attributes(self.number).unwrap().size;
        let mut content = vec![0; size as usize];
        let count = self.volume.read_at(self.number, 0, &mut content).unwrap();
        assert_eq!(count as u64, size);
        content
    }

    /// Waits until the times of files have moved on.
    fn pass_a_tick(&self) {
        sleep(Duration::from_nanos(2 * TICK as u64));
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 % 251) as u8 + 1).collect()
}

#[test]
fn a_content_is_read_once() {
    let content = pattern(5 * CHUNK_SIZE + 100);
    let fixture = Fixture::new(&content);
    assert!(fixture.file.memory().is_none());
    let memory = fixture.load();
    let mut read = vec![0; content.len() + 1];
    assert_eq!(pread(&memory, &mut read, 0).unwrap(), content.len());
    assert_eq!(read[..content.len()], content);
    assert!(Arc::ptr_eq(&memory, &fixture.load()));
    let inode = fstat(&*memory).unwrap().st_ino;
    assert_eq!(fixture.file.memory_inode(), Some(inode));
}

#[test]
fn more_than_the_limit_is_refused() {
    let fixture = Fixture::new(&pattern(3 * CHUNK_SIZE));
    let refused = fixture
        .file
        .load(&fixture.volume, &fixture.prints, b"file", CHUNK);
    assert_eq!(refused.err().map(|error| error.errno()), Some(Errno::NOMEM));
    assert!(fixture.file.memory().is_none());
    fixture.load();
}

#[test]
fn what_was_written_is_given_to_the_volume() {
    let mut content = pattern(40 * CHUNK_SIZE + 1);
    let fixture = Fixture::new(&content);
    let memory = fixture.load();
    for at in [0, CHUNK_SIZE - 1, 17 * CHUNK_SIZE, content.len() - 1] {
        pwrite(&memory, b"!", at as u64).unwrap();
        content[at] = b'!';
    }
    fixture.write_back();
    assert_eq!(fixture.stored(), content);
    pwrite(&memory, b"more", content.len() as u64).unwrap();
    content.extend(b"more");
    fixture.write_back();
    assert_eq!(fixture.stored(), content);
}

#[test]
fn cuts_holes_and_growth_are_given_too() {
    let mut content = pattern(20 * CHUNK_SIZE);
    let fixture = Fixture::new(&content);
    let memory = fixture.load();
    let hole = 4 * CHUNK_SIZE + 7..9 * CHUNK_SIZE + 7;
    rustix::fs::fallocate(
        &*memory,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        hole.start as u64,
        hole.len() as u64,
    )
    .unwrap();
    content[hole].fill(0);
    fixture.write_back();
    assert_eq!(fixture.stored(), content);
    fixture.volume.commit().unwrap();
    let stored = fixture.volume.attributes(fixture.number).unwrap().blocks();
    assert!(stored * 512 <= 16 * CHUNK, "holes take no room: {stored}");
    for size in [3 * CHUNK_SIZE + 5, 30 * CHUNK_SIZE, 0, 10] {
        ftruncate(&*memory, size as u64).unwrap();
        content.resize(size, 0);
        fixture.write_back();
        assert_eq!(fixture.stored(), content);
    }
}

#[test]
fn nothing_is_written_where_nothing_was_changed() {
    let fixture = Fixture::new(&pattern(3 * CHUNK_SIZE));
    let memory = fixture.load();
    fixture.pass_a_tick();
    fixture.write_back();
    fixture.volume.commit().unwrap();
    assert!(fixture.file.is_clean());
    let state = fixture.volume.state();
    fixture.write_back();
    fixture.volume.commit().unwrap();
    assert_eq!(fixture.volume.state(), state);
    pwrite(&memory, b"!", 9).unwrap();
    assert!(!fixture.file.is_clean());
    fixture.write_back();
    fixture.volume.commit().unwrap();
    assert_ne!(fixture.volume.state(), state);
}

#[test]
fn what_is_mapped_is_never_clean() {
    let content = pattern(2 * CHUNK_SIZE);
    let fixture = Fixture::new(&content);
    let memory = fixture.load();
    fixture.pass_a_tick();
    fixture.write_back();
    assert!(fixture.file.is_clean() && !fixture.file.is_mapped());
    fixture.file.note_mapping();
    assert!(!fixture.file.is_clean() && fixture.file.is_mapped());
    pwrite(&memory, b"!", 0).unwrap();
    fixture.write_back();
    assert!(!fixture.file.is_clean());
    assert_eq!(fixture.stored()[0], b'!');
    fixture.file.forget_mappings();
    fixture.pass_a_tick();
    fixture.write_back();
    assert!(fixture.file.is_clean());
}

#[test]
fn it_is_open_while_somebody_has_it() {
    let fixture = Fixture::new(b"content");
    assert!(!fixture.file.is_open());
    let memory = fixture.load();
    assert!(fixture.file.is_open());
    drop(memory);
    assert!(!fixture.file.is_open());
    assert!(fixture.file.idle() < Duration::from_secs(60));
}

#[test]
fn times_come_back() {
    let fixture = Fixture::new(b"content");
    let memory = fixture.load();
    set_times(&memory, Some((7, 8)), Some((9, 10))).unwrap();
    fixture.write_back();
    let attributes = fixture.volume.attributes(fixture.number).unwrap();
    assert_eq!(
        (attributes.mtime.seconds, attributes.mtime.nanoseconds),
        (9, 10)
    );
    assert_eq!(
        (attributes.atime.seconds, attributes.atime.nanoseconds),
        (7, 8)
    );
}
