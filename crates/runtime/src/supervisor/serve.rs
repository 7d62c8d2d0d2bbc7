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

use super::attributes::{self, Clock, Subject};
use super::call::{Answer, Call, Reply};
use super::crew::Crew;
use super::execute::{self, Arguments, Plan};
use super::init::end;
use super::record::Layout;
use super::{
    directories, durability, look, names, open, pressure, redirect, signals, sockets, synchronous,
    watches, Shield,
};

/// Workers at the start: one may decrypt a big file while another one serves.
const WORKERS_AT_FIRST: usize = 2;
/// When all are busy and none rests one more is started, up to this many: each traced `exec` occupies one.
const WORKERS_LIMIT: usize = 64;
/// Exit code of a runtime that has a defect.
const DEFECT: i32 = Code::Bug as i32;

/// The workers of one filter.
pub struct Workers {
    shield: Shield,
    /// The first program, until its first call has been served.
    first: OnceLock<(Plan, Vec<u8>)>,
    first_served: AtomicBool,
    crew: Crew,
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
            crew: Crew::default(),
            total: AtomicUsize::new(0),
        });
        for _ in 0..WORKERS_AT_FIRST {
            workers.add();
        }
        workers.accompany("sweep", |workers| {
            let Shield { tree, watches, .. } = &workers.shield;
            let finish = |held| watches.catch_up(held);
            tree.writable
                .sweep_for_ever(|| watches.removed_contents(), finish);
        });
        workers.accompany("pressure", |workers| pressure::watch(&workers.shield));
        workers
    }

    /// Starts a thread that works beside them.
    fn accompany(self: &Arc<Self>, name: &str, work: fn(&Self)) {
        let workers = Arc::clone(self);
        let thread = thread::Builder::new().name(name.to_owned());
        if let Err(error) = thread.spawn(move || work(&workers)) {
            fatal!("the thread {name} can't be started: {error}");
            end(DEFECT);
        }
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
        self.crew.join();
        let workers = Arc::clone(self);
        let started = thread::Builder::new()
            .name("serve".to_owned())
            .spawn(move || workers.run());
        if let Err(error) = started {
            self.crew.quit();
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
                    if self.crew.is_short_without_me() {
                        self.add();
                    }
                    self.serve(notification);
                    self.crew.come_back();
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
            && !is_traced(&notification)
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
fn is_traced(notification: &Notification) -> bool {
    let number = notification.number;
    let holds = |flags: usize| {
        let flags = notification.arguments[flags] as u32;
        OFlags::from_bits_retain(flags).contains(OFlags::PATH)
    };
    match number {
        libc::SYS_open => return holds(1),
        libc::SYS_openat => return holds(2),
        _ => {}
    }
    matches!(
        number,
        libc::SYS_execve
            | libc::SYS_execveat
            | libc::SYS_chdir
            | libc::SYS_getdents
            | libc::SYS_getdents64
            | libc::SYS_bind
            | libc::SYS_connect
            | libc::SYS_sendto
            | libc::SYS_getsockname
            | libc::SYS_getpeername
            | libc::SYS_openat2
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
    let first = call.int(0);
    let path = |directory: i32, index: usize| Subject::Path((directory, index), true);
    let link = |directory: i32, index: usize| Subject::Path((directory, index), false);
    let descriptor = Subject::Descriptor(first);
    let owner = |subject: Subject, index: usize| {
        let (uid, gid) = (call.int(index) as u32, call.int(index + 1) as u32);
        attributes::change_owner(call, subject, uid, gid)
    };
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
        libc::SYS_openat2 => open::open_how(call),
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
        libc::SYS_fstatfs => look::file_system_of(call, first, 1),
        libc::SYS_getdents => directories::list(call, true),
        libc::SYS_getdents64 => directories::list(call, false),
        libc::SYS_getxattr => attributes::attribute(call, path(CWD, 0)),
        libc::SYS_lgetxattr => attributes::attribute(call, link(CWD, 0)),
        libc::SYS_fgetxattr => attributes::attribute(call, descriptor),
        libc::SYS_listxattr => attributes::attribute_names(call, path(CWD, 0)),
        libc::SYS_llistxattr => attributes::attribute_names(call, link(CWD, 0)),
        libc::SYS_flistxattr => attributes::attribute_names(call, descriptor),
        libc::SYS_inotify_init => watches::calls::initialise(call, 0),
        libc::SYS_inotify_init1 => watches::calls::initialise(call, first),
        libc::SYS_inotify_add_watch => watches::calls::add(call),
        libc::SYS_inotify_rm_watch => watches::calls::remove(call),

        libc::SYS_mmap => durability::map(call),
        libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_sync_file_range => {
            durability::sync_file(call)
        }
        libc::SYS_syncfs => durability::sync_file_system(call),
        libc::SYS_sync => durability::sync_all(call),
        libc::SYS_msync => durability::sync_mappings(call),
        libc::SYS_write => written(call, None, false, None),
        libc::SYS_writev => written(call, None, true, None),
        libc::SYS_pwrite64 => written(call, Some(3), false, None),
        libc::SYS_pwritev => written(call, Some(3), true, None),
        libc::SYS_pwritev2 => written(call, Some(3), true, Some(5)),
        libc::SYS_sendfile => synchronous::refuse_copies(call, 0),
        libc::SYS_splice | libc::SYS_copy_file_range => synchronous::refuse_copies(call, 2),
        libc::SYS_dup | libc::SYS_fcntl => synchronous::duplicate(call, None),
        libc::SYS_dup2 | libc::SYS_dup3 => synchronous::duplicate(call, Some(call.int(1))),
        libc::SYS_chdir => redirect::change_directory(call),
        libc::SYS_fchdir => directories::enter(call),
        libc::SYS_flock => directories::lock(call),
        libc::SYS_getcwd => directories::working_directory(call),
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

        libc::SYS_kill => signals::probe(call),
        // Who may not be looked into can't be served: programs are told that they are not, and are.
        libc::SYS_prctl => Ok(Answer::Value(0)),
        number if filter::IDENTITY.contains(&number) => redirect::change_identity(call),

        libc::SYS_bind => sockets::bind(call),
        libc::SYS_connect => sockets::connect(call),
        libc::SYS_sendto => sockets::send_to(call),
        libc::SYS_getsockname | libc::SYS_getpeername => sockets::name(call),

        libc::SYS_mkdir => names::make_directory(call, (CWD, 0), call.int(1) as u32),
        libc::SYS_mkdirat => names::make_directory(call, (first, 1), call.int(2) as u32),
        libc::SYS_mknod => names::make_node(call, (CWD, 0), call.int(1) as u32),
        libc::SYS_mknodat => names::make_node(call, (first, 1), call.int(2) as u32),
        libc::SYS_symlink => names::make_link(call, 0, (CWD, 1)),
        libc::SYS_symlinkat => names::make_link(call, 0, (call.int(1), 2)),
        libc::SYS_unlink => names::remove(call, (CWD, 0), false),
        libc::SYS_rmdir => names::remove(call, (CWD, 0), true),
        libc::SYS_unlinkat => match call.int(2) {
            0 => names::remove(call, (first, 1), false),
            libc::AT_REMOVEDIR => names::remove(call, (first, 1), true),
            _ => Err(Errno::INVAL),
        },
        libc::SYS_rename => names::rename(call, (CWD, 0), (CWD, 1), 0),
        libc::SYS_renameat => names::rename(call, (first, 1), (call.int(2), 3), 0),
        libc::SYS_renameat2 => {
            names::rename(call, (first, 1), (call.int(2), 3), call.int(4) as u32)
        }
        libc::SYS_link => names::link(call, (CWD, 0), (CWD, 1), 0),
        libc::SYS_linkat => names::link(call, (first, 1), (call.int(2), 3), call.int(4)),

        libc::SYS_truncate => attributes::truncate(call, path(CWD, 0), call.address(1) as i64),
        libc::SYS_chmod => attributes::change_mode(call, path(CWD, 0), call.int(1) as u32),
        libc::SYS_fchmod => attributes::change_mode(call, descriptor, call.int(1) as u32),
        libc::SYS_fchmodat => attributes::change_mode(call, path(first, 1), call.int(2) as u32),
        FCHMODAT2 => {
            let subject = Subject::with_flags(call, first, 1, 3);
            attributes::change_mode(call, subject, call.int(2) as u32)
        }
        libc::SYS_chown => owner(path(CWD, 0), 1),
        libc::SYS_lchown => owner(link(CWD, 0), 1),
        libc::SYS_fchown => owner(descriptor, 1),
        libc::SYS_fchownat => owner(Subject::with_flags(call, first, 1, 4), 2),
        libc::SYS_utime => attributes::change_times(call, path(CWD, 0), 1, Clock::Seconds),
        libc::SYS_utimes => attributes::change_times(call, path(CWD, 0), 1, Clock::Microseconds),
        // A null path means the descriptor itself.
        libc::SYS_futimesat if call.address(1) == 0 => {
            attributes::change_times(call, descriptor, 2, Clock::Microseconds)
        }
        libc::SYS_futimesat => {
            attributes::change_times(call, path(first, 1), 2, Clock::Microseconds)
        }
        libc::SYS_utimensat if call.address(1) == 0 => {
            attributes::change_times(call, descriptor, 2, Clock::Nanoseconds)
        }
        libc::SYS_utimensat => {
            let subject = Subject::with_flags(call, first, 1, 3);
            attributes::change_times(call, subject, 2, Clock::Nanoseconds)
        }
        libc::SYS_setxattr => attributes::set_attribute(call, path(CWD, 0), false),
        libc::SYS_lsetxattr => attributes::set_attribute(call, link(CWD, 0), false),
        libc::SYS_fsetxattr => attributes::set_attribute(call, descriptor, false),
        libc::SYS_removexattr => attributes::set_attribute(call, path(CWD, 0), true),
        libc::SYS_lremovexattr => attributes::set_attribute(call, link(CWD, 0), true),
        libc::SYS_fremovexattr => attributes::set_attribute(call, descriptor, true),
        _ => Err(Errno::NOSYS),
    }
}

fn written(call: &Call, offset: Option<usize>, is_vectored: bool, flags: Option<usize>) -> Reply {
    let write = synchronous::Write {
        offset,
        is_vectored,
        flags,
    };
    synchronous::write(call, write)
}

/// Newer than the libc crate's list.
const FCHMODAT2: i64 = 452;
