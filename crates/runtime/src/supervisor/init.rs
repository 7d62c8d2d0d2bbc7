//! What process 1 owes its container: signals are passed on, orphans are reaped, and nothing outlives the program.

use std::fs;
use std::sync::{PoisonError, RwLock};

use rustix::io::Errno;

use crate::executor::ExitStatus;
use crate::kernel::signal::{self, End};

/// Waits for the end of `child`, passing signals on to it and reaping whatever else ends.
pub fn supervise(child: i32, tracing: &RwLock<()>) -> ExitStatus {
    let end = loop {
        if let Some(end) = reap_all(child, tracing) {
            break end;
        }
        match signal::wait() {
            libc::SIGCHLD => {}
            signal => signal::send(child, signal),
        }
    };
    end_all(tracing);
    match end {
        End::Exited(code) => ExitStatus::Exited(code),
        End::Signalled(signal) => ExitStatus::Signalled(signal),
    }
}

fn reap_all(child: i32, tracing: &RwLock<()>) -> Option<End> {
    // A wait for any child could take an event from a worker that traces one.
    let _exclusive = tracing.write().unwrap_or_else(PoisonError::into_inner);
    let mut result = None;
    while let Ok(Some((process, end))) = signal::reap() {
        if process == child {
            result = Some(end);
        }
    }
    result
}

/// Kills what the program has left behind. Orphans become our children, so the rounds end when there are none.
fn end_all(tracing: &RwLock<()>) {
    loop {
        for process in children() {
            signal::send(process, libc::SIGKILL);
        }
        {
            let _exclusive = tracing.write().unwrap_or_else(PoisonError::into_inner);
            loop {
                match signal::reap() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(Errno::CHILD) => return,
                    Err(_) => return,
                }
            }
        }
        if !children().is_empty() {
            // Killed processes end in their own time, and tell.
            signal::wait();
        }
    }
}

/// The processes whose parent we are.
fn children() -> Vec<i32> {
    let ours = format!("{}", std::process::id());
    let parent = |process: i32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        Some(
            status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:"))?
                .trim()
                .to_owned(),
        )
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes
        .filter(|process| parent(*process).as_ref() == Some(&ours))
        .collect()
}
