//! Attestation: shows the CAS what runs here, and gets the configuration of the program (docs/protocol.md, section 4).

mod access;
mod cas;
mod jose;
mod las;
mod lease;
mod protocol;
mod tls;

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use access::{AccessError, AccessToken};
pub use cas::{Cas, CasError, Patience, Session};
pub use jose::{JoseError, Signed};
pub use las::{Las, LasError};
pub use lease::{Lease, LeaseError};
pub use protocol::{Evidence, Nonce, Refusal, ReportData};

use crate::config::{ConfigError, Configuration};
use protocol::AttestRequest;

/// Makes evidence that binds data to what runs here.
pub trait Attester {
    /// Why there is none.
    type Error: std::error::Error;

    /// Makes evidence for this data.
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, Self::Error>;
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The CAS.
    #[error("the CAS gives no configuration")]
    Cas(#[from] CasError),
    /// The LAS.
    #[error("the LAS gives no evidence")]
    Las(#[from] LasError),
    /// What the CAS sealed.
    #[error("the sealed configuration is refused")]
    Sealed(#[from] JoseError),
    /// What the CAS signed.
    #[error("the configuration is refused")]
    Config(#[from] ConfigError),
    /// The service access token.
    #[error("the service access token")]
    Access(#[from] AccessError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl AttestError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Cas(error) => error.is_transient(),
            Self::Las(error) => error.is_transient(),
            _ => false,
        }
    }
}

/// What a successful attestation gives.
pub struct Attested {
    /// The configuration of the program.
    pub configuration: Configuration,
    /// The way to report its end.
    pub session: Arc<Session>,
    /// What this run must renew, if the service runs once at a time.
    pub lease: Option<Lease>,
}

/// Who attests.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// `SESSION/SERVICE`.
    pub config_id: &'a str,
    /// The service access token, if it was started with one.
    pub access_token: Option<&'a AccessToken>,
}

/// How long services that can't be reached are tried again: they may be starting at the same time as we.
pub const RETRY_TIME: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Attests to the CAS; tries again for `retry_time` while a service can't be reached.
pub fn attest<A>(
    attester: &A,
    cas: &Cas,
    claim: Claim,
    retry_time: Duration,
) -> Result<Attested, AttestError>
where
    A: Attester,
    AttestError: From<A::Error>,
{
    let end = Instant::now() + retry_time;
    let mut pause = FIRST_PAUSE;
    loop {
        match attest_once(attester, cas, claim) {
            Err(error) if error.is_transient() && Instant::now() + pause < end => {
                let cause = std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                if pause == FIRST_PAUSE {
                    crate::warn!(
                        "{error}: {cause}; trying again for {} s",
                        retry_time.as_secs()
                    );
                } else {
                    crate::debug!("{error}: {cause}; trying again");
                }
                sleep(pause);
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            result => return result,
        }
    }
}

/// One attempt, with a nonce and a key of its own.
fn attest_once<A>(attester: &A, cas: &Cas, claim: Claim) -> Result<Attested, AttestError>
where
    A: Attester,
    AttestError: From<A::Error>,
{
    let Claim {
        config_id,
        access_token,
    } = claim;
    let nonce = cas.challenge(config_id)?.nonce;
    let key = jose::EphemeralKey::generate().ok_or(AttestError::NoRandomness)?;
    let report_data = protocol::report_data(&nonce.0, key.point(), config_id);
    let evidence = attester.evidence(&report_data)?;
    if evidence.kind().as_deref() == Some("simulated") {
        crate::warn!("The platform is simulated: the host can read the program's memory and forge its evidence. Not for production.");
    }
    let asked = Instant::now();
    let answer = cas.attest(&AttestRequest {
        config_id,
        nonce: nonce.encoded(),
        public_key: key.jwk(),
        evidence: &evidence,
        access_proof: access_token.map(|token| token.proof(&report_data)),
    })?;
    let signed = jose::verify(&key.open(&answer.sealed)?, cas.key())?;
    let configuration = Configuration::read(&signed, config_id, &nonce)?;
    access::check(access_token, configuration.access_proof(), &report_data)?;
    let session = Arc::new(cas.session(answer.session_token));
    let lease = configuration
        .lease()
        .map(|time| Lease::new(Arc::clone(&session), asked, time));
    Ok(Attested {
        configuration,
        session,
        lease,
    })
}
