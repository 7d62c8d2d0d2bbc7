//! Fingerprints of chunks, by which a write-back tells which of them the program has changed.
//!
//! NH with two Toeplitz keys, as in UMAC (RFC 4418, section 5.2): for two chunks that differ, fingerprints are equal with a probability of 2^-64
//! at most, whatever they hold, since the key is random, lives in this process alone, and so do the fingerprints.

use rustix::io::Errno;
use sconify_volume::CHUNK_SIZE;
use zeroize::Zeroizing;

use crate::kernel::process;

/// 32-bit words of a chunk.
const WORDS: usize = CHUNK_SIZE / 4;
/// Words by which the second key is further on.
const SHIFT: usize = 4;

/// What a chunk is compared by.
pub type Print = (u64, u64);

/// The key of all fingerprints of one process.
pub struct Fingerprints {
    key: Zeroizing<Vec<u32>>,
    zeros: Print,
}

impl Fingerprints {
    /// Makes a random key.
    ///
    /// # Errors
    /// What the kernel's random numbers fail with.
    pub fn new() -> Result<Self, Errno> {
        let mut bytes = Zeroizing::new(vec![0; 4 * (WORDS + SHIFT)]);
        for piece in bytes.chunks_mut(256) {
            process::random(piece)?;
        }
        let words = bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")));
        let mut made = Self {
            key: Zeroizing::new(words.collect()),
            zeros: (0, 0),
        };
        made.zeros = made.of(&[0; CHUNK_SIZE]);
        Ok(made)
    }

    /// The fingerprint of a whole chunk.
    pub fn of(&self, chunk: &[u8]) -> Print {
        (self.nh(chunk, 0), self.nh(chunk, SHIFT))
    }

    /// Whether it is that of a chunk of zeros.
    pub fn is_zeros(&self, print: Print) -> bool {
        print == self.zeros
    }

    fn nh(&self, chunk: &[u8], shift: usize) -> u64 {
        let key = &self.key[shift..shift + WORDS];
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        chunk
            .chunks_exact(16)
            .zip(key.chunks_exact(4))
            .fold(0_u64, |sum, (text, key)| {
                let term = |at: usize| {
                    let left = word(&text[4 * at..4 * at + 4]).wrapping_add(key[at]);
                    let right = word(&text[4 * at + 8..4 * at + 12]).wrapping_add(key[at + 2]);
                    u64::from(left) * u64::from(right)
                };
                sum.wrapping_add(term(0)).wrapping_add(term(1))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let prints = Fingerprints::new().unwrap();
        let mut chunk: Vec<u8> = (0..CHUNK_SIZE).map(|at| (at * 7) as u8).collect();
        let before = prints.of(&chunk);
        for at in 0..CHUNK_SIZE {
            chunk[at] ^= 1 << (at % 8);
            assert_ne!(prints.of(&chunk), before, "byte {at}");
            chunk[at] ^= 1 << (at % 8);
        }
        assert_eq!(prints.of(&chunk), before);
    }

    #[test]
    fn zeros_are_known() {
        let prints = Fingerprints::new().unwrap();
        let mut chunk = vec![0; CHUNK_SIZE];
        assert!(prints.is_zeros(prints.of(&chunk)));
        chunk[CHUNK_SIZE - 1] = 1;
        assert!(!prints.is_zeros(prints.of(&chunk)));
    }

    #[test]
    fn keys_differ() {
        let chunk = vec![1; CHUNK_SIZE];
        let print = || Fingerprints::new().unwrap().of(&chunk);
        assert_ne!(print(), print());
    }
}
