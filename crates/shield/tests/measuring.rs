//! Digests of chunks, the key's commitment, and the cache of what compression made.

mod sample;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ring::digest::{digest, SHA256};
use sconify_shield::build::{CompressionCache, Store};
use sconify_shield::{FileSystemKey, Index, PackReader, ShieldError};

/// The digests of one pack of the sample.
fn digests(index: &Index, all: &[[u8; 32]], number: usize) -> Vec<[u8; 32]> {
    let skipped = index.packs()[..number]
        .iter()
        .map(|pack| pack.chunk_count() as usize)
        .sum();
    let count = index.packs()[number].chunk_count() as usize;
    all[skipped..][..count].to_vec()
}

#[test]
fn digests_are_those_of_the_stored_chunks() {
    let mut builder = sample::builder();
    builder.digest_chunks();
    let (built, packs) = sample::finish(builder, 2, 2);
    let index = Index::open(&built.index, &sample::key(), &built.tag).unwrap();
    assert_eq!(
        built.digests.len(),
        index
            .packs()
            .iter()
            .map(|pack| pack.chunk_count() as usize)
            .sum::<usize>()
    );
    let last = digest(&SHA256, &packs[1][32..]);
    assert_eq!(
        built.digests.last().unwrap(),
        last.as_ref(),
        "the second pack is one chunk"
    );
    for (number, pack) in packs.iter().enumerate() {
        let reader = PackReader::open(pack.as_slice(), &index, number as u32).unwrap();
        let reader = reader
            .measured(&digests(&index, &built.digests, number))
            .unwrap();
        for chunk in 0..index.packs()[number].chunk_count() {
            reader.read_chunk(chunk).unwrap();
        }
    }
}

#[test]
fn an_authentic_chunk_that_was_not_measured_is_refused() {
    let (built, packs) = sample::finish(sample::builder(), 2, 1);
    let index = Index::open(&built.index, &sample::key(), &built.tag).unwrap();
    let reader = PackReader::open(packs[1].as_slice(), &index, 1).unwrap();
    let reader = reader.measured(&[[0; 32]]).unwrap();
    match reader.read_chunk(0) {
        Err(ShieldError::CorruptChunk { reason, .. }) => {
            assert_eq!(reason, "it is not the one that was measured");
        }
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn too_few_digests_are_refused() {
    let (built, packs) = sample::finish(sample::builder(), 2, 1);
    let index = Index::open(&built.index, &sample::key(), &built.tag).unwrap();
    let reader = PackReader::open(packs[0].as_slice(), &index, 0).unwrap();
    assert!(matches!(
        reader.measured(&[[0; 32]]),
        Err(ShieldError::CorruptPack { .. })
    ));
}

#[test]
fn commitments_differ_as_keys_do() {
    let key = sample::key();
    assert_eq!(key.commitment(), sample::key().commitment());
    assert_ne!(key.commitment(), FileSystemKey::new([1; 32]).commitment());
}

/// A store in memory that counts.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    entries: HashMap<[u8; 32], Vec<u8>>,
    hits: usize,
}

impl Store for Memory {
    fn load(&self, name: &[u8; 32]) -> Option<Vec<u8>> {
        let mut shelf = self.0.lock().unwrap();
        let found = shelf.entries.get(name).cloned();
        shelf.hits += usize::from(found.is_some());
        found
    }

    fn save(&self, name: &[u8; 32], entry: &[u8]) {
        self.0.lock().unwrap().entries.insert(*name, entry.to_vec());
    }
}

fn build_with(store: &Memory, key: [u8; 32]) -> Vec<Vec<u8>> {
    let mut builder = sample::builder();
    builder.use_cache(CompressionCache::new(
        &FileSystemKey::new(key),
        Box::new(store.clone()),
    ));
    sample::finish(builder, 2, 2).1
}

#[test]
fn the_cache_changes_nothing_but_the_work() {
    let expected = sample::finish(sample::builder(), 2, 1).1;
    let store = Memory::default();
    assert_eq!(build_with(&store, [9; 32]), expected);
    let entries = store.0.lock().unwrap().entries.len();
    assert!(entries >= 2, "one for each pack at least");
    assert_eq!(build_with(&store, [9; 32]), expected);
    let shelf = store.0.lock().unwrap();
    assert_eq!((shelf.entries.len(), shelf.hits), (entries, entries));
}

#[test]
fn entries_of_another_key_or_damaged_ones_are_made_again() {
    let expected = sample::finish(sample::builder(), 2, 1).1;
    let store = Memory::default();
    build_with(&store, [9; 32]);
    let names: Vec<_> = store.0.lock().unwrap().entries.keys().copied().collect();
    assert_eq!(build_with(&store, [8; 32]), expected);
    assert_eq!(store.0.lock().unwrap().hits, 0, "names depend on the key");
    for damage in 0..3 {
        for name in &names {
            let mut shelf = store.0.lock().unwrap();
            let entry = shelf.entries.get_mut(name).unwrap();
            match damage {
                0 => *entry.last_mut().unwrap() ^= 1,
                1 => entry.truncate(20),
                _ => entry.clear(),
            }
        }
        assert_eq!(build_with(&store, [9; 32]), expected);
    }
}

#[test]
fn entries_show_nothing_of_the_content() {
    let store = Memory::default();
    build_with(&store, [9; 32]);
    for entry in store.0.lock().unwrap().entries.values() {
        for (_, content) in sample::contents() {
            if content.len() >= 8 {
                assert!(!entry.windows(8).any(|window| window == &content[..8]));
            }
        }
    }
}
