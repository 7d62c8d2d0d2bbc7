//! The seccomp filter: which system calls the supervisor sees, which are refused, and which pass.
//!
//! The filter is a chain of `if number == N { return action }`. The kernel remembers for each number whether the answer is "allow"
//! whatever the arguments, so the length of the chain costs nothing for calls that pass.

use libc::{
    sock_filter, BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_JUMP, BPF_K,
    BPF_LD, BPF_RET, BPF_STMT, BPF_W,
};

/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;
/// Set in the numbers of the x32 interface.
const X32_BIT: u32 = 0x4000_0000;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
/// Where the low half of an argument stands in `struct seccomp_data`.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
const fn refuse(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

/// Calls newer than the libc crate's list.
const FCHMODAT2: i64 = 452;
const OPEN_TREE_ATTR: i64 = 467;

/// The calls that the supervisor serves.
const SERVED: &[i64] = &[
    // Opening, naming and looking at files.
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_openat2,
    libc::SYS_getdents,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_inotify_init,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Moving and starting.
    libc::SYS_chdir,
    libc::SYS_flock,
    libc::SYS_getcwd,
    libc::SYS_chroot,
    libc::SYS_execve,
    // Changing.
    libc::SYS_truncate,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

/// The calls that the supervisor serves, and also makes a thread execute: they pass with the cookie as their sixth argument, which none of them has.
const REDIRECTED: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_execveat,
    libc::SYS_fchdir,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
];

/// The calls that change the user or group of a thread.
pub const IDENTITY: &[i64] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// Calls that would pass the supervisor by, and newer spellings of calls that it serves: the C libraries fall back to those.
const ABSENT: &[i64] = &[
    libc::SYS_clone3, // its flags are in memory, where a filter can't see them
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_open_by_handle_at,
    libc::SYS_uselib,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    463, // setxattrat
    464, // getxattrat
    465, // listxattrat
    466, // removexattrat
    OPEN_TREE_ATTR,
    468, // file_getattr
    469, // file_setattr
];

/// The calls that make files durable; `msync` too, which is asked for by a flag.
const DURABLE: &[i64] = &[
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_sync,
];

/// The numbers of open files whose writes must be durable when they return.
pub const SYNCHRONOUS: std::ops::Range<i32> = 960..1024;
/// All of those numbers, and no other ones, are the first one in these bits.
const SYNCHRONOUS_BITS: u32 = !63;

/// The calls that write at an offset: to files only, so that asking about them costs sockets and pipes nothing.
const POSITIONED: &[i64] = &[libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2];

/// The other calls that write, and in which argument the descriptor is that they write to.
const WRITES: &[(i64, u32)] = &[
    (libc::SYS_write, 0),
    (libc::SYS_writev, 0),
    (libc::SYS_sendfile, 0),
    (libc::SYS_splice, 2),
    (libc::SYS_copy_file_range, 2),
];

/// Asynchronous input and output can make files durable without a call that is seen; programs that use it can do without.
const UNSEEN_WRITES: &[i64] = &[libc::SYS_io_setup];

/// Calls that only an administrator may make.
const FORBIDDEN: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
];

/// Name spaces in which paths or users mean something else.
const FORBIDDEN_NAMESPACES: u32 = (libc::CLONE_NEWNS | libc::CLONE_NEWUSER) as u32;

/// What differs from program to program.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// An `execveat` or `clone` whose unused sixth argument has this value passes: it is one of the supervisor's own.
    pub cookie: u64,
    /// Whether new processes may be made; threads always may.
    pub fork: bool,
    /// Whether the supervisor is asked before a file is mapped to be executed.
    pub maps: bool,
    /// Whether there are volumes: what makes files durable is served, and so are mappings by which they may be written.
    pub volumes: bool,
}

/// Makes the filter.
pub fn program(rules: Rules) -> Vec<sock_filter> {
    let Rules {
        cookie,
        fork,
        maps,
        volumes,
    } = rules;
    let mut chain = Chain(Vec::with_capacity(2 * (SERVED.len() + ABSENT.len()) + 40));
    chain.load(OFFSET_ARCHITECTURE);
    chain.unless_equal(ARCHITECTURE, refuse(libc::ENOSYS));
    chain.load(OFFSET_NUMBER);
    chain.if_set(X32_BIT, refuse(libc::ENOSYS));

    if maps || volumes {
        // First, because the kernel runs the chain for each of these calls: its answer depends on their arguments.
        chain.branch(libc::SYS_mmap, |chain| {
            chain.load(argument(3));
            chain.if_set(libc::MAP_ANONYMOUS as u32, ALLOW);
            if volumes {
                chain.if_set(libc::MAP_SHARED as u32, NOTIFY);
            }
            if maps {
                chain.load(argument(2));
                chain.if_set(libc::PROT_EXEC as u32, NOTIFY);
            }
            chain.end(ALLOW);
        });
    }
    if volumes {
        for &number in DURABLE.iter().chain(POSITIONED) {
            chain.if_number(number, NOTIFY);
        }
        chain.branch(libc::SYS_msync, |chain| {
            chain.load(argument(2));
            chain.if_set(libc::MS_SYNC as u32, NOTIFY);
            chain.end(ALLOW);
        });
        for &(number, target) in WRITES {
            chain.branch(number, |chain| {
                chain.load(argument(target));
                chain.if_below(3, NOTIFY);
                chain.if_synchronous(NOTIFY);
                chain.end(ALLOW);
            });
        }
        for &number in &[libc::SYS_dup, libc::SYS_dup2, libc::SYS_dup3] {
            chain.branch(number, |chain| {
                chain.load(argument(0));
                chain.if_synchronous(NOTIFY);
                chain.end(ALLOW);
            });
        }
        chain.branch(libc::SYS_fcntl, |chain| {
            chain.load(argument(0));
            chain.unless_synchronous(ALLOW);
            chain.load(argument(1));
            chain.if_equal(libc::F_DUPFD as u32, NOTIFY);
            chain.if_equal(libc::F_DUPFD_CLOEXEC as u32, NOTIFY);
            chain.end(ALLOW);
        });
        for &number in UNSEEN_WRITES {
            chain.if_number(number, refuse(libc::ENOSYS));
        }
    }
    for &number in REDIRECTED {
        chain.branch(number, |chain| {
            chain.load(argument(5));
            chain.unless_equal(cookie as u32, NOTIFY);
            chain.load(argument(5) + 4);
            chain.unless_equal((cookie >> 32) as u32, NOTIFY);
            chain.end(ALLOW);
        });
    }
    // Without an address it is a write.
    chain.branch(libc::SYS_sendto, |chain| {
        chain.load(argument(4));
        chain.unless_equal(0, NOTIFY);
        chain.load(argument(4) + 4);
        chain.unless_equal(0, NOTIFY);
        chain.end(ALLOW);
    });
    chain.branch(libc::SYS_clone, |chain| {
        chain.load(argument(0));
        chain.if_set(FORBIDDEN_NAMESPACES, refuse(libc::EPERM));
        if !fork {
            chain.if_set(libc::CLONE_THREAD as u32, ALLOW);
            chain.load(argument(5));
            chain.unless_equal(cookie as u32, refuse(libc::EPERM));
            chain.load(argument(5) + 4);
            chain.unless_equal((cookie >> 32) as u32, refuse(libc::EPERM));
        }
        chain.end(ALLOW);
    });
    chain.branch(libc::SYS_unshare, |chain| {
        chain.load(argument(0));
        chain.if_set(FORBIDDEN_NAMESPACES, refuse(libc::EPERM));
        chain.end(ALLOW);
    });
    if !fork {
        chain.if_number(libc::SYS_fork, refuse(libc::EPERM));
        chain.if_number(libc::SYS_vfork, refuse(libc::EPERM));
    }
    chain.if_number(libc::SYS_name_to_handle_at, refuse(libc::EOPNOTSUPP));
    for &number in FORBIDDEN {
        chain.if_number(number, refuse(libc::EPERM));
    }
    for &number in ABSENT {
        chain.if_number(number, refuse(libc::ENOSYS));
    }
    // Asks whether a process lives.
    chain.branch(libc::SYS_kill, |chain| {
        chain.load(argument(1));
        chain.unless_equal(0, ALLOW);
        chain.end(NOTIFY);
    });
    chain.branch(libc::SYS_prctl, |chain| {
        chain.load(argument(0));
        chain.unless_equal(libc::PR_SET_DUMPABLE as u32, ALLOW);
        chain.load(argument(1));
        chain.unless_equal(0, ALLOW);
        chain.end(NOTIFY);
    });
    for &number in SERVED.iter().chain(IDENTITY) {
        chain.if_number(number, NOTIFY);
    }
    chain.end(ALLOW);
    chain.0
}

/// A filter program in the making. Every branch ends, so that the number stays loaded along the chain.
struct Chain(Vec<sock_filter>);

impl Chain {
    fn load(&mut self, offset: u32) {
        self.0.push(statement(BPF_LD | BPF_W | BPF_ABS, offset));
    }

    fn end(&mut self, action: u32) {
        self.0.push(statement(BPF_RET | BPF_K, action));
    }

    fn unless_equal(&mut self, value: u32, action: u32) {
        self.0.push(jump(BPF_JEQ, value, 1, 0));
        self.end(action);
    }

    fn if_equal(&mut self, value: u32, action: u32) {
        self.0.push(jump(BPF_JEQ, value, 0, 1));
        self.end(action);
    }

    fn if_below(&mut self, value: u32, action: u32) {
        self.0.push(jump(BPF_JGE, value, 1, 0));
        self.end(action);
    }

    /// Whether the descriptor that is loaded is one whose writes must be durable; it is not loaded any more then.
    fn if_synchronous(&mut self, action: u32) {
        self.mask(SYNCHRONOUS_BITS);
        self.if_equal(SYNCHRONOUS.start as u32, action);
    }

    fn unless_synchronous(&mut self, action: u32) {
        self.mask(SYNCHRONOUS_BITS);
        self.unless_equal(SYNCHRONOUS.start as u32, action);
    }

    fn mask(&mut self, bits: u32) {
        self.0.push(statement(BPF_ALU | BPF_AND | BPF_K, bits));
    }

    fn if_set(&mut self, bits: u32, action: u32) {
        self.0.push(jump(BPF_JSET, bits, 0, 1));
        self.end(action);
    }

    fn if_number(&mut self, number: i64, action: u32) {
        self.branch(number, |chain| chain.end(action));
    }

    fn branch(&mut self, number: i64, body: impl FnOnce(&mut Chain)) {
        let start = self.0.len();
        self.0.push(jump(BPF_JEQ, number as u32, 0, 0));
        body(self);
        self.0[start].jf = u8::try_from(self.0.len() - start - 1).expect("branches are short");
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    // SAFETY: BPF_STMT only fills in a struct.
    unsafe { BPF_STMT(code as u16, k) }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // SAFETY: BPF_JUMP only fills in a struct.
    unsafe { BPF_JUMP((BPF_JMP | condition | BPF_K) as u16, k, jt, jf) }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
