//! Streams with a deadline, to TCP addresses and unix sockets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::route::default_gateway;

/// A stream whose every read and write fails once its deadline is past.
#[derive(Debug)]
pub struct TimedStream {
    stream: Stream,
    deadline: Instant,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects to the first of these addresses that accepts.
///
/// When all are loopback addresses and refuse, the default gateway is tried: from a container's network that is the machine on whose
/// loopback interface the service was meant to be.
pub fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TimedStream> {
    let first = try_each(addresses, deadline);
    let Err(error) = first else { return first };
    if error.kind() != io::ErrorKind::ConnectionRefused
        || !addresses.iter().all(|address| address.ip().is_loopback())
    {
        return Err(error);
    }
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let (Some(gateway), Some(port)) = (
        default_gateway(&table),
        addresses.first().map(SocketAddr::port),
    ) else {
        return Err(error);
    };
    crate::debug!("localhost refuses; trying the default gateway {gateway}");
    try_each(&[SocketAddr::new(gateway.into(), port)], deadline).map_err(|other| {
        io::Error::new(
            other.kind(),
            format!("localhost: {error}; default gateway {gateway}: {other}"),
        )
    })
}

/// Connects to a unix socket.
pub fn connect_unix(path: &Path, deadline: Instant) -> io::Result<TimedStream> {
    Ok(TimedStream {
        stream: Stream::Unix(UnixStream::connect(path)?),
        deadline,
    })
}

fn try_each(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TimedStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    for address in addresses {
        let attempt =
            remaining(deadline).and_then(|left| TcpStream::connect_timeout(address, left));
        match attempt.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => {
                return Ok(TimedStream {
                    stream: Stream::Tcp(stream),
                    deadline,
                })
            }
            // localhost is 127.0.0.1 and ::1; that it refuses says more than that there is no IPv6.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(timed_out());
    }
    Ok(left)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// The kernel reports an expired socket time-out as EAGAIN.
fn name_time_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return timed_out();
    }
    error
}

impl TimedStream {
    /// Sets another deadline.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Whether the peer has neither closed nor sent anything that was not read.
    pub fn is_open(&self) -> bool {
        let Stream::Tcp(stream) = &self.stream else {
            return false;
        };
        let peeked = stream
            .set_nonblocking(true)
            .and_then(|()| stream.peek(&mut [0]));
        let open = peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        open && stream.set_nonblocking(false).is_ok()
    }
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = Some(remaining(self.deadline)?);
        match &mut self.stream {
            Stream::Tcp(stream) => stream
                .set_read_timeout(left)
                .and_then(|()| stream.read(buffer)),
            Stream::Unix(stream) => stream
                .set_read_timeout(left)
                .and_then(|()| stream.read(buffer)),
        }
        .map_err(name_time_out)
    }
}

impl Write for TimedStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let left = Some(remaining(self.deadline)?);
        match &mut self.stream {
            Stream::Tcp(stream) => stream
                .set_write_timeout(left)
                .and_then(|()| stream.write(buffer)),
            Stream::Unix(stream) => stream
                .set_write_timeout(left)
                .and_then(|()| stream.write(buffer)),
        }
        .map_err(name_time_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn the_second_address_is_tried_when_the_first_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(connect(&[refusing, listener.local_addr().unwrap()], soon()).is_ok());
    }

    #[test]
    fn a_silent_peer_is_given_up_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let start = Instant::now();
        let mut stream = connect(
            &[listener.local_addr().unwrap()],
            start + Duration::from_millis(50),
        )
        .unwrap();
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_past_deadline_fails_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = connect(&[listener.local_addr().unwrap()], Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
