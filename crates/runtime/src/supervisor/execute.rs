//! `execve` and `execveat`: the kernel executes verified bytes only.
//!
//! A trapped call can't be told to use another file, so the caller is traced for its length: its call fails, and before it notices it is made to call
//! `execveat` on a memory file that holds the verified program. The loader's path in that copy names a descriptor, at which the verified loader is
//! placed. Both close at the `exec`, after the kernel has opened them.
//!
//! The kernel would look for a script's interpreter on the disk. So a script is started in two steps: first a blank program, to which the kernel gives a fresh
//! memory with the arguments on its stack; from within that, where nobody else's memory is at risk (a `vfork` child shares its parent's),
//! the interpreter, with the arguments that the kernel would have made.

use std::cell::RefCell;

use rustix::fs::{stat, FileType};
use rustix::io::Errno;
use rustix::process::Rlimit;

use crate::kernel::thread::with_file_system_identity;
use crate::kernel::trace::{Interrupted, Outcome, Traced};

use super::call::{want, Call, Identity, Reply, Target};
use super::contents::{Contents, Form};
use super::executed::{self, Starting};
use super::program::Interpreter;
use super::redirect::{close, trace, Installed};
use super::task::{join, Task};
use super::tree::{Metadata, Name, Node, Tree};
use super::Shield;

/// Scripts that name scripts as interpreters: as deep as the kernel follows.
const SCRIPT_LIMIT: usize = 5;
/// Numbers at which the loader is placed: the first free one below the caller's limit of open files. Few, since each makes its own copy of a program.
const LOADER_NUMBERS: &[i32] = &[999, 998, 997, 250, 249, 248, 60, 59, 58];
/// Length of a thread's name with its NUL.
const NAME_SIZE: usize = 16;
/// Bytes below the stack pointer that a function may use without telling.
const RED_ZONE: u64 = 128;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// What an `exec` comes down to.
pub struct Plan {
    /// The file that the kernel shall execute.
    pub program: Node,
    /// Its loader, and the distance of the loader's path from the program headers.
    pub loader: Option<(Node, Vec<u8>, Option<u64>)>,
    /// For scripts, what comes before the arguments from the second one on.
    pub script_arguments: Vec<Vec<u8>>,
}

impl Plan {
    /// Follows scripts and loaders. `find` says where the path of an interpreter or loader leads, and refuses what is not executable.
    ///
    /// # Errors
    /// As `execve` gives.
    pub fn make(
        tree: &Tree,
        contents: &Contents,
        program: Node,
        name: &[u8],
        find: impl Fn(&[u8]) -> Result<Node, Errno>,
    ) -> Result<Self, Errno> {
        let mut plan = Self {
            program,
            loader: None,
            script_arguments: Vec::new(),
        };
        let mut name = name.to_vec();
        for _ in 0..=SCRIPT_LIMIT {
            match contents.interpreter(tree, plan.program)? {
                Interpreter::None => return Ok(plan),
                Interpreter::Loader { path, distance } => {
                    plan.loader = Some((find(&path)?, path, distance));
                    return Ok(plan);
                }
                Interpreter::Script { path, argument } => {
                    plan.program = find(&path)?;
                    let script = if plan.script_arguments.is_empty() {
                        Some(name)
                    } else {
                        None
                    };
                    let first = [Some(path.clone()), argument, script].into_iter().flatten();
                    plan.script_arguments.splice(0..0, first);
                    name = path;
                }
            }
        }
        Err(Errno::LOOP)
    }
}

/// The number for the first program's loader below a limit of open files.
pub fn loader_number(limit: u64) -> Option<i32> {
    LOADER_NUMBERS
        .iter()
        .copied()
        .find(|&number| u64::try_from(number).is_ok_and(|number| number < limit))
}

/// Whether somebody may execute a file at all.
pub fn check_executable(metadata: &Metadata) -> Result<(), Errno> {
    let is_file = metadata.is(FileType::RegularFile);
    if is_file && metadata.mode & 0o111 != 0 {
        Ok(())
    } else {
        Err(Errno::ACCESS)
    }
}

/// The arguments of the two calls, by their place.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// The descriptor that the path is relative to.
    pub directory: i32,
    /// The path.
    pub path: usize,
    /// `argv`.
    pub arguments: usize,
    /// `envp`.
    pub environment: usize,
    /// Flags.
    pub flags: i32,
}

/// Serves `execve` and `execveat`.
pub fn execute(call: &Call, given: Arguments) -> Reply {
    let path = call.path(given.path)?;
    let by_descriptor = path.is_empty() && given.flags & libc::AT_EMPTY_PATH != 0;
    let node = if by_descriptor {
        call.node_of_descriptor(given.directory).ok_or_else(|| {
            warn!(
                "a program that is no protected file was not executed: descriptor {}",
                given.directory
            );
            Errno::ACCESS
        })?
    } else {
        find(
            call,
            given.directory,
            &path,
            given.flags & libc::AT_SYMLINK_NOFOLLOW == 0,
        )?
    };
    // Until the program has started, nobody may write what it is made of.
    let started = RefCell::new(Vec::from_iter(permit(call, node)?));
    // As the kernel names a program that was not given by a path that holds for itself.
    let name = match (by_descriptor, given.directory) {
        (true, descriptor) => format!("/dev/fd/{descriptor}").into_bytes(),
        (false, libc::AT_FDCWD) => path.clone(),
        (false, _) if path.starts_with(b"/") => path.clone(),
        (false, descriptor) => join(format!("/dev/fd/{descriptor}").as_bytes(), &path),
    };
    let plan = Plan::make(
        &call.shield.tree,
        &call.shield.contents,
        node,
        &name,
        |path| {
            let node = find(call, libc::AT_FDCWD, path, true)?;
            started.borrow_mut().extend(permit(call, node)?);
            Ok(node)
        },
    )?;
    let shield = call.shield;
    shield
        .objects
        .admit(&shield.tree, &shield.contents, plan.program)?;
    let nul = call.address(given.path) + path.len() as u64;
    let arguments = [
        0,
        nul,
        call.address(given.arguments),
        call.address(given.environment),
        0,
        0,
    ];
    let shown = &*call.shield.tree.path(node);
    trace(
        call,
        |traced, installed| start(call, &plan, shown, arguments, traced, installed),
        |installed| with_room(call.task, || install(call, &plan, installed)),
    )
}

/// Where the path of something that is to be executed leads.
fn find(call: &Call, directory: i32, path: &[u8], follow: bool) -> Result<Node, Errno> {
    match call.locate(directory, path, follow)? {
        Target::Node(node) => Ok(node),
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => refuse_host(call, &call.absolute(directory, path)?),
        Target::HostAt(path) => refuse_host(call, &path),
    }
}

/// What is the host's is not executed; what is not there at all gives the error of that, because programs search directories by it.
fn refuse_host(call: &Call, path: &[u8]) -> Result<Node, Errno> {
    let credentials = call.credentials()?;
    let path = super::procfs::absolute_self(call, path.to_vec());
    let status = with_file_system_identity(
        credentials.uid.file_system,
        credentials.gid.file_system,
        || stat(&*path),
    )?;
    if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile {
        warn!("{}: not executed: it is in a region of kind host, and only protected programs are executed", Name(&path));
    }
    Err(Errno::ACCESS)
}

fn permit<'a>(call: &Call<'a>, node: Node) -> Result<Option<Starting<'a>>, Errno> {
    let metadata = call.shield.tree.metadata(node);
    if metadata.is(FileType::Symlink) {
        return Err(Errno::LOOP);
    }
    check_executable(&metadata)?;
    call.permit(node, want::EXECUTE, Identity::FileSystem)?;
    executed::begin(call.shield, node)
}

/// Runs `work`; if the caller's limit of open files leaves no room for descriptors, once more with a higher one: natively, `exec` takes none.
fn with_room(task: Task, mut work: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    let result = work();
    if result != Err(Errno::MFILE) {
        return result;
    }
    let before = task.descriptor_limit(None)?;
    let room = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    task.descriptor_limit(Some(room))?;
    let result = work();
    task.descriptor_limit(Some(before))?;
    result
}

fn install(call: &Call, plan: &Plan, installed: &mut Installed) -> Result<(), Errno> {
    let is_program = plan.script_arguments.is_empty();
    if !is_program && installed.first.is_none() {
        let (shield, id) = (call.shield, call.notification.id);
        installed.first = Some(shield.listener.install(id, &shield.blank, true)?);
    }
    install_program(call, plan, is_program, installed)
}

fn install_program(
    call: &Call,
    plan: &Plan,
    close_on_exec: bool,
    installed: &mut Installed,
) -> Result<(), Errno> {
    let (shield, id) = (call.shield, call.notification.id);
    let mut number = installed.loader;
    if let (Some((loader, ..)), None) = (&plan.loader, number) {
        let loader = *loader;
        let content = shield.contents.get(&shield.tree, loader, Form::Data)?;
        number = LOADER_NUMBERS.iter().copied().find(|&number| {
            let is_free = matches!(call.task.descriptor_status(number), Err(Errno::NOENT));
            is_free
                && shield
                    .listener
                    .install_at(id, content.descriptor(), number, close_on_exec)
                    .is_ok()
        });
        if number.is_none() {
            return Err(Errno::MFILE);
        }
        installed.loader = number;
    }
    let content = shield
        .contents
        .get(&shield.tree, plan.program, Form::Program(number))?;
    installed.program = Some(
        shield
            .listener
            .install(id, content.descriptor(), close_on_exec)?,
    );
    Ok(())
}

/// Makes the caller execute the program.
fn start(
    call: &Call,
    plan: &Plan,
    shown: &[u8],
    mut arguments: [u64; 6],
    mut traced: Traced,
    installed: Installed,
) -> Result<(), Errno> {
    let Some(first) = installed.first.or(installed.program) else {
        return Err(Errno::IO);
    };
    arguments[0] = first as u64;
    arguments[4] = libc::AT_EMPTY_PATH as u64;
    arguments[5] = call.shield.cookie;
    if let Outcome::Returned(error) = traced.call(libc::SYS_execveat, arguments)? {
        close(&mut traced, installed)?;
        traced.finish(error);
        return Ok(());
    }
    call.shield.memories.forget(call.task);
    call.shield.memories.forget(Task(traced.thread()));
    if installed.first.is_some() {
        if let Err(error) = start_interpreter(call.shield, plan, &mut traced, installed) {
            error!(
                "{}: its interpreter could not be started: {error}",
                Name(shown)
            );
            // There is no program to return to.
            let instruction = traced.instruction();
            traced.call_at(instruction, libc::SYS_exit_group, [127, 0, 0, 0, 0, 0])?;
        }
    }
    dress(call.shield, plan, shown, &mut traced)
}

/// From within the blank program: executes the interpreter of a script.
fn start_interpreter(
    shield: &Shield,
    plan: &Plan,
    traced: &mut Traced,
    installed: Installed,
) -> Result<(), Errno> {
    let task = Task(traced.thread());
    let instruction = traced.instruction();
    let word = |address: u64| {
        let mut bytes = [0; 8];
        shield.memories.read_exact(task, address, &mut bytes)?;
        Ok::<_, Errno>(u64::from_le_bytes(bytes))
    };
    // The stack of a new program: the number of arguments, their addresses, null, those of the environment.
    let stack = traced.stack();
    let count = word(stack)? as usize;
    let mut old = vec![0; 8 * count.saturating_sub(1)];
    shield.memories.read_exact(task, stack + 16, &mut old)?;
    let environment = stack + 8 * (count as u64 + 2);

    // One piece of new memory: the addresses, then the strings, the last of which is empty: the path of `execveat`.
    let table = 8 * (plan.script_arguments.len() + count.max(1));
    let size = table
        + plan
            .script_arguments
            .iter()
            .map(|text| text.len() + 1)
            .sum::<usize>()
        + 1;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let area = returned(traced.call_at(
        instruction,
        libc::SYS_mmap,
        [0, size as u64, protection, flags, u64::MAX, 0],
    )?)?;
    let (mut addresses, mut strings) =
        (Vec::with_capacity(table), Vec::with_capacity(size - table));
    for argument in &plan.script_arguments {
        addresses.extend((area + (table + strings.len()) as u64).to_le_bytes());
        strings.extend_from_slice(argument);
        strings.push(0);
    }
    addresses.extend(old);
    addresses.resize(table, 0);
    let empty = area + (table + strings.len()) as u64;
    shield.memories.write(task, area, &addresses)?;
    shield.memories.write(task, area + table as u64, &strings)?;

    for number in [installed.program, installed.loader].into_iter().flatten() {
        let arguments = [
            number as u64,
            libc::F_SETFD as u64,
            libc::FD_CLOEXEC as u64,
            0,
            0,
            0,
        ];
        returned(traced.call_at(instruction, libc::SYS_fcntl, arguments)?)?;
    }
    let program = installed.program.ok_or(Errno::IO)? as u64;
    let arguments = [
        program,
        empty,
        area,
        environment,
        libc::AT_EMPTY_PATH as u64,
        shield.cookie,
    ];
    let outcome = traced.call_at(instruction, libc::SYS_execveat, arguments)?;
    shield.memories.forget(task);
    if outcome == Outcome::Executed {
        Ok(())
    } else {
        returned(outcome).map(drop).and(Err(Errno::IO))
    }
}

fn returned(outcome: Outcome) -> Result<u64, Errno> {
    match outcome {
        Outcome::Returned(value) if (-4095..0).contains(&value) => {
            Err(Errno::from_raw_os_error(-value as i32))
        }
        Outcome::Returned(value) => Ok(value as u64),
        Outcome::Executed => Err(Errno::IO),
    }
}

/// Gives a new program, which stands before its first instruction, the name and the loader's path that it would have without us.
fn dress(shield: &Shield, plan: &Plan, shown: &[u8], traced: &mut Traced) -> Result<(), Errno> {
    let task = Task(traced.thread());
    show_loader(shield, plan, task);
    // It has no `syscall` instruction at hand: lend it one at its first instruction.
    let instruction = traced.instruction();
    let mut code = [0; SYSCALL.len()];
    shield.memories.read_exact(task, instruction, &mut code)?;
    shield.memories.write(task, instruction, &SYSCALL)?;
    let named = set_name(shield, shown, traced, instruction);
    shield.memories.write(task, instruction, &code)?;
    named
}

/// Puts the loader's own path where the copy of the program has that of a descriptor. Cosmetic: debuggers and crash reports show it.
fn show_loader(shield: &Shield, plan: &Plan, task: Task) {
    if let Some((_, path, Some(distance))) = &plan.loader {
        if let Ok(headers) = task.program_headers() {
            let address = headers.wrapping_add(*distance);
            let _ = shield
                .memories
                .write(task, address, &[path, &b"\0"[..]].concat());
        }
    }
}

/// Sets the name of a thread through a `syscall` instruction at this address.
fn set_name(
    shield: &Shield,
    path: &[u8],
    traced: &mut Traced,
    instruction: u64,
) -> Result<(), Errno> {
    let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let mut name = [0; NAME_SIZE];
    let length = base.len().min(NAME_SIZE - 1);
    name[..length].copy_from_slice(&base[..length]);
    let task = Task(traced.thread());
    let place = traced.stack() - RED_ZONE - NAME_SIZE as u64;
    let mut before = [0; NAME_SIZE];
    shield.memories.read_exact(task, place, &mut before)?;
    shield.memories.write(task, place, &name)?;
    traced.call_at(
        instruction,
        libc::SYS_prctl,
        [libc::PR_SET_NAME as u64, place, 0, 0, 0, 0],
    )?;
    shield.memories.write(task, place, &before)
}

/// Serves the first call of the first program, which the child executed by itself: gives it its name on the way.
pub fn serve_first(call: &Call, plan: &Plan, shown: &[u8], serve: impl FnOnce()) {
    show_loader(call.shield, plan, call.task);
    let _tracing = call
        .shield
        .tracing
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let interrupted = Interrupted::attach(call.task.0);
    serve();
    let Ok(interrupted) = interrupted else { return };
    if let Ok(mut traced) = interrupted.stop() {
        let instruction = traced.instruction() - SYSCALL.len() as u64;
        let _ = set_name(call.shield, shown, &mut traced, instruction);
    }
}
