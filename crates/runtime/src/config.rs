//! The configuration of the program, as the CAS signed it (docs/protocol.md, section 4). No I/O.

use std::ffi::CString;
use std::fmt;

use base64::prelude::{Engine as _, BASE64_STANDARD};
use sconify_shield::{FileSystemKey, RootTag};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::attest::{Nonce, Signed};
use crate::executor::{FileSystem, InjectedFile, Launch, Origin};
use crate::manifest::Manifest;
use crate::volumes::{Mount, MountFields};

const FORMAT: &str = "sconify-config/1";

/// Why a configuration is refused. No variant holds a value that may be secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No JSON, a key too few or too many, or a value of another type; where it stands, but not what it is.
    #[error("it is malformed at line {line}, column {column}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column.
        column: usize,
    },
    /// It was made for another start.
    #[error("it was made for another start: its {0} differs from the one that was sent")]
    Replayed(&'static str),
    /// A value breaks a rule.
    #[error("{what} must be {rule}")]
    Invalid {
        /// Which value.
        what: String,
        /// The rule.
        rule: &'static str,
    },
}

/// The configuration of one start of one program. Only [`Configuration::read`] makes one, from what the CAS signed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    format: String,
    config_id: String,
    nonce: Nonce,
    command: Vec<Zeroizing<String>>,
    environment: Environment,
    pwd: String,
    file_system: FileSystemFields,
    injection_files: Vec<InjectedFileFields>,
    #[serde(default)]
    volumes: Vec<MountFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSystemFields {
    path: String,
    key: Zeroizing<String>,
    tag: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectedFileFields {
    path: String,
    content: Zeroizing<String>,
    mode: u32,
}

/// Names and values, in the order of the document, no name twice.
struct Environment(Vec<(String, Zeroizing<String>)>);

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Environment;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Environment, M::Error> {
                let mut names = std::collections::HashSet::new();
                let mut variables = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Zeroizing<String>>()? {
                    if !names.insert(name.clone()) {
                        return Err(M::Error::custom("a name stands twice"));
                    }
                    variables.push((name, value));
                }
                Ok(Environment(variables))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl Configuration {
    /// Reads what the CAS signed in answer to this config id and nonce.
    pub fn read(signed: &Signed, config_id: &str, nonce: &Nonce) -> Result<Self, ConfigError> {
        let configuration: Self = serde_json::from_slice(signed.content())
            // serde_json's own message may quote a value.
            .map_err(|error| ConfigError::Malformed {
                line: error.line(),
                column: error.column(),
            })?;
        if configuration.format != FORMAT {
            return Err(invalid("format", "sconify-config/1"));
        }
        if configuration.config_id != config_id {
            return Err(ConfigError::Replayed("config_id"));
        }
        if configuration.nonce != *nonce {
            return Err(ConfigError::Replayed("nonce"));
        }
        Ok(configuration)
    }

    /// The volumes that the program gets; they are still to be opened.
    pub fn mounts(&self) -> Result<Vec<Mount>, ConfigError> {
        let mounts = self.volumes.iter().enumerate().map(|(at, volume)| {
            let rule = |(field, rule)| invalid(format!("volumes[{at}].{field}"), rule);
            volume.read().map_err(rule)
        });
        mounts.collect()
    }

    /// What is to be launched: the program and its limits from the manifest, everything else from here, but for the volumes.
    pub fn into_launch(self, manifest: &Manifest) -> Result<Launch, ConfigError> {
        if self.command.is_empty() {
            return Err(invalid("command", "an array of at least one string"));
        }
        let arguments = self.command.iter().enumerate();
        let arguments =
            arguments.map(|(at, text)| c_string(format!("command[{at}]"), text.as_bytes()));
        let environment = self.environment.0.iter().map(|(name, value)| {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(invalid(
                    format!("the name {name:?} in environment"),
                    "non-empty, without = and NUL",
                ));
            }
            let variable = Zeroizing::new([name.as_bytes(), b"=", value.as_bytes()].concat());
            c_string(format!("environment.{name}"), &variable)
        });
        Ok(Launch {
            program: manifest.program().into(),
            arguments: arguments.collect::<Result<_, _>>()?,
            environment: environment.collect::<Result<_, _>>()?,
            working_directory: absolute("pwd", &self.pwd)?,
            file_system: self.file_system.open()?,
            injected_files: self
                .injection_files
                .iter()
                .enumerate()
                .map(|(at, file)| file.open(at))
                .collect::<Result<_, _>>()?,
            volumes: Vec::new(),
            dlopen: manifest.dlopen(),
            fork: manifest.fork(),
        })
    }
}

impl FileSystemFields {
    fn open(&self) -> Result<FileSystem, ConfigError> {
        Ok(FileSystem {
            origin: Origin::Disk(absolute("file_system.path", &self.path)?),
            key: FileSystemKey::from_hex(&self.key)
                .map_err(|_| invalid("file_system.key", "64 hex digits"))?,
            tag: RootTag::from_hex(&self.tag)
                .map_err(|_| invalid("file_system.tag", "32 hex digits"))?,
        })
    }
}

impl InjectedFileFields {
    fn open(&self, at: usize) -> Result<InjectedFile, ConfigError> {
        let what = |field| format!("injection_files[{at}].{field}");
        let content = BASE64_STANDARD
            .decode(&*self.content)
            .map_err(|_| invalid(what("content"), "base64"))?;
        if self.mode > 0o777 {
            return Err(invalid(what("mode"), "permission bits, 0 to 511"));
        }
        Ok(InjectedFile {
            path: normal(what("path"), &self.path)?,
            content: Zeroizing::new(content),
            mode: self.mode,
        })
    }
}

fn invalid(what: impl Into<String>, rule: &'static str) -> ConfigError {
    ConfigError::Invalid {
        what: what.into(),
        rule,
    }
}

fn c_string(what: String, bytes: &[u8]) -> Result<CString, ConfigError> {
    CString::new(bytes).map_err(|_| invalid(what, "free of NUL"))
}

fn absolute(what: &str, path: &str) -> Result<Vec<u8>, ConfigError> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(invalid(what, "an absolute path without NUL"));
    }
    Ok(path.into())
}

/// The path of a file: absolute, no empty, `.` or `..` component.
fn normal(what: String, path: &str) -> Result<Vec<u8>, ConfigError> {
    let components = path.strip_prefix('/').map(|rest| rest.split('/'));
    let proper =
        |component: &str| !matches!(component, "" | "." | "..") && !component.contains('\0');
    if !components.is_some_and(|mut components| components.all(proper)) {
        return Err(invalid(
            what,
            "an absolute path without empty, . and .. components",
        ));
    }
    Ok(path.into())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
