//! What the fuzz targets and their smoke test run: every parser, on bytes that an attacker chose.

#![allow(dead_code)]

#[path = "../sample/mod.rs"]
mod sample;
#[path = "../spec/mod.rs"]
pub mod spec;

use std::sync::OnceLock;

use sconify_shield::{Index, Kind, PackReader, Resolved, RootTag, ShieldError, Storage};

const KEY: [u8; 32] = {
    let mut key = [0; 32];
    let mut at = 0;
    while at < 32 {
        key[at] = at as u8;
        at += 1;
    }
    key
};

/// The sample's index, its bytes and its packs.
pub struct Sample {
    pub index: Index,
    pub bytes: Vec<u8>,
    pub body: Vec<u8>,
    pub packs: Vec<Vec<u8>>,
}

pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let (built, packs) = sample::finish(sample::builder(), 2, 1);
        let index = Index::open(&built.index, &sample::key(), &built.tag).unwrap();
        Sample {
            index,
            body: spec::open_index(&KEY, &built.index),
            bytes: built.index,
            packs,
        }
    })
}

/// Bytes in the place of an index. Only the sample's own may be accepted.
pub fn index_file(bytes: &[u8]) {
    let tag = bytes
        .last_chunk()
        .map_or(RootTag::new([0; 16]), |tag| RootTag::new(*tag));
    if Index::open(bytes, &sample::key(), &tag).is_ok() {
        assert!(bytes == sample().bytes, "another index was accepted");
    }
}

/// A body that authenticates: it may come from a faulty builder, never from the host. Says whether it was accepted.
pub fn index_body(body: &[u8]) -> bool {
    let (bytes, tag) = spec::seal_index(&KEY, body);
    match Index::open(&bytes, &sample::key(), &tag) {
        Ok(index) => {
            use_index(&index);
            true
        }
        Err(ShieldError::CorruptIndex(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

/// Bytes in the place of a pack. What is read must be the sample's content, or an error.
pub fn pack(bytes: &[u8]) {
    let sample = sample();
    let Ok(reader) = PackReader::open(bytes, &sample.index, 0) else {
        return;
    };
    for (path, content) in sample::contents() {
        let entry = sample.index.lookup(path.as_bytes()).unwrap();
        if !matches!(
            entry.kind(),
            Kind::File {
                storage: Storage::Packed { pack: 0, .. },
                ..
            }
        ) {
            continue;
        }
        let mut read = vec![0xee; content.len()];
        match reader.read_file(entry, &mut read, 2) {
            Ok(()) => assert!(read == content, "other content was accepted for {path}"),
            Err(ShieldError::CorruptChunk { file, .. }) => {
                assert_eq!(file, path);
                assert!(read.iter().all(|&byte| byte == 0), "bytes were released");
            }
            Err(other) => panic!("{other}"),
        }
        let sink = |offset: u64, piece: &[u8]| {
            assert!(
                content[offset as usize..].starts_with(piece),
                "other bytes were handed over for {path}"
            );
            Ok(())
        };
        match reader.copy_file(entry, 2, &sink) {
            Ok(()) => {}
            Err(ShieldError::CorruptChunk { file, .. }) => assert_eq!(file, path),
            Err(other) => panic!("{other}"),
        }
    }
}

/// The sample's pack with some bytes changed: four bytes say where, the others how.
pub fn changed_pack(bytes: &[u8]) {
    let Some((at, change)) = bytes.split_first_chunk() else {
        return;
    };
    let mut file = sample().packs[0].clone();
    let at = u32::from_le_bytes(*at) as usize % file.len();
    file[at..]
        .iter_mut()
        .zip(change)
        .for_each(|(byte, change)| *byte ^= change);
    pack(&file);
}

/// Any path.
pub fn resolve(path: &[u8]) {
    resolve_in(&sample().index, path);
}

fn resolve_in(index: &Index, path: &[u8]) {
    for follow_last in [false, true] {
        match index.resolve(path, follow_last) {
            Ok(Resolved::Entry { id }) => {
                let kind = index
                    .region_of(index.entry(id).path())
                    .map(|region| region.kind().name());
                assert!(!matches!(kind, Some("host" | "ephemeral" | "volume")));
            }
            Ok(Resolved::Missing { path, parent }) => {
                assert!(index.entry(parent).is_directory() && index.find(&path).is_none());
            }
            Ok(
                Resolved::Host { path }
                | Resolved::Writable { path, .. }
                | Resolved::Undeclared { path },
            ) => {
                assert_eq!(path[0], b'/');
            }
            Err(_) => {}
        }
    }
}

/// Calls everything that an index offers and checks that it is consistent.
fn use_index(index: &Index) {
    let mut children = 0;
    for entry in index.entries() {
        assert_eq!(index.find(entry.path()), Some(entry.id()));
        assert!(
            entry.st_mode() & 0o7777 == entry.mode() && entry.nlink() > 0 && entry.inode() != 0
        );
        let _ = (
            entry.uid(),
            entry.gid(),
            entry.mtime(),
            entry.mtime_nsec(),
            entry.size(),
        );
        assert!(entry
            .xattrs()
            .all(|(name, value)| entry.xattr(name) == Some(value)));
        for (name, child) in index.children(entry.id()) {
            assert_eq!(index.child(entry.id(), name), Some(child));
            assert_eq!(index.parent(child), entry.id());
            children += 1;
        }
        if let Kind::File {
            size,
            storage: Storage::Packed { pack, offset },
        } = entry.kind()
        {
            assert!(offset + size <= index.packs()[pack as usize].plaintext_len());
        }
        resolve_in(index, entry.path());
    }
    assert_eq!(children + 1, index.entries().len());
    for region in index.regions() {
        assert_eq!(index.region_of(region.prefix()), Some(region));
        resolve_in(index, &[region.prefix(), b"/../x/"].concat());
    }
    assert!(index.omitted().all(|path| index.was_omitted(path)));
    for (number, pack) in index.packs().iter().enumerate() {
        let empty: &[u8] = &[];
        assert!(PackReader::open(empty, index, number as u32).is_err());
        let _ = (pack.name(), pack.file(), pack.stored_len());
    }
}
