//! Programs under the supervisor, on this machine's kernel: what they see, what they are refused, how they start and end.

mod beside;
mod embedded;
mod files;
mod programs;
mod run;
mod templates;
mod volume;
mod world;
mod writable;

use world::{Plan, World};

/// The links beneath `app`, and their targets.
const LINKS: [(&str, &str); 4] = [
    ("link", "data"),
    ("up", "sub/../sub/one"),
    ("loop", "loop"),
    ("mounts", "/proc/self/mounts"),
];

/// A world with a few files of each kind.
fn world() -> World {
    let mut plan = Plan::new();
    plan.encrypted("data", b"the content\n", 0o640);
    plan.encrypted("big", &big(), 0o644);
    plan.encrypted("sub/one", b"1", 0o644);
    plan.encrypted("sub/two", b"2", 0o644);
    plan.plain("file", b"authenticated\n");
    for (name, target) in LINKS {
        plan.link(&format!("app/{name}"), target);
    }
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
