//! The launch manifest and the measurement: what this binary is. No I/O. Specified in docs/protocol.md, sections 1 and 2.

mod elf;
mod variables;

use ring::digest::{digest, SHA256};
use serde::{Deserialize, Deserializer, Serialize};

use crate::executor::Dlopen;
pub use elf::ElfError;
pub use variables::{InvalidVariable, Variables};

const FORMAT: &str = "sconify-launch/1";
const FILE_PROTECTION: &str = "file-protection";

/// Why the launch manifest of a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file itself.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The manifest is no JSON, lacks a key or has an unknown one.
    #[error("the launch manifest is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The manifest is not canonical JSON.
    #[error("the launch manifest is not canonical JSON")]
    NotCanonical,
    /// A value that this version does not know.
    #[error("the launch manifest's {key} is {expected}, got {got:?}")]
    Unexpected {
        /// The key.
        key: &'static str,
        /// What its value can be.
        expected: &'static str,
        /// Its value.
        got: String,
    },
    /// The image is bound to no CAS.
    #[error("the launch manifest names no CAS key, so there is no CAS to trust")]
    NoCasKey,
    /// A start-up variable, in the manifest or in the environment.
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
}

/// The launch manifest that counts: the digest of the runtime is the one that was computed, and the start-up variables are those of this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest(Fields);

// The order of the fields is the order of their names: canonical JSON is sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    cas_key: Option<String>,
    format: String,
    mode: String,
    program: String,
    runtime: String,
    variables: Variables,
}

impl Manifest {
    /// Reads the manifest of an ELF file, with the digest of the runtime that the file really has.
    ///
    /// `environment` gives the value of an environment variable, or None if it is not set.
    pub fn of_elf(
        file: &[u8],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ManifestError> {
        let section = elf::read(file)?;
        let mut fields = Fields::parse(section.manifest)?;
        fields.runtime = hex::encode(section.runtime);
        fields.variables = fields.variables.overridden(environment)?;
        Ok(Self(fields))
    }

    /// A manifest of no file.
    #[cfg(test)]
    pub fn sample(program: &str) -> Self {
        Self(Fields {
            cas_key: None,
            format: FORMAT.to_owned(),
            mode: FILE_PROTECTION.to_owned(),
            program: program.to_owned(),
            runtime: String::new(),
            variables: Variables::default(),
        })
    }

    /// The measurement: SHA-256 of the canonical JSON.
    pub fn measurement(&self) -> [u8; 32] {
        let mut measurement = [0; 32];
        measurement.copy_from_slice(digest(&SHA256, &self.0.canonical()).as_ref());
        measurement
    }

    /// SHA-256 of the CAS key's SubjectPublicKeyInfo.
    pub fn cas_key(&self) -> Result<[u8; 32], ManifestError> {
        self.0
            .cas_key
            .as_deref()
            .and_then(digest_of_hex)
            .ok_or(ManifestError::NoCasKey)
    }

    /// Absolute path of the program.
    pub fn program(&self) -> &str {
        &self.0.program
    }

    /// The digest of the runtime, 64 hex digits.
    pub fn runtime(&self) -> &str {
        &self.0.runtime
    }

    /// The start-up variables.
    pub fn variables(&self) -> &Variables {
        &self.0.variables
    }

    /// Which shared objects the program may map after its start; the strictest if the manifest does not say.
    pub fn dlopen(&self) -> Dlopen {
        match self.0.variables.scone_allow_dlopen.as_deref() {
            Some("2") => Dlopen::Any,
            Some("1") => Dlopen::Protected,
            _ => Dlopen::Closure,
        }
    }

    /// Whether the program may make processes; it may if the manifest does not say.
    pub fn fork(&self) -> bool {
        self.0.variables.scone_fork.as_deref() != Some("0")
    }
}

impl Fields {
    fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let fields: Self = serde_json::from_slice(json)?;
        if fields.canonical() != json {
            return Err(ManifestError::NotCanonical);
        }
        let unexpected = |key, expected, got: &str| ManifestError::Unexpected {
            key,
            expected,
            got: got.to_owned(),
        };
        if fields.format != FORMAT {
            return Err(unexpected("format", FORMAT, &fields.format));
        }
        if fields.mode != FILE_PROTECTION {
            return Err(unexpected("mode", FILE_PROTECTION, &fields.mode));
        }
        if !fields.program.starts_with('/') || fields.program.contains('\0') {
            return Err(unexpected("program", "an absolute path", &fields.program));
        }
        for (key, value) in [
            ("cas_key", fields.cas_key.as_deref()),
            ("runtime", Some(fields.runtime.as_str())),
        ] {
            if let Some(got) = value.filter(|value| digest_of_hex(value).is_none()) {
                return Err(unexpected(key, "64 lower-case hex digits", got));
            }
        }
        fields.variables.check()?;
        Ok(fields)
    }

    fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings serialise")
    }
}

/// The 32 bytes of 64 lower-case hex digits.
fn digest_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    (hex::encode(digest) == text).then_some(digest)
}

/// Reads an optional key that, where it stands, is not null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
