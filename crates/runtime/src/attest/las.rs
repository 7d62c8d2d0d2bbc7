//! Evidence from the local attestation service (docs/protocol.md, section 6).

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::protocol::{Evidence, EvidenceAnswer, EvidenceRequest, ReportData};
use super::Attester;
use crate::address::LasAddress;
use crate::net::{self, ResolveError};

/// How long the LAS may take, from the connection to the whole answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest line that is read; a TDX quote with its certificates is below 32 KiB.
const LONGEST_LINE: u64 = 1 << 20;

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum LasError {
    /// Its name is unknown.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It can't be talked to.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It says no.
    #[error("it refuses to make evidence: {0}")]
    Refused(String),
    /// It says something else.
    #[error("its answer can't be read: {0}")]
    Malformed(String),
}

impl LasError {
    /// Whether it may go away by itself: a LAS that is not up yet.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Resolve(_) | Self::Io(_))
    }
}

/// Asks the LAS for evidence about this process.
pub struct Las<'a> {
    address: &'a LasAddress,
    measurement: &'a dyn Fn() -> [u8; 32],
}

impl<'a> Las<'a> {
    /// Evidence of the LAS at this address, about a process with this measurement, which is asked for when it is needed.
    pub fn new(address: &'a LasAddress, measurement: &'a dyn Fn() -> [u8; 32]) -> Self {
        Self {
            address,
            measurement,
        }
    }

    fn connect(&self, deadline: Instant) -> Result<net::TimedStream, LasError> {
        let stream = match self.address {
            LasAddress::Unix(path) => net::connect_unix(path, deadline)?,
            LasAddress::Tcp(address) => {
                let addresses = net::resolve(&address.host, deadline)?;
                let addresses: Vec<_> = addresses
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, address.port))
                    .collect();
                net::connect(&addresses, deadline)?
            }
        };
        Ok(stream)
    }
}

impl Attester for Las<'_> {
    type Error = LasError;

    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, LasError> {
        let request = EvidenceRequest {
            op: "evidence",
            report_data: hex::encode(report_data),
            measurement: hex::encode((self.measurement)()),
        };
        let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
        line.push(b'\n');

        let mut stream = self.connect(Instant::now() + PATIENCE)?;
        stream.write_all(&line)?;
        let mut answer = Vec::new();
        BufReader::new(stream)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut answer)?;
        read_answer(&answer)
    }
}

fn read_answer(line: &[u8]) -> Result<Evidence, LasError> {
    let Some(json) = line.strip_suffix(b"\n") else {
        return Err(LasError::Malformed(
            "the line is cut off or too long".to_owned(),
        ));
    };
    match serde_json::from_slice(json) {
        Ok(EvidenceAnswer::Evidence(evidence)) if evidence.kind().is_some() => Ok(evidence),
        Ok(EvidenceAnswer::Evidence(_)) => {
            Err(LasError::Malformed("the evidence has no kind".to_owned()))
        }
        Ok(EvidenceAnswer::Error(reason)) => Err(LasError::Refused(reason)),
        Err(error) => Err(LasError::Malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    /// Answers one request with this line and returns what it was asked.
    fn serve(mut stream: impl io::Read + io::Write, answer: &str) -> String {
        let mut asked = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            asked.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    }

    #[test]
    fn evidence_comes_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = LasAddress::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let server = std::thread::spawn(move || {
            serve(
                listener.accept().unwrap().0,
                "{\"evidence\":{\"kind\":\"simulated\"}}\n",
            )
        });
        let evidence = Las::new(&address, &|| [0xab; 32])
            .evidence(&[0xcd; 64])
            .unwrap();
        assert_eq!(evidence.kind().as_deref(), Some("simulated"));
        let expected = format!(
            r#"{{"op":"evidence","report_data":"{}","measurement":"{}"}}"#,
            "cd".repeat(64),
            "ab".repeat(32)
        );
        assert_eq!(server.join().unwrap(), expected);
    }

    #[test]
    fn evidence_comes_over_a_unix_socket() {
        let path = std::env::temp_dir().join(format!("sconify-las-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let address = LasAddress::parse(&format!("unix:{}", path.display())).unwrap();
        let server = std::thread::spawn(move || {
            serve(
                listener.accept().unwrap().0,
                "{\"error\":\"no such platform\"}\n",
            )
        });
        let error = Las::new(&address, &|| [0; 32])
            .evidence(&[0; 64])
            .unwrap_err();
        std::fs::remove_file(path).unwrap();
        server.join().unwrap();
        assert!(matches!(error, LasError::Refused(reason) if reason == "no such platform"));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for line in [
            "",
            "\n",
            "{\"evidence\":{\"kind\":\"simulated\"}}",
            "{\"evidence\":{}}\n",
            "{\"evidence\":null}\n",
            "{}\n",
            "HTTP/1.1 400 Bad Request\r\n",
        ] {
            assert!(
                matches!(read_answer(line.as_bytes()), Err(LasError::Malformed(_))),
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_answer(&line);
        }
    }
}
