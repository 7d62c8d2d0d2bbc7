//! Several threads on one volume, memory, and what the disk shows.

mod harness;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use harness::{assert_sound, create, create_file, key, new, open, read_file, reopen, Random};
use sconify_volume::{Changes, Expected, NewKind, Options, Time, Volume, ROOT_INODE};

#[test]
fn threads_read_and_write_while_others_commit() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    create_file(&volume, "shared", &[0; 200_000]);
    let (stop, commits) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    volume.commit().unwrap();
                    commits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let readers = (0..2).map(|_| {
            scope.spawn(|| {
                // A write fills the whole file with one byte, so no read sees two.
                while !stop.load(Ordering::Relaxed) {
                    let content = read_file(&volume, "shared").unwrap();
                    assert!(content.iter().all(|byte| *byte == content[0]));
                }
            })
        });
        let readers = readers.collect::<Vec<_>>();
        let writers = (0..3_u8).map(|writer| {
            let volume = &volume;
            scope.spawn(move || {
                for round in 0..60_u8 {
                    let name = format!("file-{writer}-{round}");
                    create_file(volume, &name, &[writer; 10_000]);
                    volume.write_at(2, 0, &[round; 200_000]).unwrap();
                    if round % 3 == 0 {
                        volume.unlink(ROOT_INODE, name.as_bytes()).unwrap();
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert!(commits.into_inner() > 2);
    assert_sound(&volume);
    drop(volume);
    let volume = reopen(directory.path());
    let entries = volume.read_directory(ROOT_INODE, 2, 1_000).unwrap();
    assert!(entries.len() <= 1 + 3 * 40);
}

#[test]
fn appends_of_several_threads_are_whole() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let inode = create_file(&volume, "log", b"");
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for writer in 0..4_u8 {
            let (volume, start) = (&volume, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..100 {
                    volume.append(inode, &[writer; 1_000]).unwrap();
                }
            });
        }
    });
    let content = read_file(&volume, "log").unwrap();
    assert_eq!(content.len(), 400_000);
    assert!(content
        .chunks(1_000)
        .all(|line| line.iter().all(|byte| *byte == line[0])));
}

#[test]
fn commits_of_many_threads_share_transactions() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    thread::scope(|scope| {
        for writer in 0..8 {
            let volume = &volume;
            scope.spawn(move || {
                let inode = create_file(volume, &format!("file-{writer}"), b"");
                for round in 0..20_u64 {
                    volume.write_at(inode, round, b"x").unwrap();
                    let state = volume.commit().unwrap();
                    assert!(volume.state().counter >= state.counter);
                }
            });
        }
    });
    assert!(!volume.is_dirty());
    assert!(volume.state().counter <= 1 + 8 * 20);
    drop(volume);
    let volume = reopen(directory.path());
    for writer in 0..8 {
        assert_eq!(
            read_file(&volume, &format!("file-{writer}")).unwrap(),
            [b'x'; 20]
        );
    }
}

#[test]
fn a_file_larger_than_memory_is_written_and_read() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let inode = create_file(&volume, "large", b"");
    // 24 MiB through 256 KiB of changes and 128 KiB of cache.
    let (mut random, size) = (Random(1), 24_u64 << 20);
    let block = random.bytes(65_536);
    for part in 0..size / 65_536 {
        let mut block = block.clone();
        block[..8].copy_from_slice(&part.to_le_bytes());
        volume.write_at(inode, part * 65_536, &block).unwrap();
    }
    let facts = volume.facts().unwrap();
    assert!(
        facts.contents_bytes + facts.database_bytes > size - (1 << 20),
        "{facts:?}: nothing was written meanwhile"
    );
    for part in [0, 7, 100, size / 65_536 - 1] {
        let mut found = vec![0; 65_536];
        assert_eq!(
            volume.read_at(inode, part * 65_536, &mut found).unwrap(),
            65_536
        );
        assert!(found[..8] == part.to_le_bytes() && found[8..] == block[8..]);
    }
    volume.unlink(ROOT_INODE, b"large").unwrap();
    assert_sound(&volume);
    assert_eq!(volume.facts().unwrap().chunk_bytes, 0);
}

#[test]
fn sparse_files_take_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let inode = create_file(&volume, "sparse", b"");
    volume.write_at(inode, 1 << 50, b"far away").unwrap();
    volume.commit().unwrap();
    let attributes = volume.attributes(inode).unwrap();
    assert_eq!((attributes.size, attributes.blocks()), ((1 << 50) + 8, 32));
    assert_eq!(volume.seek_data(inode, 5).unwrap(), 1 << 50);
    volume.truncate(inode, 1 << 40).unwrap();
    assert!(volume.seek_data(inode, 0).is_err());
    let errno = volume
        .write_at(inode, u64::MAX - 3, b"beyond")
        .unwrap_err()
        .errno();
    assert_eq!(errno, rustix::io::Errno::FBIG);
    assert_sound(&volume);
}

#[test]
fn a_file_lives_on_while_it_is_open_and_is_gone_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let inode = create_file(&volume, "file", &[1; 50_000]);
    let (one, other) = (
        volume.open_file(inode).unwrap(),
        volume.open_file(inode).unwrap(),
    );
    volume.unlink(ROOT_INODE, b"file").unwrap();
    assert!(read_file(&volume, "file").is_err());
    drop(one);
    assert_eq!(other.attributes().unwrap().links, 0);
    assert_eq!(volume.read_at(inode, 49_990, &mut [0; 100]).unwrap(), 10);
    volume.write_at(inode, 0, b"still there").unwrap();
    volume.commit().unwrap();
    assert_sound(&volume);
    // As after a kill: the open file was never closed.
    std::mem::forget(other);
    let copied = tempfile::tempdir().unwrap();
    for name in ["volume.sqlite", "volume.sqlite-wal", "volume.contents"] {
        fs::copy(directory.path().join(name), copied.path().join(name)).unwrap();
    }
    let volume = open(copied.path(), &Expected::Any).unwrap();
    assert!(volume.attributes(inode).is_err());
    assert_sound(&volume);
    assert_eq!(volume.facts().unwrap().chunk_bytes, 0);
}

#[test]
fn attributes_and_extended_attributes_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let inode = create_file(&volume, "file", b"");
    let time = Time {
        seconds: -7,
        nanoseconds: 999_999_999,
    };
    let changes = Changes {
        mode: Some(0o4755),
        uid: Some(1),
        gid: Some(u32::MAX - 1),
        atime: Some(time),
        mtime: Some(time),
    };
    volume.set_attributes(inode, &changes).unwrap();
    let long = Random(1).bytes(60_000);
    volume.set_xattr(inode, b"user.long", &long, None).unwrap();
    volume
        .set_xattr(inode, b"user.short", b"", Some(false))
        .unwrap();
    let errno = |result: sconify_volume::Result<()>| result.unwrap_err().errno();
    use rustix::io::Errno;
    assert_eq!(
        errno(volume.set_xattr(inode, b"user.short", b"", Some(false))),
        Errno::EXIST
    );
    assert_eq!(
        errno(volume.set_xattr(inode, b"user.none", b"", Some(true))),
        Errno::NODATA
    );
    assert_eq!(
        errno(volume.set_xattr(inode, b"user.more", &long, None)),
        Errno::NOSPC
    );
    assert_eq!(errno(volume.set_xattr(inode, b"", b"", None)), Errno::RANGE);
    assert_eq!(
        errno(volume.remove_xattr(inode, b"user.none")),
        Errno::NODATA
    );
    volume.commit().unwrap();
    drop(volume);
    let volume = reopen(directory.path());
    let found = volume.attributes(inode).unwrap();
    assert_eq!(
        (found.mode, found.uid, found.gid),
        (0o4755, 1, u32::MAX - 1)
    );
    assert_eq!((found.atime, found.mtime), (time, time));
    let xattrs = volume.xattrs(inode).unwrap();
    assert_eq!(
        xattrs.keys().collect::<Vec<_>>(),
        [b"user.long".as_slice(), b"user.short"]
    );
    assert!(xattrs[b"user.long".as_slice()] == long);
    volume.remove_xattr(inode, b"user.long").unwrap();
    assert_eq!(volume.xattrs(inode).unwrap().len(), 1);
    assert_sound(&volume);
}

#[test]
fn a_directory_is_listed_exactly_once_while_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let mut expected = (0..400)
        .map(|number| format!("stays-{number}"))
        .collect::<Vec<_>>();
    for name in &expected {
        create_file(&volume, name, b"");
    }
    let (mut found, mut cookie, mut round) = (Vec::new(), 0, 0);
    loop {
        let entries = volume.read_directory(ROOT_INODE, cookie, 7).unwrap();
        let Some(last) = entries.last() else { break };
        cookie = last.cookie;
        found.extend(
            entries
                .into_iter()
                .map(|entry| String::from_utf8(entry.name).unwrap()),
        );
        create_file(&volume, &format!("comes-{round}"), b"");
        if round > 3 {
            volume
                .unlink(ROOT_INODE, format!("comes-{}", round - 3).as_bytes())
                .unwrap();
        }
        round += 1;
    }
    let mut found = found
        .into_iter()
        .filter(|name| name.starts_with("stays"))
        .collect::<Vec<_>>();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn the_disk_shows_neither_content_nor_names() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let canaries = [
        "NAME-CANARY",
        "CONTENT-CANARY",
        "SHORT-CANARY",
        "TARGET-CANARY",
        "XATTR-CANARY",
    ];
    let inode = create_file(&volume, canaries[0], canaries[1].repeat(5_000).as_bytes());
    create_file(&volume, "short", canaries[2].as_bytes());
    let link = new(NewKind::Symlink(canaries[3].as_bytes()));
    volume.create_inode(ROOT_INODE, b"link", &link).unwrap();
    volume
        .set_xattr(inode, b"user.canary", canaries[4].as_bytes(), None)
        .unwrap();
    volume.commit().unwrap();
    volume.unlink(ROOT_INODE, canaries[0].as_bytes()).unwrap();
    volume.commit().unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(directory.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        seen += bytes.len();
        for needle in canaries
            .map(str::as_bytes)
            .into_iter()
            .chain([[0x5a; 32].as_slice(), b"user.canary"])
        {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle));
        }
    }
    assert!(seen > 100_000, "the test looked at {seen} bytes only");
}

#[test]
fn equal_files_do_not_look_equal_and_sizes_do_not_show() {
    // Two volumes with the same number of chunks have databases of one length, whatever the sizes in them.
    let length = |sizes: [usize; 2]| {
        let directory = tempfile::tempdir().unwrap();
        let volume = Volume::create(directory.path(), &key(), &Options::default()).unwrap();
        for (number, size) in sizes.into_iter().enumerate() {
            create_file(&volume, &format!("{number}"), &vec![1; size]);
        }
        volume.close().unwrap();
        fs::metadata(directory.path().join("volume.sqlite"))
            .unwrap()
            .len()
    };
    assert_eq!(length([2_000, 16_384]), length([9_999, 5_000]));
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    for number in 0..4 {
        create_file(&volume, &format!("{number}"), &[1; 16_384]);
    }
    Arc::into_inner(volume).unwrap().close().unwrap();
    let connection = rusqlite::Connection::open(directory.path().join("volume.sqlite")).unwrap();
    let distinct = "SELECT count(DISTINCT data), count(DISTINCT length(data)) FROM chunk";
    let counts: (u32, u32) = connection
        .query_row(distinct, (), |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(counts, (4, 1));
}
