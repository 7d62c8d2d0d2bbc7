//! The test vectors: files that every implementation of format version 1 must read, and that the builder makes again byte for
//! byte. `examples/vectors.rs` has written them; `sample` says what they hold. Their key is 00 01 02 … 1f.

mod sample;
mod spec;

use std::path::PathBuf;

use sconify_shield::{Index, Kind, PackReader, RootTag, Storage};

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/vectors")
            .join(name),
    )
    .unwrap()
}

fn tag() -> RootTag {
    RootTag::from_hex(std::str::from_utf8(&vector("root-tag")).unwrap().trim_end()).unwrap()
}

#[test]
fn the_vectors_are_read() {
    let index = Index::open(&vector("index"), &sample::key(), &tag()).unwrap();
    assert_eq!(index.regions().len(), 7);
    let packs = [vector("app.pack"), vector("srv.pack")];
    for (path, content) in sample::contents() {
        let entry = index.lookup(path.as_bytes()).unwrap();
        if let Kind::File {
            storage: Storage::Packed { pack, .. },
            ..
        } = entry.kind()
        {
            let reader = PackReader::open(&packs[pack as usize], &index, pack).unwrap();
            let mut read = vec![0; content.len()];
            reader.read_file(entry, &mut read, 1).unwrap();
            assert!(read == content, "{path}");
        }
    }
}

#[test]
fn the_vectors_are_built_again() {
    let (built, packs) = sample::finish(sample::builder(), 2, 2);
    assert_eq!(built.tag, tag());
    assert!(built.index == vector("index"));
    assert!(packs[0] == vector("app.pack"));
    assert!(packs[1] == vector("srv.pack"));
}

/// The content of the second pack, one chunk that does not compress, and its associated data.
fn second_pack(id: &[u8; 16]) -> (Vec<u8>, Vec<u8>) {
    let content = sample::contents()["/srv/data"].clone();
    let associated = [
        &b"sconify pack v1 chunk"[..],
        id,
        &0_u64.to_le_bytes(),
        &(content.len() as u32).to_le_bytes(),
        &[0],
    ];
    (content, associated.concat())
}

#[test]
fn the_vectors_agree_with_the_document() {
    let key = std::array::from_fn(|at| at as u8);
    let index = vector("index");
    let body = spec::open_index(&key, &index);
    assert_eq!(body[..4], 7_u32.to_le_bytes());
    assert_eq!(body[4..13], *b"\x04\0\0\0/app\x01");
    let (again, tag) = spec::seal_index(&key, &body);
    assert!(again == index && tag == self::tag());

    // The second pack has one chunk that does not compress.
    let pack = vector("srv.pack");
    let id = spec::pack_id(b"/srv");
    assert_eq!(
        pack[..32],
        [&b"SCNPACK1"[..], &id, &[1, 0, 0, 0], &[0; 4]].concat()
    );
    let (content, associated) = second_pack(&id);
    let encryption = spec::derive(&key, &[b"sconify pack v1 encryption", &id]);
    let nonce = spec::derive(&key, &[b"sconify pack v1 nonce", &id]);
    let sealed = spec::encrypt(encryption, nonce, &associated, &content);
    let (nonce, ciphertext) = sealed.split_at(12);
    let (ciphertext, tag) = ciphertext.split_at(content.len());
    assert!(pack[32..] == *ciphertext);
    let record = [nonce, tag].concat();
    assert!(
        body.windows(28).any(|window| window == record),
        "the index has the nonce and the tag"
    );
}

#[test]
fn chunks_of_a_fresh_key_have_their_numbers_for_nonces() {
    let key = std::array::from_fn(|at| at as u8);
    let mut builder = sample::builder();
    builder.key_is_fresh();
    let (built, packs) = sample::finish(builder, 2, 2);
    let body = spec::open_index(&key, &built.index);
    let nonces = [[0; 12], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]];
    for nonce in nonces {
        assert!(body.windows(12).any(|window| window == nonce));
    }
    let id = spec::pack_id(b"/srv");
    let (content, associated) = second_pack(&id);
    let encryption = spec::derive(&key, &[b"sconify pack v1 encryption", &id]);
    let sealed = spec::encrypt_with(encryption, nonces[0], &associated, &content);
    let (ciphertext, tag) = sealed.split_at(content.len());
    assert!(packs[1][32..] == *ciphertext);
    let record = [&nonces[0][..], tag].concat();
    assert!(body.windows(28).any(|window| window == record));
}
