//! The TLS of a service's listeners: what the files of its settings say.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_rustls::rustls::{
    Error, InconsistentKeys, ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::UnixTime,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use tokio_util::sync::CancellationToken;

use super::{
    TlsProblem,
    acceptor::{Acceptor, AnyCertificate},
    certificate::{Certificate, first_expiry, public_key, record_expiry},
    files::{Content, Digest},
    partner::{PARTNER_CA, require_separate},
    provider,
    settings::{CERTIFICATE, CLIENT_CA, MIN_VERSION, PRIVATE_KEY, PartnerCertificates, TlsSettings, is_set},
    versions,
};
use crate::{
    clock::{SharedClock, UnixMillis},
    rpc::config::Problems,
    text::opaque::sha256,
};

/// The TLS of a service's listeners. Cheap to clone. All clones use the newest files that could be used.
#[derive(Clone, derive_more::Debug)]
#[debug("ServerTls {{ .. }}")]
pub struct ServerTls {
    pub(super) settings: Arc<TlsSettings>,
    pub(super) clock: SharedClock,
    pub(super) current: watch::Sender<Arc<CurrentConfig>>,
}

/// The certificate and the authorities that count for new connections.
#[derive(Debug)]
pub(in crate::rpc) struct CurrentConfig {
    /// Accepts gRPC: HTTP/2, from clients with a certificate or without one.
    pub(in crate::rpc) grpc: Arc<Acceptor>,
    /// Accepts HTTP/1.1 and HTTP/2.
    pub(in crate::rpc) http: Arc<Acceptor>,
    /// Cancelled once other client authorities count. Ends the connections that these have admitted.
    pub(in crate::rpc) retired: CancellationToken,
    /// The last second of the certificate's validity.
    pub(super) not_after: UnixMillis,
    /// The same of the first one to expire of the client authorities.
    pub(super) client_ca_not_after: Option<UnixMillis>,
    /// The authorities of callers and of partners.
    pub(super) authorities: [Option<Content>; 2],
    pub(super) digests: Digests,
    /// Why these authorities are not those of the files.
    pub(super) put_back: Option<String>,
}

/// The digests of the files of certificate, private key, and the authorities of partners and of callers.
pub(super) type Digests = [Option<Digest>; 4];

impl ServerTls {
    /// Loads the files; `None` if no certificate is set.
    ///
    /// # Errors
    /// The first problem with a file.
    pub fn load(settings: TlsSettings, clock: SharedClock) -> Result<Option<Self>, TlsProblem> {
        if !settings.has_pair() {
            return Ok(None);
        }
        let current = Files::read(&settings)?.build(&settings, &clock)?;
        let (current, _) = watch::channel(Arc::new(current));
        Ok(Some(Self {
            settings: Arc::new(settings),
            clock,
            current,
        }))
    }

    /// Records a problem with the files.
    pub fn check(settings: &TlsSettings, clock: &SharedClock, problems: &mut Problems) {
        if let Err(TlsProblem { key, problem }) = Self::load(settings.clone(), clock.clone()) {
            problems.add(key, &problem);
        }
    }

    /// Returns what counts for a new connection.
    pub(in crate::rpc) fn current(&self) -> Arc<CurrentConfig> {
        self.current.borrow().clone()
    }

    /// Returns the last second of the validity of the certificate that new connections get.
    pub fn not_after(&self) -> UnixMillis {
        self.current.borrow().not_after
    }

    /// Records when the certificates expire that count for new connections.
    pub(in crate::rpc) fn record_expiry(&self) {
        let current = self.current();
        record_expiry("listeners", Some(current.not_after));
        record_expiry("client-ca", current.client_ca_not_after);
    }
}

/// The contents of the files at one moment.
pub(super) struct Files {
    certificate: Content,
    private_key: Content,
    client_ca: Authorities,
    partner_ca: Authorities,
}

/// A file of authorities, or why it can't be read; `None` if none is set.
type Authorities = Option<Result<Content, TlsProblem>>;

fn readable(authorities: &Authorities) -> Result<Option<&Content>, TlsProblem> {
    let content = authorities.as_ref().map(Result::as_ref).transpose();
    content.map_err(Clone::clone)
}

impl Files {
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, TlsProblem> {
        let authorities = |key, path: &Path| is_set(path).then(|| Content::read(key, path));
        Ok(Self {
            certificate: Content::read(CERTIFICATE, &settings.certificate)?,
            private_key: Content::read_key(PRIVATE_KEY, &settings.private_key)?,
            client_ca: authorities(CLIENT_CA, &settings.client_ca),
            partner_ca: authorities(PARTNER_CA, &settings.partner_ca),
        })
    }

    /// Returns whether `problem` is with a file of authorities. If so, puts the authorities that counted before in its place, or in
    /// that of both files: a bad one must not hold up other files, such as a renewed certificate.
    pub(super) fn put_back(&mut self, problem: &TlsProblem, current: &CurrentConfig, both: bool) -> bool {
        let [of_callers, of_partners] = current.authorities.clone();
        let is_of = |key| problem.key == key;
        let is_of_either = is_of(CLIENT_CA) || is_of(PARTNER_CA);
        if is_of(CLIENT_CA) || both && is_of_either {
            self.client_ca = of_callers.map(Ok);
        }
        if is_of(PARTNER_CA) || both && is_of_either {
            self.partner_ca = of_partners.map(Ok);
        }
        is_of_either
    }

    pub(super) fn digests(&self) -> Digests {
        let digest = |file: &Result<Content, TlsProblem>| match file {
            Ok(content) => content.digest(),
            Err(problem) => sha256(problem.to_string().as_bytes()),
        };
        [
            Some(self.certificate.digest()),
            Some(self.private_key.digest()),
            self.partner_ca.as_ref().map(digest),
            self.client_ca.as_ref().map(digest),
        ]
    }

    /// Checks that clients can accept the certificate, and returns what a listener needs.
    pub(super) fn build(
        &self,
        settings: &TlsSettings,
        clock: &SharedClock,
    ) -> Result<CurrentConfig, TlsProblem> {
        let provider = provider();
        let (client_ca, partner_ca) = (readable(&self.client_ca)?, readable(&self.partner_ca)?);
        let (certified, not_after) = self.certified_key(&provider, clock.now())?;
        let workloads = client_ca.map(|content| client_verifier(content, &provider));
        let workloads = workloads.transpose()?;
        if let Some((partner_ca, client_ca)) = partner_ca.zip(client_ca) {
            require_separate(partner_ca, client_ca)?;
        }
        let partner_cas = partner_ca.map(Content::certificates).transpose()?;
        let partner_keys = partner_cas
            .iter()
            .flatten()
            .filter_map(|der| public_key(der))
            .collect();
        let versions = versions(&settings.min_version);
        let handshake = Handshake {
            versions: versions.ok_or_else(unknown_version)?,
            certificate: Arc::new(SingleCertAndKey::from(certified)),
            time: Arc::new(Time(clock.clone())),
            provider,
            workloads,
            partner_keys: Arc::new(partner_keys),
        };
        let (grpc, http) = handshake.acceptors(&settings.partners)?;
        let client_cas = client_ca.map(Content::certificates).transpose()?;
        Ok(CurrentConfig {
            grpc,
            http,
            retired: CancellationToken::new(),
            not_after,
            client_ca_not_after: client_cas.and_then(|certificates| first_expiry(&certificates)),
            authorities: [client_ca.cloned(), partner_ca.cloned()],
            digests: self.digests(),
            put_back: None,
        })
    }

    /// Returns the certificate with its key, and the last second of its validity.
    fn certified_key(
        &self,
        provider: &CryptoProvider,
        now: UnixMillis,
    ) -> Result<(CertifiedKey, UnixMillis), TlsProblem> {
        let chain = self.certificate.certificates()?;
        let facts = chain.first().and_then(|first| Certificate::read(first));
        let facts =
            facts.ok_or_else(|| self.certificate.problem("holds a certificate that can't be read"))?;
        if let Some(problem) = problem_of(&facts, now) {
            return Err(self.certificate.problem(problem));
        }
        let certified = CertifiedKey::from_der(chain, self.private_key.private_key()?, provider);
        let certified = certified.map_err(|error| {
            self.private_key.problem(match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    "is not the key of the certificate in --tls-certificate"
                }
                _ => "holds a key of a kind that TLS does not use",
            })
        })?;
        Ok((certified, facts.not_after))
    }
}

/// Returns what verifies certificates of workloads and operators.
fn client_verifier(
    client_ca: &Content,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsProblem> {
    let authorities = Arc::new(client_ca.authorities()?);
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider.clone());
    // Whether a caller needs a certificate is up to the method, because many come with a secret.
    let verifier = verifier.allow_unauthenticated().build();
    verifier.map_err(|_| client_ca.problem("holds no usable authority"))
}

/// What the handshakes of all listeners have in common.
struct Handshake {
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
    certificate: Arc<SingleCertAndKey>,
    time: Arc<dyn TimeProvider>,
    workloads: Option<Arc<dyn ClientCertVerifier>>,
    partner_keys: Arc<HashSet<Vec<u8>>>,
}

impl Handshake {
    /// Returns the acceptors of gRPC and of HTTP.
    fn acceptors(
        &self,
        partners: &PartnerCertificates,
    ) -> Result<(Arc<Acceptor>, Arc<Acceptor>), TlsProblem> {
        let (h2, both): (&[&[u8]], &[&[u8]]) = (&[b"h2"], &[b"h2", b"http/1.1"]);
        // The gateway in front of either listener is known by its certificate.
        let callers = || {
            let workloads = self.workloads.clone();
            workloads.unwrap_or_else(WebPkiClientVerifier::no_client_auth)
        };
        let anybody = || Arc::new(AnyCertificate(self.provider.signature_verification_algorithms));
        let (grpc, http, at_host) = match partners {
            PartnerCertificates::None => (self.config(callers(), h2)?, self.config(callers(), both)?, None),
            PartnerCertificates::Everywhere => {
                (self.config(anybody(), h2)?, self.config(anybody(), both)?, None)
            }
            PartnerCertificates::AtHost(host) => {
                let at_host = (host.clone(), self.config(anybody(), both)?);
                (
                    self.config(anybody(), h2)?,
                    self.config(callers(), both)?,
                    Some(at_host),
                )
            }
        };
        let acceptor = |config, partners, admits_partners| {
            Arc::new(Acceptor {
                config,
                partners,
                workloads: self.workloads.clone(),
                partner_keys: self.partner_keys.clone(),
                admits_partners,
                time: self.time.clone(),
            })
        };
        Ok((
            acceptor(grpc, None, *partners != PartnerCertificates::None),
            acceptor(http, at_host, *partners == PartnerCertificates::Everywhere),
        ))
    }

    fn config(
        &self,
        clients: Arc<dyn ClientCertVerifier>,
        protocols: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, TlsProblem> {
        let config = ServerConfig::builder_with_details(self.provider.clone(), self.time.clone());
        let config = config.with_protocol_versions(self.versions);
        let config = config.map_err(|_| unknown_version())?;
        let mut config = config
            .with_client_cert_verifier(clients)
            .with_cert_resolver(self.certificate.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // A resumed session would keep a client certificate that has expired or whose authority is gone.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn unknown_version() -> TlsProblem {
    TlsProblem::new(MIN_VERSION, "must be 1.2 or 1.3")
}

/// Returns why clients would reject a server's certificate.
fn problem_of(certificate: &Certificate, now: UnixMillis) -> Option<&'static str> {
    if certificate.dns_names.is_empty() && !certificate.has_address {
        return Some(match certificate.uris.is_empty() {
            true => "has a certificate without a DNS name or an address: clients verify these",
            false => "has a certificate with a SPIFFE id alone: clients verify DNS names or addresses",
        });
    }
    if !certificate.is_for_servers {
        return Some("has a certificate whose extended key usage is not for servers (serverAuth)");
    }
    if now < certificate.not_before {
        return Some("has a certificate that is not valid yet");
    }
    (now > certificate.not_after.plus(Duration::from_millis(999)))
        .then_some("has a certificate that has expired")
}

/// The service's clock, for rustls.
#[derive(Debug)]
struct Time(SharedClock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_secs()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
