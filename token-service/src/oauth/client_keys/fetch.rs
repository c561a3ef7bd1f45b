//! Fetches a key set from the URL of a client, which the client chose: from allowed addresses alone, without a proxy, following
//! no redirect, and bounded in size and time.
//!
//! The address that is checked is the one that is connected to: the name is resolved once, by `CheckedResolver`.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use accord::text::network::AllowedNetworks;
use reqwest::{
    Client, ClientBuilder, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::ACCEPT,
    redirect::Policy,
};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::timeout,
};
use url::{Host, Url};

use super::address::is_allowed;
use crate::model::client::key_set::ClientKeySet;

/// The largest key set, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// How long a fetch may take, and before it the wait for others.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How many fetches run at a time.
const MAX_FETCHES: usize = 64;

/// Resolves the name of a host. Tests have a fake one.
#[tonic::async_trait]
pub trait HostResolver: Send + Sync {
    /// Returns the addresses of a host, with any port.
    async fn addresses(&self, host: &str) -> io::Result<Vec<SocketAddr>>;
}

/// Asks the system.
struct SystemResolver;

#[tonic::async_trait]
impl HostResolver for SystemResolver {
    async fn addresses(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.collect())
    }
}

/// Fetches key sets.
pub struct KeySetFetcher {
    others: Arc<AllowedNetworks>,
    /// Made for the first fetch: it reads the system's authorities.
    client: OnceCell<Client>,
    slots: Semaphore,
}

impl KeySetFetcher {
    /// Creates a fetcher that calls addresses of the public Internet, and those of the networks `others`.
    pub fn new(others: AllowedNetworks) -> Self {
        Self {
            others: Arc::new(others),
            client: OnceCell::new(),
            slots: Semaphore::new(MAX_FETCHES),
        }
    }

    /// Fetches the key set at a URL.
    ///
    /// # Errors
    /// The reason for the log. It holds nothing that the server sent.
    pub(super) async fn fetch(&self, url: &str) -> Result<ClientKeySet, &'static str> {
        let url = Url::parse(url).map_err(|_| "the URL is malformed")?;
        self.check_host(&url)?;
        let Ok(Ok(_slot)) = timeout(TIMEOUT, self.slots.acquire()).await else {
            return Err("too many other key sets are being fetched");
        };
        let client = self
            .client
            .get_or_try_init(async || client_builder(self.others.clone(), Arc::new(SystemResolver)).build());
        let client = client.await.map_err(|_| "no client of TLS could be made")?;
        let request = client
            .get(url)
            .header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(|error| reason(&error))?;
        if response.status() != StatusCode::OK {
            return Err(match response.status().is_redirection() {
                true => "the server redirects, which is not followed",
                false => "the server answers with another status than 200",
            });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err("the answer is larger than 64 KiB");
            }
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(body).map_err(|_| "the answer is no JSON Web Key Set")?;
        ClientKeySet::read(&text)
            .filter(|_| !text.is_empty())
            .ok_or("the answer is no JSON Web Key Set")
    }

    /// Checks what the resolver does not see: the scheme, and a host that is an address.
    fn check_host(&self, url: &Url) -> Result<(), &'static str> {
        let address = match url.host() {
            _ if url.scheme() != "https" => return Err("the URL is not https"),
            None => return Err("the URL has no host"),
            Some(Host::Domain(_)) => return Ok(()),
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
        };
        is_allowed(address, &self.others)
            .then_some(())
            .ok_or(NotAllowed::RULE)
    }
}

/// Returns a client that connects to allowed addresses alone.
fn client_builder(others: Arc<AllowedNetworks>, resolver: Arc<dyn HostResolver>) -> ClientBuilder {
    Client::builder()
        .https_only(true)
        .no_proxy()
        .redirect(Policy::none())
        .timeout(TIMEOUT)
        // A later fetch resolves and checks again.
        .pool_max_idle_per_host(0)
        .dns_resolver(Arc::new(CheckedResolver { others, resolver }))
}

/// Resolves names to allowed addresses. The client connects to exactly the addresses that this returns.
struct CheckedResolver {
    others: Arc<AllowedNetworks>,
    resolver: Arc<dyn HostResolver>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (others, resolver) = (self.others.clone(), self.resolver.clone());
        Box::pin(async move {
            let mut addresses = resolver.addresses(name.as_str()).await?;
            addresses.retain(|address| is_allowed(address.ip(), &others));
            if addresses.is_empty() {
                return Err(NotAllowed.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A host without an allowed address.
#[derive(Debug, thiserror::Error)]
#[error("{}", NotAllowed::RULE)]
struct NotAllowed;

impl NotAllowed {
    const RULE: &'static str =
        "the host has no address of the public Internet, or of --jwks-allowed-networks";
}

fn reason(error: &reqwest::Error) -> &'static str {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<NotAllowed>() {
            return NotAllowed::RULE;
        }
        source = error.source();
    }
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => "the server does not answer in time",
        (_, true) => "the server can't be connected to, or its certificate is not accepted",
        _ => "the answer broke off",
    }
}

#[cfg(test)]
pub(super) mod tests;
