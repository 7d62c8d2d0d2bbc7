//! Volumes: against a plain directory, call by call; what the next start finds; what the host sees.

use std::path::Path;
use std::process::Command;

use super::run::Run;
use super::world::{Plan, World};
use super::writable::{assert_same, mentions, native_calls, native_calls_of, random_calls, said};

/// A world with a volume at `vault`.
fn vault() -> World {
    let mut plan = Plan::new();
    plan.volume("vault");
    for program in ["mkdir", "stat"] {
        plan.with_libraries(format!("/bin/{program}").as_ref());
    }
    plan.build()
}

fn run(world: &World, words: &[&str]) -> Run {
    world.run_with(&["--volume", &world.path("vault")], words)
}

/// Runs a shell script in the volume.
fn script(world: &World, text: &str) -> Run {
    let text = format!("cd {}; {text}", world.path("vault"));
    run(world, &["/bin/sh", "-c", &text])
}

#[test]
fn every_call_in_a_volume_comes_out_as_in_a_plain_directory() {
    let mut native = native_calls();
    // Volumes read contents themselves, so that they are read is not told.
    native.retain(|line| !(line.contains(" told of ") && line.ends_with(": access")));
    let world = vault();
    let (top, other) = (world.path("vault/top"), world.path("host"));
    let [seed, rounds] = random_calls();
    let served = run(&world, &["app/calls", &top, &other, &seed, &rounds]);
    assert_same(&native, &said(&served, top.as_ref()), &served.log());
}

#[test]
fn what_is_executed_in_a_volume_is_not_written() {
    let native = native_calls_of(&["executing"]);
    let world = vault();
    let (top, other) = (world.path("vault/top"), world.path("host"));
    let served = run(&world, &["app/calls", &top, &other, "executing"]);
    assert_same(&native, &said(&served, top.as_ref()), &served.log());
}

#[test]
fn the_next_start_finds_everything() {
    let world = vault();
    script(
        &world,
        "echo one > file; mkdir sub; echo two > sub/needle-name; echo needle-content >> sub/needle-name",
    )
    .stdout();
    let second = script(
        &world,
        "cat file sub/needle-name; echo three >> file; echo *",
    );
    assert_eq!(second.stdout(), "one\ntwo\nneedle-content\nfile sub\n");
    assert_eq!(script(&world, "cat file").stdout(), "one\nthree\n");
    let mut found = Vec::new();
    for needle in ["needle-name", "needle-content"] {
        mentions(
            Path::new(&world.path("vault")),
            needle.as_bytes(),
            &mut found,
        );
    }
    assert_eq!(found, Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_volume_has_the_room_of_its_disk() {
    let world = vault();
    let room = ["-f", "-c", "%S %b"];
    let native = Command::new("stat")
        .args(room)
        .arg(world.path("vault"))
        .output()
        .unwrap();
    let served = script(&world, "stat -f -c '%S %b' .");
    assert_eq!(served.stdout(), String::from_utf8(native.stdout).unwrap());
}

#[test]
fn a_volume_that_is_not_mounted_or_not_expected_is_refused() {
    let world = vault();
    let run = world.run(&["/bin/sh", "-c", "echo started"]);
    assert_eq!((run.code(), run.said().as_str()), (125, ""));
    assert!(
        run.log().contains("the session mounts none"),
        "{}",
        run.log()
    );
    let other = super::world();
    std::fs::create_dir(other.path("vault")).unwrap();
    let run = other.run_with(
        &["--volume", &other.path("vault")],
        &["/bin/sh", "-c", "echo started"],
    );
    assert_eq!((run.code(), run.said().as_str()), (125, ""));
    assert!(run.log().contains("--volume=test:"), "{}", run.log());
}
