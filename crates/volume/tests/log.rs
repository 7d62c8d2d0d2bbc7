//! The write-ahead log stays short however long small commits go on, and does not grow by each of them.

mod harness;

use std::collections::BTreeSet;
use std::fs;

use harness::{create, create_file};
use sconify_volume::CHUNK_SIZE;

#[test]
fn commits_that_never_pause_leave_it_short() {
    let scratch = tempfile::tempdir().unwrap();
    let volume = create(scratch.path());
    let inode = create_file(&volume, "file", &[]);
    let log = scratch.path().join("volume.sqlite-wal");
    let mut lengths = BTreeSet::new();
    // Each of them puts some 50 KB into the log.
    for number in 0..2_500_u64 {
        let offset = number % 400 * CHUNK_SIZE as u64;
        volume.write_at(inode, offset, &[1; 4096]).unwrap();
        volume.commit().unwrap();
        lengths.insert(fs::metadata(&log).unwrap().len());
    }
    let longest = *lengths.last().unwrap();
    assert!(longest <= 48 << 20, "{longest}");
    assert!(lengths.len() < 1_000, "{}", lengths.len());
    volume.close_shared().unwrap();
    assert!(!log.exists());
}
