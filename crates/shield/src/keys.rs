//! The file system key, the root tag, and the keys that are derived from the former (format, section 1).

use std::fmt;

use ring::hkdf;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::ShieldError;

/// The 32-byte key of a protected file system. Wiped when dropped, compared in constant time, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct FileSystemKey([u8; 32]);

impl FileSystemKey {
    /// Takes the key's bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the key from 64 hex digits of either case.
    ///
    /// # Errors
    /// [`ShieldError::BadKey`] if `text` is anything else.
    pub fn from_hex(text: &str) -> Result<Self, ShieldError> {
        let mut key = Self([0; 32]);
        decode_hex(text, &mut key.0).map_err(|got| ShieldError::BadKey {
            what: "the file system key",
            got,
            expected: "64 hex digits",
        })?;
        Ok(key)
    }

    /// A value that only this key has: it binds to the key and tells nothing about it.
    pub fn commitment(&self) -> [u8; 32] {
        *self.derive(&[b"sconify key commitment v1"])
    }

    /// Derives 32 bytes: HKDF-SHA-256 without salt, with the concatenation of `info`.
    pub fn derive(&self, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut derived = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(&self.0)
            .expand(info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *derived))
            .expect("32 bytes are within what HKDF-SHA-256 gives");
        derived
    }
}

impl fmt::Debug for FileSystemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileSystemKey(..)")
    }
}

impl PartialEq for FileSystemKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for FileSystemKey {}

/// The tag of an index: the one value that stands for the whole file system. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootTag([u8; 16]);

impl RootTag {
    /// Takes the tag's bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the tag from 32 hex digits of either case.
    ///
    /// # Errors
    /// [`ShieldError::BadKey`] if `text` is anything else.
    pub fn from_hex(text: &str) -> Result<Self, ShieldError> {
        let mut tag = Self([0; 16]);
        decode_hex(text, &mut tag.0).map_err(|got| ShieldError::BadKey {
            what: "the root tag",
            got,
            expected: "32 hex digits",
        })?;
        Ok(tag)
    }

    /// The tag's bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RootTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootTag({self})")
    }
}

/// Fills `out` from exactly twice as many hex digits; on failure says what was got without repeating it.
fn decode_hex(text: &str, out: &mut [u8]) -> Result<(), String> {
    if text.len() != 2 * out.len() {
        return Err(format!("{} characters", text.chars().count()));
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| {
            char::from(c)
                .to_digit(16)
                .ok_or("a character that is no hex digit")
        };
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?)
            .expect("two hex digits fit into a byte");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_and_refused() {
        let text = "00ff10aBcdef0123456789abcdef012345678900ff10abcdef01234567890000";
        assert_eq!(
            FileSystemKey::from_hex(text).unwrap().0[..4],
            [0, 0xff, 0x10, 0xab]
        );
        for bad in [
            "",
            &text[1..],
            &text.replace("ff", "+f"),
            &text.replace("ff", "é"),
        ] {
            let message = FileSystemKey::from_hex(bad).unwrap_err().to_string();
            assert!(bad.is_empty() || !message.contains(bad), "{message}");
        }
        let tag = RootTag::from_hex(&text[..32]).unwrap();
        assert_eq!(tag.to_string(), text[..32].to_lowercase());
    }

    #[test]
    fn the_key_is_not_printed_and_compares_by_value() {
        let key = FileSystemKey::new([0xa5; 32]);
        assert_eq!(format!("{key:?}"), "FileSystemKey(..)");
        assert_eq!(key, FileSystemKey::new([0xa5; 32]));
        assert_ne!(key, FileSystemKey::new([0xa6; 32]));
    }
}
