//! A second implementation of the cryptography of the index, written from `docs/format.md` alone, so that tests can take
//! indexes apart and put together such as a builder never makes.
#![allow(dead_code)]

use ring::{aead, digest, hkdf, hmac};
use sconify_shield::RootTag;

const MAGIC: &[u8] = b"SCNINDX1";

pub fn derive(key: &[u8; 32], info: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
    pseudorandom
        .expand(info, hkdf::HKDF_SHA256)
        .unwrap()
        .fill(&mut out)
        .unwrap();
    out
}

pub fn pack_id(name: &[u8]) -> [u8; 16] {
    let digest = digest::digest(&digest::SHA256, &[b"sconify pack v1 id", name].concat());
    digest.as_ref()[..16].try_into().unwrap()
}

/// `nonce (12) ‖ ciphertext ‖ tag (16)`.
pub fn encrypt(key: [u8; 32], nonce_key: [u8; 32], associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let nonce_key = hmac::Key::new(hmac::HMAC_SHA256, &nonce_key);
    let mac = hmac::sign(&nonce_key, &[associated, plaintext].concat());
    let nonce: [u8; 12] = mac.as_ref()[..12].try_into().unwrap();
    [&nonce[..], &encrypt_with(key, nonce, associated, plaintext)].concat()
}

/// `ciphertext ‖ tag (16)`.
pub fn encrypt_with(
    key: [u8; 32],
    nonce: [u8; 12],
    associated: &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    let mut text = plaintext.to_vec();
    aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).unwrap())
        .seal_in_place_append_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(associated),
            &mut text,
        )
        .unwrap();
    text
}

/// The body of an index.
pub fn open_index(key: &[u8; 32], index: &[u8]) -> Vec<u8> {
    assert_eq!(&index[..8], MAGIC);
    let nonce = index[8..20].try_into().unwrap();
    let mut text = index[20..].to_vec();
    let key = derive(key, &[b"sconify index v1 encryption"]);
    let plaintext =
        aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).unwrap())
            .open_in_place(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(MAGIC),
                &mut text,
            )
            .unwrap();
    let length = u64::from_le_bytes(plaintext[..8].try_into().unwrap());
    let body = zstd::decode_all(&plaintext[8..]).unwrap();
    assert_eq!(body.len() as u64, length);
    body
}

/// An index with this body, whatever it is, and its root tag.
pub fn seal_index(key: &[u8; 32], body: &[u8]) -> (Vec<u8>, RootTag) {
    let compressed = zstd::bulk::compress(body, 3).unwrap();
    seal_plaintext(
        key,
        &[&(body.len() as u64).to_le_bytes()[..], &compressed].concat(),
    )
}

/// An index of which even the compression may be wrong.
pub fn seal_plaintext(key: &[u8; 32], plaintext: &[u8]) -> (Vec<u8>, RootTag) {
    let encryption = derive(key, &[b"sconify index v1 encryption"]);
    let nonce = derive(key, &[b"sconify index v1 nonce"]);
    let index = [MAGIC, &encrypt(encryption, nonce, MAGIC, plaintext)].concat();
    let tag = RootTag::new(index[index.len() - 16..].try_into().unwrap());
    (index, tag)
}
