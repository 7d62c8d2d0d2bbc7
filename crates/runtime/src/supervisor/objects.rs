//! Shared objects: which files may be mapped into memory to be executed (`SCONE_ALLOW_DLOPEN`).
//!
//! The loader opens shared objects as any file and maps them; what is mapped executable is decided here. Anonymous memory is not asked about.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rustix::fs::FileType;
use rustix::io::{pread, Errno};

use crate::executor::Dlopen;

use super::call::{Answer, Call, Reply};
use super::contents::{Contents, Form};
use super::program::{self, Links};
use super::tree::{Name, Node, Tree};

/// The rule, and what the programs that were started need.
pub struct Objects {
    rule: Dlopen,
    /// Names that programs and the objects mapped so far give in `DT_NEEDED`.
    needed: Mutex<HashSet<Vec<u8>>>,
}

impl Objects {
    /// Nothing has been started yet.
    pub fn new(rule: Dlopen) -> Self {
        Self {
            rule,
            needed: Mutex::default(),
        }
    }

    /// Lets a program's own shared objects be mapped.
    ///
    /// # Errors
    /// As [`Contents::get`].
    pub fn admit(&self, tree: &Tree, contents: &Contents, program: Node) -> Result<(), Errno> {
        if self.rule == Dlopen::Closure {
            self.note(links(tree, contents, program)?.needed);
        }
        Ok(())
    }

    fn note(&self, names: Vec<Vec<u8>>) {
        self.needed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(names.iter().map(|name| base(name).to_vec()));
    }

    /// Whether an object is needed by what runs; then what it needs itself may follow.
    fn belongs(&self, tree: &Tree, contents: &Contents, node: Node) -> Result<bool, Errno> {
        let links = links(tree, contents, node)?;
        let path = tree.path(node);
        let names = [Some(base(&path)), links.name.as_deref()];
        let is_needed = {
            let needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
            names
                .into_iter()
                .flatten()
                .any(|name| needed.contains(name))
        };
        if is_needed {
            self.note(links.needed);
        }
        Ok(is_needed)
    }
}

/// Serves `mmap` of a file that is to be executed. What is refused gets the error of a file system that is mounted `noexec`.
pub fn map(call: &Call) -> Reply {
    let (shield, descriptor) = (call.shield, call.int(4));
    if shield.objects.rule == Dlopen::Any {
        return Ok(Answer::Pass);
    }
    let refuse = |what: &[u8], why: &str| {
        warn!("{}: not mapped to be executed: {why}", Name(what));
        Err(Errno::PERM)
    };
    if let Some(node) = call.node_of_descriptor(descriptor) {
        let closure = shield.objects.rule == Dlopen::Closure;
        if closure
            && !shield
                .objects
                .belongs(&shield.tree, &shield.contents, node)?
        {
            return refuse(
                &shield.tree.path(node),
                "the program does not name it among its shared objects, and others are forbidden; convert with --dlopen=1",
            );
        }
        return Ok(Answer::Pass);
    }
    // Let the kernel say what is wrong with the descriptor.
    let Ok(status) = call.task.descriptor_status(descriptor) else {
        return Ok(Answer::Pass);
    };
    let is_memory = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
        || shield.contents.is_memory(status.st_dev);
    if is_memory && shield.objects.rule == Dlopen::Protected {
        // The program's own memory, which programs that make code as they run map twice.
        return Ok(Answer::Pass);
    }
    let path = call.task.link(&format!("fd/{descriptor}"));
    refuse(
        &path.unwrap_or_default(),
        "it is no protected file; convert with --dlopen=2 if the host may give the program its code",
    )
}

fn links(tree: &Tree, contents: &Contents, node: Node) -> Result<Links, Errno> {
    let file = contents.get(tree, node, Form::Data)?;
    let mut content = vec![0; tree.metadata(node).size as usize];
    let mut done = 0;
    while done < content.len() {
        match pread(file.descriptor(), &mut content[done..], done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(program::links(&content))
}

fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}
