//! Sockets that have a path: `bind`, `connect`, `sendto`, and the names that `getsockname` and `getpeername` give.
//!
//! The kernel finds such a socket by its path alone. One in a writable region is bound at an opaque address; the caller is traced while it makes its call
//! with that address. What it sees is its own name.

use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{unlinkat, AtFlags, FileType, CWD};
use rustix::io::Errno;

use crate::kernel::trace::Traced;

use super::call::{want, Answer, Call, Identity, Reply, Target};
use super::open::new_in;
use super::redirect::{trace, value};
use super::task::Task;
use super::tree::Node;
use super::writable::{Inode, Kind, Last, Spot};

/// `struct sockaddr_un`: the family and at most so many bytes of path.
const FAMILY_SIZE: usize = 2;
const PATH_SIZE: usize = 108;
/// How long a caller whose peer has no room waits before it tries again.
const PAUSE: Duration = Duration::from_millis(1);

/// The path in an address, if it is that of a socket with a path.
fn path_in(bytes: &[u8]) -> Option<&[u8]> {
    let (family, path) = bytes.split_first_chunk()?;
    if u16::from_ne_bytes(*family) != libc::AF_UNIX as u16 || path.first().is_none_or(|&b| b == 0) {
        return None;
    }
    let end = path.iter().position(|&byte| byte == 0);
    Some(&path[..end.unwrap_or(path.len())])
}

/// The path in the address that two arguments tell: where it is, and its length.
fn given_path(call: &Call, address: usize, length: usize) -> Result<Option<Vec<u8>>, Errno> {
    let length = call.address(length) as u32 as usize;
    if call.address(address) == 0 || !(FAMILY_SIZE..=FAMILY_SIZE + PATH_SIZE).contains(&length) {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    let memories = &call.shield.memories;
    memories.read_exact(call.task, call.address(address), &mut bytes)?;
    Ok(path_in(&bytes).map(<[u8]>::to_vec))
}

/// The address of a path.
///
/// # Errors
/// `ENAMETOOLONG` if the path does not fit.
fn encode(path: &[u8]) -> Result<Vec<u8>, Errno> {
    if path.len() >= PATH_SIZE {
        return Err(Errno::NAMETOOLONG);
    }
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(path);
    bytes.push(0);
    Ok(bytes)
}

/// Traces the caller, and lets `work` do what it asked for.
fn traced(call: &Call, work: impl FnOnce(Traced) -> Result<(), Errno>) -> Reply {
    trace(call, |traced, _| work(traced), |_| Ok(()))
}

/// Serves `bind`.
pub fn bind(call: &Call) -> Reply {
    let Some(given) = given_path(call, 1, 2)? else {
        return Ok(Answer::Pass);
    };
    match call.locate_name(libc::AT_FDCWD, &given, Last::Name)? {
        (Target::Missing, Some(spot)) => bind_at(call, &spot, &given),
        (Target::Node(_), _) => Err(Errno::ADDRINUSE),
        (Target::Missing, None) => Err(Errno::ROFS),
        (Target::Undeclared, _) => Err(Errno::NOENT),
        (Target::Host, _) => Ok(Answer::Pass),
        (Target::HostAt(path), _) => {
            let address = encode(&path)?;
            traced(call, |mut traced| {
                let outcome = with_address(call, &mut traced, libc::SYS_bind, &address)?;
                traced.finish(outcome);
                Ok(())
            })
        }
    }
}

fn bind_at(call: &Call, spot: &Spot, given: &[u8]) -> Reply {
    let writable = &call.shield.tree.writable;
    let mode = 0o777 & !call.credentials()?.umask;
    let new = new_in(call, spot.directory, Kind::Socket, mode)?;
    let path = writable.objects.fresh_address()?;
    let address = encode(&path)?;
    let name = || {
        let system = writable.system(spot.directory);
        let number = system
            .create(spot.directory.number, &spot.name, &new)
            .map_err(|error| match error {
                Errno::EXIST => Errno::ADDRINUSE,
                error => error,
            })?;
        let inode = Inode {
            number,
            ..spot.directory
        };
        call.shield.watches.created(spot, None, false);
        writable.objects.bound(inode, &path, given)
    };
    traced(call, |mut traced| {
        let mut outcome = with_address(call, &mut traced, libc::SYS_bind, &address)?;
        if outcome == 0 {
            if let Err(error) = name() {
                let _ = unlinkat(CWD, &*path, AtFlags::empty());
                outcome = -i64::from(error.raw_os_error());
            }
        }
        traced.finish(outcome);
        Ok(())
    })
}

/// Makes the caller call `bind` or `connect` with another address.
fn with_address(
    call: &Call,
    traced: &mut Traced,
    number: i64,
    address: &[u8],
) -> Result<i64, Errno> {
    let place = traced.scratch(address.len());
    call.write(place, address)?;
    let length = address.len() as u64;
    let arguments = [call.address(0), place, length, 0, 0, call.shield.cookie];
    value(traced.call(number, arguments)?)
}

/// The address of the socket that a path leads to; `None` if the kernel gets there by itself.
fn peer(call: &Call, given: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let objects = &call.shield.tree.writable.objects;
    let target = match objects.at_address(given) {
        // The name that the kernel gave with a packet or a connection.
        Some(inode) => Target::Node(Node::Writable(inode)),
        None => call.locate(libc::AT_FDCWD, given, true)?,
    };
    match target {
        Target::Node(node) => {
            call.permit(node, want::WRITE, Identity::FileSystem)?;
            let metadata = call.shield.tree.metadata(node);
            let bound = match node {
                Node::Writable(inode) if metadata.is(FileType::Socket) => objects.address(inode),
                _ => None,
            };
            encode(&bound.ok_or(Errno::CONNREFUSED)?).map(Some)
        }
        Target::Missing | Target::Undeclared => Err(Errno::NOENT),
        Target::Host => Ok(None),
        Target::HostAt(path) => encode(&path).map(Some),
    }
}

/// Serves `connect`.
pub fn connect(call: &Call) -> Reply {
    let Some(given) = given_path(call, 1, 2)? else {
        return Ok(Answer::Pass);
    };
    let Some(address) = peer(call, &given)? else {
        return Ok(Answer::Pass);
    };
    traced(call, |mut traced| {
        // A traced thread must not wait: it tries, and if there is no room it makes its call again.
        let number = call.address(0);
        let control = |traced: &mut Traced, command: i32, flags: u64| {
            let arguments = [number, command as u64, flags, 0, 0, 0];
            value(traced.call(libc::SYS_fcntl, arguments)?)
        };
        let flags = control(&mut traced, libc::F_GETFL, 0)?;
        let waits = flags >= 0 && flags & i64::from(libc::O_NONBLOCK) == 0;
        if waits {
            let impatient = (flags | i64::from(libc::O_NONBLOCK)) as u64;
            control(&mut traced, libc::F_SETFL, impatient)?;
        }
        let outcome = with_address(call, &mut traced, libc::SYS_connect, &address)?;
        if waits {
            control(&mut traced, libc::F_SETFL, flags as u64)?;
        }
        if waits && outcome == -i64::from(libc::EAGAIN) {
            sleep(PAUSE);
            traced.again(libc::SYS_connect);
        } else {
            traced.finish(outcome);
        }
        Ok(())
    })
}

/// Serves `sendto` with an address.
pub fn send_to(call: &Call) -> Reply {
    let Some(given) = given_path(call, 4, 5)? else {
        return Ok(Answer::Pass);
    };
    let Some(address) = peer(call, &given)? else {
        return Ok(Answer::Pass);
    };
    traced(call, |mut traced| {
        // `struct msghdr` with one `struct iovec`, then the address.
        const HEADER: usize = 56;
        const VECTOR: usize = 16;
        let place = traced.scratch(HEADER + VECTOR + address.len());
        let (vector, name) = (place + HEADER as u64, place + (HEADER + VECTOR) as u64);
        let words = [
            name,
            address.len() as u64,
            vector,
            1,
            0,
            0,
            0,
            call.address(1),
            call.address(2),
        ];
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.extend_from_slice(&address);
        call.write(place, &bytes)?;
        let flags = call.int(3);
        let waits = flags & libc::MSG_DONTWAIT == 0;
        let impatient = (flags | libc::MSG_DONTWAIT) as u64;
        let arguments = [call.address(0), place, impatient, 0, 0, 0];
        let outcome = value(traced.call(libc::SYS_sendmsg, arguments)?)?;
        if waits && outcome == -i64::from(libc::EAGAIN) && !is_impatient(call) {
            sleep(PAUSE);
            traced.again(libc::SYS_sendto);
        } else {
            traced.finish(outcome);
        }
        Ok(())
    })
}

/// Whether the socket in the first argument does not wait.
fn is_impatient(call: &Call) -> bool {
    let position = call.task.descriptor_position(call.int(0));
    position.is_ok_and(|position| !position.waits)
}

/// Serves `getsockname` and `getpeername`: the kernel answers, and the address becomes the name that the program gave it.
pub fn name(call: &Call) -> Reply {
    let objects = &call.shield.tree.writable.objects;
    if !objects.has_sockets() || !is_local(call.task, call.int(0)) {
        return Ok(Answer::Pass);
    }
    let word = |address: u64| {
        let mut bytes = [0; 4];
        let memories = &call.shield.memories;
        memories.read_exact(call.task, address, &mut bytes)?;
        Ok::<_, Errno>(u32::from_ne_bytes(bytes))
    };
    let room = word(call.address(2))? as usize;
    traced(call, |mut traced| {
        let mut arguments = call.notification.arguments;
        arguments[5] = call.shield.cookie;
        let outcome = value(traced.call(call.notification.number, arguments)?)?;
        if outcome == 0 {
            let length = word(call.address(2))? as usize;
            let mut bytes = vec![0; length.min(room)];
            let memories = &call.shield.memories;
            memories.read_exact(call.task, call.address(1), &mut bytes)?;
            if let Some(given) = path_in(&bytes).and_then(|path| objects.given(path)) {
                let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
                address.extend(given);
                address.push(0);
                call.write(call.address(2), &(address.len() as u32).to_ne_bytes())?;
                address.truncate(room);
                call.write(call.address(1), &address)?;
            }
        }
        traced.finish(outcome);
        Ok(())
    })
}

/// Whether a descriptor of a process is a socket of this machine: the kernel shows a socket's protocol as an attribute of it.
fn is_local(task: Task, descriptor: i32) -> bool {
    let Ok(status) = task.descriptor_status(descriptor) else {
        return false;
    };
    let is_socket = FileType::from_raw_mode(status.st_mode) == FileType::Socket;
    // UNIX or, of streams, UNIX-STREAM. What does not say it may be one.
    let protocol = || task.attribute_of_descriptor(descriptor, "system.sockprotoname");
    is_socket && protocol().map_or(true, |name| name.starts_with(b"UNIX"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn sockets_of_this_machine_are_told_from_others() {
        let task = Task(std::process::id() as i32);
        let [one, other] = UnixStream::pair().map(|(one, other)| [one, other]).unwrap();
        let packets = UnixDatagram::unbound().unwrap();
        let far = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let file = File::open("/dev/null").unwrap();
        for local in [one.as_raw_fd(), other.as_raw_fd(), packets.as_raw_fd()] {
            assert!(is_local(task, local));
        }
        for other in [far.as_raw_fd(), file.as_raw_fd(), 1_000_000] {
            assert!(!is_local(task, other));
        }
    }

    #[test]
    fn only_addresses_with_a_path_have_one() {
        let address = encode(b"/run/x").unwrap();
        assert_eq!(path_in(&address), Some(&b"/run/x"[..]));
        assert_eq!(path_in(&address[..8]), Some(&b"/run/x"[..]));
        for other in [
            &b"\x01\x00"[..],
            b"\x01\x00\x00abstract",
            b"\x02\x00/run/x",
            b"\x01",
        ] {
            assert_eq!(path_in(other), None);
        }
        assert_eq!(encode(&[b'a'; 108]), Err(Errno::NAMETOOLONG));
    }
}
