//! Which commits of a volume the CAS was told of, and who waits until it was.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sconify_volume::State;

use super::mount::Mount;

/// How long commits are gathered for one report.
const BATCH: Duration = Duration::from_millis(500);
/// Pause before the CAS is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Commits without a confirmed report: the history of a volume reaches back 65,536, and commits under way count too.
const MOST_UNCONFIRMED: u64 = 65_000;

/// Why a state was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Nobody answers, or can decide now.
    #[error("{0}")]
    Away(String),
    /// It says no, for good: another run has the volume.
    #[error("{0}")]
    Refused(String),
}

/// Who records the newest states of volumes.
pub trait Ledger: Send + Sync {
    /// Records the state of a volume, durably.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn record(&self, volume: &str, state: State) -> Result<(), LedgerError>;
}

/// The reports of one volume.
pub struct Reports {
    name: String,
    ledger: Arc<dyn Ledger>,
    is_strict: bool,
    patience: Duration,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    committed: State,
    confirmed: State,
    /// Since when something has been committed that is not confirmed.
    behind_since: Option<Instant>,
    /// Whether nothing more is to be gathered.
    is_ending: bool,
}

impl Reports {
    /// Begins with a state that is recorded.
    pub fn new(mount: &Mount, ledger: Arc<dyn Ledger>, state: State) -> Self {
        Self {
            name: mount.name.clone(),
            ledger,
            is_strict: mount.strict,
            patience: mount.patience,
            progress: Mutex::new(Progress {
                committed: state,
                confirmed: state,
                behind_since: None,
                is_ending: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more commit may be made: too many without a report could not be told from a fork.
    pub fn admit(&self) {
        let mut progress = self.progress();
        let mut is_told = false;
        loop {
            let unconfirmed = progress.committed.counter - progress.confirmed.counter;
            let is_late = progress
                .behind_since
                .is_some_and(|since| since.elapsed() > self.patience);
            if unconfirmed < MOST_UNCONFIRMED && !is_late {
                return;
            }
            if !is_told {
                error!(
                    "volume {}: the CAS does not record its state; nothing more is written until it does",
                    self.name
                );
                is_told = true;
            }
            progress = self
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes what was committed; it is recorded once [`Reports::run`] runs.
    pub fn note(&self, state: State) {
        let mut progress = self.progress();
        if state.counter > progress.committed.counter {
            progress.committed = state;
            progress.behind_since.get_or_insert_with(Instant::now);
            self.changed.notify_all();
        }
    }

    /// Notes what was committed; waits until it is recorded if the policy wants so.
    pub fn committed(&self, state: State) {
        self.note(state);
        let mut progress = self.progress();
        while self.is_strict && progress.confirmed.counter < state.counter {
            progress = self
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reports for ever; `refused` is called when another run has taken the volume over.
    pub fn run(&self, refused: impl Fn(&str, &str)) {
        let mut was_away = false;
        loop {
            let state = self.next();
            match self.ledger.record(&self.name, state) {
                Ok(()) => {
                    if std::mem::take(&mut was_away) {
                        warn!("volume {}: the CAS records its states again", self.name);
                    }
                    self.confirm(state);
                }
                Err(LedgerError::Refused(reason)) => {
                    refused(&self.name, &reason);
                    return;
                }
                Err(LedgerError::Away(reason)) => {
                    if !std::mem::replace(&mut was_away, true) {
                        warn!(
                            "volume {}: the CAS does not record its state: {reason}; trying again, for {} s at most before writers wait",
                            self.name,
                            self.patience.as_secs()
                        );
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Waits for something to report, and a little longer for more of it.
    fn next(&self) -> State {
        let mut progress = self.progress();
        loop {
            if let Some(since) = progress.behind_since {
                let left = BATCH.saturating_sub(since.elapsed());
                if self.is_strict || progress.is_ending || left.is_zero() {
                    return progress.committed;
                }
                progress = self
                    .changed
                    .wait_timeout(progress, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            } else {
                progress = self
                    .changed
                    .wait(progress)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn confirm(&self, state: State) {
        let mut progress = self.progress();
        progress.confirmed = state;
        let is_behind = progress.committed.counter > state.counter;
        progress.behind_since = is_behind.then(Instant::now);
        self.changed.notify_all();
    }

    /// Waits until everything is recorded, for a while at most; returns whether it is.
    pub fn finish(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut progress = self.progress();
        progress.is_ending = true;
        self.changed.notify_all();
        while progress.confirmed.counter < progress.committed.counter {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            progress = self
                .changed
                .wait_timeout(progress, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
