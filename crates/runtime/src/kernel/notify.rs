//! Seccomp user notification: receiving trapped calls and answering them.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::{check, last_error};

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`: the answering side is woken on the same processor (kernel 6.6).
const SYNC_WAKE_UP: u64 = 1;

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// What the kernel calls this wait.
    pub id: u64,
    /// The calling thread.
    pub thread: i32,
    /// The number of the call.
    pub number: i64,
    /// Its arguments, as in the registers.
    pub arguments: [u64; 6],
}

/// The listener of a filter.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes a listener's descriptor, and asks for quick wake-ups where the kernel can.
    pub fn new(descriptor: OwnedFd) -> Self {
        // SAFETY: the request takes its flags by value; a kernel that does not know it refuses it, which costs speed only.
        unsafe {
            libc::ioctl(
                descriptor.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SYNC_WAKE_UP,
            )
        };
        Self(descriptor)
    }

    /// Waits for the next trapped call.
    ///
    /// # Errors
    /// [`Errno::PIPE`] when nobody is left under the filter; anything else is a defect.
    pub fn receive(&self) -> Result<Notification, Errno> {
        loop {
            // SAFETY: all zeroes is a valid value, and the one that the kernel demands.
            let mut raw: libc::seccomp_notif = unsafe { mem::zeroed() };
            // SAFETY: the request writes one `seccomp_notif`.
            let status =
                unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut raw) };
            if status == 0 {
                return Ok(Notification {
                    id: raw.id,
                    thread: raw.pid as i32,
                    number: i64::from(raw.data.nr),
                    arguments: raw.data.args,
                });
            }
            match last_error() {
                // The caller was killed in between, or nobody is left.
                Errno::NOENT if self.is_abandoned() => return Err(Errno::PIPE),
                Errno::NOENT | Errno::INTR => {}
                error => return Err(error),
            }
        }
    }

    fn is_abandoned(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut descriptors, Some(&Timespec::default())).is_ok()
            && descriptors[0].revents().contains(PollFlags::HUP)
    }

    /// Whether the caller still waits. Whatever was read about the thread before counts only if so: its number may have been reused.
    pub fn is_waiting(&self, id: u64) -> bool {
        // SAFETY: the request reads one u64.
        unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0 }
    }

    /// Makes the call return `value`.
    pub fn answer(&self, id: u64, value: i64) {
        self.send(id, value, 0, 0);
    }

    /// Makes the call fail.
    pub fn fail(&self, id: u64, error: Errno) {
        self.send(id, 0, -error.raw_os_error(), 0);
    }

    /// Lets the kernel carry out the call.
    pub fn pass(&self, id: u64) {
        self.send(id, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
    }

    fn send(&self, id: u64, value: i64, error: i32, flags: u32) {
        let mut response = libc::seccomp_notif_resp {
            id,
            val: value,
            error,
            flags,
        };
        // A failure means that the caller was killed: there is nobody to answer.
        // SAFETY: the request reads one `seccomp_notif_resp`.
        unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response) };
    }

    /// Installs a descriptor in the caller and makes the call return its number.
    ///
    /// # Errors
    /// What installing it gave, `EMFILE` for instance; the call still waits then.
    pub fn answer_descriptor(
        &self,
        id: u64,
        file: impl AsFd,
        close_on_exec: bool,
    ) -> Result<(), Errno> {
        self.add(
            id,
            file.as_fd(),
            libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            0,
            close_on_exec,
        )
        .map(drop)
    }

    /// Installs a descriptor in the caller at the lowest free number and returns the number; the call still waits.
    ///
    /// # Errors
    /// What installing it gave, `EMFILE` for instance.
    pub fn install(&self, id: u64, file: impl AsFd, close_on_exec: bool) -> Result<RawFd, Errno> {
        self.add(id, file.as_fd(), 0, 0, close_on_exec)
    }

    /// Installs a descriptor in the caller at this number, replacing what is there; the call still waits.
    ///
    /// # Errors
    /// `EBADF` if the number is above the caller's limit.
    pub fn install_at(
        &self,
        id: u64,
        file: impl AsFd,
        number: RawFd,
        close_on_exec: bool,
    ) -> Result<(), Errno> {
        self.add(
            id,
            file.as_fd(),
            libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            number,
            close_on_exec,
        )
        .map(drop)
    }

    fn add(
        &self,
        id: u64,
        file: BorrowedFd,
        flags: u32,
        number: RawFd,
        close_on_exec: bool,
    ) -> Result<RawFd, Errno> {
        let request = libc::seccomp_notif_addfd {
            id,
            flags,
            srcfd: file.as_raw_fd() as u32,
            newfd: number as u32,
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC as u32
            } else {
                0
            },
        };
        loop {
            // SAFETY: the request reads one `seccomp_notif_addfd`.
            let status =
                unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &request) };
            match check(status.into()) {
                Ok(number) => return Ok(number as RawFd),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn raw(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
