//! The checker of a resource server: keys and revocations, kept up to date in the background.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::Uri;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use zeroize::Zeroizing;

use super::{AccessTokenClaims, Expected, KeySet, Revocations, VerifyError, poll, revocations::Applied};
use crate::{
    clock::{SharedClock, SystemClock},
    token::v1::{self as pb, token_service_client::TokenServiceClient},
};

/// How long keys count after they were asked for. The end of a key is told for longer than this.
const KEYS_LIFE: Duration = Duration::from_secs(600);

/// Why a checker can't be made.
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
/// It asks `ListRevocations` twice a second and judges tokens for [`LEASE`](super::LEASE) after the last
/// moment for which it knows everything; after that it refuses all, until it knows again. So whatever ended
/// is refused by every check that begins two seconds after the revoking call returned. It asks for the
/// authority's keys every minute, and when a token names a key that it does not know.
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

/// What clones of a checker and its background task share.
pub(super) struct Shared {
    pub(super) client: TokenServiceClient<Channel>,
    pub(super) token: WorkloadToken,
    pub(super) clock: SharedClock,
    pub(super) poll_every: Duration,
    pub(super) call_timeout: Duration,
    pub(super) revocations: RwLock<Revocations>,
    /// The keys, and when the question was sent that they answer.
    pub(super) keys: RwLock<Option<(Arc<KeySet>, Instant)>>,
    pub(super) reading_keys: tokio::sync::Mutex<poll::LastRead>,
    /// The keys should be read again.
    pub(super) keys_changed: Notify,
    /// Sent to whenever something was learnt.
    pub(super) learnt: watch::Sender<()>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A workload's bearer token.
pub(super) struct WorkloadToken(Zeroizing<String>);

impl WorkloadToken {
    fn new(text: &str) -> Result<Self, ConnectError> {
        let legal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        legal
            .then(|| Self(Zeroizing::new(text.to_owned())))
            .ok_or(ConnectError::Token)
    }

    /// The `authorization` header; `Debug` does not show it.
    pub(super) fn header(&self) -> MetadataValue<Ascii> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        // Visible ASCII is always a legal value.
        let mut value = MetadataValue::try_from(text.as_str()).unwrap_or(MetadataValue::from_static(""));
        value.set_sensitive(true);
        value
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
    /// How often revocations are asked for; half a second by default. The lease is two seconds whatever
    /// this says: more than one second leaves no room for an answer that is lost.
    #[must_use]
    pub fn poll_every(mut self, period: Duration) -> Self {
        self.poll_every = period;
        self
    }

    /// How long an answer is waited for; a second by default.
    #[must_use]
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = limit;
        self
    }

    /// The clock by which tokens expire; the machine's by default.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the background task and answers at once; [`Checker::ready`] waits.
    ///
    /// # Errors
    /// [`ConnectError::NoRuntime`].
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
            learnt: watch::Sender::new(()),
        });
        let task = runtime.spawn(poll::run(shared.clone()));
        Ok(Checker {
            shared,
            _task: Arc::new(Task(task)),
        })
    }
}

impl Checker {
    /// Starts a checker that asks the token-service at `url` (`http://host:port`, a loopback host) as the
    /// workload of kind internal-service that this token belongs to. Answers at once, also when nobody
    /// listens there; [`Checker::ready`] waits.
    ///
    /// # Errors
    /// [`ConnectError`].
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
            token: WorkloadToken::new(workload_token)?,
            clock: Arc::new(SystemClock),
            poll_every: Duration::from_millis(500),
            call_timeout: Duration::from_secs(1),
        })
    }

    /// Waits until tokens can be judged: the keys are there, and everything that was revoked is known.
    pub async fn ready(&self) {
        let mut learnt = self.shared.learnt.subscribe();
        // The sender is ours, so it is there for as long as we wait.
        let _ = learnt.wait_for(|()| self.is_ready()).await;
    }

    /// Whether tokens can be judged now.
    pub fn is_ready(&self) -> bool {
        self.shared.keys().is_some() && self.shared.with_revocations(|known| known.is_fresh())
    }

    /// Checks an access token (RFC 9068 §4): signature and type, issuer, audience and tenant exactly,
    /// expiry, and whether it was revoked. Asks nobody, unless the token names an unknown key: then the keys
    /// are read once more, if the last time is five seconds ago.
    ///
    /// # Errors
    /// See [`VerifyError`]; [`VerifyError::is_temporary`] tells "not now" from "no".
    pub async fn check(
        &self,
        token: &str,
        expected: &Expected<'_>,
    ) -> Result<AccessTokenClaims, VerifyError> {
        let verified = match self.verify(token, expected) {
            Err(VerifyError::UnknownKey) => {
                let read = poll::read_keys_again(&self.shared).await;
                match self.verify(token, expected) {
                    // The key may be a new one, which could not be read.
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

impl Shared {
    /// The keys, unless they are too old: one that was revoked long ago is named by no revocation any more.
    fn keys(&self) -> Option<Arc<KeySet>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (keys, asked_at) = keys.as_ref()?;
        (asked_at.elapsed() <= KEYS_LIFE).then(|| keys.clone())
    }

    /// Takes keys in that were asked for at this moment, unless the revocations began anew since.
    pub(super) fn set_keys(&self, keys: KeySet, asked_at: Instant) {
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        if revocations.epoch_since().is_none_or(|since| asked_at >= since) {
            let keys = Some((Arc::new(keys), asked_at));
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
    }

    /// Takes in what was revoked. Another database that took over, maybe because of what happened to the
    /// keys of the one before, takes these along.
    pub(super) fn apply(&self, answer: pb::ListRevocationsResponse, asked_at: Instant) -> Applied {
        let mut revocations = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        let applied = revocations.apply(answer, asked_at);
        if applied.new_epoch {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        applied
    }

    fn with_revocations<T>(&self, look: impl FnOnce(&Revocations) -> T) -> T {
        look(&self.revocations.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads an address; plaintext is for loopback only.
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
