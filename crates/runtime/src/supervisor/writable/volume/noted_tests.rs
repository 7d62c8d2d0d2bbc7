use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use rustix::io::pwrite;
use sconify_shield::FileSystemKey;
use sconify_volume::{New, NewKind, Options, Volume, ROOT_INODE};

use super::super::fingerprint::Fingerprints;
use super::super::held::HeldFile;
use super::*;

const CHUNK: usize = CHUNK_SIZE;
/// Longer than a time of change must be past to be told from the next one.
const SETTLED: Duration = Duration::from_millis(40);

struct Scene {
    directory: PathBuf,
    volume: Arc<Volume>,
    prints: Fingerprints,
    file: HeldFile,
    inode: u64,
    memory: Arc<OwnedFd>,
}

impl Scene {
    /// A file of some chunks that a volume has.
    fn new(name: &str, content: &[u8]) -> Self {
        let name = format!("sconify-noted-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let key = FileSystemKey::new([7; 32]);
        let volume = Arc::new(Volume::create(&directory, &key, &Options::default()).unwrap());
        let new = New {
            kind: NewKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
        };
        let inode = volume
            .create_inode(ROOT_INODE, b"file", &new)
            .unwrap()
            .inode;
        volume.write_at(inode, 0, content).unwrap();
        let prints = Fingerprints::new().unwrap();
        let file = HeldFile::new(volume.open_file(inode).unwrap());
        let memory = file.load(&volume, &prints, b"file", u64::MAX).unwrap();
        let scene = Self {
            directory,
            volume,
            prints,
            file,
            inode,
            memory,
        };
        std::thread::sleep(SETTLED);
        scene.look();
        scene
    }

    fn look(&self) {
        self.file.write_back(&self.volume, &self.prints).unwrap();
    }

    /// Writes as the supervisor does.
    fn note(&self, offset: usize, bytes: &[u8]) -> Option<usize> {
        let source = memfd_create("source", MemfdFlags::CLOEXEC).unwrap();
        pwrite(&source, bytes, 0).unwrap();
        let copy = |window: &Window| window.copy_from(&source, 0, offset, bytes.len());
        let noted = self.file.noted();
        noted
            .write(&self.memory, offset as u64, bytes.len(), copy)
            .unwrap()
    }

    fn stored(&self) -> Vec<u8> {
        let size = self.volume.attributes(self.inode).unwrap().size;
        let mut content = vec![0; size as usize];
        self.volume.read_at(self.inode, 0, &mut content).unwrap();
        content
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn only_what_was_noted_is_read_as_long_as_nothing_else_has_changed() {
    let scene = Scene::new("only", &[1; 4 * CHUNK]);
    assert_eq!(scene.note(CHUNK - 1, &[2, 2]), Some(2));
    assert!(!scene.file.is_clean());
    // Not noted, and no time of change tells of it: nobody but the supervisor could do that.
    let unseen = memfd_create("source", MemfdFlags::CLOEXEC).unwrap();
    pwrite(&unseen, &[3], 0).unwrap();
    let window = Window::open(scene.memory.as_fd(), 4 * CHUNK).unwrap();
    window.copy_from(&unseen, 0, 3 * CHUNK, 1).unwrap();
    scene.look();
    let mut expected = vec![1; 4 * CHUNK];
    expected[CHUNK - 1..=CHUNK].fill(2);
    assert!(scene.stored() == expected);
    assert!(scene.file.is_clean());
    // A write of the kernel's, wherever it is, has everything looked at.
    pwrite(&scene.memory, &[4], 0).unwrap();
    scene.look();
    expected[0] = 4;
    expected[3 * CHUNK] = 3;
    assert!(scene.stored() == expected);
}

#[test]
fn chunks_become_holes_and_no_holes() {
    let scene = Scene::new("holes", &[1; 2 * CHUNK]);
    assert_eq!(scene.note(CHUNK, &[0; CHUNK]), Some(CHUNK));
    scene.look();
    scene.volume.commit().unwrap();
    let stored = scene.volume.attributes(scene.inode).unwrap().blocks();
    assert_eq!(stored, CHUNK as u64 / 512);
    assert!(scene.stored() == [[1; CHUNK], [0; CHUNK]].concat());
    scene.note(CHUNK + 5, &[6]);
    scene.look();
    assert_eq!(scene.stored()[CHUNK + 5], 6);
}

#[test]
fn what_is_not_within_the_file_is_left_to_the_kernel() {
    let scene = Scene::new("within", &[1; 10]);
    assert_eq!(scene.note(8, &[2, 2, 2]), None);
    assert_eq!(scene.note(usize::MAX / 2, &[2]), None);
    assert_eq!(scene.note(3, &[]), None);
    assert!(scene.file.noted().is_empty());
    assert_eq!(scene.note(8, &[2, 2]), Some(2));
}

#[test]
fn times_are_those_of_the_last_change() {
    let scene = Scene::new("times", &[1; 10]);
    let status = || fstat(&*scene.memory).unwrap();
    let before = scene.file.noted().times(&status());
    scene.note(0, &[2]);
    let noted = scene.file.noted().times(&status());
    assert!(noted.0 > before.0 && noted.1 > before.1);
    scene.look();
    let stored = scene.volume.attributes(scene.inode).unwrap().mtime;
    assert_eq!((stored.seconds, stored.nanoseconds), noted.0);
    // Set afterwards: that is what counts.
    std::thread::sleep(SETTLED);
    super::super::super::state::set_times(&scene.memory, None, Some((5, 6))).unwrap();
    assert_eq!(scene.file.noted().times(&status()).0, (5, 6));
    std::thread::sleep(SETTLED);
    scene.note(0, &[3]);
    assert!(scene.file.noted().times(&status()).0 > noted.0);
}

#[test]
fn nothing_is_lost_whoever_writes() {
    let scene = Scene::new("random", &[9; 6 * CHUNK]);
    let mut seed = 11_u64;
    let mut random = |end: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % end
    };
    let mut expected = vec![9; 6 * CHUNK];
    for round in 0..150 {
        let (value, offset) = (round as u8, random(6 * CHUNK));
        let length = random(2 * CHUNK) + 1;
        match random(8) {
            0 => {
                pwrite(&scene.memory, &vec![value; length], offset as u64).unwrap();
                expected.resize(expected.len().max(offset + length), 0);
                expected[offset..offset + length].fill(value);
            }
            1 => {
                ftruncate(&scene.memory, offset as u64).unwrap();
                expected.resize(offset, 0);
            }
            2 => std::thread::sleep(SETTLED / (1 + random(4) as u32)),
            3 => {
                scene.look();
                assert!(scene.stored() == expected, "round {round}");
            }
            _ => {
                if let Some(count) = scene.note(offset, &vec![value; length]) {
                    expected[offset..offset + count].fill(value);
                }
            }
        }
    }
    scene.look();
    assert!(scene.stored() == expected);
}
