//! Followers: no change is missed, leases are honest, revocations count from their position.

use std::sync::Mutex;

use accord::position::Position;

use tokio::time::advance;

use super::*;

/// Tenants, each changed twice in a burst.
const TENANTS: usize = 3;
const BURST: usize = 2 * TENANTS;
/// Changes in an answer, fewer than in a burst.
const PAGE: usize = 2;

/// What happens to the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    /// It fails before anything is read.
    Fails,
    /// The answer is read and gets lost.
    Lost,
    /// The answer is read, and arrives after the next change.
    Late,
    /// It is sent twice at the same time.
    Twice,
    /// A change commits between the answer's position and its list.
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
        let reset = after.is_some_and(|after| after.seq as usize > position_now);
        let from = from.min(until);
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
            reset,
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
        sent_at: Instant::now(),
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
fn followed(lease: Duration) -> (Facts, ChangeFollower<Numbers>) {
    let (facts, follower) = (Facts::new(), ChangeFollower::new(Numbers::default(), lease));
    follower.restart(&facts, changes(Vec::new(), 5));
    follower.apply(&facts, changes(Vec::new(), 5), Instant::now());
    (facts, follower)
}

/// Keeps a tenant that was read at a position. Returns whether it is current.
fn keep(facts: &Facts, follower: &ChangeFollower<Numbers>, n: usize, seq: i64) -> bool {
    let read = as_of(tenant(n, 0), seq);
    let kept = facts.insert_if_current(follower, &facts.tenants, tenant_id(n), read);
    kept.value.is_current()
}

fn is_found(facts: &Facts, follower: &ChangeFollower<Numbers>, n: usize) -> bool {
    facts.find(follower, &facts.tenants, &tenant_id(n)).is_some()
}

/// Reads each tenant, and asserts that every answer shows the changes up to the position that it claims.
fn assert_honest(facts: &Facts, follower: &ChangeFollower<Numbers>, source: &Numbers) {
    for n in 0..TENANTS {
        let found = facts
            .find(follower, &facts.tenants, &tenant_id(n))
            .unwrap_or_else(|| {
                let seq = source.count();
                let read = as_of(tenant(n, source.version(n, seq)), seq as i64);
                facts.insert_if_current(follower, &facts.tenants, tenant_id(n), read)
            });
        let (shown, claimed) = (found.value.tokens_ended_seq, found.position.seq as usize);
        let known = source.version(n, claimed);
        assert!(shown >= known, "claims {claimed} and shows {shown} of {known}");
    }
}

#[tokio::test]
async fn no_change_is_missed_whatever_happens_to_a_request() {
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
        // A long lease, because the rule is about positions and the machine may be slow.
        let follower = ChangeFollower::new(source.clone(), Duration::from_secs(3600));
        let facts = Facts::new();
        follower.catch_up(&facts).await.unwrap();
        for step in 0..=BURST {
            assert_honest(&facts, &follower, &source);
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
                assert_honest(&facts, &follower, &source);
            }
            source.change();
            assert_honest(&facts, &follower, &source);
        }
        follower.catch_up(&facts).await.unwrap();
        let last = source.count();
        assert_eq!(
            follower.lease().unwrap().position.seq,
            last as i64,
            "{fault:?} at {at}"
        );
        assert_honest(&facts, &follower, &source);
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
async fn a_lease_starts_with_the_request_and_only_a_complete_answer_renews_it() {
    let (facts, follower) = (Facts::new(), ChangeFollower::new(Numbers::default(), LEASE));
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
    assert!(follower.lease().is_none(), "more changes wait");
    follower.apply(&facts, changes(Vec::new(), 7), sent);
    assert!(keep(&facts, &follower, 0, 7));
    let lease = follower.lease().unwrap();
    assert_eq!((lease.position, lease.sent_at), (position(7), sent));
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

    let (facts, follower) = followed(LEASE * 2);
    keep(&facts, &follower, 0, 5);
    advance(LEASE * 2).await;
    assert!(is_found(&facts, &follower, 0), "the operator allows stale facts");
}

#[tokio::test(start_paused = true)]
async fn a_fact_that_was_read_before_an_applied_change_is_not_kept() {
    let (facts, follower) = followed(LEASE);
    assert!(!keep(&facts, &follower, 0, 4) && !is_found(&facts, &follower, 0));
    assert!(keep(&facts, &follower, 0, 6) && is_found(&facts, &follower, 0));
    assert!(keep(&facts, &follower, 0, 5));
    let mut elsewhere = as_of(tenant(1, 0), 9);
    elsewhere.position.epoch = accord::testing::epoch("another");
    let kept = facts.insert_if_current(&follower, &facts.tenants, tenant_id(1), elsewhere);
    assert!(!kept.value.is_current());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_counts_from_its_position_and_an_unknown_one_makes_the_index_incomplete() {
    let (facts, follower) = followed(LEASE);
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
    let revocations = follower.revocations_after(&facts, 0, 9).await;
    assert!(matches!(revocations, Err(Error::TooManyRevocations)));
    advance(LEASE + Duration::from_millis(1)).await;
    assert_eq!(last(9, "grt_1"), None, "no lease");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_goes_back_in_its_epoch_clears_memory() {
    let numbers = Numbers::default();
    let (facts, follower) = (Facts::new(), ChangeFollower::new(numbers.clone(), LEASE));
    for _ in 0..PAGE {
        numbers.change();
    }
    follower.catch_up(&facts).await.unwrap();
    assert!(keep(&facts, &follower, 0, 2) && is_found(&facts, &follower, 0));
    numbers.0.lock().unwrap().0.pop();
    advance(LEASE + Duration::from_millis(1)).await;
    follower.catch_up(&facts).await.unwrap();
    assert!(!is_found(&facts, &follower, 0) && follower.lease().is_some());
}
