//! The health check: the engine starts the sconified binary with [`ARGUMENT`], which asks the running supervisor to run the check inside the
//! shield. The image's index says what the check is; whoever asks, and that may be the host, learns whether it succeeded.
//!
//! The two meet at an abstract socket, which is no file: its name is the number of the container's mount name space, so that containers that share
//! a network don't meet.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;

use rustix::fs::{major, minor};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use crate::kernel::process::c_string;
use crate::kernel::signal::End;
use crate::kernel::standby::Orders;

use super::tree::{Node, Place, Tree};

/// The argument with which the binary asks instead of starting a program.
pub const ARGUMENT: &str = "sconify:health-check";
/// The attribute of the program's file that holds the check: a JSON array of the path of a program and its `argv`.
const ATTRIBUTE: &[u8] = b"user.sconify.health-check";
const MEM_DEVICES: u32 = 1;
const NULL: u32 = 3;

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

/// The kernel's `/dev/null`, not something that the host put there.
///
/// # Errors
/// If it is not there.
pub fn null_device() -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null")?;
    let status = file.metadata()?;
    let device = (major(status.rdev()), minor(status.rdev()));
    if status.file_type().is_char_device() && device == (MEM_DEVICES, NULL) {
        Ok(file.into())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn address() -> io::Result<SocketAddr> {
    let name_space = fs::metadata("/proc/self/ns/mnt")?.ino();
    SocketAddr::from_abstract_name(format!("sconify/health-check/{name_space}"))
}

/// Takes the requests of this container from now on.
///
/// # Errors
/// If the socket or the thread can't be made.
pub fn serve(orders: Orders) -> io::Result<()> {
    let listener = UnixListener::bind_addr(&address()?)?;
    let name = thread::Builder::new().name("health".to_owned());
    name.spawn(move || loop {
        // One after the other: who asks more often than the check takes waits.
        if let Ok((asker, _)) = listener.accept() {
            if let Err(error) = answer(asker, &orders) {
                debug!("a request for a health check came to nothing: {error}");
            }
        }
    })?;
    Ok(())
}

fn answer(mut asker: UnixStream, orders: &Orders) -> io::Result<()> {
    if !is_of_this_container(&asker)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let end = orders.run(asker.as_fd())?;
    debug!("the health check: {end:?}");
    asker.write_all(&[u8::from(end != End::Exited(0))])
}

/// Whether the other side of a connection runs as the user of this process, or as root.
fn is_of_this_container(stream: &UnixStream) -> io::Result<bool> {
    let user = socket_peercred(stream)?.uid;
    Ok(user == geteuid() || user.is_root())
}

/// Asks the supervisor of this container to run the check: 0 if it succeeded, 1 if not.
///
/// # Errors
/// If no supervisor answers.
pub fn ask() -> io::Result<u8> {
    let mut stream = UnixStream::connect_addr(&address()?)?;
    if !is_of_this_container(&stream)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut result = [1];
    stream.read_exact(&mut result)?;
    Ok(u8::from(result[0] != 0))
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

    #[test]
    fn the_null_device_is_the_kernels() {
        assert!(null_device().is_ok());
    }
}
