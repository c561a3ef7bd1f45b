//! The checker of a resource server. A background task keeps its keys and revocations up to date.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use http::Uri;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};

use super::{
    AccessTokenClaims, Expected, VerifyError, poll,
    shared::{Shared, WorkloadToken},
};
use crate::{
    clock::{SharedClock, SystemClock},
    token::v1::token_service_client::TokenServiceClient,
};

/// The reasons why a checker can't start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `http://` with a loopback host and nothing else: plaintext is for loopback only.
    #[error("token-service must be reached at http:// with a loopback host")]
    Address,
    /// The workload token can't stand in a header.
    #[error("the workload token is malformed")]
    Token,
    /// Not called within a tokio runtime.
    #[error("a checker needs a tokio runtime")]
    NoRuntime,
}

/// Checks access tokens, offline. Cheap to clone; the background task ends with the last clone.
///
/// It polls `ListRevocations` twice a second. Each answer renews a lease of [`LEASE`](super::LEASE) that starts when
/// its request was sent; without a lease the checker rejects every token. So every check that begins two seconds
/// after a revoking call returned rejects what was revoked. It reads the authority's keys every minute, and when a
/// token names an unknown key.
///
/// The machine's clock decides when a token expires; it must not be more than a minute slow.
#[derive(Clone)]
pub struct Checker {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Settings of a [`Checker`] that is not started yet.
pub struct CheckerBuilder {
    channel: Channel,
    token: WorkloadToken,
    clock: SharedClock,
    poll_every: Duration,
    call_timeout: Duration,
}

impl fmt::Debug for CheckerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckerBuilder")
            .field("poll_every", &self.poll_every)
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}

impl CheckerBuilder {
    /// Sets how often revocations are polled; half a second by default. The lease stays two seconds: above one
    /// second, a single lost answer ends it.
    #[must_use]
    pub fn poll_every(mut self, period: Duration) -> Self {
        self.poll_every = period;
        self
    }

    /// Sets the timeout of a request; a second by default.
    #[must_use]
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = limit;
        self
    }

    /// Sets the clock by which tokens expire; the machine's by default.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the background task and returns at once; [`Checker::ready`] waits.
    pub fn start(self) -> Result<Checker, ConnectError> {
        let runtime = Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let shared = Arc::new(Shared {
            client: TokenServiceClient::new(self.channel),
            token: self.token,
            clock: self.clock,
            poll_every: self.poll_every,
            call_timeout: self.call_timeout,
            revocations: RwLock::default(),
            keys: RwLock::default(),
            reading_keys: tokio::sync::Mutex::default(),
            keys_changed: Notify::new(),
            updated: watch::Sender::new(()),
        });
        let task = runtime.spawn(poll::run(shared.clone()));
        Ok(Checker {
            shared,
            _task: Arc::new(Task(task)),
        })
    }
}

impl Checker {
    /// Starts a checker for the token-service at `url` (`http://host:port`, a loopback host). The token is that of
    /// a workload of kind internal-service. Returns at once, even if nothing listens there; [`Checker::ready`]
    /// waits.
    pub fn connect(url: &str, workload_token: &str) -> Result<Self, ConnectError> {
        Self::builder(url, workload_token)?.start()
    }

    /// [`Checker::connect`] with other settings.
    ///
    /// # Errors
    /// [`ConnectError::Address`], [`ConnectError::Token`], [`ConnectError::NoRuntime`].
    pub fn builder(url: &str, workload_token: &str) -> Result<CheckerBuilder, ConnectError> {
        // A channel that connects later belongs to a runtime, too.
        Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let endpoint = Endpoint::from(loopback(url)?)
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        Self::over(endpoint.connect_lazy(), workload_token)
    }

    /// [`Checker::builder`] over a channel of the caller's own, such as one that speaks TLS. The workload
    /// token goes over it.
    ///
    /// # Errors
    /// [`ConnectError::Token`].
    pub fn over(channel: Channel, workload_token: &str) -> Result<CheckerBuilder, ConnectError> {
        Ok(CheckerBuilder {
            channel,
            token: WorkloadToken::new(workload_token).ok_or(ConnectError::Token)?,
            clock: Arc::new(SystemClock),
            poll_every: Duration::from_millis(500),
            call_timeout: Duration::from_secs(1),
        })
    }

    /// Waits until the checker has keys and a lease.
    pub async fn ready(&self) {
        let mut updated = self.shared.updated.subscribe();
        // The sender lives as long as `self`.
        let _ = updated.wait_for(|()| self.is_ready()).await;
    }

    /// Returns whether the checker has keys and a lease.
    pub fn is_ready(&self) -> bool {
        self.shared.keys().is_some() && self.shared.with_revocations(|known| known.is_fresh())
    }

    /// Checks an access token (RFC 9068 §4): signature and type, issuer, audience and tenant exactly,
    /// expiry, and revocation. Sends no request, unless the token names an unknown key and the last read of the keys
    /// is five seconds ago. [`VerifyError::is_temporary`] separates "not now" from "no".
    pub async fn check(
        &self,
        token: &str,
        expected: &Expected<'_>,
    ) -> Result<AccessTokenClaims, VerifyError> {
        let verified = match self.verify(token, expected) {
            Err(VerifyError::UnknownKey) => {
                let read = poll::read_keys_again(&self.shared).await;
                match self.verify(token, expected) {
                    // The key may be new.
                    Err(VerifyError::UnknownKey) if read.is_err() => Err(VerifyError::NoKeys),
                    verified => verified,
                }
            }
            verified => verified,
        };
        let (claims, kid) = verified?;
        self.shared.with_revocations(|known| known.judge(&claims, &kid))?;
        Ok(claims)
    }

    fn verify(
        &self,
        token: &str,
        expected: &Expected<'_>,
    ) -> Result<(AccessTokenClaims, String), VerifyError> {
        let keys = self.shared.keys().ok_or(VerifyError::NoKeys)?;
        keys.verify_with_key_id(token, expected, self.shared.clock.now().as_secs())
    }
}

/// Parses an address. Plaintext is for loopback only.
fn loopback(url: &str) -> Result<Uri, ConnectError> {
    let uri: Uri = url.parse().map_err(|_| ConnectError::Address)?;
    let host = uri.host().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost"
        || literal
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let nothing_else = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.contains('@');
    if uri.scheme_str() == Some("http") && is_loopback && nothing_else {
        Ok(uri)
    } else {
        Err(ConnectError::Address)
    }
}

#[cfg(test)]
#[path = "tests/checker.rs"]
mod tests;
