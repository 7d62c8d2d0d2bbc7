//! `kill` without a signal, by which programs ask whether the process of a number lives.
//!
//! The number of a thread names its process too, so a number that stands in a file since the last run may be one of a thread of the supervisor, and
//! who looks for the process that wrote it would find one: PostgreSQL does not start then. None of those threads is a process to the program.

use std::path::Path;

use rustix::io::Errno;

use super::call::{Answer, Call, Reply};

/// Serves `kill(PROCESS, 0)`.
pub fn probe(call: &Call) -> Reply {
    let process = call.int(0);
    if process > 1 && Path::new(&format!("/proc/self/task/{process}")).exists() {
        return Err(Errno::SRCH);
    }
    Ok(Answer::Pass)
}
