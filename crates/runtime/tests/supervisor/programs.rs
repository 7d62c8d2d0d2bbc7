//! How programs start, what they know of themselves, and how they end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::run::Run;
use super::world;
use super::world::{flip, make_executable, Plan, World};

#[test]
fn what_the_program_is_made_of_is_verified_before_it_starts() {
    for damage in [
        |world: &World| {
            (32..)
                .step_by(10_000)
                .try_for_each(|at| flip(world.path("pack").as_ref(), at))
                .unwrap_or(())
        },
        |world: &World| fs::remove_file(world.path("pack")).unwrap(),
        |world: &World| flip(world.path("index").as_ref(), 50).unwrap(),
    ] {
        let world = world();
        damage(&world);
        let run = world.probe(&["exit", "0"]);
        assert!(matches!(run.code(), 120 | 125), "{}", run.log());
        assert!(
            run.log().contains(&world.path("app/probe"))
                || run.log().contains(&world.path("index")),
            "{}",
            run.log()
        );
    }
}

#[test]
fn programs_are_executed_in_every_way() {
    let world = world();
    for probe in ["app/probe", "app/static"].map(|name| world.path(name)) {
        for way in ["vfork", "spawn"] {
            assert_eq!(
                world.probe(&[way, &probe, "exit", "3"]).stdout(),
                "child exited 3\n",
                "{way}"
            );
        }
        for way in ["exec", "thread-exec"] {
            assert_eq!(world.probe(&[way, &probe, "exit", "3"]).code(), 3, "{way}");
        }
    }
    assert_eq!(world.probe(&["fork"]).stdout(), "child exited 7\n");
    let output = world
        .run(&[
            "/bin/sh",
            "-c",
            "echo one | cat | cat; echo $(echo two | cat)",
        ])
        .stdout();
    assert_eq!(output, "one\ntwo\n");
}

#[test]
fn programs_are_executed_without_room_for_descriptors() {
    let mut plan = Plan::new();
    let script = format!("#!{} limit\n", plan.path("app/probe"));
    plan.encrypted("limit", script.as_bytes(), 0o755);
    let world = plan.build();
    for words in [
        &["app/probe", "limit"][..],
        &["app/static", "limit"],
        &["app/limit"],
    ] {
        let program = world.path(words[0]);
        let words = [&["crowded", &program], &words[1..]].concat();
        assert_eq!(world.probe(&words).stdout(), "20\n", "{words:?}");
    }
}

#[test]
fn programs_know_themselves() {
    let world = world();
    let expected = |argv: &str| {
        format!(
            "exe {0}\nfd {1}\ncomm probe\nargv {argv}\ndescriptor 3\n",
            world.path("app/probe"),
            world.path("app/data")
        )
    };
    let (probe, data) = (world.path("app/probe"), world.path("app/data"));
    assert_eq!(world.probe(&["identity", &data]).stdout(), expected(&probe));
    assert_eq!(
        world.probe(&["exec", &probe, "identity", &data]).stdout(),
        expected(&probe)
    );
    let script = format!("cd {}; exec ./probe identity data", world.path("app"));
    assert_eq!(
        world.run(&["/bin/sh", "-c", &script]).stdout(),
        expected("./probe")
    );
}

#[test]
fn scripts_are_executed() {
    let mut plan = Plan::new();
    plan.encrypted(
        "script",
        b"#!/bin/sh\necho \"$0|$1|$2\"; cat /proc/$$/comm\nexit 5\n",
        0o755,
    );
    plan.encrypted("by-env", b"#!/usr/bin/env  sh \necho \"$0|$1\"\n", 0o755);
    let nested = format!("#!{} first\n", plan.path("app/script"));
    plan.encrypted("nested", nested.as_bytes(), 0o755);
    let endless = format!("#!{}\n", plan.path("app/endless"));
    plan.encrypted("endless", endless.as_bytes(), 0o755);
    plan.encrypted("not-executable", b"#!/bin/sh\n", 0o644);
    plan.encrypted("no-interpreter", b"#!/bin/nothing\n", 0o755);
    plan.encrypted("no-program", b"hello\n", 0o755);
    let world = plan.build();
    let path = |name: &str| world.path(&format!("app/{name}"));
    let script = format!("{}|a|b c\nscript\n", path("script"));
    assert_eq!(world.run(&["app/script", "a", "b c"]).said(), script);
    for way in ["spawn", "vfork"] {
        let output = world.probe(&[way, &path("script"), "a", "b c"]).stdout();
        assert_eq!(output, format!("{script}child exited 5\n"));
    }
    assert_eq!(
        world.probe(&["exec", &path("by-env"), "a"]).stdout(),
        format!("{}|a\n", path("by-env"))
    );
    let nested = format!("{}|first|{}\nnested\n", path("script"), path("nested"));
    assert_eq!(world.probe(&["exec", &path("nested"), "a"]).said(), nested);
    for (name, error) in [
        ("endless", "ELOOP"),
        ("not-executable", "EACCES"),
        ("no-interpreter", "ENOENT"),
        ("no-program", "ENOEXEC"),
        ("missing", "ENOENT"),
        ("sub", "ENOENT"),
    ] {
        let output = world.probe(&["exec", &path(name)]).stdout();
        assert_eq!(
            output,
            format!("exec {error}\nnext descriptor 3\n"),
            "{name}"
        );
    }
}

#[test]
fn programs_of_the_host_are_not_executed() {
    let world = world();
    fs::copy("/bin/true", world.path("host/true")).unwrap();
    make_executable(world.path("host/true").as_ref());
    let missing = world.probe(&["exec", &world.path("host/missing")]);
    assert_eq!(missing.stdout(), "exec ENOENT\nnext descriptor 3\n");
    let run = world.probe(&["exec", &world.path("host/true")]);
    assert_eq!(run.stdout(), "exec EACCES\nnext descriptor 3\n");
    assert!(
        run.log()
            .contains(&format!("{}: not executed", world.path("host/true"))),
        "{}",
        run.log()
    );
}

#[test]
fn without_fork_there_are_threads_only() {
    let world = world();
    let data = world.path("app/data");
    let run = |words: &[&str]| world.run_with(&["--no-fork"], &[&["app/probe"], words].concat());
    assert_eq!(run(&["fork"]).stdout(), "fork EPERM\n");
    assert_eq!(
        run(&["spawn", &world.path("app/probe")]).stdout(),
        "spawn EPERM\n"
    );
    assert_eq!(run(&["threads", &data]).stdout(), "ok\n");
    assert_eq!(
        run(&["exec", &world.path("app/static"), "exit", "4"]).code(),
        4
    );
}

#[test]
fn code_comes_from_where_it_may() {
    let world = world();
    fs::copy("/bin/true", world.path("host/true")).unwrap();
    let libc = fs::canonicalize("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
    let libc = libc.to_str().unwrap();
    let (data, host) = (world.path("app/data"), world.path("host/true"));
    let words = ["app/probe", "map", libc, &data, &host, "memory"];
    for (level, expected) in [
        ("0", ["ok", "EPERM", "EPERM", "EPERM", "ok"]),
        ("1", ["ok", "ok", "EPERM", "ok", "ok"]),
        ("2", ["ok", "ok", "ok", "ok", "ok"]),
    ] {
        let run = world.run_with(&["--dlopen", level], &words);
        let table = run.table();
        let found = [libc, &data, &host, "memory", "anonymous"].map(|name| table[name].as_str());
        assert_eq!(found, expected, "{level}: {}", run.log());
        assert_eq!(
            run.log().contains(&format!("{host}: not mapped")),
            level != "2"
        );
    }
    // Programs that are started later bring their own.
    let script = "cat </dev/null && echo well";
    let run = world.run_with(&["--dlopen", "0"], &["/bin/sh", "-c", script]);
    assert_eq!(run.stdout(), "well\n");
}

#[test]
fn threads_and_signals_lose_no_call() {
    let world = world();
    assert_eq!(
        world.probe(&["threads", &world.path("app/big")]).stdout(),
        "ok\n"
    );
    for restart in [&["restart"][..], &[]] {
        let data = world.path("app/data");
        let words = [&["interrupted", &data][..], restart].concat();
        assert_eq!(
            world.probe(&words).stdout(),
            "2000 ticked\nnext descriptor 3\n"
        );
    }
}

#[test]
fn programs_that_are_killed_while_they_start_disturb_nobody() {
    let world = world();
    for program in ["app/static", "app/probe"] {
        let program = world.path(program);
        assert_eq!(
            world
                .probe(&["storm", &program, "exec", &program, "exit", "0"])
                .stdout(),
            "ok\n"
        );
    }
}

#[test]
fn ends_are_reported() {
    let world = world();
    assert_eq!(world.probe(&["exit", "17"]).code(), 17);
    assert_eq!(world.probe(&["signal", "15"]).code(), 128 + 15);
    assert_eq!(world.probe(&["signal", "11"]).code(), 128 + 11);
    // Orphans are reaped, and what is left at the end is killed: this would not return otherwise.
    assert_eq!(world.probe(&["orphan"]).stdout(), "left -1\n");
}

#[test]
fn signals_are_passed_on() {
    let world = world();
    let mut child = world
        .launcher()
        .args(["--", &world.path("app/probe"), "probe", "sleep"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    // timeout passes the signal on to the launcher, which passes it on to the program.
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let code = child.wait().unwrap().code();
    assert!(code == Some(42) || code == Some(124), "{code:?}");
}

/// With `vm.memfd_noexec` at 2 no memory file can be executed: that is said, instead of a program that fails or never starts.
#[test]
fn a_system_without_executable_memory_files_is_named() {
    let world = world();
    let launch = world.launcher();
    let words: Vec<_> = launch
        .get_args()
        .map(|word| word.to_str().unwrap())
        .collect();
    let program = world.path("app/probe");
    let command = format!(
        "mount -t proc proc /proc && echo 2 > /proc/sys/vm/memfd_noexec && exec timeout {} -- {program} {program} exit 0",
        words.join(" ")
    );
    let output = Command::new("unshare")
        .args([
            "--pid",
            "--mount",
            "--fork",
            "--kill-child",
            "/bin/sh",
            "-c",
            &command,
        ])
        .output()
        .unwrap();
    let run = Run::new(output);
    if run.code() != 125 && !run.log().contains("sconify") && !run.log().contains("launch:") {
        eprintln!(
            "skipped: no pid name space with a setting of its own: {}",
            run.log()
        );
        return;
    }
    assert_eq!(run.code(), 125, "{}", run.log());
    assert!(run.log().contains("vm.memfd_noexec"), "{}", run.log());
}
