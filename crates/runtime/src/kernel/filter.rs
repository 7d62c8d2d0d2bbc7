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
    libc::SYS_openat,
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
    libc::SYS_execveat,
    libc::SYS_fchdir,
    libc::SYS_inotify_add_watch,
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
/// `RWF_SYNC` and `RWF_DSYNC` of `pwritev2`.
const RWF_SYNC_OR_DSYNC: u32 = 6;

/// The calls that write, and in which argument the descriptor is that they write to.
const WRITES: &[(i64, u32)] = &[
    (libc::SYS_write, 0),
    (libc::SYS_writev, 0),
    (libc::SYS_pwrite64, 0),
    (libc::SYS_pwritev, 0),
    (libc::SYS_pwritev2, 0),
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
        for &number in DURABLE {
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
                if number == libc::SYS_pwritev2 {
                    chain.load(argument(5));
                    chain.if_set(RWF_SYNC_OR_DSYNC, NOTIFY);
                }
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
mod tests {
    use super::*;

    const COOKIE: u64 = 0x1234_5678_9abc_def0;

    /// Runs the program as the kernel would.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [0; 64];
        data[0..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&architecture.to_le_bytes());
        for (index, argument) in arguments.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_le_bytes());
        }
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    let from = step.k as usize;
                    accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                }
                code if code == BPF_RET | BPF_K => return step.k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if accumulator == step.k {
                        step.jt
                    } else {
                        step.jf
                    });
                }
                code if code == BPF_JMP | BPF_JSET | BPF_K => {
                    at += usize::from(if accumulator & step.k != 0 {
                        step.jt
                    } else {
                        step.jf
                    });
                }
                code if code == BPF_JMP | BPF_JGE | BPF_K => {
                    at += usize::from(if accumulator >= step.k {
                        step.jt
                    } else {
                        step.jf
                    });
                }
                code if code == BPF_ALU | BPF_AND | BPF_K => accumulator &= step.k,
                code => panic!("unexpected instruction {code:#x}"),
            }
        }
    }

    fn rules(fork: bool) -> Rules {
        Rules {
            cookie: COOKIE,
            fork,
            maps: true,
            volumes: false,
        }
    }

    fn call(number: i64, arguments: [u64; 6], fork: bool) -> u32 {
        run(
            &program(rules(fork)),
            ARCHITECTURE,
            number as u32,
            arguments,
        )
    }

    #[test]
    fn path_calls_are_served_and_others_pass() {
        assert_eq!(call(libc::SYS_openat, [0; 6], true), NOTIFY);
        assert_eq!(call(libc::SYS_fremovexattr, [0; 6], true), NOTIFY);
        assert_eq!(call(libc::SYS_read, [0; 6], true), ALLOW);
        assert_eq!(call(libc::SYS_mmap, [0; 6], false), ALLOW);
        assert_eq!(call(libc::SYS_mount, [0; 6], true), refuse(libc::EPERM));
        assert_eq!(
            call(libc::SYS_io_uring_setup, [0; 6], true),
            refuse(libc::ENOSYS)
        );
    }

    #[test]
    fn sending_is_served_only_with_an_address() {
        let to = |address| call(libc::SYS_sendto, [3, 1, 1, 0, address, 16], true);
        assert_eq!(to(0), ALLOW);
        assert_eq!(to(0x7fff_0000_0000), NOTIFY);
        assert_eq!(to(0x1000), NOTIFY);
    }

    #[test]
    fn only_becoming_unreadable_is_served_of_prctl() {
        let prctl =
            |option: i32, value| call(libc::SYS_prctl, [option as u64, value, 0, 0, 0, 0], true);
        assert_eq!(prctl(libc::PR_SET_DUMPABLE, 0), NOTIFY);
        assert_eq!(prctl(libc::PR_SET_DUMPABLE, 1), ALLOW);
        assert_eq!(prctl(libc::PR_SET_NAME, 0), ALLOW);
    }

    #[test]
    fn files_are_mapped_to_be_executed_with_leave() {
        let map = |protection: i32, flags: i32, maps| {
            let arguments = [0, 4096, protection as u64, flags as u64, 3, 0];
            let rules = Rules {
                maps,
                ..rules(true)
            };
            run(
                &program(rules),
                ARCHITECTURE,
                libc::SYS_mmap as u32,
                arguments,
            )
        };
        let code = libc::PROT_READ | libc::PROT_EXEC;
        assert_eq!(map(code, libc::MAP_PRIVATE, true), NOTIFY);
        assert_eq!(map(code, libc::MAP_PRIVATE, false), ALLOW);
        assert_eq!(
            map(code, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, true),
            ALLOW
        );
        assert_eq!(map(libc::PROT_READ, libc::MAP_PRIVATE, true), ALLOW);
    }

    #[test]
    fn what_makes_files_durable_is_served_where_there_are_volumes() {
        let answer = |number: i64, arguments, volumes| {
            let rules = Rules {
                maps: false,
                volumes,
                ..rules(true)
            };
            run(&program(rules), ARCHITECTURE, number as u32, arguments)
        };
        let mapping = |flags: i32| [0, 4096, 3, flags as u64, 3, 0];
        for (volumes, expected) in [(true, NOTIFY), (false, ALLOW)] {
            for &number in DURABLE {
                assert_eq!(answer(number, [0; 6], volumes), expected);
            }
            let synchronous = [0, 4096, libc::MS_SYNC as u64, 0, 0, 0];
            assert_eq!(answer(libc::SYS_msync, synchronous, volumes), expected);
            let shared = mapping(libc::MAP_SHARED);
            assert_eq!(answer(libc::SYS_mmap, shared, volumes), expected);
        }
        let others = [libc::MAP_PRIVATE, libc::MAP_SHARED | libc::MAP_ANONYMOUS];
        for flags in others {
            assert_eq!(answer(libc::SYS_mmap, mapping(flags), true), ALLOW);
        }
        let asynchronous = [0, 4096, libc::MS_ASYNC as u64, 0, 0, 0];
        assert_eq!(answer(libc::SYS_msync, asynchronous, true), ALLOW);
        for (descriptor, expected) in [
            (1, NOTIFY),
            (3, ALLOW),
            (959, ALLOW),
            (960, NOTIFY),
            (1023, NOTIFY),
            (1024, ALLOW),
        ] {
            let written = [descriptor, 0, 0, 0, 0, 0];
            assert_eq!(
                answer(libc::SYS_write, written, true),
                expected,
                "{descriptor}"
            );
            assert_eq!(answer(libc::SYS_write, written, false), ALLOW);
        }
        assert_eq!(answer(libc::SYS_pwritev2, [3, 0, 0, 0, 0, 2], true), NOTIFY);
        assert_eq!(
            answer(
                libc::SYS_fcntl,
                [961, libc::F_DUPFD as u64, 0, 0, 0, 0],
                true
            ),
            NOTIFY
        );
        assert_eq!(
            answer(
                libc::SYS_fcntl,
                [961, libc::F_GETFL as u64, 0, 0, 0, 0],
                true
            ),
            ALLOW
        );
        let refused = refuse(libc::ENOSYS);
        assert_eq!(answer(libc::SYS_io_setup, [0; 6], true), refused);
    }

    #[test]
    fn other_interfaces_of_the_processor_are_absent() {
        let program = program(rules(true));
        assert_eq!(
            run(&program, 0x4000_0003, libc::SYS_read as u32, [0; 6]),
            refuse(libc::ENOSYS)
        );
        assert_eq!(
            run(
                &program,
                ARCHITECTURE,
                X32_BIT | libc::SYS_read as u32,
                [0; 6]
            ),
            refuse(libc::ENOSYS)
        );
    }

    #[test]
    fn only_the_whole_cookie_lets_redirected_calls_pass() {
        for &number in REDIRECTED {
            let with = |value| call(number, [0, 0, 0, 0, 0, value], true);
            assert_eq!(with(COOKIE), ALLOW);
            assert_eq!(with(COOKIE & 0xffff_ffff), NOTIFY);
            assert_eq!(with(COOKIE ^ 1), NOTIFY);
        }
        assert_eq!(
            call(libc::SYS_execve, [0, 0, 0, 0, 0, COOKIE], true),
            NOTIFY
        );
    }

    #[test]
    fn without_fork_only_threads_are_made() {
        let thread = [(libc::CLONE_VM | libc::CLONE_THREAD) as u64, 0, 0, 0, 0, 0];
        let spawn = [(libc::CLONE_VM | libc::CLONE_VFORK) as u64, 0, 0, 0, 0, 0];
        for (fork, expected) in [(true, ALLOW), (false, refuse(libc::EPERM))] {
            assert_eq!(call(libc::SYS_clone, thread, fork), ALLOW);
            assert_eq!(call(libc::SYS_clone, spawn, fork), expected);
            let ours = [libc::SIGCHLD as u64, 0, 0, 0, 0, COOKIE];
            assert_eq!(call(libc::SYS_clone, ours, fork), ALLOW);
            assert_eq!(call(libc::SYS_fork, [0; 6], fork), expected);
            assert_eq!(call(libc::SYS_vfork, [0; 6], fork), expected);
        }
        let namespace = [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0];
        assert_eq!(call(libc::SYS_clone, namespace, true), refuse(libc::EPERM));
        assert_eq!(
            call(libc::SYS_unshare, namespace, true),
            refuse(libc::EPERM)
        );
    }
}
