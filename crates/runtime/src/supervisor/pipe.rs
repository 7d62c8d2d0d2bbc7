//! Opening named pipes: who opens one end waits for somebody to open the other one.
//!
//! The supervisor must not wait in the kernel, where nothing could call it back when the caller is killed. So it opens without waiting, and looks again and again.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::io::{ioctl_fionread, Errno};
use rustix::pipe::{pipe_with, tee, PipeFlags, SpliceFlags};

use super::call::{Call, Reply};
use super::writable::{reopen, Inode, Pipe};

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Opens a pipe for the caller.
pub fn open(call: &Call, inode: Inode, flags: OFlags) -> Reply {
    let pipe = call.shield.tree.writable.objects.pipe(inode)?;
    let close_on_exec = flags.contains(OFlags::CLOEXEC);
    let waits = !flags.contains(OFlags::NONBLOCK);
    let kept = flags & (OFlags::ACCMODE | OFlags::APPEND) | OFlags::NONBLOCK;
    let file = match flags & OFlags::ACCMODE {
        OFlags::RDONLY => {
            let writers = pipe.writers.load(Ordering::Acquire);
            let file = reopen(&pipe.file, kept)?;
            while waits && !has_writer(&pipe, &file, writers)? {
                pause(call)?;
            }
            file
        }
        OFlags::WRONLY => loop {
            match reopen(&pipe.file, kept) {
                Err(Errno::NXIO) if waits => pause(call)?,
                result => {
                    let file = result?;
                    pipe.writers.fetch_add(1, Ordering::AcqRel);
                    break file;
                }
            }
        },
        _ => {
            pipe.writers.fetch_add(1, Ordering::AcqRel);
            reopen(&pipe.file, kept)?
        }
    };
    if waits {
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    }
    call.give_alone(file, close_on_exec)
}

/// Whether somebody has the pipe open for writing, or had since there were `before` of them.
fn has_writer(pipe: &Pipe, reader: &OwnedFd, before: u64) -> Result<bool, Errno> {
    if pipe.writers.load(Ordering::Acquire) != before || ioctl_fionread(reader.as_fd())? > 0 {
        return Ok(true);
    }
    // An empty pipe says "again" as long as it has a writer, and "end" otherwise; `tee` takes nothing out of it.
    let (_end, copy) = pipe_with(PipeFlags::CLOEXEC)?;
    match tee(reader, &copy, 1, SpliceFlags::NONBLOCK) {
        Ok(0) => Ok(false),
        Ok(_) | Err(Errno::AGAIN) => Ok(true),
        Err(error) => Err(error),
    }
}

/// `ERESTARTSYS`: the kernel makes `EINTR` of it, or makes the call again, as the signal's handler has it.
const RESTART: Errno = Errno::from_raw_os_error(512);

/// Waits a moment, unless the caller does not wait any more or has a signal to see to.
fn pause(call: &Call) -> Result<(), Errno> {
    sleep(PAUSE);
    if call.task.has_signal()? {
        return Err(RESTART);
    }
    if call.shield.listener.is_waiting(call.notification.id) {
        Ok(())
    } else {
        Err(Errno::SRCH)
    }
}
