//! A second program that can be started under the filter of the first one, over and over: the health check.
//!
//! The kernel allows no second listener beside a filter, and whoever is to be served must inherit the filter. So the child that will become the
//! program forks off a sibling before, which has the filter too, waits for orders, and forks and executes on each.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_char, c_int, c_long};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{read, write, Errno};

use super::process::{exit, Image};
use super::signal::{End, SignalMask};
use super::{check, last_error};

/// What is executed on each order.
pub struct Standby {
    /// The program.
    pub image: Image,
    /// What it gets as standard input, output and error.
    pub null: OwnedFd,
}

/// Where orders go to.
pub struct Orders(OwnedFd);

impl Orders {
    pub(super) fn new(channel: OwnedFd) -> Self {
        Self(channel)
    }

    /// Has the program run, and waits for its end. When `asker` hangs up, it is killed.
    ///
    /// # Errors
    /// `EPIPE` if nobody takes orders any more.
    pub fn run(&self, asker: BorrowedFd) -> Result<End, Errno> {
        write(&self.0, b"!")?;
        let process = self.receive()?;
        let gone = PollFlags::RDHUP | PollFlags::HUP;
        loop {
            let mut both = [
                PollFd::new(&self.0, PollFlags::IN),
                PollFd::from_borrowed_fd(asker, gone),
            ];
            match poll(&mut both, None) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let is_gone = both[1].revents().intersects(gone | PollFlags::ERR);
            if both[0].revents().is_empty() && is_gone && process > 0 {
                // SAFETY: plain numbers; the group is the program's, which has not been waited for.
                unsafe { libc::kill(-process, libc::SIGKILL) };
            }
            if is_gone || !both[0].revents().is_empty() {
                return Ok(End::of(self.receive()?));
            }
        }
    }

    fn receive(&self) -> Result<c_int, Errno> {
        let mut number = [0; 4];
        match read(&self.0, &mut number)? {
            4 => Ok(c_int::from_ne_bytes(number)),
            _ => Err(Errno::PIPE),
        }
    }
}

/// The pointers that `exec` takes, made before the fork.
pub(super) struct Words<'a> {
    pub arguments: &'a [*const c_char],
    pub environment: &'a [*const c_char],
}

/// In the child that will be the program: forks off the sibling. It takes orders from `channel` and has nothing else of the child's open that
/// somebody waits for the end of: `gate` is closed.
pub(super) fn fork_off(
    standby: &Standby,
    words: &Words,
    mask: &SignalMask,
    (channel, gate): (&OwnedFd, &OwnedFd),
    parent: i32,
) -> Result<(), Errno> {
    if clone(libc::CLONE_PARENT, standby.image.cookie)? != 0 {
        return Ok(());
    }
    // SAFETY: plain system calls on descriptors that this process does not use any more.
    unsafe {
        libc::close(gate.as_raw_fd());
        libc::setpgid(0, 0);
        for number in 0..3 {
            libc::dup2(standby.null.as_raw_fd(), number);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(0);
        }
    }
    loop {
        if !matches!(read(channel, &mut [0; 1]), Ok(1)) {
            exit(0);
        }
        let process = clone(0, standby.image.cookie).unwrap_or(-1);
        if process == 0 {
            execute(&standby.image, words, mask);
            exit(127);
        }
        let _ = write(channel, &process.to_ne_bytes());
        let mut status = 127 << 8;
        if process > 0 {
            // SAFETY: plain numbers, and waitpid writes one status. The child does the same, whoever comes first.
            unsafe {
                libc::setpgid(process, process);
                while libc::waitpid(process, &mut status, 0) < 0 && last_error() == Errno::INTR {}
            }
        }
        let _ = write(channel, &status.to_ne_bytes());
    }
}

/// Forks, where a filter forbids it to all who don't know the cookie.
fn clone(flags: c_int, cookie: u64) -> Result<c_int, Errno> {
    // SAFETY: without CLONE_VM this is a fork; the unused sixth argument is for the filter. The caller has one thread.
    let process = unsafe {
        libc::syscall(
            libc::SYS_clone,
            c_long::from(flags | libc::SIGCHLD),
            0,
            0,
            0,
            0,
            cookie,
        )
    };
    check(process).map(|process| process as c_int)
}

fn execute(image: &Image, words: &Words, mask: &SignalMask) {
    const EMPTY: &CStr = c"";
    // SAFETY: plain system calls; the arrays end with null pointers, and their strings outlive the calls.
    unsafe {
        libc::setpgid(0, 0);
        if libc::fchdir(image.working_directory.as_raw_fd()) != 0 {
            return;
        }
        if let Some((loader, number)) = &image.loader {
            if libc::dup3(loader.as_raw_fd(), *number, libc::O_CLOEXEC) < 0 {
                return;
            }
        }
        mask.restore();
        libc::syscall(
            libc::SYS_execveat,
            image.program.as_raw_fd(),
            EMPTY.as_ptr(),
            words.arguments.as_ptr(),
            words.environment.as_ptr(),
            libc::AT_EMPTY_PATH,
            image.cookie,
        );
    }
}
