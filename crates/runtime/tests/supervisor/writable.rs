//! Writable regions: against a plain directory, call by call; what they begin with, and what is left of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::run::Run;
use super::world;
use super::world::{compile, Plan, World};

/// What the program of all calls says in a directory, without the directory's path.
pub fn said(run: &Run, top: &Path) -> Vec<String> {
    let top = top.to_str().unwrap();
    run.stdout()
        .lines()
        .map(|line| line.replace(top, "TOP"))
        .collect()
}

/// Compares, line by line.
#[track_caller]
pub fn assert_same(native: &[String], served: &[String], log: &str) {
    let differences: Vec<_> = native
        .iter()
        .zip(served)
        .filter(|(native, served)| native != served)
        .map(|(native, served)| format!("natively {native}\n   served {served}\n"))
        .collect();
    assert!(differences.is_empty(), "{}{log}", differences.concat());
    assert_eq!(native.len(), served.len());
}

/// Seed and number of the random calls; a soak makes more: `SCONIFY_RANDOM_CALLS="SEED ROUNDS"`.
pub fn random_calls() -> [String; 2] {
    let given = std::env::var("SCONIFY_RANDOM_CALLS").unwrap_or("1 2000".to_owned());
    let (seed, rounds) = given.split_once(' ').unwrap();
    [seed.to_owned(), rounds.to_owned()]
}

/// Runs the program of all calls natively in a new directory.
pub fn native_calls() -> Vec<String> {
    native_calls_of(&random_calls())
}

/// What [`native_calls`] does, with other arguments behind the directories.
pub fn native_calls_of(arguments: &[impl AsRef<OsStr>]) -> Vec<String> {
    let program = compile("calls", "");
    let top = program.with_extension("top");
    let output = Command::new(&program)
        .arg(&top)
        .arg("/dev/shm")
        .args(arguments)
        .output()
        .unwrap();
    let lines = said(&Run::new(output), &top);
    fs::remove_dir_all(&top).unwrap();
    fs::remove_file(&program).unwrap();
    lines
}

#[test]
fn every_call_in_an_ephemeral_region_comes_out_as_in_a_plain_directory() {
    let native = native_calls();
    let world = world();
    let (top, other) = (world.path("scratch/top"), world.path("host"));
    let [seed, rounds] = random_calls();
    let run = world.run(&["app/calls", &top, &other, &seed, &rounds]);
    assert_same(&native, &said(&run, top.as_ref()), &run.log());
}

#[test]
fn what_is_executed_in_an_ephemeral_region_is_not_written() {
    let native = native_calls_of(&["executing"]);
    let world = world();
    let (top, other) = (world.path("scratch/top"), world.path("host"));
    let run = world.run(&["app/calls", &top, &other, "executing"]);
    assert_same(&native, &said(&run, top.as_ref()), &run.log());
}

/// What the kernel could do only by walking on from a directory that the disk does not have any more.
const REFUSED_IN_REMOVED_DIRECTORIES: &[&str] =
    &["openat(n, \".\", O_RDONLY): ", "chdir(\"..\"): "];

#[test]
fn every_call_in_the_hosts_part_comes_out_as_without_us() {
    let native = native_calls();
    let world = world();
    let top = world.path("host/top");
    // Code of the host's is mapped only where that is allowed.
    let run = world.run_with(&["--dlopen", "2"], &["app/calls", &top, "/dev/shm"]);
    let mut served = said(&run, top.as_ref());
    let mut refused = 0;
    for (native, served) in native.iter().zip(&mut served) {
        let is_refused = REFUSED_IN_REMOVED_DIRECTORIES
            .iter()
            .any(|call| native.contains(call));
        let follows = refused == 2 && served.ends_with("here(): ENOENT");
        if native != served && served.ends_with("ENOENT") && (is_refused || follows) {
            refused += usize::from(is_refused);
            served.clone_from(native);
        }
    }
    assert_eq!(refused, 2);
    assert_same(&native, &served, &run.log());
}

#[test]
fn every_call_in_a_protected_region_comes_out_as_on_a_read_only_file_system() {
    let mut plan = Plan::new();
    for (name, content) in [("new", "content"), ("d/g", "in d"), ("o", "owner")] {
        plan.encrypted(&format!("top/{name}"), content.as_bytes(), 0o644);
        plan.plain(&format!("top/{name}"), content.as_bytes());
    }
    for (name, target) in [("dangling", "nowhere"), ("loop", "loop"), ("way", "d")] {
        plan.link(&format!("app/top/{name}"), target);
        plan.link(&format!("plain/top/{name}"), target);
    }
    let world = plan.build();
    // The same, on a file system that is mounted read-only.
    let copy = world.root.join("native");
    fs::create_dir(&copy).unwrap();
    let program = compile("calls", "");
    let script = "umask 022 && mount -t tmpfs none \"$2\" && mkdir -p \"$2/top/d\" && cd \"$2/top\" && printf content > new && \
                  printf 'in d' > d/g && printf owner > o && ln -s nowhere dangling && ln -s loop loop && ln -s d way && \
                  mount -o remount,ro \"$2\" && exec \"$1\" \"$2/top\" /dev/shm";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([&program, &copy])
        .output()
        .unwrap();
    fs::remove_file(&program).unwrap();
    if !output.status.success() && output.stdout.is_empty() {
        eprintln!("skipped: mounting is not allowed here");
        return;
    }
    let native = said(&Run::new(output), &copy.join("top"));
    for region in ["app/top", "plain/top"] {
        let top = world.path(region);
        let run = world.run(&["app/calls", &top, "/dev/shm"]);
        assert_same(&native, &said(&run, top.as_ref()), &run.log());
    }
}

/// Runs a shell script with `scratch` as its working directory.
fn script(world: &World, text: &str) -> Run {
    let text = format!("cd {}; {text}", world.path("scratch"));
    world.run(&["/bin/sh", "-c", &text])
}

#[test]
fn a_region_begins_with_what_the_image_has_each_time() {
    let mut plan = Plan::new();
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|number| (number >> 7) as u8)
        .collect();
    plan.seeded("seed", b"from the image\n");
    plan.seeded("sub/large", &large);
    plan.link("scratch/link", "sub/../seed");
    let world = plan.build();
    assert!(!fs::exists(world.path("scratch/seed")).unwrap());
    for _ in 0..2 {
        let text =
            "cat link; echo more >> link; cat seed; cat sub/large | (cat > copy); echo * sub/*";
        assert_eq!(
            script(&world, text).stdout(),
            "from the image\nfrom the image\nmore\ncopy link seed sub sub/large\n"
        );
    }
    let copy = format!("cat sub/large > {}", world.path("host/copy"));
    script(&world, &copy).stdout();
    assert!(fs::read(world.path("host/copy")).unwrap() == large);
    let agree = world
        .probe(&["agree", &world.path("scratch/seed")])
        .stdout();
    assert!(agree.starts_with("100644 0 0 1 15 1600000000 "), "{agree}");
}

#[test]
fn a_changed_pack_of_a_writable_region_ends_the_program() {
    let mut plan = Plan::new();
    plan.seeded("seed", b"from the image\n");
    let world = plan.build();
    super::world::flip(world.path("pack-scratch").as_ref(), 40).unwrap();
    let run = script(&world, "cat seed; echo survived");
    assert_eq!(
        (run.code(), run.said().as_str()),
        (120, ""),
        "{}",
        run.log()
    );
    assert!(
        run.log().contains(&world.path("scratch/seed")),
        "{}",
        run.log()
    );
}

#[test]
fn regions_stand_in_each_other() {
    // The directory that holds the world is itself ephemeral, so everything else lies within that region.
    let mut plan = Plan::new();
    let above = plan.path("").trim_end_matches('/').to_owned();
    plan.ephemeral(&above);
    plan.encrypted("data", b"protected\n", 0o644);
    for program in ["/bin/mv", "/bin/rmdir", "/bin/ln"] {
        plan.with_libraries(program.as_ref());
    }
    let world = plan.build();
    fs::write(world.path("host/file"), "of the host\n").unwrap();
    let text = format!(
        "cd {above}; echo *; cat app/data host/file scratch/../app/data; echo made > made; cat scratch/../made; \
         mv app app2 2>&1 | cat; rmdir scratch 2>&1 | cat; ln -s app/data way; cat way; cd host; cat ../made"
    );
    let run = world.run(&["/bin/sh", "-c", &text]);
    let said = run.stdout();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "app host plain scratch", "{said}{}", run.log());
    assert_eq!(
        lines[1..5],
        ["protected", "of the host", "protected", "made"]
    );
    assert!(lines[5].ends_with("Device or resource busy"), "{said}");
    assert!(lines[6].ends_with("Device or resource busy"), "{said}");
    assert_eq!(lines[7..], ["protected", "made"]);
}

#[test]
fn injected_files_stand_in_writable_directories_too() {
    let world = world();
    let path = world.path("scratch/secrets/key");
    let text = format!(
        "cd {}; echo *; cat key; cat key > copy; cat copy; (echo x > key) 2>&1 | cat",
        world.path("scratch/secrets")
    );
    let run = world.run_with(
        &["--inject", &format!("{path}=injected")],
        &["/bin/sh", "-c", &text],
    );
    let said = run.stdout();
    assert!(
        said.starts_with("key\ninjectedinjected"),
        "{said}{}",
        run.log()
    );
    assert!(said.contains("Read-only file system"), "{said}");
}

#[test]
fn programs_that_are_made_in_a_region_are_executed() {
    let world = world();
    let text = format!(
        "cat /bin/cat > own; chmod() {{ {} mode \"$@\"; }}; chmod 755 own; echo through | ./own; \
         echo '#!/bin/sh\necho script $1' > script; chmod 700 script; ./script one; echo '#!./own\ntext' > self; chmod 755 self; ./self; \
         ./seed 2>&1; cat /bin/cat > own; echo again | ./own",
        world.path("app/probe")
    );
    let run = script(&world, &text);
    let said = run.said();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines[..4],
        ["through", "script one", "#!./own", "text"],
        "{said}{}",
        run.log()
    );
    assert_eq!(lines.last(), Some(&"again"));
}

/// A program under the launcher that goes on until it is killed.
struct Running(Child);

impl Running {
    /// Starts a script in `scratch` and waits until it says "ready".
    fn start(world: &World, words: &[&str]) -> Self {
        let mut command = world.launcher();
        let program = world.path(words[0]);
        command.args(["--", &program, &program]).args(&words[1..]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        loop {
            let line = lines.next().unwrap().unwrap();
            if line == "ready" {
                break;
            }
        }
        Self(child)
    }

    /// The process of the supervisor: the child of `timeout`.
    fn supervisor(&self) -> PathBuf {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        let text = fs::read_to_string(children).unwrap();
        PathBuf::from("/proc").join(text.split_ascii_whitespace().next().unwrap())
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(self.supervisor().join("fd")).unwrap().count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `timeout` passes it on.
        let id = self.0.id().to_string();
        Command::new("kill").arg(id).status().unwrap();
        self.0.wait().unwrap();
    }
}

/// Everything on the disk beneath a directory that mentions a text, in its name or its content.
pub fn mentions(directory: &Path, needle: &[u8], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let named = path
            .to_string_lossy()
            .contains(std::str::from_utf8(needle).unwrap());
        let kind = entry.file_type().unwrap();
        let holds = kind.is_file()
            && fs::read(&path)
                .is_ok_and(|content| content.windows(needle.len()).any(|part| part == needle));
        if named || holds {
            found.push(path.clone());
        }
        if kind.is_dir() {
            mentions(&path, needle, found);
        }
    }
}

#[test]
fn nothing_of_a_region_is_on_the_disk() {
    let world = world();
    let running = Running::start(
        &world,
        &[
            "app/probe",
            "occupy",
            &world.path("scratch"),
            "needle-in-haystack",
        ],
    );
    let mut found = Vec::new();
    for place in [world.root.as_path(), "/dev/shm".as_ref()] {
        mentions(place, b"needle-in-haystack", &mut found);
    }
    assert_eq!(found, Vec::<PathBuf>::new());
    drop(running);
}

#[test]
fn what_was_removed_is_freed() {
    let world = world();
    let running = Running::start(&world, &["app/probe", "churn", &world.path("scratch")]);
    let count = running.descriptors();
    // Of 3,800 files and directories; a few hundred open directories are kept for a while.
    assert!(count < 500, "{count} descriptors are left");
    drop(running);
}

#[test]
fn a_socket_that_the_host_put_in_the_place_of_ours_is_not_connected_to() {
    let before: BTreeSet<_> = sockets_in_memory();
    let world = world();
    let mut command = world.launcher();
    let program = world.path("app/probe");
    command.args([
        "--",
        &program,
        &program,
        "reconnect",
        &world.path("scratch/socket"),
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "connect ok");
    let ours: Vec<_> = sockets_in_memory().difference(&before).cloned().collect();
    let mut listeners = Vec::new();
    for path in ours {
        fs::remove_file(&path).unwrap();
        listeners.push(UnixListener::bind(&path).unwrap());
    }
    assert!(!listeners.is_empty());
    drop(child.stdin.take());
    assert_eq!(lines.next().unwrap().unwrap(), "connect ECONNREFUSED");
    assert!(child.wait().unwrap().success());
}

/// The sockets of all supervisors of this machine.
fn sockets_in_memory() -> BTreeSet<PathBuf> {
    let places = fs::read_dir("/dev/shm").unwrap().flatten();
    let directories =
        places.filter(|entry| entry.file_name().to_string_lossy().starts_with(".sconify-"));
    directories
        .flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten())
        .filter(|entry| {
            entry
                .metadata()
                .is_ok_and(|status| status.mode() & libc::S_IFMT == libc::S_IFSOCK)
        })
        .map(|entry| entry.path())
        .collect()
}
