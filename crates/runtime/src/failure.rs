//! Why the runtime ends without having run the program: one message, one exit code (docs/protocol.md, section 8). No I/O.

use std::error::Error;

use crate::attest::{AccessError, AttestError, CasError, LasError, LeaseError, Refusal};
use crate::config::ConfigError;
use crate::log;
use crate::manifest::ManifestError;
use crate::settings::{Settings, SettingsError};
use crate::supervisor::debugging::DebugError;
use crate::supervisor::SupervisorError;

/// The exit codes of the runtime itself: below 125, where those of container engines and shells begin, and apart from what common programs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// An environment variable of the container is missing or malformed.
    Settings = 110,
    /// The binary has no launch manifest, or a broken one.
    Manifest = 111,
    /// The LAS gives no evidence.
    Las = 112,
    /// The CAS can't be reached or does not speak the protocol.
    Cas = 113,
    /// The CAS has another key than the image was made for.
    CasKey = 114,
    /// The CAS refuses the attestation.
    Refused = 115,
    /// The configuration that the CAS gave is not acceptable.
    Config = 116,
    /// The program can't be launched.
    Launch = 117,
    /// The system denies what the runtime needs.
    System = 118,
    /// A state that can't be.
    Bug = 119,
    /// A protected file is missing or is not what the index says.
    Integrity = 120,
    /// Another run has taken the place of this one: of a service that runs once at a time, or of who writes to a volume.
    Superseded = 121,
}

/// Why the runtime ends: what, why, and what to do.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    what: String,
    causes: Vec<String>,
    remedy: Option<String>,
    note: Option<String>,
}

impl Failure {
    /// A failure with the chain of its causes.
    pub fn new(code: Code, what: impl Into<String>, cause: &dyn Error) -> Self {
        let mut causes = vec![cause.to_string()];
        let mut next = cause.source();
        while let Some(error) = next {
            let text = error.to_string();
            // Some errors say what their source says.
            if !causes.last().is_some_and(|last| last.ends_with(&text)) {
                causes.push(text);
            }
            next = error.source();
        }
        Self {
            code,
            what: what.into(),
            causes,
            remedy: None,
            note: None,
        }
    }

    /// This failure with the action that mends it, an imperative.
    pub fn mended_by(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// A failed attestation: by whom it failed decides code and remedy.
    pub fn of_attestation(error: &AttestError, settings: &Settings) -> Self {
        let (code, remedy) = judge(error, settings);
        let mut failure = Self::new(code, "Attestation failed", error);
        if let AttestError::Cas(CasError::Refused {
            refusal: Some(refusal),
            ..
        }) = error
        {
            failure.causes.extend(refusal.msg.iter().cloned());
        }
        failure.note = Some(format!(
            "Connecting to CAS at {} (port {}) using service ID {}",
            settings.cas.host, settings.cas.port, settings.config_id
        ));
        failure.mended_by(remedy)
    }

    /// A protected file that can't be given to the program as it was converted.
    pub fn of_integrity(path: &dyn std::fmt::Display, error: &dyn Error) -> Self {
        let what = format!("The protected file {path} is not as it was converted");
        Self::new(Code::Integrity, what, error)
            .mended_by("run the image that sconify_image made, unchanged; convert it again if its storage is damaged")
    }

    /// A service that runs once at a time, and may no longer.
    pub fn of_lease(error: &LeaseError) -> Self {
        let what = "This service may run once at a time, and this run has lost its place";
        let remedy = match error {
            LeaseError::Refused(_) => {
                "end the other run of this service, if there should be none, and start this one again"
            }
            LeaseError::Expired(_) => "let this container reach the CAS, and start it again",
        };
        let mut failure = Self::new(Code::Superseded, what, error).mended_by(remedy);
        if let LeaseError::Refused(CasError::Refused {
            refusal: Some(refusal),
            ..
        }) = error
        {
            failure.causes.extend(refusal.msg.iter().cloned());
        }
        failure
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code as u8
    }

    /// Writes the message, on standard error.
    pub fn report(&self) {
        log::last_words(&self.lines());
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.what.clone()];
        lines.extend(
            self.causes
                .iter()
                .map(|cause| format!("  Caused by: {cause}")),
        );
        lines.extend(
            self.remedy
                .iter()
                .map(|remedy| format!("  To mend it: {remedy}")),
        );
        lines.extend(self.note.iter().map(|note| format!("Note: {note}")));
        lines
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        let failure = |remedy: &str| {
            Self::new(Code::Manifest, "Could not read the launch manifest", &error)
                .mended_by(remedy)
        };
        match &error {
            ManifestError::Variable(variable) => Self::new(
                Code::Settings,
                "Could not read the start-up variables",
                variable,
            )
            .mended_by("correct the variable, or leave it out"),
            ManifestError::NoCasKey => failure("convert the image again with --cas=HOST[:PORT]"),
            ManifestError::Elf(_) => failure("run an image that sconify_image made"),
            _ => failure("convert the image again with this version of sconify_image"),
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let remedy = match &error {
            SettingsError::NoConfigId | SettingsError::InvalidConfigId(_) => "give docker run -e SCONE_CONFIG_ID=SESSION/SERVICE",
            SettingsError::Address { .. } => "give docker run -e SCONE_CAS_ADDR=HOST[:PORT] and SCONE_LAS_ADDR=HOST[:PORT] or unix:/PATH",
        };
        Self::new(Code::Settings, "Could not read the settings", &error).mended_by(remedy)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        if let ConfigError::NoHostArgument { .. } = error {
            let what = "The program lacks an argument";
            return Self::new(Code::Settings, what, &error).mended_by(
                "give the arguments behind the image's name: docker run IMAGE ARGUMENT...",
            );
        }
        Self::new(
            Code::Config,
            "The configuration of the CAS can't be launched",
            &error,
        )
        .mended_by("correct the session at the CAS")
    }
}

impl From<DebugError> for Failure {
    fn from(error: DebugError) -> Self {
        let remedy = match &error {
            DebugError::Nobody(_) => "debug a session in debug mode: convert with --allow-debug-mode, for a CAS in debug mode; run the command as the user that the container runs as",
            DebugError::NoCommand => "give a command: docker exec CONTAINER PROGRAM sconify:debug COMMAND...",
            DebugError::Lost(_) => "see the log of the container; -e SCONE_LOG=debug says more",
        };
        Self::new(
            Code::Refused,
            "The command can't be run beside the program",
            &error,
        )
        .mended_by(remedy)
    }
}

impl From<SupervisorError> for Failure {
    fn from(error: SupervisorError) -> Self {
        let failure = |remedy: &str| {
            Self::new(Code::Launch, "The program could not be launched", &error).mended_by(remedy)
        };
        match &error {
            SupervisorError::Index { .. } => failure("convert the image again: it lacks its protected files, or its user may not read them"),
            SupervisorError::NotVerified { .. } => {
                failure("use the image and the session of one conversion: the files were changed, or fspf_key and fspf_tag are those of another image")
            }
            SupervisorError::WorkingDirectory { .. } => failure("let pwd of the session name a directory of the image, and protect it with --dir"),
            SupervisorError::Template { .. } => failure("let injection_files of the session name files of protected regions, whose placeholders are those of the session's secrets"),
            SupervisorError::Unsupported { .. } => failure("run on a kernel and an engine that have what is lacking"),
            _ => failure("convert the image again; -e SCONE_LOG=debug says more"),
        }
    }
}

fn judge(error: &AttestError, settings: &Settings) -> (Code, String) {
    let policy = || {
        format!(
            "ask the owner of the session to permit this image, or correct SCONE_CONFIG_ID ({})",
            settings.config_id
        )
    };
    match error {
        AttestError::Cas(error) => match error {
            CasError::Resolve(_) | CasError::Io(_) | CasError::Slow => {
                (Code::Cas, format!("start the CAS at {}, or give its address with -e SCONE_CAS_ADDR=HOST[:PORT]", settings.cas))
            }
            CasError::OtherKey(_) => (
                Code::CasKey,
                "give the address of the CAS that this image was made for with -e SCONE_CAS_ADDR=HOST[:PORT], or convert the image again with --cas".to_owned(),
            ),
            CasError::Tls(_) | CasError::Http(_) => {
                (Code::Cas, format!("let SCONE_CAS_ADDR ({}) name the CAS's port for enclaves, by default 18765", settings.cas))
            }
            CasError::Malformed { .. } => (Code::Cas, "use a CAS of the version that the image was made with".to_owned()),
            CasError::Refused { refusal, .. } => {
                let remedy = refusal.as_ref().and_then(|Refusal { remedy, .. }| remedy.clone());
                (Code::Refused, remedy.unwrap_or_else(policy))
            }
        },
        AttestError::Las(LasError::Resolve(_) | LasError::Io(_)) => {
            (Code::Las, format!("start the LAS at {} (sconify las serve), or give its address with -e SCONE_LAS_ADDR=HOST[:PORT]", settings.las))
        }
        AttestError::Las(LasError::Refused(_) | LasError::Malformed(_)) => {
            (Code::Las, format!("use a LAS at {} that serves this platform, of the version that the image was made with", settings.las))
        }
        AttestError::Sealed(_) => (Code::Config, "connect to the CAS itself: what answers does not hold the CAS key, or changes what it says".to_owned()),
        AttestError::Config(_) => (Code::Config, "use a CAS of the version that the image was made with".to_owned()),
        AttestError::Access(AccessError::NoToken) => (Code::Settings, "give docker run -e SCONE_SERVICE_ACCESS_TOKEN=TOKEN".to_owned()),
        AttestError::Access(_) => (Code::Config, "correct SCONE_SERVICE_ACCESS_TOKEN, or the policy's security.service_access_token".to_owned()),
        AttestError::NoRandomness => (Code::System, "allow the system call getrandom".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::JoseError;

    fn settings() -> Settings {
        Settings::read(|name| {
            Some(
                if name == "SCONE_CONFIG_ID" {
                    "ns/flask/service"
                } else {
                    "localhost"
                }
                .to_owned(),
            )
        })
        .unwrap()
    }

    #[test]
    fn a_refusal_shows_the_reasons_and_the_remedy_of_the_cas() {
        let body = r#"{"msg":["attestation refused","measurement differs"],"remedy":"add the measurement","version":"0.1.0"}"#;
        let refusal = serde_json::from_str(body).unwrap();
        let failure = Failure::of_attestation(
            &CasError::Refused {
                status: 403,
                refusal,
            }
            .into(),
            &settings(),
        );
        assert_eq!(failure.code(), 115);
        assert_eq!(
            failure.lines(),
            [
                "Attestation failed",
                "  Caused by: the CAS gives no configuration",
                "  Caused by: it answers status 403",
                "  Caused by: attestation refused",
                "  Caused by: measurement differs",
                "  To mend it: add the measurement",
                "Note: Connecting to CAS at localhost (port 18765) using service ID ns/flask/service",
            ]
        );
    }

    #[test]
    fn each_fault_has_its_own_code() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        for (error, code) in [
            (AttestError::from(CasError::Slow), 113),
            (
                CasError::OtherKey("the server's key is a, not the CAS key b".into()).into(),
                114,
            ),
            (
                CasError::Refused {
                    status: 404,
                    refusal: None,
                }
                .into(),
                115,
            ),
            (LasError::Io(refused).into(), 112),
            (JoseError::BadSignature.into(), 116),
            (ConfigError::Replayed("nonce").into(), 116),
            (AttestError::NoRandomness, 118),
            (AccessError::NoToken.into(), 110),
            (AccessError::OtherToken.into(), 116),
        ] {
            assert_eq!(
                Failure::of_attestation(&error, &settings()).code(),
                code,
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_missing_config_id_says_what_to_give() {
        let lines = Failure::from(SettingsError::NoConfigId).lines();
        assert_eq!(lines[1], "  Caused by: SCONE_CONFIG_ID is not set");
        assert!(lines[2].contains("-e SCONE_CONFIG_ID="));
    }
}
