//! Kills a writer at random points and checks what is left, by somebody who knows what was acknowledged.
//!
//! The writer makes numbered changes, commits after some of them, and says so after each commit. After the kill the
//! volume must be exactly as after one of the changes: no earlier one than was acknowledged. The next writer goes on from
//! there. `SCONIFY_CRASH_ROUNDS` sets the number of kills.

mod harness;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{assert_sound, create, new, open, read_file, scale, Random};
use sconify_volume::{Accept, Expected, NewKind, RenameMode, State, Volume, ROOT_INODE};

/// Changes between two acknowledgements are fewer.
const AHEAD: u64 = 3_000;

fn main() {
    let arguments = std::env::args().collect::<Vec<_>>();
    if let [_, role, directory, first] = arguments.as_slice() {
        assert_eq!(role, "writer");
        writer(Path::new(directory), first.parse().unwrap());
    }
    let rounds = scale("SCONIFY_CRASH_ROUNDS", 12);
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let mut recorded = volume.state();
    drop(volume);
    let (mut random, mut model, mut done, mut successors) = (Random(5), Model::new(), 0, 0);
    for round in 0..rounds {
        let (acknowledged, state) = run_and_kill(directory.path(), done, &mut random);
        recorded = state.unwrap_or(recorded);
        while done < acknowledged {
            change_model(&mut model, done);
            done += 1;
        }
        let expected = Expected::Recorded {
            state: recorded,
            volume: None,
            accept: Accept::Successors,
        };
        let volume = open(directory.path(), &expected).unwrap();
        let mut found = tree(&volume);
        // A change that was under way may have left its file without the name that it should get.
        found.remove("new");
        while model != found {
            assert!(
                done < acknowledged + AHEAD,
                "round {round}: the state after the kill never was"
            );
            change_model(&mut model, done);
            done += 1;
        }
        successors += u64::from(volume.state() != recorded);
        recorded = volume.state();
        assert_sound(&volume);
    }
    println!(
        "{rounds} kills, {done} changes, {successors} states newer than the last acknowledged one"
    );
    assert!(done > rounds, "the writers got nowhere");
}

/// Files of the top directory by name.
type Model = BTreeMap<String, Vec<u8>>;

fn tree(volume: &Volume) -> Model {
    let entries = volume.read_directory(ROOT_INODE, 2, 1_000).unwrap();
    let name = |name| String::from_utf8(name).unwrap();
    let names = entries.into_iter().map(|entry| name(entry.name));
    names
        .map(|name| (name.clone(), read_file(volume, &name).unwrap()))
        .collect()
}

/// One change, by its number alone.
enum Change {
    Write(String, usize, Vec<u8>),
    Truncate(String, usize),
    Remove(String),
    Rename(String, String),
}

fn change(number: u64) -> Change {
    let mut random = Random(number.wrapping_mul(77));
    let mut name = || format!("file-{}", random.below(12));
    let (one, other) = (name(), name());
    match random.below(10) {
        0 => Change::Remove(one),
        1 => Change::Rename(one, other),
        2 => Change::Truncate(one, random.below(60_000) as usize),
        _ => {
            let most = [40_000, 900, 900, 900, 900][random.below(5) as usize];
            let length = 1 + random.below(most);
            let offset = random.below(60_000) as usize;
            Change::Write(one, offset, vec![number as u8; length as usize])
        }
    }
}

fn change_model(model: &mut Model, number: u64) {
    match change(number) {
        Change::Write(name, offset, data) => {
            let file = model.entry(name).or_default();
            file.resize(file.len().max(offset + data.len()), 0);
            file[offset..offset + data.len()].copy_from_slice(&data);
        }
        Change::Truncate(name, size) => {
            if let Some(file) = model.get_mut(&name) {
                file.resize(size, 0);
            }
        }
        Change::Remove(name) => drop(model.remove(&name)),
        Change::Rename(from, to) => {
            if let Some(file) = model.remove(&from) {
                model.insert(to, file);
            }
        }
    }
}

fn change_volume(volume: &Volume, number: u64) {
    let find = |name: &str| {
        volume
            .lookup(ROOT_INODE, name.as_bytes())
            .ok()
            .map(|found| found.inode)
    };
    match change(number) {
        Change::Write(name, offset, data) => match find(&name) {
            Some(inode) => {
                volume.write_at(inode, offset as u64, &data).unwrap();
            }
            None => {
                // Written under another name, then renamed: so it appears as a whole.
                let made = volume
                    .create_inode(ROOT_INODE, b"new", &new(NewKind::Regular))
                    .unwrap();
                volume.write_at(made.inode, offset as u64, &data).unwrap();
                volume
                    .rename(
                        ROOT_INODE,
                        b"new",
                        ROOT_INODE,
                        name.as_bytes(),
                        RenameMode::NoReplace,
                    )
                    .unwrap();
            }
        },
        Change::Truncate(name, size) => {
            if let Some(inode) = find(&name) {
                volume.truncate(inode, size as u64).unwrap();
            }
        }
        Change::Remove(name) => drop(volume.unlink(ROOT_INODE, name.as_bytes())),
        Change::Rename(from, to) => drop(volume.rename(
            ROOT_INODE,
            from.as_bytes(),
            ROOT_INODE,
            to.as_bytes(),
            RenameMode::Replace,
        )),
    }
}

fn writer(directory: &Path, first: u64) -> ! {
    let volume = open(directory, &Expected::Any).unwrap();
    // What a kill left of the change that was under way.
    drop(volume.unlink(ROOT_INODE, b"new"));
    let mut random = Random(first);
    let mut number = first;
    loop {
        let most = [300, 6, 6, 6, 6, 6, 6, 6][random.below(8) as usize];
        for _ in 0..1 + random.below(most) {
            change_volume(&volume, number);
            number += 1;
        }
        let state = volume.commit().unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{number} {state}").unwrap();
        out.flush().unwrap();
    }
}

/// Lets a writer work for a while; returns how many changes it acknowledged, and the state of the last acknowledgement.
fn run_and_kill(directory: &Path, first: u64, random: &mut Random) -> (u64, Option<State>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "writer".as_ref(),
            directory.as_os_str(),
            first.to_string().as_ref(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let reader =
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).last());
    std::thread::sleep(Duration::from_micros(2_000 + random.below(120_000)));
    assert!(
        child.try_wait().unwrap().is_none(),
        "the writer ended by itself"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let Some(line) = reader.join().unwrap() else {
        return (first, None);
    };
    let (number, state) = line.split_once(' ').unwrap();
    let (counter, root) = state.split_once(':').unwrap();
    let byte = |index: usize| u8::from_str_radix(&root[2 * index..2 * index + 2], 16).unwrap();
    let state = State {
        counter: counter.parse().unwrap(),
        root: std::array::from_fn(byte),
    };
    (number.parse().unwrap(), Some(state))
}
