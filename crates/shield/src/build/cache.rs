//! What compression made, kept for the next conversion: compressing is the costly part of a pack.
//!
//! An entry is named by a MAC of what was compressed and encrypted under a key of the machine that keeps it, so the store learns neither
//! contents nor which known content is there. It is no part of the format: encryption for a pack is done anew each time.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::seal::COMPRESSION_LEVEL;
use crate::cipher::{Cipher, NONCE_SIZE, TAG_SIZE};
use crate::keys::FileSystemKey;
use crate::CHUNK_SIZE;

/// Where entries are kept. Nothing that it gives back is trusted; what it loses is made again.
pub trait Store: Send + Sync {
    /// The entry of this name, if there is one.
    fn load(&self, name: &[u8; 32]) -> Option<Vec<u8>>;
    /// Keeps an entry, or not.
    fn save(&self, name: &[u8; 32], entry: &[u8]);
}

/// Remembers how contents compress.
pub struct CompressionCache {
    random: SystemRandom,
    hash: Cipher,
    names: hmac::Key,
    cipher: Cipher,
    store: Box<dyn Store>,
}

impl CompressionCache {
    /// A cache whose entries are encrypted under `key`, which should be of this machine alone.
    pub fn new(key: &FileSystemKey, store: Box<dyn Store>) -> Self {
        let encryption = key.derive(&[b"sconify cache v1 encryption"]);
        let hash = key.derive(&[b"sconify cache v2 hash"]);
        // Another compressor makes other bytes: its entries have other names.
        let version = zstd::zstd_safe::version_number().to_le_bytes();
        let level = COMPRESSION_LEVEL.to_le_bytes();
        let names = key.derive(&[b"sconify cache v2 name", &version, &level]);
        Self {
            random: SystemRandom::new(),
            hash: Cipher::new(&hash),
            names: hmac::Key::new(hmac::HMAC_SHA256, &*names),
            cipher: Cipher::new(&encryption),
            store,
        }
    }

    /// The name of the entry for this text; `scratch` is memory to work in.
    ///
    /// HMAC over all of the text would cost half of what the cache saves. So it is over a universal hash of each chunk under a
    /// secret key (Wegman and Carter, 1981), the tag that AES-GCM has for it with one and the same nonce: GHASH of as many bits,
    /// which two chunks share with a probability of 2^-116. Neither ciphertexts nor tags get out of here.
    pub(super) fn name(&self, text: &[u8], scratch: &mut Vec<u8>) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.names);
        for chunk in text.chunks(CHUNK_SIZE) {
            scratch.clear();
            scratch.extend_from_slice(chunk);
            context.update(&self.hash.seal([0; NONCE_SIZE], &[], scratch));
        }
        context.update(&(text.len() as u64).to_le_bytes());
        context
            .sign()
            .as_ref()
            .try_into()
            .expect("HMAC-SHA-256 gives 32 bytes")
    }

    /// Puts an entry into `form`; returns whether there was an authentic one.
    pub(super) fn load(&self, name: &[u8; 32], form: &mut Vec<u8>) -> bool {
        let Some(mut entry) = self.store.load(name) else {
            return false;
        };
        let Some(length) = entry.len().checked_sub(NONCE_SIZE + TAG_SIZE) else {
            return false;
        };
        let (nonce, rest) = entry.split_at_mut(NONCE_SIZE);
        let (text, tag) = rest.split_at_mut(length);
        let nonce = (&*nonce).try_into().expect("split there");
        let tag = (&*tag).try_into().expect("split there");
        if self.cipher.open(nonce, name, tag, text).is_err() {
            return false;
        }
        form.clear();
        form.extend_from_slice(text);
        true
    }

    /// Keeps an entry, or not; `entry` is memory to work in.
    pub(super) fn save(&self, name: &[u8; 32], form: &[u8], entry: &mut Vec<u8>) {
        let mut nonce = [0; NONCE_SIZE];
        if self.random.fill(&mut nonce).is_err() {
            return;
        }
        entry.clear();
        entry.extend_from_slice(&nonce);
        entry.extend_from_slice(form);
        let tag = self.cipher.seal(nonce, name, &mut entry[NONCE_SIZE..]);
        entry.extend_from_slice(&tag);
        self.store.save(name, entry);
    }
}
