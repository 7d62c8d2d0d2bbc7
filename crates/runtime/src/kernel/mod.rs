//! The only module that talks to the kernel by unsafe means; each file wraps one of its facilities.

pub mod filter;
pub mod mapping;
pub mod notify;
pub mod process;
pub mod signal;
pub mod standby;
pub mod thread;
pub mod trace;

use rustix::io::Errno;

/// Turns the return value of a libc function into a result.
fn check(value: libc::c_long) -> Result<libc::c_long, Errno> {
    if value < 0 {
        Err(last_error())
    } else {
        Ok(value)
    }
}

/// The calling thread's `errno`.
fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
