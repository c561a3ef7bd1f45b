//! Checks the access tokens that a resource server receives. A background task updates the keys and revocations.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use http::Uri;
use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify, watch},
    task::JoinSet,
};
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

use super::{
    AccessTokenClaims, Presented, Tenant, TlsFiles, VerifyError, connection::Connection, poll, possession,
    shared::Shared,
};
use crate::{
    clock::{SharedClock, SystemClock},
    dpop::ReplayCache,
    tls::{ClientTls, TlsFile},
};

/// The reasons why a checker can't start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `http://` with a loopback host, or with TLS `https://`, and nothing else.
    #[error("token-service must be reached at http:// with a loopback host, or at https:// with TLS")]
    Address,
    /// A file for TLS can't be used.
    #[error("the file of the {file:?} {problem}")]
    Tls {
        /// Which file it is.
        file: TlsFile,
        /// What is wrong with it.
        problem: String,
    },
    /// A header can't hold the workload token.
    #[error("the workload token is malformed")]
    Token,
    /// Not called within a tokio runtime.
    #[error("a checker needs a tokio runtime")]
    NoRuntime,
}

/// Checks access tokens, offline. Cheap to clone; the background task ends with the last clone.
///
/// It polls `ListRevocations` twice a second. Each response renews a lease of [`LEASE`](super::LEASE) that starts when
/// its request was sent. Without a lease the checker rejects every token. So a check that begins at least two seconds
/// after a revoking call has returned rejects the tokens that the call revoked. The checker reads the authority's keys
/// every minute, and when a token names an unknown key.
///
/// The machine's clock decides when a token expires. It must not be more than a minute slow.
#[derive(Clone)]
pub struct Checker {
    shared: Arc<Shared>,
    _task: Arc<JoinSet<()>>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

/// A [`Checker`] that is not started yet.
pub struct CheckerBuilder(Shared);

impl fmt::Debug for CheckerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckerBuilder")
            .field("poll_every", &self.0.poll_every)
            .field("call_timeout", &self.0.call_timeout)
            .finish_non_exhaustive()
    }
}

impl CheckerBuilder {
    /// Sets how often revocations are polled; half a second by default. The lease stays two seconds: with a
    /// longer period than one second, a single lost response ends it.
    #[must_use]
    pub fn poll_every(mut self, period: Duration) -> Self {
        self.0.poll_every = period;
        self
    }

    /// Sets the timeout of a request; a second by default.
    #[must_use]
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.0.call_timeout = limit;
        self
    }

    /// Sets the clock that decides when tokens expire; the machine's by default.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.0.clock = clock;
        self
    }

    /// Starts the background task and returns at once; [`Checker::ready`] waits.
    pub fn start(self) -> Result<Checker, ConnectError> {
        let runtime = Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let shared = Arc::new(self.0);
        let mut task = JoinSet::new();
        task.spawn_on(poll::run(shared.clone()), &runtime);
        let _task = Arc::new(task);
        Ok(Checker { shared, _task })
    }
}

impl Checker {
    /// Starts a checker for the token-service at `url` (`http://host:port`, a loopback host). The token is that of
    /// a workload of kind internal-service. Returns at once, even if nothing listens there; [`Checker::ready`]
    /// waits.
    pub fn connect(url: &str, workload_token: &str) -> Result<Self, ConnectError> {
        Self::builder(url, workload_token)?.start()
    }

    /// Like [`Checker::connect`], but over TLS to `https://host:port`, identified by a client certificate in place of a
    /// token. Changed files count for new connections after a few seconds, and the checker then opens one.
    ///
    /// # Errors
    /// [`ConnectError::Address`], [`ConnectError::Tls`], [`ConnectError::NoRuntime`].
    pub fn connect_tls(url: &str, files: TlsFiles) -> Result<Self, ConnectError> {
        Self::builder_tls(url, files, "")?.start()
    }

    /// Like [`Checker::connect_tls`], but returns a builder. `workload_token` is empty if the client certificate
    /// identifies the workload.
    ///
    /// # Errors
    /// Those of [`Checker::connect_tls`], and [`ConnectError::Token`] without a credential.
    pub fn builder_tls(
        url: &str,
        files: TlsFiles,
        workload_token: &str,
    ) -> Result<CheckerBuilder, ConnectError> {
        Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let has_certificate = files.identity.is_some();
        let tls = ClientTls::load(files).map_err(|error| ConnectError::Tls {
            file: error.file,
            problem: error.to_string(),
        })?;
        let connection = Connection::with_tls(url, tls).ok_or(ConnectError::Address)?;
        match has_certificate && workload_token.is_empty() {
            true => Ok(Self::on(connection, workload_token)),
            false => Self::with_token(connection, workload_token),
        }
    }

    /// Like [`Checker::connect`], but returns a builder, whose settings can be changed before the start.
    ///
    /// # Errors
    /// [`ConnectError::Address`], [`ConnectError::Token`], [`ConnectError::NoRuntime`].
    pub fn builder(url: &str, workload_token: &str) -> Result<CheckerBuilder, ConnectError> {
        // A lazy channel needs a runtime too.
        Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let endpoint = Endpoint::from(loopback(url)?)
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        Self::over(endpoint.connect_lazy(), workload_token)
    }

    /// Like [`Checker::builder`], but over the caller's channel, such as one with TLS of another kind. It sends the workload
    /// token there.
    ///
    /// # Errors
    /// [`ConnectError::Token`].
    pub fn over(channel: Channel, workload_token: &str) -> Result<CheckerBuilder, ConnectError> {
        Self::with_token(Connection::over(channel), workload_token)
    }

    fn with_token(connection: Connection, workload_token: &str) -> Result<CheckerBuilder, ConnectError> {
        let is_legal = workload_token.bytes().all(|byte| byte.is_ascii_graphic());
        match workload_token.is_empty() || !is_legal {
            true => Err(ConnectError::Token),
            false => Ok(Self::on(connection, workload_token)),
        }
    }

    fn on(connection: Connection, workload_token: &str) -> CheckerBuilder {
        CheckerBuilder(Shared {
            connection,
            token: Zeroizing::new(workload_token.to_owned()),
            clock: Arc::new(SystemClock),
            poll_every: Duration::from_millis(500),
            call_timeout: Duration::from_secs(1),
            revocations: RwLock::default(),
            keys: RwLock::default(),
            last_read: Mutex::default(),
            keys_changed: Notify::new(),
            proofs: ReplayCache::default(),
            updated: watch::Sender::new(()),
        })
    }

    /// Waits until the checker has keys and a lease.
    pub async fn ready(&self) {
        let mut updated = self.shared.updated.subscribe();
        // The sender exists as long as `self`.
        let _ = updated.wait_for(|()| self.is_ready()).await;
    }

    /// Returns whether the checker has keys and a lease.
    pub fn is_ready(&self) -> bool {
        self.shared.keys().is_some() && self.shared.with_revocations(|known| known.is_fresh())
    }

    /// Checks an access token that was sent as bearer, without a certificate: see [`Self::check_request`]. Rejects every token
    /// that is bound to a key.
    pub async fn check(&self, token: &str, tenant: &Tenant) -> Result<AccessTokenClaims, VerifyError> {
        self.check_request(&Presented::bearer(token), tenant).await
    }

    /// Checks an access token (RFC 9068 §4): signature and type, issuer, audience and tenant exactly, expiry, and
    /// revocation. Sends no request, unless the token names an unknown key and the keys were last read at least five
    /// seconds ago. [`VerifyError::is_temporary`] tells whether a later check may succeed.
    ///
    /// A token that is bound to a key counts only with proof of that key: a DPoP proof, once (RFC 9449 §4.3), or the certificate
    /// (RFC 8705 §3). This checker remembers the proofs that it has accepted, and no other process does.
    pub async fn check_request(
        &self,
        presented: &Presented<'_>,
        tenant: &Tenant,
    ) -> Result<AccessTokenClaims, VerifyError> {
        let token = presented.token;
        let mut verified = self.verify(token, tenant);
        if verified == Err(VerifyError::UnknownKey) {
            // The key may be new.
            let read = poll::read_keys_again(&self.shared).await;
            verified = self.verify(token, tenant);
            if verified == Err(VerifyError::UnknownKey) {
                // Without the newest keys, whether the key exists is not known.
                read?;
            }
        }
        let (claims, kid) = verified?;
        self.shared.with_revocations(|known| known.check(&claims, &kid))?;
        // Last, so that a proof is not spent on a token that is not valid.
        let now = self.shared.clock.now();
        possession::check(presented, &claims, &self.shared.proofs, now)?;
        Ok(claims)
    }

    fn verify(&self, token: &str, tenant: &Tenant) -> Result<(AccessTokenClaims, String), VerifyError> {
        let keys = self.shared.keys().ok_or(VerifyError::NoKeys)?;
        let (claims, kid) = keys.open(token)?;
        claims.check(tenant, self.shared.clock.now().as_secs())?;
        Ok((claims, kid))
    }
}

/// Parses `http://host:port`. Rejects a host that is not loopback: plaintext is for loopback only.
fn loopback(url: &str) -> Result<Uri, ConnectError> {
    let uri: Uri = url.parse().map_err(|_| ConnectError::Address)?;
    let host = uri.host().unwrap_or_default();
    let without_brackets = host.trim_start_matches('[').trim_end_matches(']');
    let address = without_brackets.parse::<IpAddr>();
    let is_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let has_no_more = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.contains('@');
    let is_allowed = uri.scheme_str() == Some("http") && is_loopback && has_no_more;
    is_allowed.then_some(uri).ok_or(ConnectError::Address)
}

#[cfg(test)]
#[path = "tests/checker.rs"]
mod tests;
