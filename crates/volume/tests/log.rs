//! The write-ahead log stays bounded however long commits go on without a pause.

mod harness;

use std::fs;

use harness::{create, create_file};
use sconify_volume::CHUNK_SIZE;

/// What the log may have on a disk with room, and a commit more.
const MOST: u64 = 66 << 20;

#[test]
fn commits_that_never_pause_leave_it_bounded() {
    let scratch = tempfile::tempdir().unwrap();
    let volume = create(scratch.path());
    let inode = create_file(&volume, "file", &[]);
    let log = scratch.path().join("volume.sqlite-wal");
    let (mut longest, mut committed) = (0, 0);
    // Each of them puts some 50 KB into the log.
    for number in 0..3_000_u64 {
        let offset = number % 400 * CHUNK_SIZE as u64;
        volume.write_at(inode, offset, &[1; 4096]).unwrap();
        volume.commit().unwrap();
        longest = longest.max(fs::metadata(&log).unwrap().len());
        committed += 50_000;
    }
    assert!(committed > 2 * MOST);
    assert!(longest <= MOST, "{longest}");
    volume.close_shared().unwrap();
    assert!(!log.exists());
}
