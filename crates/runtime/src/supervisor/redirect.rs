//! Making a thread do something else than it asked for.
//!
//! A trapped call can be answered, refused or passed, but not changed. Where that is not enough the caller is traced for the length of the call: it stops
//! behind it, and executes another one before it notices.

use std::os::fd::OwnedFd;
use std::sync::PoisonError;

use rustix::fs::{open, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::kernel::thread::with_real_identity;
use crate::kernel::trace::{Interrupted, Outcome, Traced};

use super::call::{want, Answer, Base, Call, Identity, Reply, Target};
use super::directories::open_on_disk;
use super::tree::Node;

/// Numbers of the descriptors that were placed in the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Installed {
    /// The blank program, for a script.
    pub first: Option<i32>,
    /// The program, or whatever the caller is to use.
    pub program: Option<i32>,
    /// The program's loader.
    pub loader: Option<i32>,
}

/// Traces the caller while `work` makes it do something else than what it asked for. `prepare` runs while the caller still waits.
///
/// # Errors
/// `EACCES` if tracing is refused; what `prepare` gives.
pub fn trace(
    call: &Call,
    work: impl FnOnce(Traced, Installed) -> Result<(), Errno>,
    prepare: impl FnOnce(&mut Installed) -> Result<(), Errno>,
) -> Reply {
    // While a thread is traced, nobody else may wait for children: see `signal::reap`.
    let _tracing = call
        .shield
        .tracing
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    let interrupted = attach(call)?;
    let mut installed = Installed::default();
    let prepared = prepare(&mut installed);
    call.shield
        .listener
        .fail(call.notification.id, prepared.err().unwrap_or(Errno::NOSYS));
    let traced = match (interrupted.stop(), prepared) {
        (Ok(traced), Ok(())) => traced,
        (Ok(mut traced), Err(error)) => {
            close(&mut traced, installed)?;
            traced.finish(-i64::from(error.raw_os_error()));
            return Ok(Answer::Done);
        }
        // Killed: nobody waits any more.
        (Err(_), _) => return Ok(Answer::Done),
    };
    match work(traced, installed) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => error!("tracing thread {}: {error}", call.task.0),
    }
    Ok(Answer::Done)
}

/// Begins to trace the caller.
fn attach(call: &Call) -> Result<Interrupted, Errno> {
    let attempt = || Interrupted::attach(call.task.0);
    let result = match attempt() {
        Err(Errno::PERM) => {
            let credentials = call.credentials()?;
            with_real_identity(
                credentials.uid.effective,
                credentials.gid.effective,
                attempt,
            )
            .and_then(|result| result)
        }
        result => result,
    };
    result.map_err(|error| {
        error!(
            "thread {} can't be traced, which executing programs, O_PATH, following links of the index in chdir and changing users take: {error}; the container's seccomp profile, Yama or another tracer \
             forbids it",
            call.task.0
        );
        Errno::ACCESS
    })
}

/// Closes what was placed in the caller for an `exec` that did not come about.
pub fn close(traced: &mut Traced, installed: Installed) -> Result<(), Errno> {
    for number in [installed.first, installed.program, installed.loader]
        .into_iter()
        .flatten()
    {
        traced.call(libc::SYS_close, [number as u64, 0, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// Makes the caller open a path by itself, to hold it (`O_PATH`): the kernel injects no such descriptors.
///
/// # Errors
/// `ENAMETOOLONG` for a path that would not fit beneath every stack.
pub fn open_place(call: &Call, path: &[u8], flags: OFlags) -> Reply {
    // Some programs have stacks of a few KiB.
    const LIMIT: usize = 512;
    if path.len() > LIMIT {
        return Err(Errno::NAMETOOLONG);
    }
    trace(
        call,
        |mut traced, _| {
            let outcome = open_by(call, &mut traced, path, flags)?;
            traced.finish(outcome);
            Ok(())
        },
        |_| Ok(()),
    )
}

/// Gives the caller a descriptor that holds the place of an open file (`O_PATH`).
pub fn give_place(call: &Call, file: &OwnedFd, close_on_exec: bool) -> Reply {
    trace(
        call,
        |mut traced, installed| {
            let number = installed.program.ok_or(Errno::IO)?;
            // The link is the open file itself, so this is the same file without what it was open for.
            let path = format!("/proc/thread-self/fd/{number}");
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let mut outcome = open_by(call, &mut traced, path.as_bytes(), flags)?;
            if outcome < 0 {
                close(&mut traced, installed)?;
            } else {
                // It gets the number that it would have had.
                let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
                let arguments = [outcome as u64, number as u64, flags as u64, 0, 0, 0];
                let opened = outcome as u64;
                outcome = value(traced.call(libc::SYS_dup3, arguments)?)?;
                traced.call(libc::SYS_close, [opened, 0, 0, 0, 0, 0])?;
            }
            traced.finish(outcome);
            Ok(())
        },
        |installed| {
            let listener = &call.shield.listener;
            installed.program = Some(listener.install(call.notification.id, file, true)?);
            Ok(())
        },
    )
}

/// Makes the caller call `openat`.
fn open_by(call: &Call, traced: &mut Traced, path: &[u8], flags: OFlags) -> Result<i64, Errno> {
    let place = traced.scratch(path.len() + 1);
    call.write(place, &[path, b"\0"].concat())?;
    let directory = libc::AT_FDCWD as u64;
    let arguments = [
        directory,
        place,
        flags.bits().into(),
        0,
        0,
        call.shield.cookie,
    ];
    value(traced.call(libc::SYS_openat, arguments)?)
}

/// What a call returned that replaces no program.
pub fn value(outcome: Outcome) -> Result<i64, Errno> {
    match outcome {
        Outcome::Returned(value) => Ok(value),
        Outcome::Executed => Err(Errno::IO),
    }
}

/// Serves `chdir`.
pub fn change_directory(call: &Call) -> Reply {
    let path = call.path(0)?;
    let target = call.locate(libc::AT_FDCWD, &path, true)?;
    let directory = match target {
        Target::Node(Node::Entry(id)) if call.shield.tree.index().entry(id).is_directory() => {
            call.permit(Node::Entry(id), want::EXECUTE, Identity::FileSystem)?;
            open_on_disk(&call.shield.tree, id)?
        }
        Target::Node(node @ Node::Writable(inode))
            if call.shield.tree.metadata(node).is(FileType::Directory) =>
        {
            call.permit(node, want::EXECUTE, Identity::FileSystem)?;
            call.shield.tree.writable.open_directory(inode)?
        }
        Target::Node(_) => return Err(Errno::NOTDIR),
        Target::Missing | Target::Undeclared => return Err(Errno::NOENT),
        Target::Host => return Ok(Answer::Pass),
        Target::HostAt(path) => {
            // The kernel injects no `O_PATH` descriptors.
            open(&*path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?
        }
    };
    let is_plain = matches!(target_path(call, &path), Ok(canonical) if canonical);
    if is_plain {
        // The kernel gets there by the same names, and there are no links on the way: that was checked when the directory was opened.
        return Ok(Answer::Pass);
    }
    trace(
        call,
        |mut traced, installed| {
            let number = installed.program.ok_or(Errno::IO)? as u64;
            let arguments = [number, 0, 0, 0, 0, call.shield.cookie];
            let outcome = traced.call(libc::SYS_fchdir, arguments)?;
            close(&mut traced, installed)?;
            traced.finish(value(outcome)?);
            Ok(())
        },
        |installed| {
            installed.program = Some(call.shield.listener.install(
                call.notification.id,
                &directory,
                true,
            )?);
            Ok(())
        },
    )
}

/// Makes the caller move the offset of an open file, and its call return `value`.
pub fn seek(call: &Call, descriptor: i32, offset: u64, value: i64) -> Reply {
    trace(
        call,
        |mut traced, _| {
            let arguments = [descriptor as u64, offset, libc::SEEK_SET as u64, 0, 0, 0];
            traced.call(libc::SYS_lseek, arguments)?;
            traced.finish(value);
            Ok(())
        },
        |_| Ok(()),
    )
}

/// Whether a path names its directory without passing a link.
fn target_path(call: &Call, path: &[u8]) -> Result<bool, Errno> {
    if !path.starts_with(b"/") && !matches!(call.base(libc::AT_FDCWD)?, Base::Path(_)) {
        return Ok(false);
    }
    let absolute = call.absolute(libc::AT_FDCWD, path)?;
    Ok(call.directory_at(&absolute).is_some())
}

/// Serves the calls that change the caller's user or group: the kernel carries them out.
///
/// Afterwards it would let nobody look into the process any more, nor into its children: we could not read the paths of their calls. So the caller is
/// made to allow it again, which holds for us and for processes of the same user.
pub fn change_identity(call: &Call) -> Reply {
    let _tracing = call
        .shield
        .tracing
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    let interrupted = attach(call);
    call.shield.listener.pass(call.notification.id);
    if let Ok(Ok(mut traced)) = interrupted.map(Interrupted::stop) {
        let _ = traced.call(
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0],
        );
    }
    Ok(Answer::Done)
}
