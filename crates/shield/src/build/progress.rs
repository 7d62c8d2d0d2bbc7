//! Tells the caller how far the work is, and asks whether to go on.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::error::ShieldError;

/// The least time between two reports.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Progress<'a> {
    report: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    done: u64,
    last: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn new(report: &'a mut dyn FnMut(u64) -> ControlFlow<()>) -> Self {
        Self {
            report,
            done: 0,
            last: Instant::now(),
        }
    }

    /// Counts bytes; reports them if the last report was long enough ago.
    pub(super) fn advance(&mut self, bytes: u64) -> Result<(), ShieldError> {
        self.done += bytes;
        if self.last.elapsed() < INTERVAL {
            return Ok(());
        }
        self.finish()
    }

    /// Reports the bytes so far.
    pub(super) fn finish(&mut self) -> Result<(), ShieldError> {
        self.last = Instant::now();
        match (self.report)(self.done) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ShieldError::Cancelled),
        }
    }
}
