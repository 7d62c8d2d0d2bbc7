//! Whatever an attacker does to the files, nothing panics and no other content is accepted.

mod entry_points;

use entry_points::{sample, spec, Sample};
use proptest::prelude::*;
use sconify_shield::build::{Builder, Content, Metadata};
use sconify_shield::{FileSystemKey, Index, PackReader, RegionKind, RootTag, ShieldError};

fn key() -> FileSystemKey {
    FileSystemKey::new(std::array::from_fn(|at| at as u8))
}

fn tag_of(index: &[u8]) -> RootTag {
    RootTag::new(*index.last_chunk().unwrap())
}

/// A change to a file.
#[derive(Clone, Debug)]
enum Change {
    Flip {
        at: usize,
        bits: u8,
    },
    Cut {
        at: usize,
    },
    Insert {
        at: usize,
        bytes: Vec<u8>,
    },
    Swap {
        from: usize,
        to: usize,
        length: usize,
    },
    Overwrite {
        at: usize,
        bytes: Vec<u8>,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<usize>;
    let bytes = || {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..20),
            any::<u32>().prop_map(|number| number.to_le_bytes().to_vec()),
            Just(u32::MAX.to_le_bytes().to_vec()),
            Just(u64::MAX.to_le_bytes().to_vec()),
            Just(0_u32.to_le_bytes().to_vec()),
        ]
    };
    prop_oneof![
        (at(), 1_u8..).prop_map(|(at, bits)| Change::Flip { at, bits }),
        at().prop_map(|at| Change::Cut { at }),
        (at(), bytes()).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
        (at(), at(), 1_usize..70_000).prop_map(|(from, to, length)| Change::Swap {
            from,
            to,
            length
        }),
        (at(), bytes()).prop_map(|(at, bytes)| Change::Overwrite { at, bytes }),
    ]
}

fn apply(change: &Change, file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let length = file.len();
    match change {
        Change::Flip { at, bits } => file[at % length] ^= bits,
        Change::Cut { at } => file.truncate(at % length),
        Change::Insert { at, bytes } => {
            let at = at % (length + 1);
            file.splice(at..at, bytes.iter().copied());
        }
        Change::Swap {
            from,
            to,
            length: count,
        } => {
            let count = (*count).min(length / 2);
            let (from, to) = (from % (length - count), to % (length - count));
            let (left, right) = (from.min(to), from.max(to));
            let count = count.min(right - left);
            let (head, tail) = file.split_at_mut(right);
            head[left..left + count].swap_with_slice(&mut tail[..count]);
        }
        Change::Overwrite { at, bytes } => {
            let at = at % length;
            let count = bytes.len().min(length - at);
            file[at..at + count].copy_from_slice(&bytes[..count]);
        }
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_changed_index_is_refused(changes in proptest::collection::vec(change(), 1..3)) {
        let file = changes.iter().fold(sample().bytes.clone(), |file, change| apply(change, if file.is_empty() { &sample().bytes } else { &file }));
        entry_points::index_file(&file);
        let opened = Index::open(&file, &key(), &tag_of(&sample().bytes));
        prop_assert!(opened.is_err() || file == sample().bytes);
    }

    #[test]
    fn a_changed_pack_gives_no_other_content(change in change()) {
        entry_points::pack(&apply(&change, &sample().packs[0]));
    }

    #[test]
    fn a_faulty_body_is_refused_or_consistent(change in change()) {
        entry_points::index_body(&apply(&change, &sample().body));
    }

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        entry_points::index_file(&bytes);
        entry_points::index_body(&bytes);
        entry_points::pack(&bytes);
        entry_points::changed_pack(&bytes);
        entry_points::resolve(&bytes);
        let (index, tag) = spec::seal_plaintext(&std::array::from_fn(|at| at as u8), &bytes);
        prop_assert!(matches!(Index::open(&index, &key(), &tag), Err(ShieldError::CorruptIndex(_))));
    }

    #[test]
    fn random_paths_resolve(path in "(/|\\.|\\.\\.|app|lib|loop|absolute|relative|outside|proc|tmp|bin|x){0,30}") {
        entry_points::resolve(path.as_bytes());
    }
}

#[test]
fn every_single_byte_of_the_index_counts() {
    let original = &sample().bytes;
    for at in 0..original.len() {
        let mut file = original.clone();
        file[at] ^= 0x20;
        let error = Index::open(&file, &key(), &tag_of(original)).err().unwrap();
        match at {
            _ if at < 8 => assert!(matches!(error, ShieldError::CorruptIndex(_)), "{error}"),
            _ if at >= original.len() - 16 => {
                assert!(matches!(error, ShieldError::WrongTag { .. }), "{error}")
            }
            _ => assert!(matches!(error, ShieldError::IndexNotAuthentic), "{error}"),
        }
    }
    for length in 0..original.len() {
        assert!(Index::open(&original[..length], &key(), &tag_of(original)).is_err());
    }
}

#[test]
fn other_keys_and_tags_are_told_apart() {
    let index = &sample().bytes;
    let other = FileSystemKey::new([7; 32]);
    assert!(matches!(
        Index::open(index, &other, &tag_of(index)),
        Err(ShieldError::IndexNotAuthentic)
    ));
    let tag = RootTag::new([7; 16]);
    assert!(matches!(
        Index::open(index, &key(), &tag),
        Err(ShieldError::WrongTag { .. })
    ));
    assert!(matches!(
        Index::open(b"SCNINDX1", &key(), &tag),
        Err(ShieldError::Truncated { .. })
    ));
}

#[test]
fn every_bit_of_a_chunk_counts() {
    let pack = &sample().packs[0];
    for at in (0..pack.len()).step_by(97) {
        let mut file = pack.clone();
        file[at] ^= 1;
        match PackReader::open(&file, &sample().index, 0) {
            Err(ShieldError::CorruptPack { .. }) => assert!(at < 32),
            Err(other) => panic!("{other}"),
            Ok(reader) => {
                let damaged =
                    (0..reader.pack().chunk_count()).filter(|&n| reader.read_chunk(n).is_err());
                assert_eq!(damaged.count(), 1, "at {at}");
            }
        }
    }
}

#[test]
fn packs_can_not_be_exchanged() {
    let Sample { index, packs, .. } = sample();
    assert!(matches!(
        PackReader::open(&packs[1], index, 0),
        Err(ShieldError::Truncated { .. })
    ));
    assert!(matches!(
        PackReader::open(&packs[0], index, 1),
        Err(ShieldError::CorruptPack { .. })
    ));
    let header_of_other = [&packs[1][..32], &packs[0][32..]].concat();
    assert!(matches!(
        PackReader::open(&header_of_other, index, 0),
        Err(ShieldError::CorruptPack { .. })
    ));
    assert!(matches!(
        PackReader::open(&packs[0], index, 2),
        Err(ShieldError::BadInput { .. })
    ));
}

#[test]
fn a_pack_can_not_be_shortened_or_lengthened() {
    let Sample { index, packs, .. } = sample();
    for length in [0, 31, 32, packs[0].len() - 1] {
        let error = PackReader::open(&packs[0][..length], index, 0)
            .err()
            .unwrap();
        assert!(matches!(error, ShieldError::Truncated { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("pack /app in /.sconify/app.pack"),
            "{error}"
        );
    }
    let longer = [&packs[0][..], b"x"].concat();
    assert!(matches!(
        PackReader::open(&longer, index, 0),
        Err(ShieldError::CorruptPack { .. })
    ));
}

/// A pack that is longer when it is opened than when it is read.
struct Shrinking<'a>(&'a [u8]);

impl sconify_shield::ReadAt for Shrinking<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0[..1000].read_at(buf, offset)
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

#[test]
fn a_pack_that_shrinks_later_is_noticed() {
    let Sample { index, packs, .. } = sample();
    let reader = PackReader::open(Shrinking(&packs[0]), index, 0).unwrap();
    let error = reader.read_chunk(0).unwrap_err();
    assert!(
        error.to_string().contains("the pack ends within it"),
        "{error}"
    );
}

#[test]
fn chunks_can_not_be_reordered() {
    let (index, pack) = chunks_of_equal_length(b"first");
    let reader = PackReader::open(&pack, &index, 0).unwrap();
    assert!(reader.read_chunk(0).is_ok() && reader.read_chunk(1).is_ok());
    let chunk = sconify_shield::CHUNK_SIZE;
    let reordered = [
        &pack[..32],
        &pack[32 + chunk..32 + 2 * chunk],
        &pack[32..32 + chunk],
    ]
    .concat();
    let reader = PackReader::open(&reordered, &index, 0).unwrap();
    assert!(matches!(
        reader.read_chunk(0),
        Err(ShieldError::CorruptChunk { chunk: 0, .. })
    ));
    assert!(matches!(
        reader.read_chunk(1),
        Err(ShieldError::CorruptChunk { chunk: 1, .. })
    ));
}

#[test]
fn an_older_pack_under_the_same_key_is_refused() {
    let (new_index, new_pack) = chunks_of_equal_length(b"newer");
    let (_, old_pack) = chunks_of_equal_length(b"older");
    assert_eq!(new_pack.len(), old_pack.len());
    assert_eq!(new_pack[..32], old_pack[..32]);
    let reader = PackReader::open(&old_pack, &new_index, 0).unwrap();
    assert!(matches!(
        reader.read_chunk(0),
        Err(ShieldError::CorruptChunk { chunk: 0, .. })
    ));
    assert!(
        reader.read_chunk(1).is_ok(),
        "the second chunk is the same in both"
    );
}

/// Bytes that don't compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A pack of two incompressible chunks, of which the first begins with `label`.
fn chunks_of_equal_length(label: &[u8]) -> (Index, Vec<u8>) {
    let chunk = sconify_shield::CHUNK_SIZE;
    let mut content = noise(2 * chunk);
    content[..label.len()].copy_from_slice(label);
    let mut builder = Builder::new(key());
    builder.add_pack(b"/", b"/pack").unwrap();
    let metadata = |inode| Metadata {
        inode,
        ..Metadata::default()
    };
    builder
        .add_entry(b"/", metadata(1), Content::Directory)
        .unwrap();
    let file = Content::File {
        size: content.len() as u64,
        source: content,
        pack: Some(0),
    };
    builder.add_entry(b"/a", metadata(2), file).unwrap();
    let mut packs = [Vec::new()];
    let built = builder
        .finish(&mut packs, 1, &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(built.packs[0].stored_bytes, 32 + 2 * chunk as u64);
    let [pack] = packs;
    (Index::open(&built.index, &key(), &built.tag).unwrap(), pack)
}

#[test]
fn plain_files_are_checked_as_a_whole() {
    let index = &sample().index;
    let entry = index.lookup(b"/lib/plain.so").unwrap();
    let good = b"\x7fELF plain".to_vec();
    for bad in [&good[..9], b"\x7fELF plainX", b"\x7fELF plaiN"] {
        let mut target = vec![0xee; good.len()];
        let error = sconify_shield::read_plain(entry, &bad, &mut target).unwrap_err();
        assert!(matches!(error, ShieldError::CorruptFile { .. }), "{error}");
        assert_eq!(target, vec![0; good.len()]);
        let error = sconify_shield::copy_plain(entry, &bad, 2, &|_, _| Ok(())).unwrap_err();
        assert!(matches!(error, ShieldError::CorruptFile { .. }), "{error}");
    }
    let mut target = vec![0; 3];
    assert!(matches!(
        sconify_shield::read_plain(entry, &good, &mut target),
        Err(ShieldError::BadInput { .. })
    ));
    let packed = index.lookup(b"/app/a").unwrap();
    assert!(matches!(
        sconify_shield::read_plain(packed, &good, &mut target),
        Err(ShieldError::BadInput { .. })
    ));
}

#[test]
fn a_big_plain_file_is_checked_by_threads_too() {
    let content = noise((1 << 20) + 4097);
    let mut builder = Builder::new(key());
    builder
        .add_region(b"/lib", RegionKind::Authenticated, "shared objects")
        .unwrap();
    let mut add = |path: &[u8], inode, content| {
        let metadata = Metadata {
            inode,
            ..Metadata::default()
        };
        builder.add_entry(path, metadata, content).unwrap();
    };
    add(b"/", 1, Content::Directory);
    add(b"/lib", 2, Content::Directory);
    let file = Content::File {
        size: content.len() as u64,
        source: content.clone(),
        pack: None,
    };
    add(b"/lib/big.so", 3, file);
    let built = builder
        .finish::<Vec<u8>>(&mut [], 1, &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap();
    let index = Index::open(&built.index, &key(), &built.tag).unwrap();
    let entry = index.lookup(b"/lib/big.so").unwrap();

    let copy = |source: &Vec<u8>, threads| {
        let copied = std::sync::Mutex::new(Vec::new());
        let sink = |offset: u64, piece: &[u8]| {
            let mut copied = copied.lock().unwrap();
            assert_eq!(copied.len() as u64, offset);
            copied.extend_from_slice(piece);
            Ok(())
        };
        sconify_shield::copy_plain(entry, source, threads, &sink)
            .map(|()| copied.into_inner().unwrap())
    };
    let (mut flipped, mut longer) = (content.clone(), content.clone());
    *flipped.last_mut().unwrap() ^= 1;
    longer.push(0);
    for threads in [0, 1, 2] {
        assert!(copy(&content, threads).unwrap() == content, "{threads}");
        for bad in [&flipped, &longer, &content[..1 << 20].to_vec()] {
            let error = copy(bad, threads).unwrap_err();
            assert!(matches!(error, ShieldError::CorruptFile { .. }), "{error}");
        }
    }
}
