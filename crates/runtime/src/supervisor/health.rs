//! The health check: the engine starts the sconified binary with [`ARGUMENT`], which asks the running supervisor to run the check inside the
//! shield. The image's index says what the check is; whoever asks, and that may be the host, learns whether it succeeded.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use crate::kernel::process::{c_string, Image};
use crate::kernel::standby::{Order, Orders};

use super::tree::{Node, Place, Tree};
use super::visitors;

/// The argument with which the binary asks instead of starting a program.
pub const ARGUMENT: &str = "sconify:health-check";
/// The attribute of the program's file that holds the check: a JSON array of the path of a program and its `argv`.
const ATTRIBUTE: &[u8] = b"user.sconify.health-check";
/// What visitors of the supervisor come for.
const PURPOSE: &str = "health-check";

/// A program and its arguments.
pub struct Check {
    /// Path of the program.
    pub program: Vec<u8>,
    /// `argv`.
    pub arguments: Vec<CString>,
}

/// The health check of a program, if it has one.
pub fn of_program(tree: &Tree, program: &[u8]) -> Option<Check> {
    let Ok(Place::Node(node)) = tree.resolve(program, true) else {
        return None;
    };
    let text = match node {
        Node::Writable(inode) => {
            let system = tree.writable.system(inode);
            system.attribute(inode.number, ATTRIBUTE).ok()?
        }
        _ => tree.entry(node)?.xattr(ATTRIBUTE)?.to_vec(),
    };
    let check = parse(&text);
    if check.is_none() {
        warn!("the health check in the index can't be read, so there is none");
    }
    check
}

fn parse(text: &[u8]) -> Option<Check> {
    let mut words = serde_json::from_slice::<Vec<String>>(text)
        .ok()?
        .into_iter();
    let program = words.next()?.into_bytes();
    let arguments: Vec<_> = words
        .map(|word| c_string(word.as_bytes()))
        .collect::<Result<_, _>>()
        .ok()?;
    (program.starts_with(b"/") && !arguments.is_empty()).then_some(Check { program, arguments })
}

/// Runs the check for whoever asks from now on, with `null` as its standard streams.
///
/// # Errors
/// If the socket or the thread can't be made.
pub fn serve(orders: Arc<Mutex<Orders>>, check: Image, null: OwnedFd) -> io::Result<()> {
    visitors::receive(PURPOSE, move |asker| {
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.give(&Order {
            image: &check,
            streams: [null.as_fd(); 3],
            asker: asker.as_fd(),
            tells_code: false,
        })?;
        Ok(())
    })
}

/// Asks the supervisor of this container to run the check: 0 if it succeeded, 1 if not.
///
/// # Errors
/// If no supervisor answers.
pub fn ask() -> io::Result<u8> {
    let mut result = [1];
    visitors::visit(PURPOSE)?.read_exact(&mut result)?;
    Ok(result[0].min(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_an_absolute_path_and_arguments() {
        let check = parse(br#"["/bin/sh", "sh", "-c", "exit 1"]"#).unwrap();
        assert_eq!(check.program, b"/bin/sh");
        assert_eq!(
            check.arguments,
            [c"sh", c"-c", c"exit 1"].map(CString::from)
        );
        for text in [
            &b""[..],
            b"[]",
            b"[\"/bin/sh\"]",
            b"[\"sh\", \"sh\"]",
            b"{}",
            b"[\"/x\", \"a\\u0000b\"]",
        ] {
            assert!(parse(text).is_none(), "{}", String::from_utf8_lossy(text));
        }
    }
}
