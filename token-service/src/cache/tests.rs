//! The rules of followers and memory, with sources that fail, lag and change in between.

#![allow(clippy::unwrap_used)]

use std::sync::{Mutex, atomic::Ordering};

use accord::{
    position::Position,
    random::SeededRandom,
    rpc::auth::{Caller, WorkloadKind},
    testing::{TEST_START, test_clock},
    text::{
        id::{GrantId, SecretId, UserId, WorkloadId},
        opaque::{ClientSecret, SecretTagKey},
    },
};
use sea_orm::ConnectionTrait;
use tokio::time::{Instant, advance};

use super::{fixture::cache, verified_secrets::VerifiedSecret, *};
use crate::{
    error::Error,
    model::{
        change::{Change, Changes},
        client::{Client, LiveSecret, Profile},
        revocation::{Revocation, RevocationKind},
        signing_key::{Keys, generate},
    },
};

/// Tenants, each changed twice in a burst.
const TENANTS: usize = 3;
const BURST: usize = 2 * TENANTS;
/// Changes in an answer: less than a burst.
const PAGE: usize = 2;

/// What becomes of the next question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    /// It fails before anything is read.
    Fails,
    /// The answer is read and gets lost.
    Lost,
    /// The answer is read, and arrives after the next change was made.
    Late,
    /// It is asked twice at a time.
    Twice,
    /// A change is made between the answer's position and its list.
    Overtaken,
}

/// A source that numbers the changes of tenants.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<(Vec<usize>, Fault)>>);

impl Numbers {
    fn change(&self) {
        let mut state = self.0.lock().unwrap();
        let tenant = state.0.len() % TENANTS;
        state.0.push(tenant);
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }

    /// How often a tenant was changed up to a position.
    fn version(&self, tenant: usize, seq: usize) -> i64 {
        let changes = &self.0.lock().unwrap().0;
        changes[..seq]
            .iter()
            .filter(|changed| **changed == tenant)
            .count() as i64
    }
}

impl ChangeSource for Numbers {
    const NAME: &'static str = "numbers";

    fn unavailable() -> Error {
        Error::Unavailable
    }

    async fn changes_after(&self, after: Option<&Position>) -> Result<Changes, Error> {
        let fault = std::mem::take(&mut self.0.lock().unwrap().1);
        if fault == Fault::Fails {
            return Err(Error::Unavailable);
        }
        let position_now = self.count();
        if fault == Fault::Overtaken {
            self.change();
        }
        let from = after.map_or(position_now, |after| after.seq as usize);
        let until = self.count().min(from + if after.is_some() { PAGE } else { 0 });
        let more = after.is_some() && until < self.count();
        let changes = self.0.lock().unwrap().0[from..until].to_vec();
        let revoked = |(seq, tenant): (usize, &usize)| {
            let revocation = Revocation {
                kind: RevocationKind::Tenant,
                id: tenant_id(*tenant).to_string(),
                seq: (from + seq + 1) as i64,
            };
            [Change::Tenant(tenant_id(*tenant)), Change::Revocation(revocation)]
        };
        let answer = Changes {
            changes: changes.iter().enumerate().flat_map(revoked).collect(),
            position: position(if more { until } else { position_now.max(until) } as i64),
            recent_seq: 0,
            reset: false,
            more,
        };
        match fault {
            Fault::Lost => return Err(Error::Unavailable),
            Fault::Late => self.change(),
            _ => {}
        }
        Ok(answer)
    }
}

fn tenant_id(n: usize) -> TenantId {
    TenantId::parse(&format!("tenant-{n}")).unwrap()
}

fn position(seq: i64) -> Position {
    Position {
        epoch: accord::testing::epoch("epochone"),
        seq,
    }
}

fn as_of<T>(value: T, seq: i64) -> AsOf<T> {
    AsOf {
        value,
        position: position(seq),
        asked_at: Instant::now(),
    }
}

fn changes(changes: Vec<Change>, seq: i64) -> Changes {
    Changes {
        changes,
        position: position(seq),
        recent_seq: seq,
        reset: false,
        more: false,
    }
}

/// Memory, and a follower that has applied position 5 just now.
fn followed(enabled: bool, lease: Duration) -> (Facts, ChangeFollower<Numbers>) {
    let (facts, follower) = (
        Facts::new(enabled),
        ChangeFollower::new(Numbers::default(), lease),
    );
    follower.restart(&facts, changes(Vec::new(), 5));
    follower.apply(&facts, changes(Vec::new(), 5), Instant::now());
    (facts, follower)
}

fn tenant(n: usize, version: i64) -> Tenant {
    Tenant {
        tenant_id: tenant_id(n),
        display_name: String::new(),
        active: true,
        issuer: String::new(),
        cloud_api_url: String::new(),
        tokens_ended_seq: version,
    }
}

/// Keeps a tenant that was read at a position; gives whether it is current.
fn keep(facts: &Facts, follower: &ChangeFollower<Numbers>, n: usize, seq: i64) -> bool {
    let read = as_of(tenant(n, 0), seq);
    let kept = facts.keep(follower, &facts.tenants, tenant_id(n), read, |tenant| {
        (tenant, 100)
    });
    kept.value.is_current()
}

fn is_found(facts: &Facts, follower: &ChangeFollower<Numbers>, n: usize) -> bool {
    facts.find(follower, &facts.tenants, &tenant_id(n)).is_some()
}

/// Reads each tenant. No answer claims to reflect a change that it does not show.
fn is_honest(facts: &Facts, follower: &ChangeFollower<Numbers>, source: &Numbers) {
    for n in 0..TENANTS {
        let found = facts
            .find(follower, &facts.tenants, &tenant_id(n))
            .unwrap_or_else(|| {
                let seq = source.count();
                let read = as_of(tenant(n, source.version(n, seq)), seq as i64);
                facts.keep(follower, &facts.tenants, tenant_id(n), read, |tenant| {
                    (tenant, 100)
                })
            });
        let (shown, claimed) = (found.value.tokens_ended_seq, found.position.seq as usize);
        let known = source.version(n, claimed);
        assert!(shown >= known, "claims {claimed} and shows {shown} of {known}");
    }
}

#[tokio::test]
async fn no_change_is_missed_whatever_becomes_of_a_question() {
    let faults = [
        Fault::None,
        Fault::Fails,
        Fault::Lost,
        Fault::Late,
        Fault::Twice,
        Fault::Overtaken,
    ];
    for (fault, at) in faults
        .into_iter()
        .flat_map(|fault| (0..=BURST).map(move |at| (fault, at)))
    {
        let source = Numbers::default();
        // The rule is about positions: the machine may be slow.
        let follower = ChangeFollower::new(source.clone(), Duration::from_secs(3600));
        let facts = Facts::new(true);
        follower.catch_up(&facts).await.unwrap();
        for step in 0..=BURST {
            is_honest(&facts, &follower, &source);
            if step == at {
                source.0.lock().unwrap().1 = fault;
                let caught_up = if fault == Fault::Twice {
                    let (one, other) = tokio::join!(follower.catch_up(&facts), follower.catch_up(&facts));
                    one.and(other)
                } else {
                    follower.catch_up(&facts).await
                };
                let fails = matches!(fault, Fault::Fails | Fault::Lost);
                assert_eq!(caught_up.is_err(), fails, "{fault:?} at {at}");
                is_honest(&facts, &follower, &source);
            }
            source.change();
            is_honest(&facts, &follower, &source);
        }
        follower.catch_up(&facts).await.unwrap();
        let last = source.count();
        assert_eq!(
            follower.lease().unwrap().position.seq,
            last as i64,
            "{fault:?} at {at}"
        );
        is_honest(&facts, &follower, &source);
        let revocations = follower.revocations_after(&facts, 0, 100).await.unwrap();
        let seqs: Vec<_> = revocations
            .value
            .iter()
            .map(|revocation| revocation.seq as usize)
            .collect();
        let expected: Vec<_> = (last + 1 - TENANTS..=last).collect();
        assert_eq!(seqs, expected, "{fault:?} at {at}: the last of each tenant");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_starts_with_the_question_and_only_a_complete_answer_renews_it() {
    let (facts, follower) = (Facts::new(true), ChangeFollower::new(Numbers::default(), LEASE));
    assert!(!keep(&facts, &follower, 0, 5), "nothing is followed yet");
    follower.restart(&facts, changes(Vec::new(), 5));
    assert!(follower.lease().is_none() && !is_found(&facts, &follower, 0));
    let sent = Instant::now();
    advance(Duration::from_millis(300)).await;
    let more = |seq| Changes {
        more: true,
        ..changes(Vec::new(), seq)
    };
    follower.apply(&facts, more(6), sent);
    assert!(follower.lease().is_none(), "more waits");
    follower.apply(&facts, changes(Vec::new(), 7), sent);
    assert!(keep(&facts, &follower, 0, 7));
    let lease = follower.lease().unwrap();
    assert_eq!((lease.position, lease.asked_at), (position(7), sent));
    advance(LEASE - Duration::from_millis(300)).await;
    follower.apply(&facts, more(8), Instant::now());
    assert!(is_found(&facts, &follower, 0));
    advance(Duration::from_millis(1)).await;
    assert!(
        !is_found(&facts, &follower, 0),
        "an incomplete answer renews nothing"
    );
    follower.apply(&facts, changes(Vec::new(), 9), Instant::now());
    assert!(is_found(&facts, &follower, 0));
    follower.restart(&facts, changes(Vec::new(), 1));
    follower.apply(&facts, changes(Vec::new(), 1), Instant::now());
    assert!(!is_found(&facts, &follower, 0), "a restart forgets everything");

    let (facts, follower) = followed(true, LEASE * 2);
    keep(&facts, &follower, 0, 5);
    advance(LEASE * 2).await;
    assert!(is_found(&facts, &follower, 0), "the operator allows stale facts");

    let (facts, follower) = followed(false, LEASE);
    assert!(!keep(&facts, &follower, 0, 5) && !is_found(&facts, &follower, 0));
    assert!(follower.lease().is_some(), "revocations are told all the same");
}

#[tokio::test(start_paused = true)]
async fn a_fact_that_was_read_before_an_applied_change_is_not_kept() {
    let (facts, follower) = followed(true, LEASE);
    assert!(!keep(&facts, &follower, 0, 4) && !is_found(&facts, &follower, 0));
    assert!(keep(&facts, &follower, 0, 6) && is_found(&facts, &follower, 0));
    assert!(keep(&facts, &follower, 0, 5));
    let mut elsewhere = as_of(tenant(1, 0), 9);
    elsewhere.position.epoch = accord::testing::epoch("another");
    let kept = facts.keep(&follower, &facts.tenants, tenant_id(1), elsewhere, |tenant| {
        (tenant, 100)
    });
    assert!(!kept.value.is_current());
}

fn client(random: &SeededRandom) -> Client {
    Client {
        client_id: ClientId::generate(&*test_clock(), random),
        profile: Profile::default(),
        active: true,
        tenant_ids: Vec::new(),
        scopes: Vec::new(),
        redirect_uris: Vec::new(),
        version: 1,
        tokens_ended_seq: 0,
        families_ended_seq: 0,
        json_web_key_set: String::new(),
        live_secrets: Vec::new(),
    }
}

fn grant(random: &SeededRandom) -> Grant {
    let clock = test_clock();
    Grant {
        grant_id: GrantId::generate(&*clock, random),
        tenant_id: tenant_id(0),
        client_id: ClientId::generate(&*clock, random),
        profile: Profile::default(),
        scopes: Vec::new(),
        designated_user_id: UserId::generate(&*clock, random),
        granted_by: UserId::generate(&*clock, random),
        state: StoredState::Active,
        created_at: TEST_START,
        redeem_until: TEST_START,
        activated_at: None,
        expires_at: None,
        ended_at: None,
    }
}

#[test]
fn a_change_removes_what_it_affects_and_nothing_else() {
    let random = SeededRandom::new(3);
    let (client, grant) = (client(&random), grant(&random));
    let user = User {
        user_id: UserId::generate(&*test_clock(), &random),
        label: "API user".into(),
        tenant_admin: false,
        active: true,
        tokens_ended_seq: 0,
        sessions_ended_seq: 0,
    };
    let caller = Caller::Workload {
        id: WorkloadId::generate(&*test_clock(), &random),
        kind: WorkloadKind::InternalService,
    };
    let key = generate().unwrap();
    let signer = Arc::new(Signer::new(key.kid, &key.pkcs8).unwrap());
    let revocation = |kind, id: &str| {
        let (id, seq) = (id.to_owned(), 6);
        Change::Revocation(Revocation { kind, id, seq })
    };
    let other = Change::Client(ClientId::generate(&*test_clock(), &random));
    let elsewhere = Change::User(tenant_id(1), user.user_id.clone());
    for (change, removed) in [
        (Change::Client(client.client_id.clone()), "client"),
        (Change::Scope, "client"),
        (Change::Tenant(tenant_id(0)), "tenant"),
        (Change::User(tenant_id(0), user.user_id.clone()), "user"),
        (Change::Caller(caller.id().to_owned()), "caller"),
        (Change::Grant(grant.grant_id.clone()), "grant"),
        (
            revocation(RevocationKind::Grant, grant.grant_id.as_str()),
            "grant",
        ),
        (Change::SigningKeys, "keys"),
        (revocation(RevocationKind::Kid, "kid"), "keys"),
        (revocation(RevocationKind::Jti, grant.grant_id.as_str()), ""),
        (other, ""),
        (elsewhere, ""),
        (Change::UnknownRevocation, "client tenant user caller grant keys"),
        (Change::Unknown, "client tenant user caller grant keys"),
    ] {
        let facts = Facts::new(true);
        let known = KnownClient::new(client.clone(), None);
        let entry = Entry {
            client: facts.clients.insert(client.client_id.clone(), known, 1),
            tenant: facts.tenants.insert(tenant_id(0), tenant(0, 0), 1),
            user: facts
                .users
                .insert((tenant_id(0), user.user_id.clone()), user.clone(), 1),
            grant: facts.grants.insert(grant.grant_id.clone(), grant.clone(), 1),
        };
        let caller = facts.callers.insert([1; 32], caller.clone(), 1);
        facts
            .keys
            .store(Some(Arc::new(Keys::new(signer.clone(), Vec::new()).unwrap())));
        assert!(entry.facts_are_current());
        facts.apply(&change);
        let gone = [
            ("client", !entry.client.is_current()),
            ("tenant", !entry.tenant.is_current()),
            ("user", !entry.user.is_current()),
            ("caller", !caller.is_current()),
            ("grant", !entry.grant.is_current()),
            ("keys", facts.keys.load().is_none()),
        ];
        let gone: Vec<_> = gone
            .iter()
            .filter(|(_, gone)| *gone)
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(gone.join(" "), removed, "{change:?}");
        let of_entry = ["client", "tenant", "user", "grant"];
        let affected = gone.iter().any(|name| of_entry.contains(name));
        assert_eq!(entry.facts_are_current(), !affected, "{change:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_counts_from_its_position_and_an_unknown_one_makes_the_index_incomplete() {
    let (facts, follower) = followed(true, LEASE);
    let revocation = Revocation {
        kind: RevocationKind::Grant,
        id: "grt_1".into(),
        seq: 7,
    };
    follower.apply(
        &facts,
        changes(vec![Change::Revocation(revocation)], 8),
        Instant::now(),
    );
    let last = |seq, id| {
        let last = follower.last_revocation_after(seq, &[(RevocationKind::Grant, id)]);
        last.map(|last| last.value)
    };
    assert_eq!(last(6, "grt_1"), Some(Some(7)));
    assert_eq!(last(7, "grt_1"), Some(None));
    assert_eq!(last(6, "grt_2"), Some(None));
    locks_taken();
    assert_eq!(last(8, "grt_1"), Some(None));
    assert_eq!(locks_taken(), 0, "nothing has changed since");
    follower.apply(
        &facts,
        changes(vec![Change::UnknownRevocation], 9),
        Instant::now(),
    );
    assert_eq!(last(6, "grt_1"), None);
    let told = follower.revocations_after(&facts, 0, 9).await;
    assert!(matches!(told, Err(Error::TooManyRevocations)));
    advance(LEASE + Duration::from_millis(1)).await;
    assert_eq!(last(9, "grt_1"), None, "no lease");
}

#[test]
fn a_verified_secret_counts_while_its_client_lists_it() {
    let random = SeededRandom::new(4);
    let (facts, mut client) = (Facts::new(true), client(&random));
    let id = client.client_id.clone();
    let ends = TEST_START.plus(Duration::from_secs(60));
    let secret_ids: Vec<_> = (0..40)
        .map(|_| SecretId::generate(&*test_clock(), &random))
        .collect();
    let live = |index: usize, expires_at| LiveSecret {
        secret_id: secret_ids[index].clone(),
        expires_at,
    };
    client.live_secrets = vec![live(0, None), live(1, Some(ends))];
    let known = facts
        .clients
        .insert(id.clone(), KnownClient::new(client.clone(), None), 1);
    for mac in 0..3 {
        known.verify(VerifiedSecret::new(
            [mac; 32],
            secret_ids[usize::from(mac)].clone(),
        ));
    }
    let verified = |known: &KnownClient, now| [0, 1, 2].map(|mac| known.verified(&[mac; 32], now).is_some());
    assert_eq!(
        verified(&known, TEST_START),
        [true, true, false],
        "the third is not listed"
    );
    assert_eq!(
        verified(&known, ends),
        [true, false, false],
        "the second has expired"
    );
    facts.apply(&Change::Client(id.clone()));
    assert!(!known.is_current());
    client.live_secrets = vec![live(1, None), live(2, None)];
    let again = KnownClient::new(client, facts.clients.get(&id).as_deref().map(|known| &**known));
    assert_eq!(
        verified(&again, ends),
        [false, true, true],
        "what was verified is verified"
    );

    for (mac, secret_id) in secret_ids.iter().enumerate() {
        again.verify(VerifiedSecret::new([mac as u8; 32], secret_id.clone()));
        again.reject(secret_id);
    }
    assert_eq!(verified(&again, ends), [false; 3], "memory is bounded");
    assert!(again.is_rejected(&secret_ids[39]) && !again.is_rejected(&secret_ids[0]));
}

#[test]
fn a_use_of_a_secret_is_reported_until_the_registry_knows_it() {
    let random = SeededRandom::new(5);
    let client_id = ClientId::generate(&*test_clock(), &random);
    let secret_id = SecretId::generate(&*test_clock(), &random);
    let secret = Arc::new(VerifiedSecret::new([1; 32], secret_id));
    let uses = SecretUses::default();
    let later = TEST_START.plus(Duration::from_secs(1));
    let used_at = |taken: &[(_, crate::model::client::SecretUse)]| taken[0].1.used_at;
    uses.note(&client_id, secret.clone(), TEST_START);
    uses.note(&client_id, secret.clone(), later);
    let taken = uses.take(9);
    assert_eq!((taken.len(), used_at(&taken)), (1, later));
    uses.settle(taken, false);
    let taken = uses.take(9);
    assert_eq!(used_at(&taken), later, "not reported yet");
    uses.note(&client_id, secret.clone(), later.plus(Duration::from_secs(1)));
    uses.settle(taken, true);
    let taken = uses.take(9);
    assert!(used_at(&taken) > later, "used again meanwhile");
    uses.settle(taken, true);
    assert!(uses.take(9).is_empty());
    uses.note(&client_id, secret, later);
    assert_eq!(uses.take(9).len(), 1);
}

#[tokio::test]
async fn checks_of_one_secret_wait_for_each_other() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(fixture::TENANT).unwrap();
    // With the right tag: whoever stole a tag key can make this.
    let wrong = fixture::secret(&registry.client_id, registry.secret().secret_id().clone(), 2);
    for (secret, is_right, expected) in [(&wrong, false, 20), (registry.secret(), true, 1)] {
        let check = || cache.authenticate_client(&registry.client_id, secret, &tenant_id);
        let answers = futures_util::future::join_all((0..20).map(|_| check())).await;
        assert!(answers.iter().all(|answer| answer.is_ok() == is_right));
        let checks = registry.checks();
        assert_eq!((checks.all, checks.at_once), (expected, 1));
    }
}

#[tokio::test]
async fn a_guess_makes_no_call_and_an_ended_secret_one_for_each_description_of_its_client() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(fixture::TENANT).unwrap();
    let (client_id, secret) = (&registry.client_id, registry.secret());
    let random = SeededRandom::new(6);
    let unknown = ClientId::generate(&*test_clock(), &random);
    let other_key = SecretTagKey::new(1, &[8; 32]);
    let guess = ClientSecret::compose(&other_key, client_id, secret.secret_id().clone(), &[1; 32]);
    let without_lease = registry.replica(&cache, false).await;
    for cache in [&*cache, &without_lease] {
        for (client_id, secret) in [(client_id, &guess), (&unknown, &guess), (&unknown, secret)] {
            let answer = cache.authenticate_client(client_id, secret, &tenant_id).await;
            assert!(matches!(answer, Err(Error::InvalidClient)));
        }
        let checks = registry.checks();
        assert_eq!((checks.all, checks.profiles), (0, 0));
    }

    registry.ended.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        for _ in 0..5 {
            let answer = cache.authenticate_client(client_id, secret, &tenant_id).await;
            assert!(matches!(answer, Err(Error::InvalidClient)));
        }
        let checks = registry.checks();
        assert_eq!((checks.all, checks.profiles), (1, 1));
        cache.facts.apply(&Change::Client(client_id.clone()));
    }
    // Claimed a moment ago: memory does not list it yet.
    assert!(
        cache
            .client(client_id)
            .await
            .unwrap()
            .value
            .live_secrets
            .is_empty()
    );
    registry.ended.store(false, Ordering::Relaxed);
    let claimed = cache.authenticate_client(client_id, secret, &tenant_id).await;
    assert_eq!((claimed.is_ok(), registry.checks().all), (true, 1));
}

#[tokio::test]
async fn a_secret_that_one_replica_verified_costs_no_other_a_check() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(fixture::TENANT).unwrap();
    let (client_id, secret) = (&registry.client_id, registry.secret());
    let check = async |cache: &Cache| cache.authenticate_client(client_id, secret, &tenant_id).await;
    check(&cache).await.unwrap();
    assert_eq!(registry.checks().all, 1);
    for enabled in [true, false] {
        let other = registry.replica(&cache, enabled).await;
        for _ in 0..2 {
            check(&other).await.unwrap();
            other.facts.apply(&Change::Client(client_id.clone()));
        }
        assert_eq!(
            registry.checks().all,
            0,
            "neither the first time nor after a change"
        );
    }

    // The row counts no longer than the secret.
    registry.ended.store(true, Ordering::Relaxed);
    cache.facts.apply(&Change::Client(client_id.clone()));
    for _ in 0..3 {
        assert!(matches!(check(&cache).await, Err(Error::InvalidClient)));
    }
    assert_eq!(registry.checks().all, 1);
    cache.retain_verified_secrets().await;
    assert!(!cache.store.is_verified_secret(client_id, secret).await.unwrap());

    // A row that can't be written fails no call.
    registry.ended.store(false, Ordering::Relaxed);
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON verified_secrets BEGIN SELECT RAISE(FAIL, 'refused'); END";
    cache.store.db.read().execute_unprepared(refuse).await.unwrap();
    for _ in 0..2 {
        check(&registry.replica(&cache, true).await).await.unwrap();
        assert_eq!(registry.checks().all, 1);
    }
}
