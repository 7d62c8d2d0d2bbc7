//! What programs see of the tree, and what they are refused.

use std::fs;
use std::process::Command;

use super::run::Run;
use super::world::{compile, flip, plant_link, Plan, World};
use super::writable::{assert_same, said};
use super::{big, world, LINKS};

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
        ("calls", file),
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
    let opened = world.probe(&["open", &world.path("app/planted")]).table();
    assert_eq!(opened[&world.path("app/planted")], "ENOENT");
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
fn restricted_paths_lead_where_they_do_natively() {
    let world = world();
    let run = world.run(&["app/calls", &world.path("app"), "/dev/shm", "looking"]);
    let program = compile("calls", "");
    let native = program.with_extension("top");
    let app = native.join("app");
    fs::create_dir_all(app.join("sub")).unwrap();
    for (name, content) in [
        ("data", "the content\n"),
        ("sub/one", "1"),
        ("sub/two", "2"),
    ] {
        fs::write(app.join(name), content).unwrap();
    }
    for (name, target) in LINKS {
        plant_link(target, &app.join(name));
    }
    let mut command = Command::new(&program);
    let natively = command.arg(&app).args(["/dev/shm", "looking"]).output();
    let native_run = Run::new(natively.unwrap());
    assert_same(
        &said(&native_run, &app),
        &said(&run, world.path("app").as_ref()),
        &run.log(),
    );
    fs::remove_dir_all(native).unwrap();
    fs::remove_file(program).unwrap();
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
    assert_eq!(table["openat2"], "EINVAL");
    assert_eq!(table["x32"], "ENOSYS");
    assert_eq!(table["i386"], "ENOSYS");
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
    let results = |way: &[&str]| {
        let words = [way, &["open"][..], &paths.each_ref().map(String::as_str)].concat();
        let table = world.probe(&words).table();
        paths.each_ref().map(|path| table[path].clone())
    };
    assert_eq!(results(&["as-nobody"]), ["EACCES", "ok", "EACCES"]);
    assert_eq!(results(&["as-nobody", "child"]), ["EACCES", "ok", "EACCES"]);
    assert_eq!(results(&[]), ["ok", "ok", "ok"]);
}

/// Opens three files and expects that the runtime ends everything at the second one, saying why.
#[track_caller]
fn assert_ends_the_program(world: &World, file: &str, reasons: &[&str]) {
    let paths = ["app/data", file, "app/big"].map(|name| world.path(name));
    let run = world.probe(&["open", &paths[0], &paths[1], &paths[2]]);
    let log = run.log();
    assert_eq!(run.code(), 120, "{}{log}", run.said());
    for reason in reasons {
        assert!(log.contains(reason), "{reason:?} is not in {log}");
    }
    assert!(!run.said().contains(&paths[1]), "{}", run.said());
}

#[test]
fn a_flipped_bit_in_a_pack_ends_the_program() {
    let world = world();
    let size = fs::metadata(world.path("pack")).unwrap().len() as usize;
    // In the last chunk, which is that of the last file of the pack.
    flip(world.path("pack").as_ref(), size - 10).unwrap();
    let pack = format!("of {}: it does not authenticate", world.path("pack"));
    assert_ends_the_program(&world, "app/sub/two", &["chunk ", &pack]);
}

#[test]
fn a_changed_or_missing_plain_file_ends_the_program() {
    let world = world();
    let path = world.path("plain/file");
    flip(path.as_ref(), 3).unwrap();
    assert_ends_the_program(&world, "plain/file", &[&path, "SHA-256"]);
    fs::remove_file(&path).unwrap();
    assert_ends_the_program(&world, "plain/file", &[&path, "can't be opened"]);
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
