//! A whole file system in one file, as in a sconified binary: what the program changes, and what the host does to that file.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use super::run::Run;
use super::world::{flip, Plan, World, EMBEDDED_AT};
use super::writable::{assert_same, native_calls, native_calls_of, random_calls, said};

/// An embedded world with some files.
fn world() -> World {
    let mut plan = Plan::embedded();
    plan.encrypted("data", b"the content\n", 0o640);
    plan.encrypted("big", &super::big(), 0o644);
    plan.encrypted("sub/one", b"1\n", 0o644);
    plan.encrypted("sub/two", b"2\n", 0o644);
    plan.link("app/link", "data");
    for program in ["cp", "ls", "ln", "mkdir", "mv", "rm", "stat", "chmod"] {
        plan.with_libraries(format!("/bin/{program}").as_ref());
    }
    plan.build()
}

/// Runs a shell script with `app` as its working directory.
fn script(world: &World, text: &str) -> Run {
    let text = format!("cd {}; {text}", world.path("app"));
    world.run(&["/bin/sh", "-c", &text])
}

#[test]
fn every_call_comes_out_as_in_a_plain_directory() {
    let native = native_calls();
    let world = world();
    let [seed, rounds] = random_calls();
    for top in ["scratch/top", "app/sub/top"] {
        let (top, other) = (world.path(top), world.path("host"));
        let run = world.run(&["app/calls", &top, &other, &seed, &rounds]);
        assert_same(&native, &said(&run, top.as_ref()), &run.log());
    }
}

#[test]
fn what_is_executed_is_not_written() {
    let native = native_calls_of(&["executing"]);
    let world = world();
    let (top, other) = (world.path("app/sub/top"), world.path("host"));
    let run = world.run(&["app/calls", &top, &other, "executing"]);
    assert_same(&native, &said(&run, top.as_ref()), &run.log());
    // Also what nobody has changed yet.
    let text =
        "(: >> /bin/sh) 2> new || echo busy; (: >> /bin/ls) && echo free; ls > new && echo runs";
    assert_eq!(script(&world, text).stdout(), "busy\nfree\nruns\n");
}

#[test]
fn what_is_embedded_can_be_changed_and_begins_anew_each_time() {
    let world = world();
    let text = "cat link sub/*; echo more >> data; chmod 600 sub/one; mv sub other; rm other/two; mkdir new new/er; \
                mv /bin/ls new/er/list; echo fresh > new/file; cat data; new/er/list -R *; stat -c '%a %s %h' other/one; \
                rm link; ln data hard; cat hard; stat -c %h data; rm -r new other; /bin/cp --version | cat > /dev/null; echo *";
    let expected =
        "the content\n1\n2\nthe content\nmore\nbig\ncalls\ndata\nlink\nprobe\nstatic\n\n\
                    new:\ner\nfile\n\nnew/er:\nlist\n\nother:\none\n600 2 1\nthe content\nmore\n2\n\
                    big calls data hard probe static\n";
    for _ in 0..2 {
        assert_eq!(script(&world, text).stdout(), expected);
    }
    let mut left: Vec<_> = fs::read_dir(&world.root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["digests", "host", "index", "pack"]);
}

#[test]
fn who_has_a_file_open_sees_its_change() {
    let world = world();
    let text = "exec 3< data; echo changed > data; cat <&3; exec 4< sub/one; (echo more >> sub/one); cat <&4";
    assert_eq!(script(&world, text).stdout(), "changed\n1\nmore\n");
}

#[test]
fn reading_changes_nothing_that_stat_shows() {
    let world = world();
    let look = "stat -c '%i %s %b %Y %Z %a %h' data big";
    let text = format!("{look}; cat data big | cat > /dev/null; {look}; exec 3<> data; {look}");
    let said = script(&world, &text).stdout();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[..2], lines[2..4]);
    assert_eq!(lines[..2], lines[4..]);
}

#[test]
fn programs_run_as_they_are_now() {
    let world = world();
    let text =
        "cp /bin/cat /bin/cat2; echo a | /bin/cat2; mv /bin/cat /bin/dog; echo b | /bin/dog; \
                (/bin/cat < /dev/null) 2> /dev/null || echo gone; \
                cp /bin/dog /bin/echo2; printf '#!/bin/sh\necho script\n' > /bin/echo2; /bin/echo2";
    assert_eq!(script(&world, text).stdout(), "a\nb\ngone\nscript\n");
}

#[test]
fn the_closure_of_the_program_is_all_that_may_be_mapped() {
    let world = world();
    let run = world.run_with(&["--dlopen", "0"], &["/bin/cat", &world.path("app/data")]);
    assert_eq!(run.stdout(), "the content\n");
}

#[test]
fn a_flipped_byte_ends_the_program_and_is_named() {
    for (file, says) in [
        ("pack", "it is not the one that was measured"),
        ("digests", "it is not the one that was measured"),
    ] {
        let world = world();
        let path = world.root.join(file);
        let last = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap() - 1;
        flip(&path, last).unwrap();
        // Whichever file the last chunk has.
        let run = script(
            &world,
            "cat /usr/bin/* /usr/lib/*/* > /dev/null; echo survived",
        );
        assert_eq!(
            (run.code(), run.said().as_str()),
            (120, ""),
            "{}",
            run.log()
        );
        assert!(run.log().contains(says), "{}", run.log());
        assert!(run.log().contains(&world.path("pack")), "{}", run.log());
    }
}

#[test]
fn a_file_of_another_length_is_refused() {
    for change in [-1, 1] {
        let world = world();
        let file = fs::File::options()
            .write(true)
            .open(world.root.join("pack"))
            .unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_add_signed(change)).unwrap();
        let run = script(&world, "echo survived");
        assert_eq!((run.code(), run.said().as_str()), (125, ""));
        let expected = length - EMBEDDED_AT;
        let log = run.log();
        assert!(log.contains(&format!("expected {expected}")), "{log}");
    }
}

#[test]
fn a_file_that_is_cut_while_the_program_runs_is_named() {
    let world = world();
    let text = format!(
        "echo ready; read line; read line < {}; echo survived",
        world.path("app/big")
    );
    let mut command = world.launcher();
    command.args(["--", "/bin/sh", "sh", "-c", &text]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let file = fs::File::options()
        .write(true)
        .open(world.root.join("pack"));
    file.unwrap().set_len(EMBEDDED_AT + 100).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), rest.as_str()),
        (Some(120), ""),
        "{log}"
    );
    assert!(log.contains(&world.path("app/big")), "{log}");
}
