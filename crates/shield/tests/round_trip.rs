//! What was built is what is read.

mod sample;

use std::io;
use std::ops::ControlFlow;
use std::sync::Mutex;

use sconify_shield::build::{Builder, Content};
use sconify_shield::{
    copy_plain, read_plain, Entry, EntryId, Index, Kind, PackReader, RegionKind, ShieldError,
    Storage, CHUNK_SIZE,
};

fn open_sample() -> (Index, Vec<Vec<u8>>) {
    let (built, packs) = sample::finish(sample::builder(), 2, 1);
    (
        Index::open(&built.index, &sample::key(), &built.tag).unwrap(),
        packs,
    )
}

#[test]
fn every_content_comes_back() {
    let (index, packs) = open_sample();
    for (path, content) in sample::contents() {
        let entry = index.lookup(path.as_bytes()).unwrap();
        let Kind::File { size, storage } = entry.kind() else {
            panic!("{path} is no file")
        };
        assert_eq!(size, content.len() as u64);
        let mut read = vec![0xee; content.len()];
        match storage {
            Storage::Packed { pack, .. } => PackReader::open(&packs[pack as usize], &index, pack)
                .unwrap()
                .read_file(entry, &mut read, 4)
                .unwrap(),
            Storage::Plain { .. } => read_plain(entry, &content, &mut read).unwrap(),
        }
        assert_eq!(read, content, "{path}");
        assert_eq!(
            copied(entry, &packs, &index, &content, 4),
            content,
            "{path}"
        );
    }
}

/// The content of a file as it is handed over piece by piece.
fn copied(
    entry: Entry<'_>,
    packs: &[Vec<u8>],
    index: &Index,
    plain: &Vec<u8>,
    threads: usize,
) -> Vec<u8> {
    let copy = Mutex::new(vec![0xee; entry.size() as usize]);
    let sink = |offset: u64, piece: &[u8]| {
        copy.lock().unwrap()[offset as usize..][..piece.len()].copy_from_slice(piece);
        Ok(())
    };
    match entry.kind() {
        Kind::File {
            storage: Storage::Packed { pack, .. },
            ..
        } => PackReader::open(&packs[pack as usize], index, pack)
            .unwrap()
            .copy_file(entry, threads, &sink)
            .unwrap(),
        _ => copy_plain(entry, plain, threads, &sink).unwrap(),
    }
    copy.into_inner().unwrap()
}

#[test]
fn a_sink_that_fails_ends_the_copy() {
    let (index, packs) = open_sample();
    for (path, content) in sample::contents() {
        let entry = index.lookup(path.as_bytes()).unwrap();
        let sink = |_: u64, _: &[u8]| Err(io::Error::other("it is full"));
        let result = match entry.kind() {
            Kind::File {
                storage: Storage::Packed { pack, .. },
                ..
            } => PackReader::open(&packs[pack as usize], &index, pack)
                .unwrap()
                .copy_file(entry, 2, &sink),
            _ => copy_plain(entry, &content, 2, &sink),
        };
        assert_eq!(result.is_err(), !content.is_empty(), "{path}");
    }
}

#[test]
fn metadata_comes_back() {
    let (index, _) = open_sample();
    let entry = index.lookup(b"/app/a").unwrap();
    assert_eq!((entry.mode(), entry.st_mode()), (0o4755, 0o104_755));
    assert_eq!(
        (entry.uid(), entry.gid(), entry.mtime(), entry.mtime_nsec()),
        (10, 20, -1, 5)
    );
    let xattrs: Vec<_> = entry.xattrs().collect();
    let expected: [(&[u8], &[u8]); 2] = [
        (b"security.capability", &[1, 0, 0, 2]),
        (b"user.empty", b""),
    ];
    assert_eq!(xattrs, expected);
    assert_eq!(entry.xattr(b"user.empty"), Some(&b""[..]));
    assert_eq!(entry.xattr(b"user.other"), None);

    let kind = |path: &str| index.lookup(path.as_bytes()).unwrap().kind();
    assert_eq!(kind("/app/null"), Kind::CharDevice { major: 1, minor: 3 });
    assert_eq!(kind("/app/disk"), Kind::BlockDevice { major: 8, minor: 1 });
    assert_eq!(kind("/app/pipe"), Kind::Fifo);
    assert_eq!(kind("/bin"), Kind::Symlink { target: b"app/lib" });
    assert_eq!(index.lookup(b"/bin").unwrap().size(), 7);
    assert_eq!(
        index.entries().len(),
        index
            .entries()
            .filter(|e| index.find(e.path()) == Some(e.id()))
            .count()
    );
}

#[test]
fn links_are_counted() {
    let (index, _) = open_sample();
    let links = |path: &str| index.lookup(path.as_bytes()).unwrap().nlink();
    assert_eq!(
        (links("/"), links("/app"), links("/app/lib")),
        (2 + 5, 2 + 1, 2)
    );
    assert_eq!(
        (
            links("/app/hard"),
            links("/app/hardlink"),
            links("/app/big")
        ),
        (2, 2, 1)
    );
    let inode = |path: &str| index.lookup(path.as_bytes()).unwrap().inode();
    assert_eq!(inode("/app/hard"), inode("/app/hardlink"));
}

#[test]
fn directories_list_their_children_sorted() {
    let (index, _) = open_sample();
    let names = |path: &str| -> Vec<String> {
        let children = index.children(index.find(path.as_bytes()).unwrap());
        children
            .map(|(name, _)| String::from_utf8(name.to_vec()).unwrap())
            .collect()
    };
    assert_eq!(names("/"), ["app", "bin", "lib", "proc", "srv", "tmp"]);
    assert_eq!(names("/app/lib"), ["inner"]);
    assert_eq!(names("/app/a"), [""; 0]);
    assert_eq!(names("/app").len(), 15);
    let app = index.find(b"/app").unwrap();
    for (name, child) in index.children(app) {
        assert_eq!(index.child(app, name), Some(child));
        assert_eq!(index.parent(child), app);
    }
    assert_eq!(index.child(app, b"nothing"), None);
    assert_eq!(index.parent(EntryId::ROOT), EntryId::ROOT);
}

#[test]
fn regions_go_by_whole_components() {
    let (index, _) = open_sample();
    let kind = |path: &str| index.region_of(path.as_bytes()).map(|region| region.kind());
    assert_eq!(kind("/app"), Some(RegionKind::Encrypted));
    assert_eq!(kind("/app/lib/inner"), Some(RegionKind::Encrypted));
    assert_eq!(kind("/application"), None);
    assert_eq!(kind("/"), None);
    assert_eq!(
        index.region_of(b"/lib/x").unwrap().reason(),
        "shared objects"
    );
    assert!(index.was_omitted(b"/root/.ssh/id") && index.was_omitted(b"/etc/shadow"));
    assert!(!index.was_omitted(b"/etc") && !index.was_omitted(b"/rootless"));
    assert_eq!(
        index.omitted().collect::<Vec<_>>(),
        [&b"/etc/shadow"[..], b"/root"]
    );
}

#[test]
fn the_result_depends_neither_on_threads_nor_on_order() {
    let (first, first_packs) = sample::finish(sample::builder(), 2, 1);
    let (second, second_packs) = sample::finish(sample::builder(), 2, 5);
    assert!(first.index == second.index && first_packs == second_packs);
}

#[test]
fn contents_under_a_fresh_key_come_back() {
    let mut builder = sample::builder();
    builder.key_is_fresh();
    let (built, packs) = sample::finish(builder, 2, 2);
    let index = Index::open(&built.index, &sample::key(), &built.tag).unwrap();
    let (expected, expected_packs) = open_sample();
    for (number, pack) in packs.iter().enumerate() {
        assert!(*pack != expected_packs[number], "it is encrypted otherwise");
        let read = |index, pack: &[u8]| {
            let reader = PackReader::open(pack, index, number as u32).unwrap();
            let count = expected.packs()[number].chunk_count();
            let chunks = (0..count).map(|chunk| reader.read_chunk(chunk).unwrap().to_vec());
            chunks.collect::<Vec<_>>()
        };
        assert!(read(&index, pack) == read(&expected, &expected_packs[number]));
    }
}

#[test]
fn statistics_are_those_of_the_packs() {
    let (built, packs) = sample::finish(sample::builder(), 2, 2);
    let index = Index::open(&built.index, &sample::key(), &built.tag).unwrap();
    assert_eq!(built.entries as usize, index.entries().len());
    for (statistics, (pack, bytes)) in built.packs.iter().zip(index.packs().iter().zip(&packs)) {
        assert_eq!(statistics.name, pack.name());
        assert_eq!(statistics.stored_bytes, bytes.len() as u64);
        assert_eq!(statistics.stored_bytes, pack.stored_len());
        assert_eq!(statistics.plaintext_bytes, pack.plaintext_len());
        assert_eq!(statistics.chunks, pack.chunk_count());
    }
    assert_eq!((built.packs[0].files, built.packs[1].files), (6, 1));
}

#[test]
fn any_range_of_a_pack_can_be_read() {
    let (index, packs) = open_sample();
    let reader = PackReader::open(&packs[0], &index, 0).unwrap();
    let whole: Vec<u8> = (0..reader.pack().chunk_count())
        .flat_map(|number| reader.read_chunk(number).unwrap().to_vec())
        .collect();
    assert_eq!(whole.len() as u64, reader.pack().plaintext_len());
    for start in [
        0,
        1,
        CHUNK_SIZE - 1,
        CHUNK_SIZE,
        2 * CHUNK_SIZE + 7,
        whole.len(),
    ] {
        for length in [0, 1, 100, CHUNK_SIZE, CHUNK_SIZE + 1, whole.len()] {
            let mut target = vec![0xee; length];
            let result = reader.read(start as u64, &mut target);
            match whole.get(start..start + length) {
                Some(expected) => {
                    result.unwrap();
                    assert!(target == expected, "{length} bytes at {start}");
                }
                None => assert!(matches!(result, Err(ShieldError::BadInput { .. }))),
            }
        }
    }
    assert!(matches!(
        reader.read_chunk(99),
        Err(ShieldError::BadInput { .. })
    ));
}

#[test]
fn big_files_are_read_by_several_threads() {
    let content = [sample::noise(3_000_001, 7), vec![0; 5_000_000]].concat();
    let mut builder = Builder::new(sample::key());
    builder
        .add_region(b"/", RegionKind::Encrypted, "all")
        .unwrap();
    builder.add_pack(b"/", b"/pack").unwrap();
    builder
        .add_entry(b"/", sample::metadata(1, 0o755), Content::Directory)
        .unwrap();
    builder
        .add_entry(
            b"/a",
            sample::metadata(2, 0o644),
            sample::file(b"shift", Some(0)),
        )
        .unwrap();
    builder
        .add_entry(
            b"/b",
            sample::metadata(3, 0o644),
            sample::file(&content, Some(0)),
        )
        .unwrap();
    let mut outputs = [Vec::new()];
    let mut reported = 0;
    let built = builder
        .finish(&mut outputs, 2, &mut |done| {
            assert!(done >= reported);
            reported = done;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(reported, content.len() as u64 + 5);
    assert!(outputs[0].len() < 3_100_000, "zeros are compressed");
    let index = Index::open(&built.index, &sample::key(), &built.tag).unwrap();
    let reader = PackReader::open(&outputs[0], &index, 0).unwrap();
    for threads in [0, 1, 2, 3, 7] {
        let mut read = vec![0xee; content.len()];
        reader
            .read_file(index.lookup(b"/b").unwrap(), &mut read, threads)
            .unwrap();
        assert!(read == content, "{threads} threads");
        let entry = index.lookup(b"/b").unwrap();
        let read = copied(entry, &outputs, &index, &Vec::new(), threads);
        assert!(read == content, "{threads} threads, copied");
    }
}
