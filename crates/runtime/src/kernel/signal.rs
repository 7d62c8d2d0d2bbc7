//! Signals of this process, and the ends of its children.

use std::mem;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::check;

/// Signals that a fault raises or that can't be caught: never forwarded.
const NOT_FORWARDED: &[i32] = &[
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];

/// The signal mask that this process had before [`SignalMask::block_all`].
pub struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// Blocks every signal that can be forwarded in this thread and those that it will start. Stops of traced threads raise no SIGCHLD from
    /// then on.
    pub fn block_all() -> Self {
        let mut before = empty();
        // SAFETY: the sets are initialised; the handler of SIGCHLD stays the default one.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = libc::SIG_DFL;
            action.sa_flags = libc::SA_NOCLDSTOP;
            libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut());
            libc::sigprocmask(libc::SIG_BLOCK, &waited(), &mut before);
        }
        Self(before)
    }

    /// Gives the calling process the default dispositions, for a child before its `exec`.
    pub(super) fn reset_dispositions(&self) {
        for signal in 1..=64 {
            // SAFETY: the default handler; the numbers that can't be set fail without effect.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }

    /// Puts the mask back.
    pub fn restore(&self) {
        // SAFETY: the set was filled in by the kernel.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

fn empty() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        set
    }
}

/// Every signal that is forwarded, and SIGCHLD.
fn waited() -> libc::sigset_t {
    let mut set = empty();
    // SAFETY: the set is initialised.
    unsafe {
        libc::sigfillset(&mut set);
        for &signal in NOT_FORWARDED {
            libc::sigdelset(&mut set, signal);
        }
    }
    set
}

/// Waits for the next signal to this process.
pub fn wait() -> i32 {
    let set = waited();
    loop {
        // SAFETY: the set is initialised; no details are asked for.
        let signal = unsafe { libc::sigwaitinfo(&set, std::ptr::null_mut()) };
        if signal > 0 {
            return signal;
        }
    }
}

/// Sends a signal to a process; that it is gone is no error.
pub fn send(process: i32, signal: i32) {
    debug_assert!(process > 0, "other numbers mean groups");
    // SAFETY: plain numbers.
    unsafe { libc::kill(process, signal) };
}

/// Kills all processes of this namespace but its first one, which must be this process.
pub fn kill_all_others() {
    // SAFETY: plain numbers.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

impl End {
    pub(super) fn of(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            Self::Exited(libc::WEXITSTATUS(status))
        } else {
            Self::Signalled(libc::WTERMSIG(status))
        }
    }
}

/// Ends of children that were taken by threads that traced them.
static TAKEN: Mutex<Vec<(i32, End)>> = Mutex::new(Vec::new());

/// Notes the end of a traced thread, which may have been a child of this process, for [`reap`].
pub(super) fn record_end(process: i32, status: i32) {
    TAKEN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((process, End::of(status)));
    send(std::process::id() as i32, libc::SIGCHLD);
}

/// Reaps one child of the calling thread that has ended, if there is one. Must not run while a thread is being traced: it could take the
/// tracer's events.
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub fn reap() -> Result<Option<(i32, End)>, Errno> {
    if let Some(taken) = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).pop() {
        return Ok(Some(taken));
    }
    let mut status = 0;
    // SAFETY: waitpid writes one status.
    let process =
        check(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WNOTHREAD) }.into())?
            as i32;
    Ok((process > 0).then(|| (process, End::of(status))))
}
