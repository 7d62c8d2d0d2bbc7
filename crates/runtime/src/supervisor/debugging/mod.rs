//! Commands beside the program, for sessions in debug mode alone: they run inside the shield, and see and may change what the program sees.
//!
//! The engine starts the sconified binary with [`ARGUMENT`] and a command; it asks the running supervisor, which takes no such visitors unless the
//! attested configuration says so.

mod terminal;

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::kernel::standby::{receive_with, send_with, Order, Orders};

use super::prepare::{find, Surroundings, Workshop};
use super::serve::Workers;
use super::task::join;
use super::tree::Tree;
use super::visitors;

/// The argument with which the binary asks for a command, whose words follow.
pub const ARGUMENT: &str = "sconify:debug";
/// What visitors of the supervisor come for.
const PURPOSE: &str = "debug";
/// How long a visitor may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of all words of a command.
const LONGEST: usize = 1 << 20;
/// Where programs are looked for if the environment does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit code if there is no such program, as of shells.
const NOT_FOUND: u8 = 127;

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// Nobody takes commands.
    #[error("no program of this container takes debugging commands: {0}")]
    Nobody(io::Error),
    /// There is no command.
    #[error("there is no command after sconify:debug")]
    NoCommand,
    /// It was taken, but what became of it is unknown.
    #[error("the command was not run, or its end is unknown: {0}")]
    Lost(#[from] io::Error),
}

/// Takes commands from now on.
///
/// # Errors
/// If the socket or the thread can't be made.
pub(super) fn serve(
    orders: Arc<Mutex<Orders>>,
    workers: Arc<Workers>,
    surroundings: Surroundings,
) -> io::Result<()> {
    visitors::receive(PURPOSE, move |visitor| {
        run(&visitor, &orders, &workers, &surroundings)
    })
}

fn run(
    mut visitor: &UnixStream,
    orders: &Mutex<Orders>,
    workers: &Workers,
    surroundings: &Surroundings,
) -> io::Result<()> {
    visitor.set_read_timeout(Some(PATIENCE))?;
    let mut length = [0; 4];
    let streams = receive_with(visitor.as_fd(), &mut length)?;
    let length = u32::from_ne_bytes(length) as usize;
    let [input, output, error] = &streams[..] else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    visitor.read_exact(&mut body)?;
    let mut words = body
        .split_inclusive(|&byte| byte == 0)
        .filter_map(|word| CString::from_vec_with_nul(word.to_vec()).ok());
    let terminal = words.next().unwrap_or_default();
    let arguments: Vec<_> = words.collect();
    let Some(name) = arguments.first() else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let shield = workers.shield();
    info!("debugging: {name:?} with {} arguments", arguments.len() - 1);
    let prepared = program(&shield.tree, surroundings, name.to_bytes()).map(|path| {
        let workshop = Workshop {
            tree: &shield.tree,
            contents: &shield.contents,
            objects: &shield.objects,
            surroundings,
        };
        workshop.prepare(&path, arguments.clone())
    });
    let mut image = match prepared {
        Some(Ok(prepared)) => prepared.image,
        failed => {
            let reason = match failed {
                Some(Err(error)) => error.to_string(),
                _ => "it is no protected program".to_owned(),
            };
            let line = format!("sconify: {}: {reason}\n", name.to_string_lossy());
            let _ = rustix::io::write(error, line.as_bytes());
            return visitor.write_all(&[NOT_FOUND]);
        }
    };
    let has_terminal = |text: &CString| text.to_bytes().starts_with(b"TERM=");
    if !terminal.is_empty() && !image.environment.iter().any(has_terminal) {
        image.environment.push(terminal);
    }
    let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    orders.give(&Order {
        image: &image,
        streams: [input.as_fd(), output.as_fd(), error.as_fd()],
        asker: visitor.as_fd(),
        tells_code: true,
    })?;
    Ok(())
}

/// The path of a program, found as shells do.
fn program(tree: &Tree, surroundings: &Surroundings, name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(b"/") {
        return Some(name.to_vec());
    }
    if name.contains(&b'/') {
        return Some(join(&surroundings.working_directory, name));
    }
    let variables = surroundings.environment.iter();
    let path = variables
        .filter_map(|text| text.to_bytes().strip_prefix(b"PATH="))
        .next();
    let mut candidates = path
        .unwrap_or(DEFAULT_PATH)
        .split(|&byte| byte == b':')
        .map(|directory| join(directory, name));
    candidates.find(|path| find(tree, path).is_ok())
}

/// Has the supervisor of this container run a command with our standard streams; returns its exit code as shells show it.
///
/// # Errors
/// If there is none that takes commands, or it gives none back.
pub fn ask(words: impl Iterator<Item = std::ffi::OsString>) -> Result<u8, DebugError> {
    let mut body = std::env::var_os("TERM")
        .map_or(Vec::new(), |name| [b"TERM=", &name.into_vec()[..]].concat());
    body.push(0);
    let before = body.len();
    for word in words {
        body.extend(word.into_vec());
        body.push(0);
    }
    if body.len() == before {
        return Err(DebugError::NoCommand);
    }
    let supervisor = visitors::visit(PURPOSE).map_err(DebugError::Nobody)?;
    let send = |streams: [BorrowedFd; 3]| {
        send_with(
            supervisor.as_fd(),
            &(body.len() as u32).to_ne_bytes(),
            &streams,
        )?;
        (&supervisor).write_all(&body)
    };
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    if terminal::is_one(input.as_fd()) {
        let terminal = terminal::Relay::new()?;
        let inner = terminal.inner();
        let of = |stream| {
            if terminal::is_one(stream) {
                inner
            } else {
                stream
            }
        };
        send([inner, of(output.as_fd()), of(error.as_fd())])?;
        terminal.run(supervisor.as_fd())?;
    } else {
        send([input.as_fd(), output.as_fd(), error.as_fd()])?;
    }
    let mut result = [0];
    (&supervisor).read_exact(&mut result)?;
    Ok(result[0])
}
