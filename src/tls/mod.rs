//! The client side of TLS: authorities and the client's own certificate from files, which may change while the program
//! runs.
//!
//! It must not decide who may call whom. rustls with aws-lc-rs: TLS 1.3 and 1.2.

use std::{
    error::Error,
    fmt, io, iter,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use ::aws_lc_rs::digest::{SHA256, digest};
use http::{Uri, uri::Scheme};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, CertificateError, ClientConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, ServerName},
    },
};
use tonic::transport::Endpoint;
use tower::Service;
use zeroize::Zeroizing;

use crate::lock::Lock;

pub(crate) mod pem;

/// How long the addresses of a name may take together to accept a connection. With the handshake it is less than the second
/// that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);

/// What the text of an error says before the name of an alert.
const ALERT: &str = "received fatal alert: ";

/// The files of a client of TLS, in PEM form (RFC 7468).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may have signed the server's certificate.
    pub authorities: PathBuf,
    /// The client's own certificate followed by its chain, and its private key; `None` to present none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Names the files of the authorities, of the client's certificate, and of its private key.
    pub fn new(
        authorities: impl Into<PathBuf>,
        certificate: impl Into<PathBuf>,
        private_key: impl Into<PathBuf>,
    ) -> Self {
        Self {
            authorities: authorities.into(),
            identity: Some((certificate.into(), private_key.into())),
        }
    }
}

/// A file that can't be used, and why. Holds nothing of its content.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct TlsFileError {
    /// Which of the files it is.
    pub file: TlsFile,
    problem: String,
}

/// One of the files of [`TlsFiles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// The authorities.
    Authorities,
    /// The client's certificate.
    Certificate,
    /// The certificate's private key.
    PrivateKey,
}

/// The TLS of a client. Clones share the files that were read last.
#[derive(Clone)]
pub struct ClientTls {
    files: Arc<TlsFiles>,
    current: Arc<Lock<Current>>,
}

struct Current {
    config: Arc<ClientConfig>,
    certificates: Certificates,
    /// Of the files that `config` is from.
    digests: Digests,
    /// Of the files that the last look found.
    last: Digests,
    /// How often the files have changed.
    generation: u64,
}

/// A digest of each file.
type Digests = Vec<Vec<u8>>;

/// The certificates in the files of a client of TLS.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The client's own, without its chain; `None` if it presents none.
    pub own: Option<CertificateDer<'static>>,
    /// Those of the authorities that may have signed the server's.
    pub authorities: Arc<[CertificateDer<'static>]>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// The first problem with a file.
    pub fn load(files: TlsFiles) -> Result<Self, TlsFileError> {
        let contents = Contents::read(&files)?;
        let digests = contents.digests();
        let current = Current {
            config: Arc::new(contents.config()?),
            certificates: contents.certificates()?,
            digests: digests.clone(),
            last: digests,
            generation: 0,
        };
        Ok(Self {
            files: Arc::new(files),
            current: Arc::new(Lock::new(current)),
        })
    }

    /// Reads the files again. New connections use changed ones once two looks in a row have found the same contents, so
    /// that none counts that is still being written. Blocks the thread for as long as the files take.
    ///
    /// # Errors
    /// The first problem with a file. The files that were read before still count.
    pub fn reload(&self) -> Result<(), TlsFileError> {
        let contents = Contents::read(&self.files)?;
        let digests = contents.digests();
        let mut current = self.current.lock();
        let is_settled = current.last == digests;
        current.last.clone_from(&digests);
        if is_settled && current.digests != digests {
            let certificates = contents.certificates()?;
            current.config = Arc::new(contents.config()?);
            current.certificates = certificates;
            current.digests = digests;
            current.generation += 1;
        }
        Ok(())
    }

    /// Returns how often the files have changed. A connection of an older generation presents an older certificate.
    pub fn generation(&self) -> u64 {
        let current = self.current.lock();
        current.generation
    }

    /// Returns the certificates that new connections use.
    pub fn certificates(&self) -> Certificates {
        let current = self.current.lock();
        current.certificates.clone()
    }

    fn config(&self) -> Arc<ClientConfig> {
        let current = self.current.lock();
        current.config.clone()
    }
}

/// The contents of the files at one moment.
struct Contents {
    authorities: Vec<u8>,
    identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsFileError> {
        let identity = files.identity.as_ref().map(|(certificate, key)| {
            let certificate = read(TlsFile::Certificate, certificate)?;
            Ok((certificate, Zeroizing::new(read(TlsFile::PrivateKey, key)?)))
        });
        Ok(Self {
            authorities: read(TlsFile::Authorities, &files.authorities)?,
            identity: identity.transpose()?,
        })
    }

    fn digests(&self) -> Digests {
        let identity = self.identity.iter();
        let identity = identity.flat_map(|(certificate, key)| [certificate.as_slice(), key.as_slice()]);
        let files = iter::once(self.authorities.as_slice()).chain(identity);
        files
            .map(|file| digest(&SHA256, file).as_ref().to_vec())
            .collect()
    }

    fn certificates(&self) -> Result<Certificates, TlsFileError> {
        let read = |file, pem| pem::certificates(pem).map_err(|error| problem(file, error));
        let own = self.identity.as_ref();
        let own = own.map(|(certificate, _)| read(TlsFile::Certificate, certificate));
        Ok(Certificates {
            own: own.transpose()?.and_then(|chain| chain.into_iter().next()),
            authorities: read(TlsFile::Authorities, &self.authorities)?.into(),
        })
    }

    fn config(&self) -> Result<ClientConfig, TlsFileError> {
        let roots = pem::authorities(&self.authorities);
        let roots = roots.map_err(|error| problem(TlsFile::Authorities, error))?;
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|_| problem(TlsFile::Authorities, "can't be used"))?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = pem::certificates(certificate);
                let chain = chain.map_err(|error| problem(TlsFile::Certificate, error))?;
                let key = pem::private_key(key).map_err(|error| problem(TlsFile::PrivateKey, error))?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|_| problem(TlsFile::PrivateKey, "is not the key of the certificate"))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would keep a certificate that was replaced.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

fn read(file: TlsFile, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    pem::read(path).map_err(|error| problem(file, &error))
}

fn problem(file: TlsFile, problem: &str) -> TlsFileError {
    TlsFileError {
        file,
        problem: problem.to_owned(),
    }
}

/// Connects to one server with TLS, for an endpoint of tonic whose URI plays no part.
#[derive(Clone, Debug)]
pub struct Connector {
    /// The TLS.
    pub tls: ClientTls,
    /// The name or address that the server's certificate must have.
    pub server_name: ServerName<'static>,
    /// Where the server is.
    pub address: Destination,
}

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Destination {
    /// An address.
    Address(SocketAddr),
    /// A name, or an address, with a port. A name is resolved for each connection.
    Name(Name),
}

/// A name that may resolve to several replicas. Each connection begins with the next address, so that the connection after
/// one that failed goes elsewhere.
#[derive(Clone, Debug)]
pub struct Name {
    host: String,
    port: u16,
    turn: Arc<AtomicUsize>,
}

impl Name {
    /// Makes a name of a host without brackets.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            turn: Arc::default(),
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        connect_to_any(&addresses.collect::<Vec<_>>(), turn).await
    }
}

/// Connects to the first address that answers, beginning with the one whose turn it is.
async fn connect_to_any(addresses: &[SocketAddr], turn: usize) -> io::Result<TcpStream> {
    let count = addresses.len().max(1);
    let (before, first) = addresses.split_at(turn % count);
    let patience = CONNECT_TIMEOUT.div_f64(count as f64);
    let mut failure = io::ErrorKind::AddrNotAvailable.into();
    for address in first.iter().chain(before) {
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_elapsed) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let stream = match &this.address {
                Destination::Address(address) => TcpStream::connect(address).await?,
                Destination::Name(name) => name.connect().await?,
            };
            stream.set_nodelay(true)?;
            let connector = TlsConnector::from(this.tls.config());
            let stream = connector.connect(this.server_name, stream).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Returns an endpoint for a [`Connector`] to this https address. tonic refuses an https address that it does not encrypt
/// itself. So it connects to one with http, and requests name the given one.
pub(crate) fn endpoint(uri: Uri) -> Option<Endpoint> {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    Some(Endpoint::from(Uri::from_parts(parts).ok()?).origin(uri))
}

/// Says why a connection failed, in terms of what an operator can mend. Holds nothing that the peer sent.
pub fn cause(error: &(dyn Error + 'static)) -> String {
    let mut last = error.to_string();
    let mut next = Some(error);
    while let Some(error) = next {
        last = error.to_string();
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return tls_cause(tls);
        }
        // The source of an I/O error leaves out the error inside of it.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    // With TLS 1.3 a client learns after its handshake that its certificate is rejected, and HTTP/2 keeps the text alone.
    match last.split_once(ALERT) {
        Some((_, alert)) => alert_cause(alert),
        None => last,
    }
}

/// Says what an alert of the peer means (RFC 8446 section 6).
fn alert_cause(alert: &str) -> String {
    let cause = match alert {
        "CertificateRequired" => "it requires a client certificate",
        "CertificateExpired" => "it says that the client certificate has expired",
        // A certificate of another authority of the same name is a wrong signature.
        "UnknownCA" | "BadCertificate" | "CertificateUnknown" | "CertificateRevoked" | "DecryptError"
        | "AccessDenied" => "it does not accept the client certificate",
        // What a server of rustls says of a wrong extended key usage.
        "UnsupportedCertificate" => {
            "it does not accept the client certificate, which must be for clients (clientAuth)"
        }
        "NoApplicationProtocol" => "it does not speak HTTP/2 (ALPN)",
        alert => return format!("it ended the connection: {alert}"),
    };
    cause.to_owned()
}

fn tls_cause(error: &rustls::Error) -> String {
    let cause = match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer => "its certificate is from none of the given authorities",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate has other names than the address"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "its certificate is not for servers (serverAuth)"
            }
            _ => "its certificate is not valid",
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        rustls::Error::NoApplicationProtocol => "it does not speak HTTP/2 (ALPN)",
        rustls::Error::AlertReceived(alert) => return alert_cause(&format!("{alert:?}")),
        error => return format!("the handshake failed: {error}"),
    };
    cause.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn a_connection_goes_to_another_address_if_one_is_silent_and_to_the_next_one_each_time() {
        // Nobody accepts, and its backlog is full.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let silent = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(silent)).await {
            waiting.push(connected.unwrap());
        }
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        for (turn, expected) in [(0, one), (1, one), (2, other), (3, one)] {
            let connected = connect_to_any(&[silent, one, other], turn).await.unwrap();
            assert_eq!(connected.peer_addr().unwrap(), expected, "{turn}");
        }
        assert!(connect_to_any(&[], 7).await.is_err());
    }
}
