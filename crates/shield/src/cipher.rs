//! AES-256-GCM with synthetic nonces (format, section 1).

use ring::{aead, hmac};
use zeroize::Zeroizing;

/// Bytes in a nonce.
pub(crate) const NONCE_SIZE: usize = 12;
/// Bytes in an authentication tag.
pub(crate) const TAG_SIZE: usize = 16;

/// The bytes did not authenticate.
#[derive(Debug)]
pub(crate) struct NotAuthentic;

/// Decrypts what [`Sealer`] made.
pub(crate) struct Opener(aead::LessSafeKey);

impl Opener {
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
}

/// Encrypts with a nonce made from everything that is encrypted and authenticated.
pub(crate) struct Sealer {
    key: aead::LessSafeKey,
    nonce_key: hmac::Key,
}

impl Sealer {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>, nonce_key: &Zeroizing<[u8; 32]>) -> Self {
        Self {
            key: Opener::new(key).0,
            nonce_key: hmac::Key::new(hmac::HMAC_SHA256, &**nonce_key),
        }
    }

    /// Encrypts `text` where it stands.
    pub(crate) fn seal(
        &self,
        associated: &[u8],
        text: &mut [u8],
    ) -> ([u8; NONCE_SIZE], [u8; TAG_SIZE]) {
        let mut context = hmac::Context::with_key(&self.nonce_key);
        context.update(associated);
        context.update(text);
        let nonce: [u8; NONCE_SIZE] = context.sign().as_ref()[..NONCE_SIZE]
            .try_into()
            .expect("HMAC-SHA-256 gives 32 bytes");
        let tag = self
            .key
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(associated),
                text,
            )
            .expect("chunks and indexes are far below the length limit of AES-GCM");
        (nonce, tag.as_ref().try_into().expect("a tag has 16 bytes"))
    }
}
