//! Where processes that the container engine starts beside the program (`docker exec`, health checks) meet the supervisor: abstract sockets, which
//! are no files. Their names end with the number of the container's mount name space, so that containers that share a network don't meet.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

fn address(purpose: &str) -> io::Result<SocketAddr> {
    let name_space = fs::metadata("/proc/self/ns/mnt")?.ino();
    SocketAddr::from_abstract_name(format!("sconify/{purpose}/{name_space}"))
}

/// Has `answer` take the visitors of this container from now on, one after the other, in a thread of its own.
///
/// # Errors
/// If the socket or the thread can't be made.
pub fn receive(
    purpose: &'static str,
    mut answer: impl FnMut(UnixStream) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let listener = UnixListener::bind_addr(&address(purpose)?)?;
    let name = thread::Builder::new().name(purpose.to_owned());
    name.spawn(move || loop {
        let Ok((visitor, _)) = listener.accept() else {
            continue;
        };
        if let Err(error) = check(&visitor).and_then(|()| answer(visitor)) {
            debug!("a visitor for {purpose} got nothing: {error}");
        }
    })?;
    Ok(())
}

/// Visits the supervisor of this container.
///
/// # Errors
/// If there is none that receives visitors for this purpose.
pub fn visit(purpose: &str) -> io::Result<UnixStream> {
    let stream = UnixStream::connect_addr(&address(purpose)?)?;
    check(&stream)?;
    Ok(stream)
}

/// Demands that the other side of a connection runs as the user of this process, or as root.
fn check(stream: &UnixStream) -> io::Result<()> {
    let user = socket_peercred(stream)?.uid;
    if user == geteuid() || user.is_root() {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}
