//! TLS to a server that is known by its key alone: the SHA-256 of its certificate's SubjectPublicKeyInfo.
//!
//! Names and validity of the certificate don't count (docs/protocol.md, section 4). TLS 1.3 only; the server proves by its handshake
//! signature, which rustls verifies, that it has the private key.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{digest, SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::Resumption;
use rustls::crypto::{verify_tls13_signature, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, OtherError,
    SignatureScheme, StreamOwned,
};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use crate::net::{self, TimedStream};

/// The server has another key.
#[derive(Debug, thiserror::Error)]
#[error("the server's key is {got}, not the CAS key {expected}")]
pub struct OtherKey {
    got: String,
    expected: String,
}

/// Accepts the one server whose key has this hash.
struct Pin {
    key: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "Pin({})", hex::encode(self.key))
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer,
        _intermediates: &[CertificateDer],
        _server_name: &ServerName,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let got = digest(&SHA256, &certificate.subject_public_key_info());
        if got.as_ref() != self.key {
            let other = OtherKey {
                got: hex::encode(got),
                expected: hex::encode(self.key),
            };
            return Err(CertificateError::Other(OtherError(Arc::new(other))).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Makes the connections of an HTTP client: to the host of the URL, on TLS, to the pinned key.
#[derive(Debug)]
pub struct PinnedConnector(Arc<ClientConfig>);

impl PinnedConnector {
    /// Connections to the server whose SubjectPublicKeyInfo has this SHA-256.
    pub fn new(key: [u8; 32]) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pin = Pin {
            key,
            provider: provider.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pin))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }
}

impl Connector for PinnedConnector {
    type Out = PinnedTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<PinnedTransport>, ureq::Error> {
        let name = ServerName::try_from(host(details.uri).to_owned())
            .map_err(|error| ureq::Error::Other(error.into()))?;
        let mut sock = net::connect(&details.addrs, deadline(details.timeout))?;
        let mut conn = ClientConnection::new(self.0.clone(), name)
            .map_err(|error| ureq::Error::Other(error.into()))?;
        while conn.is_handshaking() {
            conn.complete_io(&mut sock)?;
        }
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(PinnedTransport {
            buffers,
            stream: StreamOwned { conn, sock },
        }))
    }
}

/// A connection to the pinned server.
#[derive(Debug)]
pub struct PinnedTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TimedStream>,
}

impl Transport for PinnedTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_deadline(deadline(timeout));
        self.stream.write_all(&self.buffers.output()[..amount])?;
        self.stream.flush()?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_deadline(deadline(timeout));
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Resolves names without glibc.
#[derive(Debug)]
pub struct StubResolver;

impl Resolver for StubResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = net::resolve(host(uri), deadline(timeout))
            .map_err(|error| ureq::Error::Other(error.into()))?;
        let mut resolved = self.empty();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            resolved.push((address, uri.port_u16().unwrap_or(crate::address::CAS_PORT)).into());
        }
        Ok(resolved)
    }
}

/// As many as ureq has room for.
const MAX_ADDRESSES: usize = 16;

/// The host of a URL, an IPv6 address without its brackets.
fn host(uri: &ureq::http::Uri) -> &str {
    uri.host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']')
}

fn deadline(timeout: NextTimeout) -> Instant {
    // "No time-out" is a very long duration; every request of ours has one.
    Instant::now() + (*timeout.after).min(Duration::from_secs(3600))
}
