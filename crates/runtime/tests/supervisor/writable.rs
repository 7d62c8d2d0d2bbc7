//! Writable regions against a plain directory, call by call.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::world;
use super::world::{compile, Run};

/// What the program of all calls says in a directory, without the directory's path.
fn said(run: &Run, top: &Path) -> Vec<String> {
    let top = top.to_str().unwrap();
    run.stdout()
        .lines()
        .map(|line| line.replace(top, "TOP"))
        .collect()
}

/// Runs the program of all calls natively in a new directory.
fn native_calls(other: &Path) -> Vec<String> {
    let program = compile("calls", "");
    let top = program.with_extension("top");
    let output = Command::new(&program)
        .arg(&top)
        .arg(other)
        .output()
        .unwrap();
    let lines = said(&Run::new(output), &top);
    fs::remove_dir_all(&top).unwrap();
    fs::remove_file(&program).unwrap();
    lines
}

#[test]
fn every_call_in_an_ephemeral_region_comes_out_as_in_a_plain_directory() {
    let world = world();
    let (top, other) = (world.path("scratch/top"), world.path("host"));
    let run = world.run(&["app/calls", &top, &other]);
    let served = said(&run, top.as_ref());
    let native = native_calls("/dev/shm".as_ref());
    let differences: Vec<_> = native
        .iter()
        .zip(&served)
        .filter(|(native, served)| native != served)
        .map(|(native, served)| format!("natively {native}\n   served {served}\n"))
        .collect();
    assert!(
        differences.is_empty(),
        "{}{}",
        differences.concat(),
        run.log()
    );
    assert_eq!(native.len(), served.len());
}
