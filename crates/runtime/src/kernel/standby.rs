//! Programs beside the first one, under its filter: the health check, and the commands of who debugs.
//!
//! The kernel allows no second listener beside a filter, and whoever is to be served must inherit the filter. So the child that will become the
//! program forks off a sibling before, which has the filter too and waits for orders. For each it forks a process that starts the ordered program,
//! waits for its end, and tells it to whom it concerns.

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, c_long};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{read, write, Errno};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{pidfd_open, Pid, PidfdFlags};

use super::process::{exit, pointers, Image};
use super::signal::{End, SignalMask};
use super::{check, last_error};

/// Standard input, output and error.
const STREAMS: usize = 3;
/// Those, whom the end is told, the program, its directory, and its loader.
const DESCRIPTORS: usize = STREAMS + 4;
/// Whether the exit code is told, the loader's number, the number of arguments, and the bytes of all strings: four numbers of 32 bits.
const HEADER: usize = 16;

/// What the sibling is to run.
pub struct Order<'a> {
    /// The program.
    pub image: &'a Image,
    /// Its standard input, output and error.
    pub streams: [BorrowedFd<'a>; STREAMS],
    /// The connection of who asked: gets one byte when the program has ended, and has the program killed by hanging up.
    pub asker: BorrowedFd<'a>,
    /// Whether the byte is the exit code as shells show it, or only 0 for success and 1 otherwise.
    pub tells_code: bool,
}

/// Where orders go to.
pub struct Orders(OwnedFd);

impl Orders {
    pub(super) fn new(channel: OwnedFd) -> Self {
        Self(channel)
    }

    /// Has a program run. Orders are given one at a time.
    ///
    /// # Errors
    /// `EPIPE` if nobody takes orders any more.
    pub fn give(&mut self, order: &Order) -> Result<(), Errno> {
        let image = order.image;
        let strings = image.arguments.iter().chain(&image.environment);
        let body: Vec<u8> = strings
            .flat_map(|text| text.as_bytes_with_nul())
            .copied()
            .collect();
        let number = image.loader.as_ref().map_or(-1, |(_, number)| *number);
        let mut header = [0; HEADER];
        let fields = [
            u32::from(order.tells_code),
            number as u32,
            image.arguments.len() as u32,
            body.len() as u32,
        ];
        for (place, field) in header.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        let mut descriptors: Vec<BorrowedFd> = order.streams.to_vec();
        descriptors.extend([
            order.asker,
            image.program.as_fd(),
            image.working_directory.as_fd(),
        ]);
        descriptors.extend(image.loader.as_ref().map(|(loader, _)| loader.as_fd()));
        send_with(self.0.as_fd(), &header, &descriptors)?;
        let mut done = 0;
        while done < body.len() {
            done += write(&self.0, &body[done..])?;
        }
        Ok(())
    }
}

/// Sends bytes and descriptors together.
///
/// # Errors
/// What `sendmsg` gives.
pub fn send_with(
    socket: BorrowedFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .map(drop)
}

/// Receives exactly as many bytes as `bytes` has, and the descriptors that come with them.
///
/// # Errors
/// `EPIPE` at the end; what `recvmsg` gives.
pub fn receive_with(socket: BorrowedFd, bytes: &mut [u8]) -> Result<Vec<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags)?;
    if received.bytes != bytes.len() {
        return Err(Errno::PIPE);
    }
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(rights.flatten().collect())
}

/// An order as the sibling gets it.
struct Received {
    image: Image,
    streams: [OwnedFd; STREAMS],
    asker: OwnedFd,
    tells_code: bool,
}

impl Received {
    fn read(channel: &OwnedFd, cookie: u64) -> Option<Self> {
        let mut header = [0; HEADER];
        let mut descriptors = receive_with(channel.as_fd(), &mut header).ok()?.into_iter();
        let mut fields = header
            .chunks_exact(4)
            .map(|field| u32::from_ne_bytes(field.try_into().expect("four bytes")));
        let mut field = || fields.next().expect("four fields");
        let (tells_code, number, arguments, length) = (field(), field(), field(), field());
        let mut body = vec![0; length as usize];
        let mut done = 0;
        while done < body.len() {
            match read(channel, &mut body[done..]) {
                Ok(0) | Err(_) => return None,
                Ok(count) => done += count,
            }
        }
        let mut strings = body
            .split_inclusive(|&byte| byte == 0)
            .filter_map(|text| CString::from_vec_with_nul(text.to_vec()).ok());
        let arguments = strings.by_ref().take(arguments as usize).collect();
        let mut next = || descriptors.next();
        Some(Self {
            streams: [next()?, next()?, next()?],
            asker: next()?,
            image: Image {
                program: next()?,
                working_directory: next()?,
                loader: next().map(|loader| (loader, number as c_int)),
                arguments,
                environment: strings.collect(),
                cookie,
            },
            tells_code: tells_code != 0,
        })
    }
}

/// In the child that will be the program: forks off the sibling. It takes orders from `channel`, has `null` as standard streams, and nothing else of
/// the child's open that somebody waits for the end of: `gate` is closed.
pub(super) fn fork_off(
    null: &OwnedFd,
    mask: &SignalMask,
    (channel, gate): (&OwnedFd, &OwnedFd),
    cookie: u64,
    parent: i32,
) -> Result<(), Errno> {
    if clone(libc::CLONE_PARENT, cookie)? != 0 {
        return Ok(());
    }
    // SAFETY: plain system calls on descriptors that this process does not use any more.
    unsafe {
        libc::close(gate.as_raw_fd());
        libc::setpgid(0, 0);
        for number in 0..STREAMS {
            libc::dup2(null.as_raw_fd(), number as c_int);
        }
    }
    end_with(parent);
    while let Some(order) = Received::read(channel, cookie) {
        // The supervisor reaps it.
        if clone(libc::CLONE_PARENT, cookie) == Ok(0) {
            end_with(parent);
            serve(order, mask);
            exit(0);
        }
    }
    exit(0);
}

/// Has this process killed when its parent dies.
fn end_with(parent: i32) {
    // SAFETY: plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(0);
        }
    }
}

/// Runs the ordered program to its end, and tells it.
fn serve(order: Received, mask: &SignalMask) {
    let Received {
        image,
        streams,
        asker,
        tells_code,
    } = order;
    let Ok(process) = clone(0, image.cookie) else {
        return;
    };
    if process == 0 {
        execute(&image, &streams, mask);
        exit(126);
    }
    // A pipe that the program writes to ends with the program.
    drop((streams, image));
    let Ok(end) = wait(process, &asker) else {
        return;
    };
    let code = match end {
        End::Exited(code) => code as u8,
        End::Signalled(signal) => 128 + signal as u8,
    };
    let byte = if tells_code { code } else { code.min(1) };
    let _ = write(&asker, &[byte]);
}

/// Waits for the end of a child, which is killed with its process group when the asker hangs up.
fn wait(process: c_int, asker: &OwnedFd) -> Result<End, Errno> {
    let pid = Pid::from_raw(process).ok_or(Errno::SRCH)?;
    let child = pidfd_open(pid, PidfdFlags::empty())?;
    let gone = PollFlags::RDHUP | PollFlags::HUP;
    loop {
        let mut both = [
            PollFd::new(&child, PollFlags::IN),
            PollFd::from_borrowed_fd(asker.as_fd(), gone),
        ];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        if both[0].revents().is_empty() {
            // SAFETY: plain numbers; the group is the program's, which has not been waited for. It may not have made it yet.
            unsafe {
                libc::kill(-process, libc::SIGKILL);
                libc::kill(process, libc::SIGKILL);
            }
        }
        let mut status = 0;
        // SAFETY: waitpid writes one status.
        unsafe {
            while libc::waitpid(process, &mut status, 0) < 0 && last_error() == Errno::INTR {}
        }
        return Ok(End::of(status));
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

/// Executes the program as the leader of a session of its own, whose terminal is the one that it gets, if it gets one that is nobody's.
fn execute(image: &Image, streams: &[OwnedFd; STREAMS], mask: &SignalMask) {
    let (arguments, environment) = (pointers(&image.arguments), pointers(&image.environment));
    // SAFETY: plain system calls; the arrays end with null pointers, and their strings outlive the calls.
    unsafe {
        libc::setsid();
        for (number, stream) in streams.iter().enumerate() {
            libc::dup2(stream.as_raw_fd(), number as c_int);
        }
        libc::ioctl(0, libc::TIOCSCTTY, 0);
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
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
            image.cookie,
        );
    }
}
