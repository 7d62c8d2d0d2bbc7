//! Making the first process, and the settings of this one.

use std::ffi::{CStr, CString};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::sock_filter;
use rustix::io::Errno;
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::signal::SignalMask;
use super::standby::{self, Orders};
use super::{check, last_error};

/// What the first process executes.
pub struct Image {
    /// The verified program, executable.
    pub program: OwnedFd,
    /// The verified loader and the number at which the program expects it, if the program has one.
    pub loader: Option<(OwnedFd, RawFd)>,
    /// `argv`.
    pub arguments: Vec<CString>,
    /// `envp`.
    pub environment: Vec<CString>,
    /// The directory to start in.
    pub working_directory: OwnedFd,
    /// The sixth argument with which `execveat` passes the filter.
    pub cookie: u64,
}

/// The step of the start that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
pub struct StartError {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel says.
    pub error: Errno,
}

/// The steps that can fail in the child, in the order of the numbers that it reports.
const STEPS: &[&str] = &[
    "changing to the working directory",
    "setting no_new_privs",
    "installing the seccomp filter with a listener (needs kernel 5.19 and no other supervisor around this container)",
    "placing the loader's descriptor below the limit of open files",
    "executing the program",
    "making the process that starts further programs",
];

/// Before it stands a child that is ready to execute its program.
pub struct Gate(OwnedFd);

impl Gate {
    /// Lets the child execute its program; returns when it has.
    ///
    /// # Errors
    /// What its `exec` gave.
    pub fn release(self) -> Result<(), StartError> {
        rustix::io::write(&self.0, b"!").map_err(|error| StartError {
            step: "releasing the program",
            error,
        })?;
        let mut report = [0; 8];
        match rustix::io::read(&self.0, &mut report) {
            Ok(0) => Ok(()),
            Ok(_) => Err(decode(report)),
            Err(error) => Err(StartError {
                step: "waiting for the program",
                error,
            }),
        }
    }
}

/// A child that was forked, behind its gate.
pub struct Started {
    /// Its process id.
    pub process: i32,
    /// The listener of its filter.
    pub listener: OwnedFd,
    /// What lets it go on.
    pub gate: Gate,
    /// Orders for further programs, if there may be any.
    pub orders: Option<Orders>,
}

/// Forks a child that puts itself under `filter`. To be called while this process has one thread only.
///
/// The child becomes the leader of a process group of its own, in the foreground if this process has a terminal; it gets
/// default signal dispositions and the signal mask `mask`. With `null`, an open `/dev/null`, it makes a sibling that starts further programs on order.
///
/// # Errors
/// The step that failed.
pub fn start(
    image: &Image,
    filter: &[sock_filter],
    mask: &SignalMask,
    null: Option<&OwnedFd>,
) -> Result<Started, StartError> {
    let failed = |step| move |error| StartError { step, error };
    let pair = |kind| {
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(failed("making a socket pair"))
    };
    let (ours, theirs) = pair(SocketType::SEQPACKET)?;
    let (orders, order_taker) = null.map(|_| pair(SocketType::STREAM)).transpose()?.unzip();
    let sibling = null.zip(order_taker.as_ref());
    let parent = std::process::id() as i32;
    // SAFETY: there is one thread, so the child has a consistent copy of everything.
    let process = check(unsafe { libc::fork() }.into()).map_err(failed("forking"))? as i32;
    if process == 0 {
        drop((ours, orders));
        let (step, error) = child(image, filter, mask, &theirs, parent, sibling);
        let mut report = [0; 8];
        report[..4].copy_from_slice(&(step as u32).to_ne_bytes());
        report[4..].copy_from_slice(&error.raw_os_error().to_ne_bytes());
        let _ = rustix::io::write(&theirs, &report);
        exit(127);
    }
    drop(theirs);

    let mut report = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        &ours,
        &mut [IoSliceMut::new(&mut report)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(failed("receiving the listener"))?;
    let listener = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match listener {
        Some(listener) => Ok(Started {
            process,
            listener,
            gate: Gate(ours),
            orders: orders.map(Orders::new),
        }),
        None if received.bytes == report.len() => Err(decode(report)),
        None => Err(StartError {
            step: "waiting for the listener",
            error: Errno::PIPE,
        }),
    }
}

fn decode(report: [u8; 8]) -> StartError {
    let step = u32::from_ne_bytes(report[..4].try_into().expect("four bytes")) as usize;
    let error = i32::from_ne_bytes(report[4..].try_into().expect("four bytes"));
    StartError {
        step: STEPS.get(step).copied().unwrap_or("starting"),
        error: Errno::from_raw_os_error(error),
    }
}

/// The pointers that `exec` takes, null at the end.
pub(super) fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|text| text.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// What the child does; returns only when a step fails.
fn child(
    image: &Image,
    filter: &[sock_filter],
    mask: &SignalMask,
    channel: &OwnedFd,
    parent: i32,
    sibling: Option<(&OwnedFd, &OwnedFd)>,
) -> (usize, Errno) {
    // SAFETY: plain system calls; failures leave the process in the parent's group, without a terminal of its own.
    unsafe {
        libc::setpgid(0, 0);
        for descriptor in 0..3 {
            if libc::tcgetsid(descriptor) == libc::getsid(0) {
                libc::tcsetpgrp(descriptor, libc::getpid());
                break;
            }
        }
    }
    if parent != 1 {
        // The death of process 1 ends the container anyway. SAFETY: plain system calls.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != parent {
                libc::_exit(127);
            }
        }
    }
    if let Err(error) = rustix::process::fchdir(&image.working_directory) {
        return (0, error);
    }
    // SAFETY: the argument is a plain number.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return (1, last_error());
    }
    mask.reset_dispositions();
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `filter`, which the kernel copies.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            &program,
        )
    };
    if listener < 0 {
        return (2, last_error());
    }
    // SAFETY: the call above made this descriptor.
    let listener = unsafe { OwnedFd::from_raw_fd(listener as RawFd) };
    if let Err(error) = hand_over(channel, listener.as_fd()) {
        return (2, error);
    }
    drop(listener);
    if !matches!(rustix::io::read(channel, &mut [0; 1]), Ok(1)) {
        return (2, Errno::PIPE);
    }
    if let Some((null, orders)) = sibling {
        let channels = (orders, channel);
        if let Err(error) = standby::fork_off(null, mask, channels, image.cookie, parent) {
            return (5, error);
        }
    }
    if let Some((loader, number)) = &image.loader {
        // SAFETY: the number is free: this process has opened nothing there.
        if unsafe { libc::dup3(loader.as_raw_fd(), *number, libc::O_CLOEXEC) } < 0 {
            return (3, last_error());
        }
    }
    mask.restore();
    let (arguments, environment) = (pointers(&image.arguments), pointers(&image.environment));
    // SAFETY: the arrays end with null pointers, and their strings outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            image.program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
            image.cookie,
        );
    }
    (4, last_error())
}

fn hand_over(channel: &OwnedFd, descriptor: BorrowedFd) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        channel,
        &[IoSlice::new(b"+")],
        &mut ancillary,
        SendFlags::empty(),
    )
    .map(drop)
}

/// Ends this process at once, whatever its threads do.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit does not return and runs nothing of ours.
    unsafe { libc::_exit(code) }
}

/// Makes this process unreadable for all that it starts, and the one to whom their orphans go.
pub fn protect_self() {
    // SAFETY: plain numbers; neither can fail on a kernel that has user notification.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }
}

/// Raises the limit of open files as far as it goes.
pub fn raise_descriptor_limit() {
    let mut limit = limits();
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads one `rlimit`.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}

/// The limit of open files.
pub fn descriptor_limit() -> u64 {
    limits().rlim_cur
}

/// How far the limit of open files can be raised.
pub fn descriptor_ceiling() -> u64 {
    limits().rlim_max
}

fn limits() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes one `rlimit`.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit
}

/// The memory of this machine, in bytes.
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What is free.
    pub free: u64,
    /// One page.
    pub page: u64,
}

/// The memory of this machine.
pub fn memory() -> Memory {
    // SAFETY: sysconf takes a number.
    let of = |name| u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0);
    let page = of(libc::_SC_PAGESIZE).max(1);
    Memory {
        total: of(libc::_SC_PHYS_PAGES) * page,
        free: of(libc::_SC_AVPHYS_PAGES) * page,
        page,
    }
}

/// Whether nobody but this descriptor holds its file open or mapped. The file must be our own, and the descriptor not the one that made it.
pub fn is_sole_holder(file: BorrowedFd) -> bool {
    // SAFETY: F_SETLEASE takes a number. A write lease is given exactly when there is no other open file; it is given back at once.
    unsafe {
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0
            && libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

/// A name for the kernel.
pub fn c_string(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

/// Fills `buffer` with random bytes of the kernel.
pub fn random(buffer: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the pointer and the length are those of `buffer`; requests up to 256 bytes are never cut short.
    let count = check(
        unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) } as libc::c_long,
    )?;
    if count as usize == buffer.len() {
        Ok(())
    } else {
        Err(Errno::IO)
    }
}

/// Keeps `CStr` users short: the text up to the first NUL of `bytes`.
pub fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    CStr::from_bytes_until_nul(bytes).ok().map(CStr::to_bytes)
}
