//! Decrypted content in memory.

use std::ops::{Deref, DerefMut};

/// Bytes that are wiped when they are dropped, all at once: `Zeroizing<Vec<u8>>` does it byte by byte, which takes as long as
/// their encryption.
#[derive(Default)]
pub struct Plaintext(Vec<u8>);

impl From<Vec<u8>> for Plaintext {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Plaintext {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        self.0.fill(0);
        zeroize::optimization_barrier(self.0.as_slice());
    }
}
