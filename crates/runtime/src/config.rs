//! The configuration of the program, as the CAS signed it (docs/protocol.md, section 4). No I/O.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::time::Duration;

use base64::prelude::{Engine as _, BASE64_STANDARD};
use sconify_shield::{FileSystemKey, RootTag};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::attest::{Nonce, Signed};
use crate::executor::{FileSystem, InjectedFile, Launch, Origin, Template, Templates};
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
    /// The command takes an argument that the host does not give.
    #[error(
        "the command takes argument {number} of the container (@@{number}), which has {count}"
    )]
    NoHostArgument {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        count: usize,
    },
}

/// What the host gives besides the settings: it counts only where the policy asks for it.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// The arguments of the container, without the program's name.
    pub arguments: &'a [Vec<u8>],
    /// The value of an environment variable, if it is set.
    pub variable: &'a dyn Fn(&str) -> Option<Vec<u8>>,
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
    #[serde(default, deserialize_with = "present")]
    host: Option<HostFields>,
    #[serde(default, deserialize_with = "present")]
    disk_injection_files: Option<TemplateFields>,
    #[serde(default, deserialize_with = "present")]
    access_proof: Option<String>,
    #[serde(default, deserialize_with = "present")]
    lease_seconds: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    debug: Option<bool>,
    #[serde(default)]
    volumes: Vec<MountFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostFields {
    arguments: Vec<HostArgument>,
    environment: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostArgument {
    at: usize,
    argument: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateFields {
    files: Vec<TemplateFile>,
    placeholders: HashMap<String, Zeroizing<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateFile {
    path: String,
    mode: u32,
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

/// The value of a member that may be absent, but not null.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
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

    /// What proves that the CAS knows the service access token, if the policy has one: HMAC-SHA-256, 64 hex digits.
    pub fn access_proof(&self) -> Option<&str> {
        self.access_proof.as_deref()
    }

    /// How long the place of a service that runs once at a time is held for this run, unless it is renewed.
    pub fn lease(&self) -> Option<Duration> {
        self.lease_seconds.map(Duration::from_secs)
    }

    /// The volumes that the program gets; they are still to be opened.
    pub fn mounts(&self) -> Result<Vec<Mount>, ConfigError> {
        let mounts = self.volumes.iter().enumerate().map(|(at, volume)| {
            let rule = |(field, rule)| invalid(format!("volumes[{at}].{field}"), rule);
            volume.read().map_err(rule)
        });
        mounts.collect()
    }

    /// What is to be launched: the program and its limits from the manifest, everything else but the volumes from here and, where it says so,
    /// from the host.
    pub fn into_launch(mut self, manifest: &Manifest, host: Host) -> Result<Launch, ConfigError> {
        if self.command.is_empty() {
            return Err(invalid("command", "an array of at least one string"));
        }
        if self.lease_seconds == Some(0) {
            return Err(invalid("lease_seconds", "above 0"));
        }
        let arguments = self.command.iter().enumerate();
        let mut arguments: Vec<_> = arguments
            .map(|(at, text)| c_string(format!("command[{at}]"), text.as_bytes()))
            .collect::<Result<_, _>>()?;
        let environment = self.environment.0.iter().map(|(name, value)| {
            check_name(name)?;
            variable(name, value.as_bytes())
        });
        let mut environment: Vec<_> = environment.collect::<Result<_, _>>()?;
        if let Some(fields) = &self.host {
            fields.fill(&mut arguments, &self.environment, &mut environment, host)?;
        }
        Ok(Launch {
            program: manifest.program().into(),
            arguments,
            environment,
            working_directory: absolute("pwd", &self.pwd)?,
            file_system: self.file_system.open()?,
            injected_files: self
                .injection_files
                .iter()
                .enumerate()
                .map(|(at, file)| file.open(at))
                .collect::<Result<_, _>>()?,
            templates: self
                .disk_injection_files
                .take()
                .map(TemplateFields::open)
                .transpose()?
                .unwrap_or_default(),
            volumes: Vec::new(),
            dlopen: manifest.dlopen(),
            fork: manifest.fork(),
            debug: self.debug == Some(true),
            attendant: None,
        })
    }
}

impl HostFields {
    /// Puts what the host gives where the policy wants it.
    fn fill(
        &self,
        arguments: &mut [CString],
        own: &Environment,
        environment: &mut Vec<CString>,
        host: Host,
    ) -> Result<(), ConfigError> {
        for (at, field) in self.arguments.iter().enumerate() {
            let what = |name| format!("host.arguments[{at}].{name}");
            let place = arguments
                .get_mut(field.at)
                .filter(|text| text.is_empty())
                .ok_or_else(|| invalid(what("at"), "the place of an empty element of command"))?;
            let number = field.argument;
            let index = number
                .checked_sub(1)
                .ok_or_else(|| invalid(what("argument"), "1 or more"))?;
            let given = host
                .arguments
                .get(index)
                .ok_or(ConfigError::NoHostArgument {
                    number,
                    count: host.arguments.len(),
                })?;
            *place = c_string(format!("argument {number} of the container"), given)?;
        }
        for name in &self.environment {
            check_name(name)?;
            let mut others = own.0.iter().map(|(name, _)| name);
            if others.any(|other| other == name) {
                return Err(invalid(
                    format!("host.environment {name:?}"),
                    "no variable of environment",
                ));
            }
            let value = (host.variable)(name).unwrap_or_default();
            environment.push(variable(name, &value)?);
        }
        Ok(())
    }
}

impl TemplateFields {
    fn open(self) -> Result<Templates, ConfigError> {
        let what = |at: usize, field| format!("disk_injection_files.files[{at}].{field}");
        let files = self.files.iter().enumerate().map(|(at, file)| {
            Ok(Template {
                path: normal(what(at, "path"), &file.path)?,
                mode: permissions(what(at, "mode"), file.mode)?,
            })
        });
        let placeholders = self.placeholders.iter().map(|(name, value)| {
            let bytes = BASE64_STANDARD.decode(&**value).map_err(|_| {
                invalid(
                    format!("disk_injection_files.placeholders {name:?}"),
                    "base64",
                )
            })?;
            Ok((name.clone().into_bytes(), Zeroizing::new(bytes)))
        });
        Ok(Templates {
            files: files.collect::<Result<_, _>>()?,
            placeholders: placeholders.collect::<Result<_, _>>()?,
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
        Ok(InjectedFile {
            path: normal(what("path"), &self.path)?,
            content: Zeroizing::new(content),
            mode: permissions(what("mode"), self.mode)?,
        })
    }
}

fn invalid(what: impl Into<String>, rule: &'static str) -> ConfigError {
    ConfigError::Invalid {
        what: what.into(),
        rule,
    }
}

fn permissions(what: String, mode: u32) -> Result<u32, ConfigError> {
    if mode > 0o777 {
        return Err(invalid(what, "permission bits, 0 to 511"));
    }
    Ok(mode)
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(invalid(
            format!("the name {name:?} in environment"),
            "non-empty, without = and NUL",
        ));
    }
    Ok(())
}

/// `NAME=value`.
fn variable(name: &str, value: &[u8]) -> Result<CString, ConfigError> {
    let text = Zeroizing::new([name.as_bytes(), b"=", value].concat());
    c_string(format!("environment.{name}"), &text)
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
