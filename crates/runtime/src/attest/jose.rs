//! Opens what the CAS sealed: JWE with ECDH-ES and A256GCM (RFC 7516, RFC 7518), inside it a JWS with ES256 (RFC 7515). No I/O.
//!
//! Only the one form that docs/protocol.md section 4 specifies is read; everything else that JOSE allows is refused.

use base64::prelude::{Engine as _, BASE64_URL_SAFE_NO_PAD};
use ring::digest::{digest, Context, SHA256};
use ring::{aead, agreement, rand, signature};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The length of an uncompressed point of P-256: `0x04 ‖ x ‖ y`.
const POINT: usize = 65;

/// The DER of a SubjectPublicKeyInfo of P-256 before the point (RFC 5480 section 2).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why a sealed configuration is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoseError {
    /// Not the form that we read.
    #[error("the sealed configuration is malformed: {0}")]
    Malformed(&'static str),
    /// It was not encrypted to our key, or was changed.
    #[error("the sealed configuration does not authenticate under the key of this start")]
    NotForUs,
    /// Somebody else signed it.
    #[error("the configuration is signed by the key {got}, not by the CAS key {expected}")]
    OtherSigner {
        /// SHA-256 of the signer's SubjectPublicKeyInfo.
        got: String,
        /// SHA-256 of the CAS key's.
        expected: String,
    },
    /// The signature is not of this content.
    #[error("the signature of the configuration does not verify")]
    BadSignature,
}

/// A public key of P-256 as a JWK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl Jwk {
    fn of_point(point: &[u8; POINT]) -> Self {
        Self {
            kty: "EC".to_owned(),
            crv: "P-256".to_owned(),
            x: BASE64_URL_SAFE_NO_PAD.encode(&point[1..33]),
            y: BASE64_URL_SAFE_NO_PAD.encode(&point[33..]),
        }
    }

    fn point(&self) -> Option<[u8; POINT]> {
        if self.kty != "EC" || self.crv != "P-256" {
            return None;
        }
        let mut point = [4; POINT];
        for (half, text) in [(1..33, &self.x), (33..POINT, &self.y)] {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
            point[half].copy_from_slice(<&[u8; 32]>::try_from(bytes.as_slice()).ok()?);
        }
        Some(point)
    }
}

/// The key of one start: a configuration is encrypted to it, and it can be used only once.
pub struct EphemeralKey {
    private: agreement::EphemeralPrivateKey,
    point: [u8; POINT],
}

impl EphemeralKey {
    /// Makes a new key; None if the system has no random numbers.
    pub fn generate() -> Option<Self> {
        let private = agreement::EphemeralPrivateKey::generate(
            &agreement::ECDH_P256,
            &rand::SystemRandom::new(),
        )
        .ok()?;
        let public = private.compute_public_key().ok()?;
        Some(Self {
            point: public.as_ref().try_into().ok()?,
            private,
        })
    }

    /// The public key, `0x04 ‖ x ‖ y`.
    pub fn point(&self) -> &[u8; POINT] {
        &self.point
    }

    /// The public key as a JWK.
    pub fn jwk(&self) -> Jwk {
        Jwk::of_point(&self.point)
    }

    /// Opens a compact JWE that was encrypted to this key.
    pub fn open(self, compact: &str) -> Result<Zeroizing<Vec<u8>>, JoseError> {
        open(compact, |peer| {
            let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, peer);
            // ring checks that the peer's point is on the curve.
            agreement::agree_ephemeral(self.private, &peer, derive_key).ok()
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JweHeader {
    alg: String,
    enc: String,
    epk: Jwk,
    typ: String,
}

/// Opens a compact JWE; `agree` gives the content key for the sender's point.
fn open(
    compact: &str,
    agree: impl FnOnce(&[u8; POINT]) -> Option<Zeroizing<[u8; 32]>>,
) -> Result<Zeroizing<Vec<u8>>, JoseError> {
    let parts: Vec<&str> = compact.split('.').collect();
    let [header, "", nonce, ciphertext, tag] = parts[..] else {
        return Err(JoseError::Malformed(
            "a JWE has five parts, the second empty for ECDH-ES",
        ));
    };
    let fields: JweHeader = parse(header, "the header of the JWE")?;
    if (&*fields.alg, &*fields.enc, &*fields.typ) != ("ECDH-ES", "A256GCM", "sconify-config") {
        return Err(JoseError::Malformed(
            "the JWE is ECDH-ES, A256GCM, sconify-config",
        ));
    }
    let peer = fields
        .epk
        .point()
        .ok_or(JoseError::Malformed("the epk of the JWE"))?;
    let nonce = decode(nonce, "the nonce of the JWE")?;
    let nonce = aead::Nonce::try_assume_unique_for_key(&nonce)
        .map_err(|_| JoseError::Malformed("the nonce of the JWE"))?;
    let tag = decode(tag, "the tag of the JWE")?;
    if tag.len() != aead::AES_256_GCM.tag_len() {
        return Err(JoseError::Malformed("the tag of the JWE"));
    }
    // The ciphertext becomes the plaintext in place, so the one copy is wiped.
    let mut content = Zeroizing::new(decode(ciphertext, "the ciphertext of the JWE")?);
    let length = content.len();
    content.extend_from_slice(&tag);

    let key = agree(&peer).ok_or(JoseError::NotForUs)?;
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, &*key).map_err(|_| JoseError::NotForUs)?;
    aead::LessSafeKey::new(key)
        .open_in_place(nonce, aead::Aad::from(header.as_bytes()), &mut content)
        .map_err(|_| JoseError::NotForUs)?;
    content.truncate(length);
    Ok(content)
}

/// Concat KDF (RFC 7518 section 4.6.2) of one round: AlgorithmID A256GCM, empty PartyUInfo and PartyVInfo, 256 bits.
fn derive_key(shared: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    context.update(&1u32.to_be_bytes());
    context.update(shared);
    context.update(&7u32.to_be_bytes());
    context.update(b"A256GCM");
    context.update(&[0; 8]);
    context.update(&256u32.to_be_bytes());
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// What the CAS signed. Only [`verify`] makes one.
pub struct Signed(Zeroizing<Vec<u8>>);

impl Signed {
    /// The content.
    pub fn content(&self) -> &[u8] {
        &self.0
    }

    /// Content that nobody signed.
    #[cfg(test)]
    pub fn sample(content: Vec<u8>) -> Self {
        Self(Zeroizing::new(content))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JwsHeader {
    alg: String,
    jwk: Jwk,
}

/// Verifies a compact JWS by the key whose SubjectPublicKeyInfo has this SHA-256.
pub fn verify(compact: &[u8], cas_key: &[u8; 32]) -> Result<Signed, JoseError> {
    let compact =
        std::str::from_utf8(compact).map_err(|_| JoseError::Malformed("the JWS is no text"))?;
    let (message, signature) = compact
        .rsplit_once('.')
        .ok_or(JoseError::Malformed("a JWS has three parts"))?;
    let (header, payload) = message
        .split_once('.')
        .ok_or(JoseError::Malformed("a JWS has three parts"))?;
    let fields: JwsHeader = parse(header, "the header of the JWS")?;
    if fields.alg != "ES256" {
        return Err(JoseError::Malformed("the JWS is ES256"));
    }
    let point = fields
        .jwk
        .point()
        .ok_or(JoseError::Malformed("the jwk of the JWS"))?;
    let got = digest(&SHA256, &[&SPKI_PREFIX[..], &point].concat());
    if got.as_ref() != cas_key {
        return Err(JoseError::OtherSigner {
            got: hex::encode(got),
            expected: hex::encode(cas_key),
        });
    }
    let signature = decode(signature, "the signature of the JWS")?;
    signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &point)
        .verify(message.as_bytes(), &signature)
        .map_err(|_| JoseError::BadSignature)?;
    decode(payload, "the payload of the JWS")
        .map(Zeroizing::new)
        .map(Signed)
}

fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, JoseError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| JoseError::Malformed(what))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, JoseError> {
    serde_json::from_slice(&decode(text, what)?).map_err(|_| JoseError::Malformed(what))
}

#[cfg(test)]
#[path = "jose_tests.rs"]
mod tests;
