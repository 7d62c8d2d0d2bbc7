//! AES-256-GCM and nonces for it (format, section 1).

use ring::{aead, hmac};
use zeroize::Zeroizing;

/// Bytes in a nonce.
pub(crate) const NONCE_SIZE: usize = 12;
/// Bytes in an authentication tag.
pub(crate) const TAG_SIZE: usize = 16;

/// The bytes did not authenticate.
#[derive(Debug)]
pub(crate) struct NotAuthentic;

/// AES-256-GCM under one key.
pub(crate) struct Cipher(aead::LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(aead::LessSafeKey::new(
            aead::UnboundKey::new(&aead::AES_256_GCM, &**key).expect("an AES-256 key has 32 bytes"),
        ))
    }

    /// Decrypts `text` where it stands. On failure it holds rubbish, which the caller must not release.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_SIZE],
        associated: &[u8],
        tag: [u8; TAG_SIZE],
        text: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        self.0
            .open_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(associated),
                aead::Tag::from(tag),
                text,
                0..,
            )
            .map(drop)
            .map_err(|_| NotAuthentic)
    }

    /// Encrypts `text` where it stands. Nothing else that is encrypted under this key and seen by others may have this nonce.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_SIZE],
        associated: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_SIZE] {
        let tag = self
            .0
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(associated),
                text,
            )
            .expect("chunks and indexes are far below the length limit of AES-GCM");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }
}

/// Makes nonces from everything that is encrypted and authenticated.
pub(crate) struct SyntheticNonces(hmac::Key);

impl SyntheticNonces {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &**key))
    }

    pub(crate) fn nonce(&self, associated: &[u8], text: &[u8]) -> [u8; NONCE_SIZE] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(associated);
        context.update(text);
        context.sign().as_ref()[..NONCE_SIZE]
            .try_into()
            .expect("HMAC-SHA-256 gives 32 bytes")
    }
}
