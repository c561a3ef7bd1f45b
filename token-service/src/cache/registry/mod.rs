//! What the registry says, from memory for as long as that is known to hold, and else by asking.
//!
//! [`follow`] asks every 200 ms what changed. The answer reflects everything that was committed before the
//! question was *sent*, so it renews a lease from that moment, and what is remembered counts while the
//! lease holds. Without a lease every question goes to the registry itself: a registry that does not
//! answer stops what depends on it, and a missed change is impossible.
//!
//! For issuing and introspection, and for who calls. What a Tenant Admin decides is asked of the registry
//! each time.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use accord::{
    clock::SharedClock,
    random::Random,
    rpc::auth::{Caller, CallerDirectory},
    text::{
        id::{ClientId, TenantId, UserId},
        opaque::{ClientSecret, OpaqueToken},
    },
};
use aws_lc_rs::hmac;
use tokio::{sync::Mutex, time::Instant};
use tonic::Status;
use zeroize::Zeroizing;

use crate::{
    cache::{lease, revocation_index::Ended},
    error::Error,
    model::{client::Client, tenant::Tenant, user::User, watermark::At},
    registry::{Registry, UserRef},
};

mod cache;
mod checking;
#[cfg(test)]
mod fixture;
mod follow;

use cache::{Cache, Proven, Verified};
use checking::Checking;
pub use follow::follow;

/// The registry, asked through a memory. Cheap to clone; clones remember together.
#[derive(Clone)]
pub struct Directory {
    registry: Registry,
    clock: SharedClock,
    /// Secrets are remembered as verified under this key, which is never written anywhere: nothing that
    /// is remembered gives a secret back, or lets one be tried out elsewhere.
    key: Arc<hmac::Key>,
    cache: Arc<Cache>,
    /// Who asks about which secret.
    checking: Arc<Checking>,
    /// Where secrets wait for the registry's slow hash.
    line: Arc<Line>,
    /// Held while the feed is asked: its answers are applied in the order of its questions.
    asking: Arc<Mutex<()>>,
}

/// How much is answered from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Whether the feed is followed, and questions answered from memory while that is known to hold.
    pub follows: bool,
    /// How much longer than a lease what the registry said may count while it does not answer. It adds to
    /// the second within which what the registry ends is ended everywhere.
    pub stale_max: Duration,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Directory {
    /// Remembers nothing yet.
    pub fn new(registry: Registry, clock: SharedClock, random: &dyn Random, memory: Memory) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        random.fill(&mut *key);
        Self {
            registry,
            clock,
            key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &*key)),
            cache: Arc::new(Cache::new(memory.follows, lease::LIFE + memory.stale_max)),
            checking: Arc::default(),
            line: Arc::default(),
            asking: Arc::default(),
        }
    }

    /// How long the registry's answers count.
    pub fn life(&self) -> Duration {
        self.cache.life()
    }

    /// Checks a Client Secret. The slow hash runs once per secret and process, for as long as nothing
    /// about the client changes.
    ///
    /// # Errors
    /// [`Error::InvalidClient`], [`Error::Busy`], [`Error::RegistryUnavailable`].
    pub async fn authenticate_client(
        &self,
        client_id: &ClientId,
        client_secret: &ClientSecret,
    ) -> Result<At<Arc<Client>>, Error> {
        let mac = self.mac(client_id, client_secret);
        if let Some(client) = self.proven(client_id, &mac).await? {
            return Ok(client);
        }
        // On the heap, as every question to the registry: the size of what it takes should not be part of
        // every call that is answered from memory.
        Box::pin(self.check_client(client_id, client_secret, mac)).await
    }

    /// Asks the registry about a secret that is not known to be right: one after the other, if the next one may find
    /// the answer in memory. A registry that does not answer is asked by everybody.
    async fn check_client(
        &self,
        client_id: &ClientId,
        client_secret: &ClientSecret,
        mac: [u8; 32],
    ) -> Result<At<Arc<Client>>, Error> {
        let mut turn = None;
        if self.registry_answers() {
            let name = (client_id.clone(), client_secret.secret_id().clone());
            turn = self.checking.turn(name).await;
            if let Some(client) = self.proven(client_id, &mac).await? {
                return Ok(client);
            }
            if turn.is_none() && self.registry_answers() {
                return Err(Error::Busy);
            }
        }
        if self.line.is_full(Instant::now()) {
            return Err(Error::Busy);
        }
        let answer = self
            .registry
            .authenticate_client(client_id, client_secret.expose())
            .await;
        if let Err(Error::Busy) = answer {
            self.line.was_full(Instant::now());
        }
        let answer = answer?;
        let verified = Verified {
            mac,
            secret_id: answer.value.secret_id.clone(),
            expires_at: answer.value.secret_expires_at,
        };
        let client = answer.map(|answer| Arc::new(answer.client));
        self.cache.keep_client(&client, Some(verified));
        // The next one finds it in memory.
        drop(turn);
        Ok(client)
    }

    /// Whether there is a memory, and the registry's feed was read just now, however long what it told counts.
    fn registry_answers(&self) -> bool {
        let now = Instant::now();
        let since = now.checked_sub(lease::LIFE);
        self.cache.has_lease(now) && since.is_some_and(|since| self.cache.is_complete_since(since))
    }

    /// The client whose secret is known to be right.
    ///
    /// # Errors
    /// [`Error::InvalidClient`] when it is not active; [`Error::RegistryUnavailable`].
    async fn proven(&self, client_id: &ClientId, mac: &[u8; 32]) -> Result<Option<At<Arc<Client>>>, Error> {
        let proven = self
            .cache
            .proven(client_id, mac, self.clock.now(), Instant::now());
        match proven {
            Some(Proven::Client(client)) => active(client).map(Some),
            Some(Proven::Alone(position, asked_at)) => {
                let mut client = match self.client(client_id).await {
                    Err(Error::NotFound(_)) => return Err(Error::InvalidClient),
                    client => client?,
                };
                // Client and secret were read at different times: the earlier one counts.
                if client.position.epoch != position.epoch {
                    return Ok(None);
                }
                client.position.seq = client.position.seq.min(position.seq);
                client.asked_at = client.asked_at.min(asked_at);
                active(client).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Reads a client.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RegistryUnavailable`].
    pub async fn client(&self, client_id: &ClientId) -> Result<At<Arc<Client>>, Error> {
        if let Some(client) = self.cache.client(client_id, Instant::now()) {
            return Ok(client);
        }
        let client = Box::pin(self.registry.client(client_id)).await?.map(Arc::new);
        self.cache.keep_client(&client, None);
        Ok(client)
    }

    /// Reads a tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RegistryUnavailable`].
    pub async fn tenant(&self, tenant_id: &TenantId) -> Result<At<Arc<Tenant>>, Error> {
        if let Some(tenant) = self.cache.tenant(tenant_id, Instant::now()) {
            return Ok(tenant);
        }
        let tenant = Box::pin(self.registry.tenant(tenant_id)).await?.map(Arc::new);
        self.cache.keep_tenant(&tenant);
        Ok(tenant)
    }

    /// Reads a tenant's user.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RegistryUnavailable`].
    pub async fn user(&self, tenant_id: &TenantId, user_id: &UserId) -> Result<At<Arc<User>>, Error> {
        if let Some(user) = self.cache.user(tenant_id, user_id, Instant::now()) {
            return Ok(user);
        }
        let user = self.registry.user(tenant_id, UserRef::Id(user_id));
        let user = Box::pin(user).await?.map(Arc::new);
        self.cache.keep_user(tenant_id, &user);
        Ok(user)
    }

    /// Whose access tokens ended behind a position of the registry's feed, in its order and at most so
    /// many, of those that may still live: clients, tenants and users.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`], [`Error::TooManyRevocations`].
    pub async fn ended_after(&self, seq: i64, limit: usize) -> Result<At<Vec<Ended>>, Error> {
        if let Some(ended) = self.cache.ended_after(seq, limit, Instant::now())? {
            return Ok(ended);
        }
        follow::ask(self).await?;
        let ended = self.cache.ended_after(seq, limit, Instant::now())?;
        ended.ok_or(Error::RegistryUnavailable)
    }

    fn mac(&self, client_id: &ClientId, client_secret: &ClientSecret) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        // A Client ID has one length, so that no two pairs give the same bytes.
        context.update(client_id.as_str().as_bytes());
        context.update(client_secret.expose().as_bytes());
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }
}

/// Whether it makes sense to ask the registry about another secret. To be told that too many wait costs both
/// services more than a token: who comes just after somebody was told so need not ask.
#[derive(Debug, Default)]
struct Line {
    full_at: std::sync::Mutex<Option<Instant>>,
}

impl Line {
    /// How long a full line counts as full: about as long as a few runs of the hash take.
    const FULL_FOR: Duration = Duration::from_millis(50);

    fn is_full(&self, now: Instant) -> bool {
        let full_at = *self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        full_at.is_some_and(|at| now.saturating_duration_since(at) < Self::FULL_FOR)
    }

    fn was_full(&self, now: Instant) {
        *self.full_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }
}

fn active(client: At<Arc<Client>>) -> Result<At<Arc<Client>>, Error> {
    if client.value.active {
        Ok(client)
    } else {
        Err(Error::InvalidClient)
    }
}

#[tonic::async_trait]
impl CallerDirectory for Directory {
    async fn find_caller(&self, token: &OpaqueToken) -> Result<Option<Caller>, Status> {
        let digest = token.digest();
        if let Some(caller) = self.cache.caller(&digest, Instant::now()) {
            return Ok(Some(caller));
        }
        let Some(caller) = Box::pin(self.registry.caller(token)).await? else {
            return Ok(None);
        };
        self.cache.keep_caller(digest, &caller);
        Ok(Some(caller.value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{random::SeededRandom, testing::test_clock};
    use futures_util::future::join_all;

    use super::*;
    use crate::cache::registry::fixture::{Fake, directory, right, wrong};

    #[tokio::test]
    async fn of_those_who_bring_the_same_secret_at_once_one_asks() {
        let client_id = ClientId::generate(&*test_clock(), &SeededRandom::new(2));
        let fake = Fake::of(vec![client_id.clone()]);
        let directory = directory(&fake).await;
        let bring = async |secret: &ClientSecret| {
            join_all((0..20).map(|_| directory.authenticate_client(&client_id, secret))).await
        };
        // Nothing would be found in memory: each asks for himself.
        assert!(bring(&right()).await.iter().all(Result::is_ok));
        let asked = fake.asked();
        assert_eq!(asked.checks, 20);
        assert!(asked.at_once > 1);
        follow::ask(&directory).await.unwrap();
        assert!(bring(&right()).await.iter().all(Result::is_ok));
        assert_eq!(fake.asked().checks, 1);
        // A wrong one is remembered nowhere: each is refused by the registry, one after the other.
        let refused = bring(&wrong()).await;
        let is_refused = |answer: &_| matches!(answer, Err(Error::InvalidClient));
        assert!(refused.iter().all(is_refused));
        let asked = fake.asked();
        assert_eq!((asked.checks, asked.at_once), (20, 1));
    }

    #[tokio::test]
    async fn who_gets_no_turn_is_told_so_unless_the_registry_hangs() {
        let client_id = ClientId::generate(&*test_clock(), &SeededRandom::new(2));
        let fake = Fake::of(vec![client_id.clone()]);
        let directory = directory(&fake).await;
        let name = (client_id.clone(), right().secret_id().clone());
        let held = directory.checking.turn(name).await.unwrap();
        let wrong = wrong();
        let others = directory.checking.fill();
        follow::ask(&directory).await.unwrap();
        let answer = directory.authenticate_client(&client_id, &wrong).await;
        assert!(matches!(answer, Err(Error::Busy)));
        assert_eq!(fake.asked().checks, 0);
        drop(others);
        // Nothing is heard of the registry while the turn is waited for. What it said before still counts.
        follow::ask(&directory).await.unwrap();
        tokio::time::pause();
        let wait = async {
            tokio::time::advance(lease::LIFE * 2).await;
            tokio::time::resume();
        };
        let (answer, ()) = tokio::join!(directory.authenticate_client(&client_id, &wrong), wait);
        assert!(matches!(answer, Err(Error::InvalidClient)));
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_is_asked_again_after_a_while() {
        let line = Line::default();
        assert!(!line.is_full(Instant::now()));
        line.was_full(Instant::now());
        tokio::time::advance(Line::FULL_FOR - Duration::from_millis(1)).await;
        assert!(line.is_full(Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!line.is_full(Instant::now()));
    }
}
