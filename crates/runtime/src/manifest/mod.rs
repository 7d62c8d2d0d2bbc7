//! The launch manifest and the measurement: what this binary is. No I/O. Specified in docs/protocol.md, sections 1 and 2.

mod elf;
mod variables;

use std::ops::Range;

use ring::digest::{digest, SHA256};
use serde::{Deserialize, Deserializer, Serialize};

use crate::executor::Dlopen;
use elf::Sections;
pub use elf::{head_length, ElfError};
pub use variables::{InvalidVariable, Variables};

const FORMAT: &str = "sconify-launch/1";
const FILE_PROTECTION: &str = "file-protection";
const BINARY_FS: &str = "binary-fs";

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
    /// The mode and what is embedded do not go together.
    #[error("the launch manifest's mode is {mode:?}, but {what}")]
    Embedded {
        /// The mode.
        mode: String,
        /// What does not go with it.
        what: &'static str,
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
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    file_system: Option<FileSystemFields>,
    format: String,
    mode: String,
    program: String,
    runtime: String,
    variables: Variables,
}

/// What the manifest says of an embedded file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSystemFields {
    commitment: String,
    digest: String,
    /// The key itself, where everybody may read the files.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    key: Option<String>,
}

/// An embedded file system, as far as the manifest and the sections say; nothing of it is verified but by the measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedFiles {
    /// The index, encrypted.
    pub index: Vec<u8>,
    /// SHA-256 of each chunk, pack after pack.
    pub digests: Vec<[u8; 32]>,
    /// Where the packs stand in the file: up to its end.
    pub packs: Range<u64>,
    /// What only the file system key has.
    pub commitment: [u8; 32],
}

/// What an ELF file says of itself, and what must be digested to know whether it is so: that takes time, in which the CAS can be spoken to.
pub struct Statement<'a> {
    sections: Sections<'a>,
    /// As the manifest has them, but the start-up variables are those of this start.
    fields: Fields,
    /// The manifest whose digest of the embedded file system is zeros.
    undigested: Vec<u8>,
}

impl<'a> Statement<'a> {
    /// Reads the manifest of an ELF file.
    ///
    /// `head` are its first [`head_length`] bytes; `environment` gives the value of an environment variable, or None if it is not set.
    pub fn of_elf(
        head: &'a [u8],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ManifestError> {
        let sections = elf::read(head)?;
        let mut fields = Fields::parse(sections.manifest)?;
        let undigested = fields.undigested();
        fields.variables = fields.variables.overridden(environment)?;
        match (&fields.file_system, &sections.embedded) {
            (None, None) => {}
            (Some(_), Some(embedded)) => {
                if embedded.digests.len() % SHA256.output_len() != 0 {
                    return Err(ElfError::Malformed("the digests have a part of one".into()).into());
                }
            }
            (declared, _) => {
                return Err(ManifestError::Embedded {
                    what: match declared {
                        Some(_) => "nothing is embedded",
                        None => "a file system is embedded",
                    },
                    mode: fields.mode,
                })
            }
        }
        Ok(Self {
            sections,
            fields,
            undigested,
        })
    }

    /// SHA-256 of the CAS key's SubjectPublicKeyInfo.
    pub fn cas_key(&self) -> Result<[u8; 32], ManifestError> {
        self.fields.cas_key()
    }

    /// The manifest with the digests of the runtime and of the embedded file system that the file really has.
    pub fn measured(&self) -> (Manifest, Option<EmbeddedFiles>) {
        let mut fields = self.fields.clone();
        fields.runtime = counted(&fields.runtime, &self.sections.runtime());
        let both = fields
            .file_system
            .as_mut()
            .zip(self.sections.embedded.as_ref());
        let embedded = both.map(|(file_system, embedded)| {
            let digest = embedded.digest(&self.undigested);
            file_system.digest = counted(&file_system.digest, &digest);
            EmbeddedFiles {
                index: embedded.index.to_vec(),
                digests: embedded
                    .digests
                    .chunks_exact(SHA256.output_len())
                    .map(|digest| digest.try_into().expect("cut to this length"))
                    .collect(),
                packs: embedded.packs.clone(),
                commitment: digest_of_hex(&file_system.commitment).expect("it has been checked"),
            }
        });
        (Manifest(fields), embedded)
    }
}

impl Manifest {
    /// A manifest of no file.
    #[cfg(test)]
    pub fn sample(program: &str) -> Self {
        Self(Fields {
            cas_key: None,
            file_system: None,
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
        let file_system = match (fields.mode.as_str(), &fields.file_system) {
            (FILE_PROTECTION, None) => None,
            (BINARY_FS, Some(file_system)) => Some(file_system),
            (FILE_PROTECTION | BINARY_FS, _) => {
                let what = "key \"file_system\" belongs to the other mode";
                return Err(ManifestError::Embedded {
                    mode: fields.mode,
                    what,
                });
            }
            (other, _) => {
                return Err(unexpected("mode", "file-protection or binary-fs", other));
            }
        };
        if !fields.program.starts_with('/') || fields.program.contains('\0') {
            return Err(unexpected("program", "an absolute path", &fields.program));
        }
        for (key, value) in [
            ("cas_key", fields.cas_key.as_deref()),
            ("runtime", Some(fields.runtime.as_str())),
            (
                "file_system.commitment",
                file_system.map(|it| it.commitment.as_str()),
            ),
            (
                "file_system.digest",
                file_system.map(|it| it.digest.as_str()),
            ),
            (
                "file_system.key",
                file_system.and_then(|it| it.key.as_deref()),
            ),
        ] {
            if let Some(got) = value.filter(|value| digest_of_hex(value).is_none()) {
                return Err(unexpected(key, "64 lower-case hex digits", got));
            }
        }
        fields.variables.check()?;
        Ok(fields)
    }

    fn cas_key(&self) -> Result<[u8; 32], ManifestError> {
        self.cas_key
            .as_deref()
            .and_then(digest_of_hex)
            .ok_or(ManifestError::NoCasKey)
    }

    /// The manifest whose digest of the embedded file system is zeros, as that is taken.
    fn undigested(&self) -> Vec<u8> {
        let mut fields = self.clone();
        if let Some(file_system) = &mut fields.file_system {
            file_system.digest = "0".repeat(64);
        }
        fields.canonical()
    }

    fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings serialise")
    }
}

/// The digest that counts in the measurement: the computed one, and after a comma the one that stands in the manifest if it is another.
fn counted(stated: &str, computed: &[u8; 32]) -> String {
    let computed = hex::encode(computed);
    if stated == computed {
        computed
    } else {
        format!("{computed},{stated}")
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
