//! Programs under the supervisor, on this machine's kernel: what they see, what they are refused, how they start and end.

mod world;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use world::{flip, make_executable, plant_link, Plan, World};

fn world() -> World {
    let mut plan = Plan::new();
    plan.encrypted("data", b"the content\n", 0o640);
    plan.encrypted("big", &big(), 0o644);
    plan.encrypted("sub/one", b"1", 0o644);
    plan.encrypted("sub/two", b"2", 0o644);
    plan.plain("file", b"authenticated\n");
    plan.link("app/link", "data");
    plan.link("app/up", "sub/../sub/one");
    plan.link("app/loop", "loop");
    plan.link("app/mounts", "/proc/self/mounts");
    plan.link("plain/into-host", "../host");
    plan.omitted("/opt/left-out");
    plan.build()
}

/// More than one chunk, and nothing that repeats.
fn big() -> Vec<u8> {
    (0..3_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[test]
fn contents_are_served() {
    let world = world();
    let files = ["app/data", "app/link", "app/up", "plain/file"].map(|name| world.path(name));
    let words = [&["/bin/cat"][..], &files.each_ref().map(String::as_str)].concat();
    assert_eq!(
        world.run(&words).stdout(),
        "the content\nthe content\n1authenticated\n"
    );
    assert_eq!(world.run(&["app/static", "exit", "0"]).stdout(), "");
}

#[test]
fn a_big_file_is_the_same_at_every_read() {
    let world = world();
    fs::write(world.path("host/copy"), b"").unwrap();
    let script = format!(
        "cat {} > {}",
        world.path("app/big"),
        world.path("host/copy")
    );
    world.run(&["/bin/sh", "-c", &script]).stdout();
    assert!(fs::read(world.path("host/copy")).unwrap() == big());
}

#[test]
fn stat_and_fstat_agree_and_show_the_index() {
    let world = world();
    let line = world.probe(&["agree", &world.path("app/data")]).stdout();
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    assert_eq!(fields[..6], ["100640", "0", "0", "1", "12", "1600000000"]);
    for path in ["app/big", "plain/file", "app", "app/sub", "plain"] {
        world.probe(&["agree", &world.path(path)]).stdout();
    }
    world.probe(&["agree", "/"]).stdout();
}

#[test]
fn listings_come_from_the_index() {
    let world = world();
    fs::write(world.path("app/planted"), b"evil").unwrap();
    fs::remove_file(world.path("plain/file")).unwrap();
    let expected = |names: &[(&str, u8)]| {
        let line = |round: i32, (name, kind): &(&str, u8)| format!("{round} {kind} {name}\n");
        (0..2)
            .flat_map(|round| names.iter().map(move |entry| line(round, entry)))
            .collect::<String>()
    };
    let (directory, file, link) = (libc::DT_DIR, libc::DT_REG, libc::DT_LNK);
    let app = [
        (".", directory),
        ("..", directory),
        ("big", file),
        ("data", file),
        ("link", link),
        ("loop", link),
        ("mounts", link),
        ("probe", file),
        ("static", file),
        ("sub", directory),
        ("up", link),
    ];
    assert_eq!(
        world.probe(&["list", &world.path("app")]).stdout(),
        expected(&app)
    );
    let plain = [
        (".", directory),
        ("..", directory),
        ("file", file),
        ("into-host", link),
    ];
    assert_eq!(
        world.probe(&["list", &world.path("plain")]).stdout(),
        expected(&plain)
    );
    let opened = world
        .probe(&[
            "open",
            &world.path("app/planted"),
            &world.path("plain/file"),
        ])
        .table();
    assert_eq!(opened[&world.path("app/planted")], "ENOENT");
    assert_eq!(opened[&world.path("plain/file")], "EIO");
}

#[test]
fn positions_belong_to_open_files() {
    let world = world();
    let output = world.probe(&["positions", &world.path("app/sub")]).stdout();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines, [". .. one two ", ". .. one two "]);
}

#[test]
fn a_directory_that_the_disk_lacks_or_fakes_is_an_error() {
    let world = world();
    fs::remove_dir(world.path("app/sub")).unwrap();
    plant_link("/etc", world.path("app/sub").as_ref());
    let run = world.probe(&["open", &world.path("app/sub"), &world.path("app/sub/one")]);
    assert_eq!(run.table()[&world.path("app/sub")], "EIO");
    assert_eq!(run.table()[&world.path("app/sub/one")], "ok");
    assert!(
        run.log().contains(&format!(
            "{}: the index has a directory here",
            world.path("app/sub")
        )),
        "{}",
        run.log()
    );
}

#[test]
fn everything_is_read_only() {
    let world = world();
    for path in ["app/data", "plain/file"] {
        let table = world.probe(&["read-only", &world.path(path)]).table();
        for (key, value) in &table {
            let expected = match key.as_str() {
                "create-exclusive" | "mkdir" => "EEXIST",
                "directory" => "ENOTDIR",
                "chmod-missing" => "ENOENT",
                "ftruncate" => "EINVAL",
                _ => "EROFS",
            };
            assert_eq!(value, expected, "{key} of {path}");
        }
        assert_eq!(table.len(), 20);
    }
}

#[test]
fn calls_that_pass_the_shield_by_are_refused() {
    let table = world().probe(&["refused"]).table();
    assert_eq!(table["io_uring_setup"], "ENOSYS");
    assert_eq!(table["open_by_handle_at"], "ENOSYS");
    assert_eq!(table["openat2"], "ENOSYS");
    assert_eq!(table["x32"], "ENOSYS");
    assert_eq!(table["mount"], "EPERM");
    assert_eq!(table["unshare"], "EPERM");
}

#[test]
fn links_and_parents_are_followed_in_the_index() {
    let world = world();
    // The disk leads elsewhere.
    fs::write(world.path("elsewhere"), b"evil").unwrap();
    plant_link("../elsewhere", world.path("app/link").as_ref());
    let paths = [
        "app/link",
        "app/sub/../data",
        "app/loop",
        "app/data/x",
        "app/nothing/x",
        "app/sub/",
        "app/data/",
    ]
    .map(|name| world.path(name));
    let words = [&["open"][..], &paths.each_ref().map(String::as_str)].concat();
    let table = world.probe(&words).table();
    let results = paths.each_ref().map(|path| table[path].as_str());
    assert_eq!(
        results,
        ["ok", "ok", "ELOOP", "ENOTDIR", "ENOENT", "ok", "ENOTDIR"]
    );
    assert_eq!(
        world.run(&["/bin/cat", &paths[0]]).stdout(),
        "the content\n"
    );
}

#[test]
fn undeclared_paths_are_refused_and_spoken_of_once() {
    let world = world();
    fs::write(world.path("undeclared"), b"evil").unwrap();
    let undeclared = world.path("undeclared");
    let run = world.run(&[
        "app/static",
        "open",
        &undeclared,
        &undeclared,
        "/opt/left-out/x",
        "/nowhere",
    ]);
    assert!(
        run.table().values().all(|result| result == "ENOENT"),
        "{}",
        run.said()
    );
    let log = run.log();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains(&format!("{}: refused", world.path("undeclared")))
            && lines[0].contains("--host-path=")
    );
    assert!(
        lines[1].contains("/opt/left-out/x: refused")
            && lines[1].contains("--plain-file=/opt/left-out/x")
    );
    assert!(lines.iter().all(|line| line.contains("undeclared")));
}

#[test]
fn links_of_the_host_do_not_lead_into_the_disk() {
    let world = world();
    fs::write(world.path("app/data"), b"evil").unwrap();
    fs::write(world.path("host/real"), b"real\n").unwrap();
    fs::write(world.path("undeclared"), b"evil").unwrap();
    plant_link("../app/data", world.path("host/inward").as_ref());
    plant_link("..", world.path("host/above").as_ref());
    plant_link("real", world.path("host/other").as_ref());
    let cat = |name: &str| world.run(&["/bin/cat", &world.path(name)]);
    assert_eq!(cat("host/inward").stdout(), "the content\n");
    assert_eq!(cat("host/above/app/data").stdout(), "the content\n");
    assert_eq!(cat("host/other").stdout(), "real\n");
    assert_eq!(cat("plain/into-host/real").stdout(), "real\n");
    assert_eq!(cat("host/above/undeclared").code(), 1);
}

#[test]
fn links_of_proc_do_not_lead_to_the_disk() {
    let world = world();
    fs::write(world.path("app/data"), b"evil").unwrap();
    let data = world.path("app/data");
    assert_eq!(
        world
            .run(&["/bin/cat", &format!("/proc/self/root{data}")])
            .stdout(),
        "the content\n"
    );
    assert_eq!(
        world
            .run(&["/bin/cat", &format!("/proc/self/cwd{data}")])
            .stdout(),
        "the content\n"
    );
    let script = format!(
        "cd {}; cat /proc/self/cwd/data /proc/$$/cwd/data; cat < data /proc/self/fd/0",
        world.path("app")
    );
    assert_eq!(
        world.run(&["/bin/sh", "-c", &script]).stdout(),
        "the content\n".repeat(3)
    );
    assert!(world
        .run(&["/bin/cat", &world.path("app/mounts")])
        .stdout()
        .contains(" /proc proc "));
}

#[test]
fn the_supervisor_is_not_to_be_looked_into() {
    let world = world();
    let script = "p=$(while read k v; do [ $k = PPid: ] && echo $v; done < /proc/$$/status); \
                  cat /proc/$p/environ /proc/$p/maps /proc/$p/mem; echo $?; exec cat /proc/$p/comm";
    let run = world.run(&["/bin/sh", "-c", script]);
    assert_eq!(run.stdout(), "1\nlaunch\n");
    assert_eq!(
        run.log().matches("Permission denied").count(),
        3,
        "{}",
        run.log()
    );
}

#[test]
fn directories_are_entered() {
    let world = world();
    let mut plan = Plan::new();
    plan.encrypted("sub/one", b"1", 0o644);
    plan.link("app/way", "sub");
    let linked = plan.build();
    for (world, name) in [(&world, "app/sub"), (&linked, "app/way")] {
        let output = world
            .probe(&["chdir", &world.path(name), "one", "../sub/one", "three"])
            .stdout();
        assert_eq!(
            output,
            format!(
                "chdir ok\ncwd {}\none ok\n../sub/one ok\nthree ENOENT\n",
                world.path("app/sub")
            )
        );
    }
    let output = world
        .probe(&["relative", &world.path("app/sub"), "one"])
        .stdout();
    assert_eq!(output, "one ok\nfchdir ok\none ok\n");
    let failed = world.probe(&["chdir", &world.path("app/data")]).stdout();
    assert!(failed.starts_with("chdir ENOTDIR"));
}

#[test]
fn permissions_count() {
    // Root passes by its capabilities, and so does this test if it runs as root: the program drops them by changing its user.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut plan = Plan::new();
    plan.encrypted("secret", b"1", 0o600);
    plan.encrypted("open", b"1", 0o644);
    plan.directory_with_mode("app/closed", 0o700);
    plan.encrypted("closed/inside", b"1", 0o644);
    let world = plan.build();
    let paths = ["app/secret", "app/open", "app/closed/inside"].map(|name| world.path(name));
    let words = [
        &["as-nobody", "open"][..],
        &paths.each_ref().map(String::as_str),
    ]
    .concat();
    let table = world.probe(&words).table();
    assert_eq!(
        paths.each_ref().map(|path| table[path].as_str()),
        ["EACCES", "ok", "EACCES"]
    );
    let table = world.probe(&words[1..]).table();
    assert_eq!(
        paths.each_ref().map(|path| table[path].as_str()),
        ["ok", "ok", "ok"]
    );
}

#[test]
fn a_flipped_bit_is_an_error_that_names_file_and_check() {
    let world = world();
    let size = fs::metadata(world.path("pack")).unwrap().len() as usize;
    // In the last chunk, which is that of the last file of the pack.
    flip(world.path("pack").as_ref(), size - 10).unwrap();
    flip(world.path("plain/file").as_ref(), 3).unwrap();
    let run = world.probe(&[
        "open",
        &world.path("app/sub/two"),
        &world.path("plain/file"),
        &world.path("app/big"),
    ]);
    let table = run.table();
    assert_eq!(table[&world.path("app/sub/two")], "EIO", "{}", run.log());
    assert_eq!(table[&world.path("plain/file")], "EIO");
    let log = run.log();
    assert!(
        log.contains(&world.path("app/sub/two")) && log.contains("does not authenticate"),
        "{log}"
    );
    assert!(
        log.contains("chunk ") && log.contains(&format!("of pack {}", world.path("app"))),
        "{log}"
    );
    assert!(
        log.contains(&world.path("plain/file")) && log.contains("SHA-256"),
        "{log}"
    );
}

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
        assert_eq!(run.code(), 125, "{}", run.log());
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

#[test]
fn injected_files_shadow_everything() {
    let world = world();
    let (data, new) = (world.path("app/data"), world.path("host/injected"));
    let options = [format!("{data}=shadow"), format!("{new}=new")];
    let options = ["--inject", &options[0], "--inject", &options[1]];
    assert_eq!(
        world
            .run_with(&options, &["/bin/cat", &data, &new])
            .stdout(),
        "shadownew"
    );
    assert!(!fs::exists(&new).unwrap());
    let line = world
        .run_with(&options, &["app/probe", "agree", &data])
        .stdout();
    assert!(line.starts_with("100600 "), "{line}");
}
