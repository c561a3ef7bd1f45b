//! Where a service is: one or more addresses, each of a host that may resolve to several.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use http::Uri;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use url::{Host, Url};

use super::shared_task::{Resolver, SharedTask, system_resolver};
use crate::{
    log_limit::LogLimit,
    text::uri::is_loopback,
    tls::{ClientTls, Connector, Destination, TlsFileError},
};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection with open calls is tested, and how long the answer may take. Together they bound how long a
/// call waits for a machine that has gone.
const PING_PERIOD: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The addresses of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    hosts: Vec<(String, u16)>,
    has_tls: bool,
}

impl Addresses {
    /// Parses URLs separated by commas: all `https://host:port`, or all `http://` with a loopback host.
    ///
    /// # Errors
    /// The rule that a URL breaks.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "must be https://host:port, or http:// with a loopback host, several of them separated by commas";
        let (mut hosts, mut schemes) = (Vec::new(), Vec::new());
        for text in text.split(',') {
            let url = Url::parse(text.trim()).map_err(|_| FORM)?;
            let is_bare = url.username().is_empty() && url.password().is_none() && url.port() != Some(0);
            if !is_bare || url.path() != "/" && !url.path().is_empty() || has_more(&url) {
                return Err(FORM);
            }
            let host = url.host().ok_or(FORM)?;
            match url.scheme() {
                "https" => schemes.push(true),
                "http" if is_loopback(&host) => schemes.push(false),
                _ => return Err(FORM),
            }
            let name = match host {
                Host::Domain(name) => name.to_owned(),
                Host::Ipv4(address) => address.to_string(),
                Host::Ipv6(address) => address.to_string(),
            };
            hosts.push((name, url.port_or_known_default().ok_or(FORM)?));
        }
        let has_tls = schemes.contains(&true);
        match has_tls && schemes.contains(&false) {
            true => Err("must be all https:// or all http://"),
            false => Ok(Self { hosts, has_tls }),
        }
    }

    /// Returns whether they are reached over TLS.
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }
}

/// Returns whether a URL has a query or a fragment.
fn has_more(url: &Url) -> bool {
    url.query().is_some() || url.fragment().is_some()
}

/// A service's addresses with the TLS of its connections.
#[derive(derive_more::Debug)]
pub struct Target {
    hosts: Vec<NamedHost>,
    tls: Option<ClientTls>,
    /// Reads the files of TLS.
    reading: SharedTask<Result<(), TlsFileError>>,
    #[debug(skip)]
    pub(super) resolver: Resolver,
}

/// A host of a service, with the look-up of its addresses.
#[derive(Debug)]
struct NamedHost {
    name: String,
    port: u16,
    lookup: SharedTask<io::Result<Vec<SocketAddr>>>,
}

/// One address of a service, found by resolving a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ResolvedAddress {
    host: String,
    pub(super) address: SocketAddr,
}

impl Target {
    /// Joins addresses and TLS; `None` for plaintext.
    ///
    /// # Errors
    /// If only one of them is for TLS.
    pub fn new(addresses: Addresses, tls: Option<ClientTls>) -> Result<Self, &'static str> {
        match (addresses.has_tls, tls.is_some()) {
            (true, false) => return Err("has https:// but no authorities to verify it by"),
            (false, true) => return Err("has http:// but files for TLS"),
            _ => {}
        }
        let hosts = addresses.hosts.into_iter().map(|(name, port)| NamedHost {
            name,
            port,
            lookup: SharedTask::default(),
        });
        Ok(Self {
            hosts: hosts.collect(),
            tls,
            reading: SharedTask::default(),
            resolver: system_resolver(),
        })
    }

    /// Returns the TLS of the connections, if they have any.
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    /// Resolves every host, and keeps the addresses in `known` of a host that fails to resolve: they may still answer.
    ///
    /// # Errors
    /// Why a host fails to resolve, if there is no address at all.
    pub(super) async fn resolve(&self, known: &[ResolvedAddress]) -> io::Result<Vec<ResolvedAddress>> {
        let looking = self.hosts.iter().map(|host| {
            let look_up = || tokio::spawn((self.resolver)(host.name.clone(), host.port));
            host.lookup.result(look_up)
        });
        let (mut addresses, mut failure) = (Vec::new(), None);
        for (host, found) in self.hosts.iter().zip(join_all(looking).await) {
            match found.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
                Ok(found) => addresses.extend(found.into_iter().map(|address| ResolvedAddress {
                    host: host.name.clone(),
                    address,
                })),
                Err(error) => {
                    super::log(&format!("the name can't be resolved: {error}"), &host.name);
                    let is_its = |resolved: &&ResolvedAddress| {
                        resolved.host == host.name && resolved.address.port() == host.port
                    };
                    addresses.extend(known.iter().filter(is_its).cloned());
                    failure = Some(error);
                }
            }
        }
        addresses.sort_by_key(|resolved| resolved.address);
        addresses.dedup_by_key(|resolved| resolved.address);
        match failure {
            Some(error) if addresses.is_empty() => Err(error),
            _ => Ok(addresses),
        }
    }

    /// Looks whether the files of TLS have changed. Returns how often they have, so far.
    pub(super) async fn reload(&self) -> u64 {
        let Some(tls) = &self.tls else {
            return 0;
        };
        let reading = self.reading.result(|| {
            let tls = tls.clone();
            tokio::task::spawn_blocking(move || tls.reload())
        });
        let problem = match reading.await {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(format!("{:?} {error}", error.file)),
            None => Some("they can't be read in time".to_owned()),
        };
        static LIMIT: LogLimit = LogLimit::new(super::LOG_PERIOD);
        if let Some(problem) = problem
            && let Some(unlogged) = LIMIT.check(&problem)
        {
            tracing::warn!(
                problem,
                unlogged,
                "the files for TLS to the registry can't be used, and the old ones count"
            );
        }
        tls.generation()
    }

    /// Opens a channel to an address. It connects on first use, and again whenever the connection is lost.
    pub(super) fn channel(&self, resolved: &ResolvedAddress) -> Result<Channel, &'static str> {
        let malformed = "is no host of a URL";
        let uri = |text: String| text.parse::<Uri>().map_err(|_| malformed);
        let bounded = |endpoint: Endpoint| {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_PERIOD)
                .keep_alive_timeout(PING_TIMEOUT)
        };
        let Some(tls) = self.tls.clone() else {
            let endpoint = Endpoint::from(uri(format!("http://{}", resolved.address))?);
            return Ok(bounded(endpoint).connect_lazy());
        };
        let host = match resolved.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => resolved.host.clone(),
        };
        let endpoint = crate::tls::endpoint(uri(format!("https://{host}:{}", resolved.address.port()))?);
        let connector = Connector {
            tls,
            server_name: ServerName::try_from(resolved.host.clone()).map_err(|_| malformed)?,
            address: Destination::Address(resolved.address),
        };
        Ok(bounded(endpoint.ok_or(malformed)?).connect_with_connector_lazy(connector))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[test]
    fn plaintext_is_for_loopback_and_addresses_are_of_one_kind() {
        for (good, hosts) in [
            ("http://127.0.0.1:50051", &[("127.0.0.1", 50051)][..]),
            ("http://localhost", &[("localhost", 80)]),
            ("http://[::1]:1", &[("::1", 1)]),
            ("https://registry.internal:443", &[("registry.internal", 443)]),
            (
                "https://10.0.0.1:50051, https://10.0.0.2:50052/",
                &[("10.0.0.1", 50051), ("10.0.0.2", 50052)],
            ),
        ] {
            let addresses = Addresses::parse(good).unwrap();
            let hosts: Vec<_> = hosts
                .iter()
                .map(|(host, port)| ((*host).to_owned(), *port))
                .collect();
            assert_eq!(addresses.hosts, hosts, "{good}");
            assert_eq!(addresses.has_tls(), good.starts_with("https"), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:50051",
            "http://registry:50051",
            "http://10.0.0.1:50051",
            "http://u@localhost",
            "http://:p@localhost",
            "https://localhost:0",
            "https://localhost#x",
            "https://localhost/path",
            "https://localhost?x",
            "https://a,",
            "https://a,http://localhost",
            "ftp://localhost",
        ] {
            assert!(Addresses::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn each_address_of_a_host_is_resolved_once() {
        let addresses = Addresses::parse("http://127.0.0.1:1,http://127.0.0.2:1,http://127.0.0.1:1").unwrap();
        let resolved = Target::new(addresses, None).unwrap().resolve(&[]).await.unwrap();
        let resolved: Vec<_> = resolved.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(resolved, ["127.0.0.1:1", "127.0.0.2:1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_fails_or_hangs_keeps_its_addresses_and_the_others_change() {
        let addresses = Addresses::parse("http://127.0.0.1:1,http://127.0.0.2:1,http://127.0.0.3:1").unwrap();
        let mut target = Target::new(addresses, None).unwrap();
        let resolve = async |target: &Target, known: &[ResolvedAddress]| {
            let resolved = target.resolve(known).await.unwrap();
            let texts = resolved
                .iter()
                .map(|one| one.address.to_string())
                .collect::<Vec<_>>();
            (resolved, texts)
        };
        let (known, texts) = resolve(&target, &[]).await;
        assert_eq!(texts, ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"]);
        target.resolver = Arc::new(|host, port| {
            Box::pin(async move {
                match host.as_str() {
                    "127.0.0.1" => Err(io::Error::other("no such name")),
                    "127.0.0.2" => std::future::pending().await,
                    _ => Ok(vec![SocketAddr::from(([127, 0, 0, 9], port))]),
                }
            })
        });
        for _ in 0..2 {
            let (_, texts) = resolve(&target, &known).await;
            assert_eq!(texts, ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.9:1"]);
        }
    }
}
