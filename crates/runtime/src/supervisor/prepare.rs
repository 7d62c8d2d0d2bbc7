//! Preparing programs that are not executed by a trapped call: the first one, the health check, the commands of who debugs.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::kernel::process::{self, Image};

use super::contents::{Contents, Form};
use super::execute::{self, Plan};
use super::objects::Objects;
use super::tree::{Name, Node, Place, Tree};
use super::{directories, unsupported, SupervisorError};

/// What all programs of one launch have in common.
pub struct Surroundings {
    /// The sixth argument with which their `execveat` passes the filter.
    pub cookie: u64,
    /// `envp`.
    pub environment: Vec<CString>,
    /// The working directory, absolute.
    pub working_directory: Vec<u8>,
    /// How many files they may have open.
    pub descriptor_limit: u64,
}

/// A program, ready to be executed.
pub struct Prepared {
    /// What is executed.
    pub image: Image,
    /// How.
    pub plan: Plan,
}

/// What programs are prepared from.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    /// Where their paths lead.
    pub tree: &'a Tree,
    /// Their bytes.
    pub contents: &'a Contents,
    /// What they may map.
    pub objects: &'a Objects,
    /// What they are started with.
    pub surroundings: &'a Surroundings,
}

impl Workshop<'_> {
    /// Prepares the program at a path.
    ///
    /// # Errors
    /// If it, its loader or its working directory can't be had.
    pub fn prepare(
        self,
        program: &[u8],
        arguments: Vec<CString>,
    ) -> Result<Prepared, SupervisorError> {
        let Self {
            tree,
            contents,
            objects,
            surroundings,
        } = self;
        let failed = |path: &[u8]| {
            let path = Name(path).to_string();
            move |error| SupervisorError::Program { path, error }
        };
        let node = find(tree, program).map_err(failed(program))?;
        let plan = Plan::make(tree, contents, node, program, |path| find(tree, path))
            .map_err(failed(program))?;
        let number = match plan.loader {
            Some(_) => Some(
                execute::loader_number(surroundings.descriptor_limit)
                    .ok_or_else(|| unsupported("the limit of open files is too low"))?,
            ),
            None => None,
        };
        let open = |node, form| {
            let file = contents.get(tree, node, form)?;
            file.reopen(OFlags::RDONLY)
        };
        let loader = match (&plan.loader, number) {
            (Some((loader, path, _)), Some(number)) => {
                Some((open(*loader, Form::Data).map_err(failed(path))?, number))
            }
            _ => None,
        };
        let is_script = !plan.script_arguments.is_empty();
        let script_arguments = plan
            .script_arguments
            .iter()
            .map(|text| process::c_string(text));
        let mut all: Vec<_> = script_arguments
            .collect::<Result<_, _>>()
            .map_err(failed(program))?;
        all.extend(arguments.into_iter().skip(usize::from(is_script)));
        let executed = tree.path(plan.program);
        let image = Image {
            program: open(plan.program, Form::Program(number)).map_err(failed(&executed))?,
            loader,
            arguments: all,
            environment: surroundings.environment.clone(),
            working_directory: open_directory(tree, &surroundings.working_directory)?,
            cookie: surroundings.cookie,
        };
        objects
            .admit(tree, contents, plan.program)
            .map_err(failed(&executed))?;
        Ok(Prepared { image, plan })
    }
}

/// The executable file at a path.
///
/// # Errors
/// As `execve` gives.
pub fn find(tree: &Tree, path: &[u8]) -> Result<Node, Errno> {
    match tree.resolve(path, true)? {
        Place::Node(node) => execute::check_executable(&tree.metadata(node)).map(|()| node),
        Place::Missing | Place::Undeclared => Err(Errno::NOENT),
        Place::Host(_) => Err(Errno::ACCESS),
    }
}

fn open_directory(tree: &Tree, path: &[u8]) -> Result<OwnedFd, SupervisorError> {
    let attempt = || match tree.resolve(path, true)? {
        Place::Node(Node::Entry(id)) if tree.index().entry(id).is_directory() => {
            directories::open_on_disk(tree, id)
        }
        Place::Node(node @ Node::Writable(inode))
            if tree.metadata(node).is(FileType::Directory) =>
        {
            tree.writable.open_directory(inode)
        }
        Place::Node(_) => Err(Errno::NOTDIR),
        Place::Missing | Place::Undeclared => Err(Errno::NOENT),
        Place::Host(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&*path, flags, rustix::fs::Mode::empty())
        }
    };
    attempt().map_err(|error| SupervisorError::WorkingDirectory {
        path: Name(path).to_string(),
        error,
    })
}
