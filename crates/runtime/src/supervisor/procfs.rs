//! Links of `/proc` that lead back into the tree, and those that would show what the supervisor made instead of what the program opened.
//!
//! `/proc/PID/{cwd,root,exe,fd/N}` don't name their targets, they *are* them: the kernel would walk on from there on the disk. So we put the
//! target's path in their place and resolve again. Descriptors that stand for something without a path are left to the kernel.

use rustix::fs::{lstat, FileType};
use rustix::io::Errno;

use super::call::{Base, Call};
use super::task::{join, Task};
use super::tree::{Node, Place};

/// What a path in the host's part is, as far as `/proc` is concerned.
#[derive(Debug, PartialEq, Eq)]
pub enum Proc {
    /// Not in `/proc`.
    Outside,
    /// In `/proc`, and the kernel's to answer.
    Native,
    /// Another path, to be resolved from the start.
    Redirect(Vec<u8>),
    /// One of our memory files.
    Node(Node),
}

/// What of our own process is nobody's business: it holds keys and plaintext.
const PRIVATE: &[&[u8]] = &[
    b"mem",
    b"fd",
    b"fdinfo",
    b"environ",
    b"maps",
    b"smaps",
    b"smaps_rollup",
    b"numa_maps",
    b"map_files",
    b"exe",
    b"root",
    b"cwd",
    b"syscall",
    b"stack",
    b"auxv",
    b"io",
    b"pagemap",
    b"clear_refs",
    b"oom_adj",
    b"oom_score_adj",
];

/// Looks at a path that resolution found to be the host's.
///
/// # Errors
/// `EACCES` for what is private to the supervisor.
pub fn inspect(call: &Call, path: &[u8], follow: bool) -> Result<Proc, Errno> {
    if !call.shield.has_procfs {
        return Ok(Proc::Outside);
    }
    let Some(rest) = path
        .strip_prefix(b"/proc")
        .filter(|rest| rest.is_empty() || rest[0] == b'/')
    else {
        return Ok(Proc::Outside);
    };
    let components: Vec<_> = rest
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if components.contains(&&b".."[..]) {
        return lexical(&components);
    }
    let Some((&process, mut within)) = components.split_first() else {
        return Ok(Proc::Native);
    };
    // Links of the file system's root: self, thread-self, mounts, net.
    let mut task = match process {
        b"self" | b"thread-self" => call.task,
        b"mounts" | b"net" => return Ok(Proc::Native),
        number => match std::str::from_utf8(number)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            Some(number) => Task(number),
            None => return Ok(Proc::Native),
        },
    };
    if let [b"task", thread, rest @ ..] = within {
        let Some(thread) = std::str::from_utf8(thread)
            .ok()
            .and_then(|text| text.parse().ok())
        else {
            return Ok(Proc::Native);
        };
        task = Task(thread);
        within = rest;
    }
    let Some((&name, rest)) = within.split_first() else {
        return Ok(Proc::Native);
    };
    if PRIVATE.contains(&name) && is_ours(task) {
        return Err(Errno::ACCESS);
    }
    match (name, rest) {
        (b"cwd" | b"root", rest) if !rest.is_empty() || follow => {
            let link = if name == b"cwd" { "cwd" } else { "root" };
            let target = call.path_of_link(task, link)?;
            Ok(Proc::Redirect(beneath(&target, rest)))
        }
        (b"exe", []) if follow => {
            Ok(memory_file(call, task, "exe").map_or(Proc::Native, Proc::Node))
        }
        (b"fd", [number, rest @ ..]) => {
            let Some(number) = std::str::from_utf8(number)
                .ok()
                .and_then(|text| text.parse().ok())
            else {
                return Ok(Proc::Native);
            };
            descriptor(call, task, number, rest, follow)
        }
        _ => Ok(Proc::Native),
    }
}

fn descriptor(
    call: &Call,
    task: Task,
    number: i32,
    rest: &[&[u8]],
    follow: bool,
) -> Result<Proc, Errno> {
    if !follow && rest.is_empty() {
        return Ok(Proc::Native);
    }
    let Ok(status) = task.descriptor_status(number) else {
        return Ok(Proc::Native);
    };
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => match call.base_of(task, &format!("fd/{number}"))? {
            Some(Base::Inode(inode)) if rest.is_empty() => Ok(Proc::Node(Node::Writable(inode))),
            // The link is the directory, so the kernel does not walk.
            Some(Base::Path(path)) if rest.is_empty() && is_host(call, &path) => Ok(Proc::Native),
            _ => Ok(Proc::Redirect(beneath(
                &call.path_of_link(task, &format!("fd/{number}"))?,
                rest,
            ))),
        },
        FileType::RegularFile if rest.is_empty() => {
            Ok(memory_file(call, task, &format!("fd/{number}")).map_or(Proc::Native, Proc::Node))
        }
        FileType::Fifo if rest.is_empty() => {
            let found = call
                .shield
                .tree
                .writable
                .objects
                .of(status.st_dev, status.st_ino);
            Ok(found.map_or(Proc::Native, Proc::Node))
        }
        _ => Ok(Proc::Native),
    }
}

/// Whether a directory that the kernel has open by this path is the host's.
fn is_host(call: &Call, path: &[u8]) -> bool {
    let place = call.shield.tree.resolve(path, false);
    matches!(place, Ok(Place::Host(host)) if host == path)
}

/// The node behind one of the kernel's links, if it leads to a memory file of ours.
fn memory_file(call: &Call, task: Task, name: &str) -> Option<Node> {
    let status = task.status_of(name).ok()?;
    call.shield.memory_node(status.st_dev, status.st_ino)
}

/// What `readlink` shows for a link of `/proc` that leads to a memory file of ours: the path that the program knows.
pub fn shown_target(call: &Call, path: &[u8]) -> Option<Node> {
    let rest = path.strip_prefix(b"/proc/")?;
    let slash = rest.iter().position(|&byte| byte == b'/')?;
    let (process, name) = (
        &rest[..slash],
        std::str::from_utf8(&rest[slash + 1..]).ok()?,
    );
    let task = match process {
        b"self" | b"thread-self" => call.task,
        number => Task(std::str::from_utf8(number).ok()?.parse().ok()?),
    };
    // Of a thread, as well: /proc/PID/task/TID/exe.
    let (task, name) = match name
        .strip_prefix("task/")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((thread, name)) => (Task(thread.parse().ok()?), name),
        None => (task, name),
    };
    let is_link = matches!(name, "exe" | "cwd")
        || name
            .strip_prefix("fd/")
            .is_some_and(|number| number.parse::<i32>().is_ok());
    if is_link && !is_ours(task) {
        // Directories of the index are called by their path anyway.
        call.node_of_link(task, name)
            .filter(|node| !matches!(node, Node::Entry(id) if call.shield.tree.index().entry(*id).is_directory()))
    } else {
        None
    }
}

fn is_ours(task: Task) -> bool {
    let ours = std::process::id() as i32;
    task.0 == ours || lstat(format!("/proc/{ours}/task/{}", task.0)).is_ok()
}

/// `..` in `/proc` is taken by name where no link precedes it; behind a link the path must be spelt otherwise.
fn lexical(components: &[&[u8]]) -> Result<Proc, Errno> {
    let mut path: Vec<&[u8]> = vec![b"proc"];
    for &component in components {
        if component == b".." {
            if matches!(path.last(), Some(&(b"cwd" | b"root" | b"exe")))
                || path.iter().any(|part| *part == b"fd")
            {
                return Err(Errno::ACCESS);
            }
            path.pop();
        } else {
            path.push(component);
        }
    }
    Ok(Proc::Redirect(beneath(b"/", &path)))
}

fn beneath(base: &[u8], components: &[&[u8]]) -> Vec<u8> {
    components
        .iter()
        .fold(base.to_vec(), |path, component| join(&path, component))
}

/// Spells out `self` in a path that we, not the caller, will open.
pub fn absolute_self(call: &Call, path: Vec<u8>) -> Vec<u8> {
    for name in [&b"/proc/self"[..], b"/proc/thread-self"] {
        if let Some(rest) = path
            .strip_prefix(name)
            .filter(|rest| rest.is_empty() || rest[0] == b'/')
        {
            let mut spelt = format!("/proc/{}", call.task.0).into_bytes();
            spelt.extend_from_slice(rest);
            return spelt;
        }
    }
    path
}
