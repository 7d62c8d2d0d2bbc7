//! The workers: each takes a trapped call, has it served, and answers.

use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use crate::failure::Code;
use crate::kernel::filter;
use crate::kernel::notify::Notification;

use super::call::{Answer, Call, Reply};
use super::execute::{self, Arguments, Plan};
use super::init::end;
use super::look::{self, Subject};
use super::modify::{self, Change};
use super::record::Layout;
use super::{directories, objects, open, redirect, Shield};

/// Workers at the start: one may decrypt a big file while another one serves.
const WORKERS_AT_FIRST: usize = 2;
/// When all are busy one more is started, up to this many: each traced `exec` occupies one.
const WORKERS_LIMIT: usize = 64;
/// Exit code of a runtime that has a defect.
const DEFECT: i32 = Code::Bug as i32;

/// The workers of one filter.
pub struct Workers {
    shield: Shield,
    /// The first program, until its first call has been served.
    first: OnceLock<(Plan, Vec<u8>)>,
    first_served: AtomicBool,
    idle: AtomicUsize,
    total: AtomicUsize,
}

impl Workers {
    /// Starts to serve. A worker that panics ends everything: nothing may run unsupervised.
    pub fn start(shield: Shield, first: (Plan, Vec<u8>)) -> Arc<Self> {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            report(info);
            fatal!("a defect in the runtime: {info}");
            end(DEFECT);
        }));
        let workers = Arc::new(Self {
            shield,
            first: OnceLock::from(first),
            first_served: AtomicBool::new(false),
            idle: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
        });
        for _ in 0..WORKERS_AT_FIRST {
            workers.add();
        }
        workers
    }

    /// What they serve from.
    pub fn shield(&self) -> &Shield {
        &self.shield
    }

    fn add(self: &Arc<Self>) {
        if self.total.fetch_add(1, Ordering::Relaxed) >= WORKERS_LIMIT {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.idle.fetch_add(1, Ordering::Relaxed);
        let workers = Arc::clone(self);
        let started = thread::Builder::new()
            .name("serve".to_owned())
            .spawn(move || workers.run());
        if let Err(error) = started {
            self.idle.fetch_sub(1, Ordering::Relaxed);
            if self.total.fetch_sub(1, Ordering::Relaxed) == 1 {
                fatal!("no worker thread can be started: {error}");
                end(DEFECT);
            }
        }
    }

    fn run(self: Arc<Self>) {
        loop {
            match self.shield.listener.receive() {
                Ok(notification) => {
                    if self.idle.fetch_sub(1, Ordering::Relaxed) == 1 {
                        self.add();
                    }
                    self.serve(notification);
                    self.idle.fetch_add(1, Ordering::Relaxed);
                }
                // Nobody is left to serve; the process ends when its children have been reaped.
                Err(Errno::PIPE) => return,
                Err(error) => {
                    fatal!("trapped calls can't be received: {error}");
                    end(DEFECT);
                }
            }
        }
    }

    fn serve(&self, notification: Notification) {
        let call = Call::new(&self.shield, notification);
        let is_first = notification.thread == self.shield.child
            && !is_traced(notification.number)
            && !self.first_served.swap(true, Ordering::Relaxed);
        if is_first {
            if let Some((plan, path)) = self.first.get() {
                execute::serve_first(&call, plan, path, || answer(&call));
                return;
            }
        }
        answer(&call);
    }
}

/// Whether serving a call may trace its caller.
fn is_traced(number: i64) -> bool {
    matches!(
        number,
        libc::SYS_execve | libc::SYS_execveat | libc::SYS_chdir
    ) || filter::IDENTITY.contains(&number)
}

fn answer(call: &Call) {
    let id = call.notification.id;
    let reply = dispatch(call);
    trace!(
        "thread {} call {} {:x?}: {reply:?}",
        call.task.0,
        call.notification.number,
        call.notification.arguments
    );
    match reply {
        Ok(Answer::Value(value)) => call.shield.listener.answer(id, value),
        Ok(Answer::Pass) => call.shield.listener.pass(id),
        Ok(Answer::Done) => {}
        Err(error) => call.shield.listener.fail(id, error),
    }
}

const CWD: i32 = libc::AT_FDCWD;

fn dispatch(call: &Call) -> Reply {
    let at = |index: usize| AtFlags::from_bits_retain(call.int(index) as u32);
    let none = AtFlags::empty();
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    // `AT_SYMLINK_FOLLOW` and `AT_SYMLINK_NOFOLLOW` in an argument.
    let follows = |index: usize| call.int(index) & libc::AT_SYMLINK_FOLLOW != 0;
    let alter = |index: usize| Change::Alter(call.int(index) & libc::AT_SYMLINK_NOFOLLOW == 0);
    let first = call.int(0);
    match call.notification.number {
        libc::SYS_open => open::open(call, CWD, 0, call.open_flags(1), call.int(2) as u32),
        libc::SYS_openat => open::open(call, first, 1, call.open_flags(2), call.int(3) as u32),
        libc::SYS_creat => open::open(
            call,
            CWD,
            0,
            OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC,
            call.int(1) as u32,
        ),
        libc::SYS_stat => look::look(call, CWD, 0, none, Layout::Stat, 1),
        libc::SYS_lstat => look::look(call, CWD, 0, nofollow, Layout::Stat, 1),
        libc::SYS_fstat => look::look_at_descriptor(call, first, Layout::Stat, 1),
        libc::SYS_newfstatat => look::look(call, first, 1, at(3), Layout::Stat, 2),
        libc::SYS_statx => look::look(call, first, 1, at(2), Layout::Statx, 4),
        libc::SYS_access => look::access(call, CWD, 0, call.int(1), none),
        libc::SYS_faccessat => look::access(call, first, 1, call.int(2), none),
        libc::SYS_faccessat2 => look::access(call, first, 1, call.int(2), at(3)),
        libc::SYS_readlink => look::readlink(call, CWD, 0, 1, 2),
        libc::SYS_readlinkat => look::readlink(call, first, 1, 2, 3),
        libc::SYS_statfs => look::file_system(call, 0, 1),
        libc::SYS_getdents => directories::list(call, true),
        libc::SYS_getdents64 => directories::list(call, false),
        libc::SYS_getxattr => look::attribute(call, Subject::Path(true)),
        libc::SYS_lgetxattr => look::attribute(call, Subject::Path(false)),
        libc::SYS_fgetxattr => look::attribute(call, Subject::Descriptor),
        libc::SYS_listxattr => look::attribute_names(call, Subject::Path(true)),
        libc::SYS_llistxattr => look::attribute_names(call, Subject::Path(false)),
        libc::SYS_flistxattr => look::attribute_names(call, Subject::Descriptor),
        libc::SYS_inotify_add_watch => look::watch(call),

        libc::SYS_mmap => objects::map(call),
        libc::SYS_chdir => redirect::change_directory(call),
        libc::SYS_chroot => look::change_root(call),
        libc::SYS_execve => execute::execute(
            call,
            Arguments {
                directory: CWD,
                path: 0,
                arguments: 1,
                environment: 2,
                flags: 0,
            },
        ),
        libc::SYS_execveat => {
            let flags = call.int(4);
            execute::execute(
                call,
                Arguments {
                    directory: first,
                    path: 1,
                    arguments: 2,
                    environment: 3,
                    flags,
                },
            )
        }

        // Who may not be looked into can't be served: programs are told that they are not, and are.
        libc::SYS_prctl => Ok(Answer::Value(0)),
        number if filter::IDENTITY.contains(&number) => redirect::change_identity(call),

        libc::SYS_mkdir | libc::SYS_mknod => modify::change(call, CWD, 0, Change::Create),
        libc::SYS_mkdirat | libc::SYS_mknodat => modify::change(call, first, 1, Change::Create),
        libc::SYS_symlink => modify::change(call, CWD, 1, Change::Create),
        libc::SYS_symlinkat => modify::change(call, call.int(1), 2, Change::Create),
        libc::SYS_rmdir | libc::SYS_unlink => modify::change(call, CWD, 0, Change::Remove),
        libc::SYS_unlinkat => modify::change(call, first, 1, Change::Remove),
        libc::SYS_truncate
        | libc::SYS_chmod
        | libc::SYS_chown
        | libc::SYS_utime
        | libc::SYS_utimes => modify::change(call, CWD, 0, Change::Alter(true)),
        libc::SYS_lchown => modify::change(call, CWD, 0, Change::Alter(false)),
        libc::SYS_fchmodat => modify::change(call, first, 1, Change::Alter(true)),
        // A null path means the descriptor itself, an empty one does if a flag says so.
        libc::SYS_utimensat | libc::SYS_futimesat if call.address(1) == 0 => {
            modify::change_descriptor(call, first)
        }
        libc::SYS_futimesat => modify::change(call, first, 1, Change::Alter(true)),
        libc::SYS_utimensat => modify::change_at(call, 3, alter(3)),
        libc::SYS_fchownat => modify::change_at(call, 4, alter(4)),
        FCHMODAT2 => modify::change_at(call, 3, alter(3)),
        libc::SYS_fchmod | libc::SYS_fchown => modify::change_descriptor(call, first),
        libc::SYS_rename => modify::pair(call, (CWD, 0), (CWD, 1), false, true),
        libc::SYS_renameat | libc::SYS_renameat2 => {
            modify::pair(call, (first, 1), (call.int(2), 3), false, true)
        }
        libc::SYS_link => modify::pair(call, (CWD, 0), (CWD, 1), false, false),
        libc::SYS_linkat => modify::pair(call, (first, 1), (call.int(2), 3), follows(4), false),
        libc::SYS_setxattr | libc::SYS_removexattr => {
            modify::change_attribute(call, Subject::Path(true))
        }
        libc::SYS_lsetxattr | libc::SYS_lremovexattr => {
            modify::change_attribute(call, Subject::Path(false))
        }
        libc::SYS_fsetxattr | libc::SYS_fremovexattr => {
            modify::change_attribute(call, Subject::Descriptor)
        }
        _ => Err(Errno::NOSYS),
    }
}

/// Newer than the libc crate's list.
const FCHMODAT2: i64 = 452;
