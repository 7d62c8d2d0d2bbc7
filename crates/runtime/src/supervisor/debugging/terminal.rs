//! A terminal for a command: the one that the engine gave us can't be that of a session that it did not start, so the command gets another one,
//! and what is typed and shown is passed on between both.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{read, write, Errno};
use rustix::pty::{grantpt, ioctl_tiocgptpeer, openpt, unlockpt, OpenptFlags};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize, OptionalActions, Termios,
};

/// How often the size of our terminal is looked at.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

/// Whether a descriptor is a terminal.
pub fn is_one(stream: BorrowedFd) -> bool {
    isatty(stream)
}

/// Our terminal, which passes on everything while this exists, and another one.
pub struct Relay {
    outer: OwnedFd,
    inner: Option<OwnedFd>,
    before: Termios,
}

impl Relay {
    /// Makes the other terminal.
    ///
    /// # Errors
    /// If `/dev/pts` has none, or ours does not obey.
    pub fn new() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let outer = openpt(flags)?;
        grantpt(&outer)?;
        unlockpt(&outer)?;
        let inner = ioctl_tiocgptpeer(&outer, flags)?;
        let before = tcgetattr(stdin())?;
        tcsetattr(&inner, OptionalActions::Now, &before)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self {
            outer,
            inner: Some(inner),
            before,
        })
    }

    /// The other terminal, for the command.
    pub fn inner(&self) -> BorrowedFd<'_> {
        self.inner
            .as_ref()
            .map_or(self.outer.as_fd(), |inner| inner.as_fd())
    }

    /// Passes on until nobody has the other terminal open, or `end` tells the end of the command.
    ///
    /// # Errors
    /// What reading and writing the terminals gives.
    pub fn run(mut self, end: BorrowedFd) -> io::Result<()> {
        self.inner = None;
        let mut buffer = [0; 4096];
        let mut has_input = true;
        loop {
            if let Ok(size) = tcgetwinsize(stdin()) {
                if tcgetwinsize(&self.outer).ok() != Some(size) {
                    let _ = tcsetwinsize(&self.outer, size);
                }
            }
            let mut all = [
                PollFd::new(&self.outer, PollFlags::IN),
                PollFd::from_borrowed_fd(end, PollFlags::IN),
                PollFd::from_borrowed_fd(stdin(), PollFlags::IN),
            ];
            let watched = if has_input {
                &mut all[..]
            } else {
                &mut all[..2]
            };
            match poll(watched, Some(&TICK)) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let [shown, ended, typed] = all.map(|one| !one.revents().is_empty());
            if shown {
                match read(&self.outer, &mut buffer) {
                    // Nobody has it open any more.
                    Ok(0) | Err(Errno::IO) => return Ok(()),
                    Ok(count) => write_all(stdout(), &buffer[..count])?,
                    Err(error) => return Err(error.into()),
                }
            } else if ended {
                return Ok(());
            }
            if typed && has_input {
                match read(stdin(), &mut buffer)? {
                    0 => has_input = false,
                    count => write_all(self.outer.as_fd(), &buffer[..count])?,
                }
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

fn write_all(stream: BorrowedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(stream, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
