//! What a builder refuses, and what it leaves when it fails.

mod sample;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use sconify_shield::build::{Builder, Built, Content};
use sconify_shield::{Index, Kind, PackReader, ReadAt, RegionKind, ShieldError, Storage};

fn empty<S: ReadAt + Sync>() -> Builder<S> {
    let mut builder = Builder::new(sample::key());
    builder
        .add_region(b"/", RegionKind::Authenticated, "")
        .unwrap();
    builder
        .add_region(b"/p", RegionKind::Encrypted, "")
        .unwrap();
    builder.add_pack(b"/p", b"/pack").unwrap();
    builder
        .add_entry(b"/", sample::metadata(1, 0o755), Content::Directory)
        .unwrap();
    builder
        .add_entry(b"/p", sample::metadata(2, 0o755), Content::Directory)
        .unwrap();
    builder
}

fn finish<S: ReadAt + Sync>(builder: Builder<S>) -> Result<Built, ShieldError> {
    builder.finish(&mut [Vec::new()], 2, &mut |_| ControlFlow::Continue(()))
}

#[track_caller]
fn refused(result: Result<impl Sized, ShieldError>, expected: &str) {
    match result.err().expect("refused") {
        ShieldError::BadInput { what, reason } => {
            let message = format!("{what}: {reason}");
            assert!(
                message.contains(expected),
                "got \"{message}\", expected \"{expected}\""
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn faulty_input_is_refused_at_once() {
    let mut builder = empty::<Vec<u8>>();
    let metadata = || sample::metadata(9, 0o644);
    refused(
        builder.add_entry(b"/p/", metadata(), Content::Fifo),
        "/p/: the path has an empty",
    );
    refused(
        builder.add_entry(b"/p", metadata(), Content::Fifo),
        "/p: it was added twice",
    );
    refused(
        builder.add_entry(b"/f", metadata(), sample::file(b"", Some(1))),
        "/f: there is no pack 1",
    );
    refused(
        builder.add_region(b"/p", RegionKind::Host, ""),
        "/p: the region is declared twice",
    );
    refused(
        builder.add_region(b"p", RegionKind::Host, ""),
        "not absolute",
    );
    refused(
        builder.add_pack(b"/p", b"/other"),
        "/p: another pack has this name",
    );
    refused(
        builder.add_pack(b"/other", b"/pack"),
        "/other: another pack has this name or file",
    );
    refused(builder.add_omitted(b"/a/../b"), "component");
}

#[test]
fn rules_between_entries_are_checked_before_anything_is_read() {
    /// Fails the test when it is read.
    struct Untouchable;
    impl ReadAt for Untouchable {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            panic!("it was read")
        }
        fn size(&self) -> io::Result<u64> {
            panic!("it was asked for its size")
        }
    }
    let file = |size, pack| Content::File {
        source: Untouchable,
        size,
        pack,
    };
    type Case = (
        &'static str,
        Vec<(&'static str, u64, u32, Content<Untouchable>)>,
    );
    let cases: [Case; 7] = [
        (
            "/x/y has no directory above it",
            vec![("/x/y", 3, 0o644, file(1, Some(0)))],
        ),
        (
            "in an encrypted region but in no pack",
            vec![("/p/f", 3, 0o644, file(1, None))],
        ),
        (
            "mode is 10000",
            vec![("/p/f", 3, 0o10000, file(1, Some(0)))],
        ),
        ("inode is 0", vec![("/p/f", 0, 0o644, file(1, Some(0)))]),
        (
            "share an inode",
            vec![
                ("/p/f", 3, 0o644, file(1, Some(0))),
                ("/p/g", 3, 0o600, file(1, Some(0))),
            ],
        ),
        (
            "share an inode",
            vec![
                ("/p/f", 3, 0o644, file(1, Some(0))),
                ("/p/g", 3, 0o644, file(2, Some(0))),
            ],
        ),
        (
            "differ in the pack",
            vec![
                ("/p/f", 3, 0o644, file(1, Some(0))),
                ("/q", 3, 0o644, file(1, None)),
            ],
        ),
    ];
    for (reason, entries) in cases {
        let mut builder = empty();
        for (path, inode, mode, content) in entries {
            builder
                .add_entry(path.as_bytes(), sample::metadata(inode, mode), content)
                .unwrap();
        }
        refused(finish(builder), reason);
    }
    let mut builder = empty();
    builder
        .add_entry(b"/p/f", sample::metadata(3, 0o644), file(u64::MAX, Some(0)))
        .unwrap();
    refused(finish(builder), "more than 4,294,967,295 chunks");
}

/// A source that claims one size and holds another.
struct Lying {
    claimed: u64,
    content: Vec<u8>,
}

impl ReadAt for Lying {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.content.read_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.claimed)
    }
}

#[test]
fn sources_of_another_size_are_refused() {
    for pack in [Some(0), None] {
        let path: &[u8] = if pack.is_some() { b"/p/f" } else { b"/f" };
        for (claimed, held, expected) in [
            (9, 9, "its source has 9 bytes, expected 10"),
            (11, 11, "its source has 11 bytes, expected 10"),
            (10, 7, "its source ends after 7 bytes, expected 10"),
        ] {
            let mut builder = empty();
            let source = Lying {
                claimed,
                content: vec![0; held],
            };
            let content = Content::File {
                source,
                size: 10,
                pack,
            };
            builder
                .add_entry(path, sample::metadata(3, 0o644), content)
                .unwrap();
            match finish(builder).err().unwrap() {
                ShieldError::BadSource {
                    path: named,
                    reason,
                } => {
                    assert_eq!(named.as_bytes(), path);
                    assert_eq!(reason, expected);
                }
                other => panic!("{other}"),
            }
        }
    }
}

/// A source that fails in the middle, and one that delivers little at a time and is often interrupted.
struct Unsteady {
    size: u64,
    fails_at: u64,
    calls: AtomicU64,
}

impl ReadAt for Unsteady {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.fails_at {
            return Err(io::Error::from_raw_os_error(5));
        }
        if self.calls.fetch_add(1, Ordering::Relaxed) % 3 == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = buf.len().min(1000).min((self.size - offset) as usize);
        for (at, byte) in buf[..count].iter_mut().enumerate() {
            *byte = ((offset + at as u64) / 7) as u8;
        }
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

#[test]
fn short_reads_and_interruptions_are_no_faults_but_errors_are() {
    for pack in [Some(0), None] {
        let path: &[u8] = if pack.is_some() { b"/p/f" } else { b"/f" };
        for fails_at in [u64::MAX, 150_000] {
            let mut builder = empty();
            let source = Unsteady {
                size: 200_000,
                fails_at,
                calls: AtomicU64::new(0),
            };
            let content = Content::File {
                source,
                size: 200_000,
                pack,
            };
            builder
                .add_entry(path, sample::metadata(3, 0o644), content)
                .unwrap();
            match finish(builder) {
                Ok(built) => {
                    assert_eq!(fails_at, u64::MAX);
                    assert!(Index::open(&built.index, &sample::key(), &built.tag).is_ok());
                }
                Err(ShieldError::Io { what, source }) => {
                    assert_eq!((what.as_bytes(), source.raw_os_error()), (path, Some(5)));
                    assert_eq!(fails_at, 150_000);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// A disk that is full after some bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told() {
    for space in [0, 31, 32, 100_000] {
        let mut builder = empty();
        let content = sample::file(&sample::noise(3_000_000, 1), Some(0));
        builder
            .add_entry(b"/p/f", sample::metadata(3, 0o644), content)
            .unwrap();
        let error = builder
            .finish(&mut [Full(space)], 2, &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
        assert!(matches!(error, ShieldError::Io { .. }), "{error}");
        assert!(error.to_string().contains("pack /p"), "{error}");
    }
}

#[test]
fn the_caller_may_stop_the_work() {
    for pack in [Some(0), None] {
        let mut builder = empty();
        let path: &[u8] = if pack.is_some() { b"/p/f" } else { b"/f" };
        let source = Unsteady {
            size: 1 << 36,
            fails_at: u64::MAX,
            calls: AtomicU64::new(0),
        };
        let content = Content::File {
            source,
            size: 1 << 36,
            pack,
        };
        builder
            .add_entry(path, sample::metadata(3, 0o644), content)
            .unwrap();
        let mut calls = 0;
        let result = builder.finish(&mut [io::sink()], 2, &mut |_| {
            calls += 1;
            if calls == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(matches!(result, Err(ShieldError::Cancelled)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_contents_come_back(
        files in proptest::collection::vec((0_usize..200_000, any::<bool>(), any::<bool>(), 0_u64..4), 0..12),
        threads in 1_usize..4,
    ) {
        let mut builder = empty();
        let mut contents = Vec::new();
        for (number, (size, noisy, in_pack, seed)) in files.into_iter().enumerate() {
            let content = if noisy { sample::noise(size, seed) } else { vec![seed as u8; size] };
            let path = if in_pack { format!("/p/f{number}") } else { format!("/f{number}") };
            let file = sample::file(&content, in_pack.then_some(0));
            builder.add_entry(path.as_bytes(), sample::metadata(number as u64 + 10, 0o644), file).unwrap();
            contents.push((path, content));
        }
        builder.digest_chunks();
        let (index_bound, digests_size) = builder.bounds().unwrap();
        let (built, packs) = sample::finish(builder, 1, threads);
        prop_assert!(built.index.len() <= index_bound);
        prop_assert_eq!(built.digests.as_flattened().len(), digests_size);
        let index = Index::open(&built.index, &sample::key(), &built.tag).unwrap();
        let reader = PackReader::open(&packs[0], &index, 0).unwrap();
        for (path, content) in &contents {
            let entry = index.lookup(path.as_bytes()).unwrap();
            let mut read = vec![0xee; content.len()];
            match entry.kind() {
                Kind::File { storage: Storage::Packed { .. }, .. } => reader.read_file(entry, &mut read, threads).unwrap(),
                _ => sconify_shield::read_plain(entry, content, &mut read).unwrap(),
            }
            prop_assert!(read == *content);
        }
    }
}
