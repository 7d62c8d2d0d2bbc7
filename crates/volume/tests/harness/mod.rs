//! What the tests of volumes share.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use sconify_volume::{
    Access, Expected, FileSystemKey, New, NewKind, Options, Result, Volume, ROOT_INODE,
};

/// The key of most test volumes.
pub fn key() -> FileSystemKey {
    FileSystemKey::new([0x5a; 32])
}

/// Little memory, so that commits, reads and evictions happen often.
pub fn small() -> Options {
    Options {
        access: Access::ReadWrite,
        dirty_bytes: 256 << 10,
        cache_bytes: 128 << 10,
    }
}

pub fn create(directory: &Path) -> Arc<Volume> {
    Arc::new(Volume::create(directory, &key(), &small()).unwrap())
}

pub fn open(directory: &Path, expected: &Expected) -> Result<Arc<Volume>> {
    Volume::open(directory, &key(), expected, &small()).map(Arc::new)
}

/// Whatever authenticates.
pub fn reopen(directory: &Path) -> Arc<Volume> {
    open(directory, &Expected::Any).unwrap()
}

pub fn new(kind: NewKind<'_>) -> New<'_> {
    New {
        kind,
        mode: 0o644,
        uid: 10,
        gid: 20,
    }
}

/// Creates a file in the top directory and returns its inode.
pub fn create_file(volume: &Volume, name: &str, content: &[u8]) -> u64 {
    let attributes = volume
        .create_inode(ROOT_INODE, name.as_bytes(), &new(NewKind::Regular))
        .unwrap();
    assert_eq!(
        volume.write_at(attributes.inode, 0, content).unwrap(),
        content.len()
    );
    attributes.inode
}

pub fn read_file(volume: &Volume, name: &str) -> Result<Vec<u8>> {
    let attributes = volume.lookup(ROOT_INODE, name.as_bytes())?;
    let mut content = vec![0; usize::try_from(attributes.size).unwrap()];
    let read = volume.read_at(attributes.inode, 0, &mut content)?;
    assert_eq!(read, content.len());
    Ok(content)
}

/// Refuses a volume in which anything is wrong.
pub fn assert_sound(volume: &Volume) {
    let report = volume.check().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// A number from the environment, for tests that can run longer: `default` keeps the suite quick.
pub fn scale(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => default,
    }
}
