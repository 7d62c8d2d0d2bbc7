//! Addresses of services, as `SCONE_CAS_ADDR` and `SCONE_LAS_ADDR` give them. No I/O.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The CAS's port for enclaves.
pub const CAS_PORT: u16 = 18765;
/// The LAS's port.
pub const LAS_PORT: u16 = 18766;

/// What is no address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is HOST, HOST:PORT or [IPv6]:PORT, got {0:?}")]
pub struct InvalidAddress(String);

/// A host and a TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(invalid)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| invalid())?;
            (host, port)
        } else {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || host.len() > 253 || !host.bytes().all(named) {
                return Err(invalid());
            }
            (host, port)
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(invalid)?,
            None if port.is_empty() => default_port,
            _ => return Err(invalid()),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Whether the host names this machine's loopback interface.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self
                .host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// Where the LAS listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LasAddress {
    /// On TCP.
    Tcp(Address),
    /// On a unix socket.
    Unix(PathBuf),
}

impl LasAddress {
    /// Reads `unix:/path` or what [`Address::parse`] reads.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.contains('\0') => {
                Ok(Self::Unix(path.into()))
            }
            Some(_) => Err(InvalidAddress(text.to_owned())),
            None => Address::parse(text, LAS_PORT).map(Self::Tcp),
        }
    }
}

impl fmt::Display for LasAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<String> {
        Address::parse(text, CAS_PORT)
            .ok()
            .map(|address| address.to_string())
    }

    #[test]
    fn a_missing_port_is_the_default() {
        assert_eq!(shown("cas").as_deref(), Some("cas:18765"));
        assert_eq!(
            shown("cas.example.org:443").as_deref(),
            Some("cas.example.org:443")
        );
        assert_eq!(shown("[::1]").as_deref(), Some("[::1]:18765"));
        assert_eq!(shown("[fd00::2]:1").as_deref(), Some("[fd00::2]:1"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":1",
            "cas:",
            "cas:0",
            "cas:65536",
            "cas:+1",
            "cas:1:2",
            "::1",
            "[cas]:1",
            "[::1",
            "[::1]1",
            "c as",
            "http://cas",
            "cäs",
            "a@b",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn the_las_may_listen_on_a_unix_socket() {
        assert_eq!(
            LasAddress::parse("unix:/run/las.sock"),
            Ok(LasAddress::Unix("/run/las.sock".into()))
        );
        assert!(LasAddress::parse("unix:las.sock").is_err());
        assert_eq!(LasAddress::parse("las").unwrap().to_string(), "las:18766");
    }

    #[test]
    fn loopback_is_told_by_name_and_by_address() {
        for (host, loopback) in [
            ("localhost", true),
            ("LOCALHOST", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("10.0.0.1", false),
            ("cas", false),
        ] {
            assert_eq!(
                Address::parse(host, 1).unwrap().is_loopback(),
                loopback,
                "{host}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(text in "\\PC{0,40}") {
            if let Ok(address) = Address::parse(&text, CAS_PORT) {
                prop_assert_eq!(Address::parse(&address.to_string(), 1), Ok(address));
            }
        }
    }
}
