//! TLS of probes, by rustls with ring.

use super::connection::{connected, is_blocked};
use crate::{ConnectError, ReadError, SystemError, TlsOptions};
use rustix::event::epoll::EventFlags;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use socket2::Socket;
use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// What TLS needs beside each checker's [`TlsOptions`]: whom to trust where a certificate is verified, and what to show
/// to a server that asks who we are. keepalived's global `SSL` block.
#[derive(Debug)]
pub struct TlsSettings {
    roots: RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl TlsSettings {
    /// Nobody is trusted, and nothing is shown.
    pub fn new() -> Self {
        Self {
            roots: RootCertStore::empty(),
            identity: None,
        }
    }

    /// Trusts the certificates in this PEM text too.
    ///
    /// # Errors
    ///
    /// It is malformed, or holds no certificate.
    pub fn with_authorities(mut self, pem: &[u8]) -> Result<Self, TlsSettingsError> {
        for certificate in certificates(pem)? {
            self.roots.add(certificate).map_err(|error| {
                TlsSettingsError(format!("certificate of an authority: {error}"))
            })?;
        }
        Ok(self)
    }

    /// Shows this certificate chain, of which this is the key, to a server that asks. Both are PEM.
    ///
    /// # Errors
    ///
    /// They are malformed, the key is encrypted, or it is not the certificate's.
    pub fn with_identity(mut self, chain: &[u8], key: &[u8]) -> Result<Self, TlsSettingsError> {
        let chain = certificates(chain)?;
        let encrypted = |marker: &[u8]| key.windows(marker.len()).any(|window| window == marker);
        if encrypted(b"BEGIN ENCRYPTED PRIVATE KEY") || encrypted(b"Proc-Type: 4,ENCRYPTED") {
            let text = "the private key is encrypted, which is not supported: decrypt it with openssl pkey";
            return Err(TlsSettingsError(text.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsSettingsError(format!("private key: {error}")))?;
        let pair = (chain, key);
        config(Trust::Anyone, Some(&pair)).map_err(|error| TlsSettingsError(error.to_string()))?;
        self.identity = Some(pair);
        Ok(self)
    }
}

/// What is wrong with a certificate or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettingsError(String);

impl fmt::Display for TlsSettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for TlsSettingsError {}

/// The settings, ready for use.
#[derive(Debug)]
pub(super) struct Tls {
    trusting: Arc<ClientConfig>,
    /// `None`: nobody is trusted.
    verifying: Option<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(settings: TlsSettings) -> Result<Self, TlsSettingsError> {
        let failed = |error: rustls::Error| TlsSettingsError(error.to_string());
        let identity = settings.identity.as_ref();
        let verifying = match settings.roots.is_empty() {
            true => None,
            false => {
                let roots = Arc::new(settings.roots);
                let provider = Arc::new(ring::default_provider());
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| TlsSettingsError(error.to_string()))?;
                let config = config(Trust::By(verifier), identity).map_err(failed)?;
                Some(Arc::new(config))
            }
        };
        let trusting = Arc::new(config(Trust::Anyone, identity).map_err(failed)?);
        Ok(Self {
            trusting,
            verifying,
        })
    }

    pub(super) fn connect(
        &self,
        socket: Socket,
        options: &TlsOptions,
        destination: SocketAddr,
        stands: bool,
    ) -> Result<TlsConnection, ConnectError> {
        let config = match (options.verify, &self.verifying) {
            (false, _) => &self.trusting,
            (true, Some(verifying)) => verifying,
            (true, None) => {
                let reason = "no authority is configured to verify it by";
                return Err(ConnectError::Certificate(reason.to_owned()));
            }
        };
        // An address is never sent as a server name.
        let name = match &options.server_name {
            None => ServerName::from(destination.ip()),
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| ConnectError::Tls(format!("{name} is no server name")))?,
        };
        let session = ClientConnection::new(Arc::clone(config), name)
            .map_err(|error| ConnectError::Tls(error.to_string()))?;
        Ok(TlsConnection {
            socket,
            session,
            stands,
            says_farewell: options.close_notify,
            has_end: false,
        })
    }
}

#[derive(Debug)]
pub(super) struct TlsConnection {
    socket: Socket,
    session: ClientConnection,
    /// Whether the TCP connection does.
    stands: bool,
    says_farewell: bool,
    /// The end came together with data.
    has_end: bool,
}

impl TlsConnection {
    pub(super) fn wants_to_connect(&self) -> EventFlags {
        if self.stands && !self.session.wants_write() {
            EventFlags::IN
        } else {
            EventFlags::OUT
        }
    }

    pub(super) fn finish_connect(&mut self, flags: EventFlags) -> Option<Result<(), ConnectError>> {
        if !self.stands {
            match connected(&self.socket, flags) {
                Ok(true) => self.stands = true,
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        self.shake_hands().transpose()
    }

    fn shake_hands(&mut self) -> Result<Option<()>, ConnectError> {
        let broken = |error: io::Error| ConnectError::deferred(&error);
        self.flush().map_err(broken)?;
        while self.session.is_handshaking() {
            match self.session.read_tls(&mut Stream(&self.socket)) {
                Ok(0) => {
                    let reason = "the server closed the connection during the handshake";
                    return Err(ConnectError::Tls(reason.to_owned()));
                }
                Ok(_) => {}
                Err(error) if is_blocked(&error) => return Ok(None),
                Err(error) => return Err(broken(error)),
            }
            let outcome = self.session.process_new_packets();
            // An alert that says why is worth sending; whether it arrives is not.
            let flushed = self.flush();
            outcome.map_err(|error| refused(&error))?;
            flushed.map_err(broken)?;
        }
        Ok(Some(()))
    }

    pub(super) fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.session.writer().write_all(data)?;
        self.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Stream(&self.socket)) {
                Ok(_) => {}
                Err(error) if is_blocked(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn wants_to_send(&self) -> bool {
        self.session.wants_write()
    }

    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ReadError> {
        if std::mem::take(&mut self.has_end) {
            return Ok(Some(0));
        }
        // The end of the handshake may have brought data.
        match self.read(buffer)? {
            Some(length) if length > 0 => return Ok(Some(length)),
            _ => {}
        }
        match self.session.read_tls(&mut Stream(&self.socket)) {
            // An end without farewell is an end.
            Ok(0) => return Ok(Some(0)),
            Ok(_) => {}
            Err(error) if is_blocked(&error) => return Ok(None),
            Err(error) => return Err(ReadError::Read((&error).into())),
        }
        let state = self.session.process_new_packets().map_err(|error| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            ReadError::Read(SystemError::from(&error))
        })?;
        let length = self.read(buffer)?;
        self.has_end = state.peer_has_closed() && length.is_some_and(|length| length > 0);
        Ok(length)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ReadError> {
        match self.session.reader().read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if is_blocked(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(0)),
            Err(error) => Err(ReadError::Read((&error).into())),
        }
    }

    pub(super) fn has_more(&self) -> bool {
        self.has_end
    }

    pub(super) fn finish(&mut self) {
        if self.says_farewell && !self.session.is_handshaking() {
            self.session.send_close_notify();
            let _ = self.flush();
        }
    }
}

impl AsFd for TlsConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads and writes without a signal for a broken pipe.
struct Stream<'a>(&'a Socket);

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&mut &*self.0).read(buffer)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.send_with_flags(data, libc::MSG_NOSIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Trust {
    Anyone,
    By(Arc<WebPkiServerVerifier>),
}

fn config(
    trust: Trust,
    identity: Option<&(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::By(verifier) => builder.with_webpki_verifier(verifier),
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider))),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
    };
    // Every attempt looks at the whole handshake.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsSettingsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| TlsSettingsError(format!("certificate: {error}")))?;
    if all.is_empty() {
        return Err(TlsSettingsError("there is no certificate".to_owned()));
    }
    Ok(all)
}

fn refused(error: &rustls::Error) -> ConnectError {
    const NEEDED: &str = "TLS 1.2 or 1.3 with ephemeral keys is needed";
    match error {
        rustls::Error::InvalidCertificate(reason) => ConnectError::Certificate(reason.to_string()),
        rustls::Error::InvalidMessage(_) => ConnectError::Tls("the answer is not TLS".to_owned()),
        rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity,
        )
        | rustls::Error::PeerIncompatible(_) => ConnectError::Tls(format!("{error} ({NEEDED})")),
        error => ConnectError::Tls(error.to_string()),
    }
}

/// Any certificate will do, as for keepalived.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
