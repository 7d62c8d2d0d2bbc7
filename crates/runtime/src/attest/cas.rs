//! The CAS's enclave API over HTTPS (docs/protocol.md, section 4).
//!
//! The HTTP is ureq's: it is maintained, has no async runtime and lets us bring our own connections, so that the pinning of the CAS key
//! (`tls`) and the resolving of names (`net`) are ours. Its stack is otherwise reduced to HTTP/1.1: no proxies, no redirects, no cookies.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::Serialize;
use ureq::config::Config;
use ureq::Agent;
use zeroize::Zeroizing;

use super::protocol::{
    AttestAnswer, AttestRequest, Challenge, ChallengeRequest, ExitReport, Refusal, Renewed,
    StateReport,
};
use super::tls::{OtherKey, PinnedConnector, StubResolver};
use crate::address::Address;
use crate::executor::ExitStatus;
use crate::net::ResolveError;
use crate::volumes::{Ledger, LedgerError};
use sconify_volume::State;

/// How long the CAS may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To accept a connection, TLS included.
    pub connect: Duration,
    /// To answer a request, the connection included; it may have to fetch collateral of the platform.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
        }
    }
}

/// How long the report of the program's end may delay the end of the container.
const EXIT_PATIENCE: Patience = Patience {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(2),
};

/// How long one attempt to renew a lease may take: there is time for several.
const RENEWAL_PATIENCE: Patience = Patience {
    connect: Duration::from_secs(2),
    answer: Duration::from_secs(5),
};

/// The largest answer that is read: a configuration with all its files.
const LARGEST_ANSWER: u64 = 32 << 20;

/// Why the CAS gave no answer that counts.
#[derive(Debug, thiserror::Error)]
pub enum CasError {
    /// Its name is unknown.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It can't be talked to, or broke off.
    #[error(transparent)]
    Io(io::Error),
    /// It takes too long.
    #[error("it did not answer in time")]
    Slow,
    /// It is not the CAS of the launch manifest.
    #[error("{0}")]
    OtherKey(String),
    /// It does not speak TLS 1.3, or not as it should.
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    /// It does not speak HTTP as it should.
    #[error("its answer is no proper HTTP: {0}")]
    Http(ureq::Error),
    /// It says no.
    #[error("it answers status {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its reasons, if it gives any.
        refusal: Option<Refusal>,
    },
    /// It says something that the protocol does not know.
    #[error("its answer to {path} can't be read: {source}")]
    Malformed {
        /// What was asked.
        path: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl CasError {
    /// Whether it may go away by itself: a CAS that is not up yet, or that is being restarted.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve(_) => true,
            Self::Io(error) => error.kind() != io::ErrorKind::InvalidData,
            _ => false,
        }
    }
}

impl From<ureq::Error> for CasError {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Timeout(_) => Self::Slow,
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::Slow,
            ureq::Error::Io(error) => Self::of_io(error),
            ureq::Error::Other(error) => match error.downcast::<ResolveError>() {
                Ok(error) => Self::Resolve(*error),
                Err(error) => Self::Http(ureq::Error::Other(error)),
            },
            error => Self::Http(error),
        }
    }
}

impl CasError {
    /// rustls reports its errors inside I/O errors.
    fn of_io(error: io::Error) -> Self {
        let Some(tls) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        else {
            return Self::Io(error);
        };
        if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = tls {
            if let Some(other) = other.0.downcast_ref::<OtherKey>() {
                return Self::OtherKey(other.to_string());
            }
        }
        Self::Tls(tls.clone())
    }
}

/// A client of one CAS.
pub struct Cas {
    agent: Agent,
    address: Address,
    key: [u8; 32],
}

impl Cas {
    /// A client of the CAS at this address that has this key (SHA-256 of its SubjectPublicKeyInfo).
    pub fn new(address: &Address, key: [u8; 32], patience: Patience) -> Result<Self, CasError> {
        let config = Config::builder()
            .https_only(true)
            // Proxies would come from the environment, which is the host's.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("sconify-runtime/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(patience.connect))
            .timeout_resolve(Some(patience.connect))
            .timeout_global(Some(patience.answer))
            .build();
        let connector = PinnedConnector::new(key).map_err(CasError::Tls)?;
        Ok(Self {
            agent: Agent::with_parts(config, connector, StubResolver),
            address: address.clone(),
            key,
        })
    }

    /// SHA-256 of the CAS key's SubjectPublicKeyInfo.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Asks for a nonce.
    pub fn challenge(&self, config_id: &str) -> Result<Challenge, CasError> {
        self.ask("/v1/challenge", &ChallengeRequest { config_id })
    }

    /// Shows evidence, and gets the sealed configuration.
    pub fn attest(&self, request: &AttestRequest) -> Result<AttestAnswer, CasError> {
        self.ask("/v1/attest", request)
    }

    /// What the program that was attested with this answer has to say later.
    pub(super) fn session(&self, token: Zeroizing<String>) -> Session {
        Session {
            address: self.address.clone(),
            key: self.key,
            token,
            reports: Mutex::default(),
        }
    }

    fn ask<T: DeserializeOwned>(
        &self,
        path: &'static str,
        request: &impl Serialize,
    ) -> Result<T, CasError> {
        let body = self.post(path, None, request)?;
        serde_json::from_slice(&body).map_err(|source| CasError::Malformed { path, source })
    }

    fn post(
        &self,
        path: &str,
        token: Option<&str>,
        request: &impl Serialize,
    ) -> Result<Zeroizing<Vec<u8>>, CasError> {
        let json = serde_json::to_vec(request).expect("requests are plain objects");
        self.send(path, token, &json)
    }

    fn send(
        &self,
        path: &str,
        token: Option<&str>,
        json: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CasError> {
        let mut post = self
            .agent
            .post(format!("https://{}{path}", self.address))
            .content_type("application/json");
        if let Some(token) = token {
            post = post.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = post.send(json)?;
        let status = response.status();
        let body = response
            .body_mut()
            .with_config()
            .limit(LARGEST_ANSWER)
            .read_to_vec()
            .map(Zeroizing::new)?;
        if !status.is_success() {
            let refusal = serde_json::from_slice(&body).ok();
            return Err(CasError::Refused {
                status: status.as_u16(),
                refusal,
            });
        }
        Ok(body)
    }
}

/// What is left of an attestation while the program runs: the ways to keep its place, to record states of its volumes, and to say how it ended.
pub struct Session {
    address: Address,
    key: [u8; 32],
    token: Zeroizing<String>,
    /// The client by which states of volumes are reported; it keeps its connection.
    reports: Mutex<Option<Cas>>,
}

impl Session {
    /// Tells the CAS how the program ended; once, and for a short time only.
    pub fn report_exit(&self, status: ExitStatus) -> Result<(), CasError> {
        let report = match status {
            ExitStatus::Exited(status) => ExitReport {
                status: Some(status),
                signal: None,
            },
            ExitStatus::Signalled(signal) => ExitReport {
                status: None,
                signal: Some(signal),
            },
        };
        let cas = Cas::new(&self.address, self.key, EXIT_PATIENCE)?;
        cas.post("/v1/exit", Some(&self.token), &report).map(drop)
    }

    /// Renews the lease of a service that runs once at a time; says for how long from now on.
    pub(super) fn renew(&self) -> Result<Duration, CasError> {
        let cas = Cas::new(&self.address, self.key, RENEWAL_PATIENCE)?;
        let path = "/v1/renew";
        let body = cas.send(path, Some(&self.token), &[])?;
        serde_json::from_slice(&body)
            .map(|renewed: Renewed| Duration::from_secs(renewed.expires_in))
            .map_err(|source| CasError::Malformed { path, source })
    }
}

impl Ledger for Session {
    fn record(&self, volume: &str, state: State) -> Result<(), LedgerError> {
        let report = StateReport {
            root: hex::encode(state.root),
            counter: state.counter,
        };
        let mut client = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = |client: &mut Option<Cas>| {
            if client.is_none() {
                *client = Some(Cas::new(&self.address, self.key, Patience::default())?);
            }
            let cas = client.as_ref().expect("it was just made");
            let path = format!("/v1/volumes/{volume}");
            cas.post(&path, Some(&self.token), &report).map(drop)
        };
        let result = attempt(&mut client);
        if result.is_err() {
            // The next attempt gets a connection of its own.
            *client = None;
        }
        result.map_err(|error| match &error {
            CasError::Refused {
                status: 409,
                refusal,
            } => {
                let reasons = refusal
                    .iter()
                    .flat_map(|refusal| refusal.msg.iter().cloned());
                let reasons: Vec<_> = std::iter::once(error.to_string()).chain(reasons).collect();
                LedgerError::Refused(reasons.join(": "))
            }
            error => LedgerError::Away(error.to_string()),
        })
    }
}
