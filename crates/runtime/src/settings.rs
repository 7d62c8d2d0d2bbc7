//! What the environment of the container asks of the runtime. No I/O.
//!
//! The host sets these variables, so nothing here is trusted: they say whom to ask and what to print, never what to run.

use zeroize::Zeroizing;

use crate::address::{Address, InvalidAddress, LasAddress, CAS_PORT};
use crate::attest::AccessToken;
use crate::log::Level;

/// A variable that is missing or malformed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no policy to ask for.
    #[error("SCONE_CONFIG_ID is not set")]
    NoConfigId,
    /// It is not `SESSION/SERVICE`.
    #[error("SCONE_CONFIG_ID is SESSION/SERVICE, got {0:?}")]
    InvalidConfigId(String),
    /// An address.
    #[error("{name} can't be read")]
    Address {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        source: InvalidAddress,
    },
}

/// Whom to attest to, and as what.
pub struct Settings {
    /// `SCONE_CONFIG_ID`.
    pub config_id: String,
    /// `SCONE_CAS_ADDR`.
    pub cas: Address,
    /// `SCONE_LAS_ADDR`.
    pub las: LasAddress,
    /// `SCONE_SERVICE_ACCESS_TOKEN`, a secret of who starts the service.
    pub access_token: Option<AccessToken>,
}

impl Settings {
    /// Reads the settings; `environment` gives the value of a variable, or None if it is not set.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let config_id = environment(CONFIG_ID)
            .filter(|text| !text.is_empty())
            .ok_or(SettingsError::NoConfigId)?;
        let parts = config_id.rsplit_once('/');
        if !parts.is_some_and(|(session, service)| is_name(session) && is_name(service)) {
            return Err(SettingsError::InvalidConfigId(config_id));
        }
        let address = |name| move |source| SettingsError::Address { name, source };
        let cas = environment(CAS_ADDR).unwrap_or_else(|| "cas".to_owned());
        let las = environment(LAS_ADDR).unwrap_or_else(|| "las".to_owned());
        Ok(Self {
            config_id,
            cas: Address::parse(&cas, CAS_PORT).map_err(address(CAS_ADDR))?,
            las: LasAddress::parse(&las).map_err(address(LAS_ADDR))?,
            access_token: environment(ACCESS_TOKEN)
                .filter(|text| !text.is_empty())
                .map(|text| AccessToken::new(Zeroizing::new(text))),
        })
    }
}

/// The name of the variable that names the session and the service.
pub const CONFIG_ID: &str = "SCONE_CONFIG_ID";
const CAS_ADDR: &str = "SCONE_CAS_ADDR";
const LAS_ADDR: &str = "SCONE_LAS_ADDR";
const ACCESS_TOKEN: &str = "SCONE_SERVICE_ACCESS_TOKEN";

/// Whether a switch such as `SCONE_HASH` is on: set, and neither empty nor `0`.
pub fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0")
}

/// The log level that `SCONE_LOG` asks for, and what is wrong with it if it can't be read.
pub fn log_level(value: Option<String>) -> (Level, Option<crate::log::UnknownLevel>) {
    match value.as_deref().map(str::parse) {
        None => (Level::Warning, None),
        Some(Ok(level)) => (level, None),
        Some(Err(error)) => (Level::Warning, Some(error)),
    }
}

/// Session names may be nested by `/`; the CAS judges the rest.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config_id: Option<&str>, cas: Option<&str>) -> Result<Settings, SettingsError> {
        Settings::read(|name| match name {
            CONFIG_ID => config_id.map(str::to_owned),
            CAS_ADDR => cas.map(str::to_owned),
            _ => None,
        })
    }

    #[test]
    fn services_have_default_addresses() {
        let settings = read(Some("ns/session/service"), None).unwrap();
        assert_eq!(settings.cas.to_string(), "cas:18765");
        assert_eq!(settings.las.to_string(), "las:18766");
        assert_eq!(settings.config_id, "ns/session/service");
    }

    #[test]
    fn a_config_id_is_asked_for() {
        for config_id in [None, Some("")] {
            assert!(matches!(
                read(config_id, None),
                Err(SettingsError::NoConfigId)
            ));
        }
        for text in ["session", "/service", "session/", "a\n/b"] {
            assert!(matches!(
                read(Some(text), None),
                Err(SettingsError::InvalidConfigId(got)) if got == text
            ));
        }
    }

    #[test]
    fn a_bad_address_is_named() {
        assert!(matches!(
            read(Some("a/b"), Some("cas:port")),
            Err(SettingsError::Address {
                name: "SCONE_CAS_ADDR",
                ..
            })
        ));
    }

    #[test]
    fn zero_and_nothing_switch_off() {
        for (value, on) in [
            (None, false),
            (Some(""), false),
            (Some("0"), false),
            (Some("1"), true),
            (Some("yes"), true),
        ] {
            assert_eq!(is_on(value.map(str::to_owned)), on);
        }
    }

    #[test]
    fn an_unknown_log_level_is_the_default_one() {
        assert_eq!(log_level(None), (Level::Warning, None));
        assert_eq!(log_level(Some("7".into())), (Level::Debug, None));
        let (level, error) = log_level(Some("loud".into()));
        assert_eq!(level, Level::Warning);
        assert!(error.is_some());
    }
}
