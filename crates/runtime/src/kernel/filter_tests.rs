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
    for &number in POSITIONED {
        assert_eq!(answer(number, [3, 0, 0, 0, 0, 0], true), NOTIFY);
        assert_eq!(answer(number, [3, 0, 0, 0, 0, 0], false), ALLOW);
    }
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
fn only_kill_without_a_signal_is_served() {
    assert_eq!(call(libc::SYS_kill, [9, 0, 0, 0, 0, 0], true), NOTIFY);
    let signal = [9, libc::SIGTERM as u64, 0, 0, 0, 0];
    assert_eq!(call(libc::SYS_kill, signal, true), ALLOW);
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
