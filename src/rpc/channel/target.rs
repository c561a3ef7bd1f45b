//! Where a service is: one or more addresses, each of a host that may resolve to several.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::Uri;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use url::{Host, Url};

use crate::tls::{ClientTls, Connector, Destination};

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
            let (host, is_loopback) = match url.host() {
                Some(Host::Domain(name)) => (name.to_owned(), name == "localhost"),
                Some(Host::Ipv4(address)) => (address.to_string(), address.is_loopback()),
                Some(Host::Ipv6(address)) => (address.to_string(), address.is_loopback()),
                None => return Err(FORM),
            };
            match url.scheme() {
                "https" => schemes.push(true),
                "http" if is_loopback => schemes.push(false),
                _ => return Err(FORM),
            }
            hosts.push((host, url.port_or_known_default().ok_or(FORM)?));
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
#[derive(Clone, Debug)]
pub struct Target {
    addresses: Addresses,
    tls: Option<ClientTls>,
}

/// One address of a service, found by resolving a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
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
            (true, false) => Err("has https:// but no authorities to verify it by"),
            (false, true) => Err("has http:// but files for TLS"),
            _ => Ok(Self { addresses, tls }),
        }
    }

    /// Resolves every host. Succeeds if one host has an address.
    pub(super) async fn resolve(&self) -> io::Result<Vec<Place>> {
        let (mut places, mut failure) = (Vec::new(), None);
        for (host, port) in &self.addresses.hosts {
            match tokio::net::lookup_host((host.as_str(), *port)).await {
                Ok(addresses) => places.extend(addresses.map(|address| Place {
                    host: host.clone(),
                    address,
                })),
                Err(error) => failure = Some(error),
            }
        }
        places.sort_by_key(|place| place.address);
        places.dedup_by_key(|place| place.address);
        match failure {
            Some(error) if places.is_empty() => Err(error),
            _ => Ok(places),
        }
    }

    /// Looks whether the files of TLS have changed. Returns how often they have, so far.
    pub(super) async fn reload(&self) -> u64 {
        let Some(tls) = self.tls.clone() else {
            return 0;
        };
        let looked = tokio::task::spawn_blocking({
            let tls = tls.clone();
            move || tls.reload()
        });
        if let Ok(Err(error)) = looked.await {
            let file = error.file;
            tracing::warn!(?file, %error, "the files for TLS to the registry can't be used, and the old ones count");
        }
        tls.generation()
    }

    /// Opens a channel to a place. It connects on first use, and again whenever the connection is lost.
    pub(super) fn channel(&self, place: &Place) -> Result<Channel, &'static str> {
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
            let endpoint = Endpoint::from(uri(format!("http://{}", place.address))?);
            return Ok(bounded(endpoint).connect_lazy());
        };
        let host = match place.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => place.host.clone(),
        };
        let endpoint = crate::tls::endpoint(uri(format!("https://{host}:{}", place.address.port()))?);
        let connector = Connector {
            tls,
            server_name: ServerName::try_from(place.host.clone()).map_err(|_| malformed)?,
            address: Destination::Address(place.address),
        };
        Ok(bounded(endpoint.ok_or(malformed)?).connect_with_connector_lazy(connector))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
    async fn several_addresses_of_hosts_are_several_places() {
        let addresses = Addresses::parse("http://127.0.0.1:1,http://127.0.0.2:1,http://127.0.0.1:1").unwrap();
        let places = Target::new(addresses, None).unwrap().resolve().await.unwrap();
        let places: Vec<_> = places.iter().map(|place| place.address.to_string()).collect();
        assert_eq!(places, ["127.0.0.1:1", "127.0.0.2:1"]);
    }
}
