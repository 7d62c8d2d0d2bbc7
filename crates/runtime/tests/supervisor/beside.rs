//! Commands beside the program, for sessions in debug mode.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::run::Run;
use super::world::{launcher, Plan, World};

/// A program that waits for a line, and then tells what the file `scratch/made` holds.
fn waiting(world: &World, options: &[&str]) -> Child {
    let made = world.path("scratch/made");
    let script = format!("echo ready; read line; cat {made}");
    let mut program = world
        .launcher()
        .args(["--env", "MARK=inside"])
        .args(options)
        .args(["--", "/bin/sh", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(program.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    program.stdout = Some(output.into_inner());
    program
}

fn asking() -> Command {
    let mut command = Command::new("timeout");
    command.arg("60").arg(launcher()).arg("sconify:debug");
    command.stdin(Stdio::null());
    command
}

fn ask(words: &[&str]) -> Run {
    Run::new(asking().args(words).output().unwrap())
}

/// One test: the supervisors of one mount name space would take each other's visitors.
#[test]
fn commands_run_inside_the_shield_if_the_session_is_in_debug_mode() {
    let mut plan = Plan::new();
    plan.encrypted("secret", b"the secret\n", 0o600);
    plan.directory_with_mode("app/empty", 0o755);
    let world = plan.build();
    let secret = world.path("app/secret");

    let mut program = waiting(&world, &[]);
    let run = ask(&["sh", "-c", "true"]);
    assert_eq!(run.code(), 125);
    assert!(
        run.log().contains("no program of this container takes"),
        "{}",
        run.log()
    );
    program.stdin.take().unwrap().write_all(b"\n").unwrap();
    program.wait().unwrap();

    let mut program = waiting(&world, &["--debug"]);
    // Files, environment, directory, exit codes, both outputs; found along PATH or by path.
    assert_eq!(ask(&["cat", &secret]).stdout(), "the secret\n");
    let run = ask(&["/bin/sh", "-c", "echo $MARK; pwd; echo error >&2; exit 7"]);
    assert_eq!((run.said().as_str(), run.code()), ("inside\n/\n", 7));
    assert!(run.log().contains("error\n"));
    assert_eq!(ask(&["sh", "-c", "kill -9 $$"]).code(), 137);
    let run = ask(&["no-such-program"]);
    assert_eq!(run.code(), 127);
    assert!(run.log().contains("no-such-program"), "{}", run.log());
    assert_eq!(ask(&[&world.path("app/probe"), "exit", "3"]).code(), 3);
    assert_eq!(ask(&[]).code(), 125);

    // Standard input, and several commands at the same time.
    let mut first = asking()
        .args(["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(ask(&["sh", "-c", "exit 4"]).code(), 4);
    first.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    assert_eq!(
        Run::new(first.wait_with_output().unwrap()).stdout(),
        "typed\n"
    );

    // A terminal, that of its own session.
    let command = format!(
        "{} sconify:debug sh -c '[ -t 0 ] && [ -t 1 ] && echo a terminal; : </dev/tty && echo its own; exit 5'",
        launcher().display()
    );
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.ends_with("a terminal\r\nits own\r\n"), "{shown:?}");

    // Who hangs up ends the command.
    let mark = &format!("mark-{}", std::process::id());
    let mut hanging = Command::new(launcher())
        .args(["sconify:debug", &world.path("app/probe"), "sleep", mark])
        .spawn()
        .unwrap();
    let runs = || {
        let output = Command::new("pgrep")
            .args(["-f", &format!("^[^ ]*/probe sleep {mark}$")])
            .output();
        !output.unwrap().stdout.is_empty()
    };
    wait_until(runs);
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    wait_until(|| !runs());

    // It is the program's file system, not a copy of it.
    let made = world.path("scratch/made");
    assert_eq!(
        ask(&["sh", "-c", &format!("echo by debugging > {made}")]).code(),
        0
    );
    program.stdin.take().unwrap().write_all(b"\n").unwrap();
    let run = Run::new(program.wait_with_output().unwrap());
    assert_eq!(run.stdout(), "by debugging\n");

    // Nothing outlives the program.
    let mut program = waiting(&world, &["--debug"]);
    let mut left = asking()
        .args([&world.path("app/probe"), "sleep", mark])
        .spawn()
        .unwrap();
    wait_until(runs);
    program.stdin.take().unwrap().write_all(b"\n").unwrap();
    program.wait().unwrap();
    left.wait().unwrap();
    assert!(!runs());
}

fn wait_until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}
