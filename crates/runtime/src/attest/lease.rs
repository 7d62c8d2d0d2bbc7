//! The lease of a service that runs once at a time: it is renewed while the program runs. A run that can't renew it ends before the CAS gives the
//! place to another one.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cas::{CasError, Session};

/// A renewal is tried when this part of the time has passed.
const RENEWED_AFTER: u32 = 3;
/// How long is waited after an attempt that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a run has to end.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The CAS says that it has.
    #[error("the CAS does not renew the place of this run")]
    Refused(#[source] CasError),
    /// Nobody else has been given the place yet.
    #[error("the CAS could not be asked to renew the place of this run, which has expired")]
    Expired(#[source] CasError),
}

/// The place of a run, as long as it is renewed.
pub struct Lease {
    session: Arc<Session>,
    since: Instant,
    time: Duration,
}

impl Lease {
    /// A lease for this `time`, which began no later than at `since`.
    pub(super) fn new(session: Arc<Session>, since: Instant, time: Duration) -> Self {
        Self {
            session,
            since,
            time,
        }
    }

    /// Renews the lease for ever; returns when that is no longer possible.
    pub fn keep(self) -> LeaseError {
        let Self {
            session,
            since,
            time,
        } = self;
        keep(since, time, || session.renew(), sleep, Instant::now)
    }
}

/// [`Lease::keep`] with the ways to renew, to wait, and to know the time.
fn keep(
    mut since: Instant,
    mut time: Duration,
    renew: impl Fn() -> Result<Duration, CasError>,
    wait: impl Fn(Duration),
    now: impl Fn() -> Instant,
) -> LeaseError {
    loop {
        wait((since + time / RENEWED_AFTER).saturating_duration_since(now()));
        loop {
            let asked = now();
            match renew() {
                Ok(renewed) => {
                    (since, time) = (asked, renewed);
                    break;
                }
                Err(error @ CasError::Refused { status, .. }) if status < 500 => {
                    return LeaseError::Refused(error)
                }
                Err(error) if now() + PAUSE >= since + time => return LeaseError::Expired(error),
                Err(error) => {
                    crate::info!("the place of this run was not renewed: {error}; trying again");
                    wait(PAUSE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn refused(status: u16) -> CasError {
        CasError::Refused {
            status,
            refusal: None,
        }
    }

    /// How a lease of a minute ends, and at which seconds it was tried to renew it. `answer` gets the number of the attempt.
    fn kept(answer: impl Fn(usize) -> Result<Duration, CasError>) -> (LeaseError, Vec<u64>) {
        let start = Instant::now();
        let clock = Cell::new(start);
        let attempts = RefCell::new(Vec::new());
        let renew = || {
            let mut attempts = attempts.borrow_mut();
            attempts.push((clock.get() - start).as_secs());
            answer(attempts.len())
        };
        let wait = |time| clock.set(clock.get() + time);
        let error = keep(start, MINUTE, renew, wait, || clock.get());
        (error, attempts.into_inner())
    }

    #[test]
    fn it_is_renewed_in_good_time_until_another_run_has_the_place() {
        let (error, attempts) = kept(|attempt| match attempt {
            4 => Err(refused(409)),
            _ => Ok(MINUTE),
        });
        assert!(matches!(error, LeaseError::Refused(_)));
        assert_eq!(attempts, [20, 40, 60, 80]);
    }

    #[test]
    fn a_cas_that_is_away_for_a_while_is_asked_again() {
        let (_, attempts) = kept(|attempt| match attempt {
            1..10 => Err(CasError::Slow),
            10 => Ok(MINUTE),
            _ => Err(refused(403)),
        });
        assert_eq!(attempts, [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 49]);
    }

    #[test]
    fn a_run_ends_before_its_place_is_given_away() {
        let (error, attempts) = kept(|_| Err(refused(503)));
        assert!(matches!(error, LeaseError::Expired(_)));
        assert_eq!((attempts.first(), attempts.last()), (Some(&20), Some(&59)));
    }
}
