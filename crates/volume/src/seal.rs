//! AES-256-GCM with a key of its own for each message (volume format, section 2).
//!
//! A volume is written for years and its host may put old states back, so neither counters nor 96 random bits are nonces
//! to rely on. Each message has 24 random bytes of salt; its key is derived from them, used once, and wiped.

use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, hmac};
use zeroize::{Zeroize, Zeroizing};

use crate::plaintext::Plaintext;

/// Bytes of salt before each ciphertext.
pub(crate) const SALT_SIZE: usize = 24;

/// What the key of one message is derived from. Not a secret.
pub(crate) type Salt = [u8; SALT_SIZE];

/// The authentication tag of a message. Not a secret.
pub(crate) type Tag = [u8; 16];

/// The bytes did not authenticate.
#[derive(Debug)]
pub(crate) struct Forged;

/// Encrypts and decrypts one kind of message.
pub(crate) struct Sealer {
    kind: &'static [u8],
    key: hmac::Key,
    random: SystemRandom,
}

impl Sealer {
    /// Takes the key of a kind of message and the name of that kind, which is authenticated with each.
    pub(crate) fn new(kind: &'static str, key: &Zeroizing<[u8; 32]>) -> Self {
        Self {
            kind: kind.as_bytes(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &**key),
            random: SystemRandom::new(),
        }
    }

    /// Encrypts `text` for the place `id`; returns salt and ciphertext, and the tag apart.
    pub(crate) fn seal(&self, id: u64, text: &[u8]) -> (Vec<u8>, Tag) {
        let salt = self.salt();
        let mut message = Vec::with_capacity(SALT_SIZE + text.len());
        message.extend_from_slice(&salt);
        message.extend_from_slice(text);
        let tag = self.seal_body(id, &salt, &mut message[SALT_SIZE..]);
        (message, tag)
    }

    /// Encrypts `text` for the place `id`; returns the ciphertext, which is as long as the text, with salt and tag apart.
    pub(crate) fn seal_apart(&self, id: u64, text: &[u8]) -> (Vec<u8>, Salt, Tag) {
        let salt = self.salt();
        let mut body = text.to_vec();
        let tag = self.seal_body(id, &salt, &mut body);
        (body, salt, tag)
    }

    fn salt(&self) -> Salt {
        let mut salt = [0; SALT_SIZE];
        self.random
            .fill(&mut salt)
            .expect("the operating system gives random bytes");
        salt
    }

    fn seal_body(&self, id: u64, salt: &Salt, body: &mut [u8]) -> Tag {
        let tag = self
            .message_key(salt)
            .seal_in_place_separate_tag(nonce(), aead::Aad::from(self.associated(id)), body)
            .expect("messages are far below the length limit of AES-GCM");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }

    /// Decrypts what [`Sealer::seal`] made for the place `id`.
    pub(crate) fn open(&self, id: u64, message: &[u8], tag: &Tag) -> Result<Plaintext, Forged> {
        if message.len() < SALT_SIZE {
            return Err(Forged);
        }
        let (salt, body) = message.split_at(SALT_SIZE);
        self.open_apart(id, salt, body.to_vec(), tag)
    }

    /// Decrypts what [`Sealer::seal_apart`] made for the place `id`.
    pub(crate) fn open_apart(
        &self,
        id: u64,
        salt: &[u8],
        body: Vec<u8>,
        tag: &Tag,
    ) -> Result<Plaintext, Forged> {
        let mut text = Plaintext::from(body);
        self.message_key(salt)
            .open_in_place_separate_tag(
                nonce(),
                aead::Aad::from(self.associated(id)),
                aead::Tag::from(*tag),
                &mut text,
                0..,
            )
            .map_err(|_| Forged)?;
        Ok(text)
    }

    fn message_key(&self, salt: &[u8]) -> aead::LessSafeKey {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(self.kind);
        context.update(salt);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        let key =
            aead::UnboundKey::new(&aead::AES_256_GCM, &bytes).expect("an AES-256 key has 32 bytes");
        bytes.zeroize();
        aead::LessSafeKey::new(key)
    }

    fn associated(&self, id: u64) -> Vec<u8> {
        [self.kind, &id.to_le_bytes()].concat()
    }
}

/// Each key encrypts one message, so all may have the same nonce.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_open_where_they_were_sealed_and_nowhere_else() {
        let sealer = Sealer::new("test", &Zeroizing::new([7; 32]));
        let (message, tag) = sealer.seal(3, b"text");
        assert_eq!(*sealer.open(3, &message, &tag).unwrap(), *b"text");
        assert!(sealer.open(4, &message, &tag).is_err());
        assert!(Sealer::new("other", &Zeroizing::new([7; 32]))
            .open(3, &message, &tag)
            .is_err());
        assert!(Sealer::new("test", &Zeroizing::new([8; 32]))
            .open(3, &message, &tag)
            .is_err());
        for position in 0..message.len() {
            let mut flipped = message.clone();
            flipped[position] ^= 1;
            assert!(sealer.open(3, &flipped, &tag).is_err(), "byte {position}");
        }
        assert!(sealer.open(3, &message[..SALT_SIZE - 1], &tag).is_err());
        let (body, salt, tag) = sealer.seal_apart(3, b"text");
        assert_eq!(body.len(), 4);
        let open = |id, body: &[u8]| sealer.open_apart(id, &salt, body.to_vec(), &tag);
        assert_eq!(*open(3, &body).unwrap(), *b"text");
        assert!(open(4, &body).is_err() && open(3, b"text").is_err());
    }

    #[test]
    fn equal_texts_have_different_ciphertexts() {
        let sealer = Sealer::new("test", &Zeroizing::new([7; 32]));
        assert_ne!(sealer.seal(3, b"text").0, sealer.seal(3, b"text").0);
    }
}
