//! What process 1 owes its container: signals are passed on, orphans are reaped, and nothing outlives the program.

use std::fs;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{PoisonError, RwLock};

use rustix::io::Errno;

use crate::executor::ExitStatus;
use crate::kernel::process::exit;
use crate::kernel::signal::{self, End};

/// The exit code of a runtime that has ended its program, or 0.
static VERDICT: AtomicI32 = AtomicI32::new(0);

/// Ends the program and this process, because what the program would go on with can't be trusted.
pub fn end(code: i32) -> ! {
    VERDICT.store(code, Ordering::Release);
    kill_children();
    exit(code);
}

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
    if VERDICT.load(Ordering::Acquire) != 0 {
        exit(VERDICT.load(Ordering::Acquire));
    }
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
        kill_children();
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

/// Kills the program and what it has left to us.
fn kill_children() {
    if std::process::id() == 1 {
        // All at once: what is not our child would go on until this process has ended, and its calls would fail meanwhile.
        signal::kill_all_others();
    }
    for process in children() {
        signal::send(process, libc::SIGKILL);
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
