//! Codes, families and assertions in one group: each has the outcome that it would have alone.

use std::time::Duration;

use accord::text::{id::FamilyId, opaque::OpaqueToken};
use futures_util::future::{join, join_all};
use sea_orm::DatabaseBackend;

use super::*;
use crate::{
    model::family::{Family, Generations},
    store::{Redemption, RedemptionOutcome, StoredCode, StoredFamily, StoredGrant},
};

/// A pending grant of a client, and its code.
pub(super) async fn pending_code(
    store: &Store,
    client_id: &ClientId,
) -> (StoredGrant, OpaqueToken, StoredCode) {
    let setup = started(store, client_id).await;
    let by = session(store).await;
    let (grant, token) = approve(store, &setup, &by, None).await.unwrap();
    let (code, of) = store.find_code(&grant.tenant_id, &token).await.unwrap().unwrap();
    assert_eq!(*of, grant);
    (of, token, code)
}

pub(super) fn redemption(store: &Store, grant: &StoredGrant, code: &StoredCode) -> Redemption {
    let family = Family {
        family_id: FamilyId::generate(&*store.clock, &SystemRandom),
        tenant_id: code.tenant_id.clone(),
        grant_id: code.grant_id.clone(),
        client_id: code.client_id.clone(),
        generations: Generations::first(store.now()),
        key_version: 1,
        registry: Position {
            epoch: accord::testing::epoch("abc"),
            seq: 4,
        },
        expires_at: store.now().plus(Duration::from_secs(3600)),
        ended_at: None,
    };
    Redemption {
        origin: origin(ActorKind::Client, code.client_id.to_string()),
        code: code.clone(),
        grant: grant.clone(),
        issued: Event::new(audit::action::TOKEN_ISSUE).subject(family.family_id.as_str()),
        family,
    }
}

/// Begins a transaction that locks a row, on PostgreSQL.
async fn lock(store: &Store, table: &str, column: &str, id: &str) -> Option<Transaction> {
    if store.db.backend() != DatabaseBackend::Postgres {
        return None;
    }
    let holder = store.db.write().await.unwrap();
    let lock = format!("SELECT 1 FROM {table} WHERE {column} = '{id}' FOR UPDATE");
    holder.execute_unprepared(&lock).await.unwrap();
    Some(holder)
}

/// The family of a code that was redeemed.
async fn redeemed(store: &Store) -> StoredFamily {
    let (grant, _, code) = pending_code(store, &client()).await;
    let redemption = redemption(store, &grant, &code);
    said(store.redeem_code(redemption.clone()).await.unwrap());
    found(store, &redemption.family).await.unwrap()
}

/// What became of a redemption, whose answer leaves.
pub(super) fn said(outcome: RedemptionOutcome) -> &'static str {
    match outcome {
        RedemptionOutcome::Redeemed { superseding, answer } => {
            answer.confirm();
            if superseding { "superseding" } else { "redeemed" }
        }
        RedemptionOutcome::AlreadyUsed => "used",
        RedemptionOutcome::GrantEnded => "ended",
    }
}

async fn found(store: &Store, family: &Family) -> Option<StoredFamily> {
    store
        .find_family(&family.tenant_id, &family.family_id)
        .await
        .unwrap()
}

#[tokio::test]
async fn codes_that_are_redeemed_in_one_group_have_each_their_own_outcome() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (first, again, burnt, revoked) = (client(), client(), client(), client());
        let old = active(&store, "acme", &again, None).await;
        let mut codes = Vec::new();
        for client_id in [&first, &again, &again, &burnt, &revoked] {
            codes.push(pending_code(&store, client_id).await);
        }
        let by = session(&store).await;
        let burn = Event::test("code.refuse").refused();
        assert!(
            store
                .invalidate_code(&admin(&by.user_id), &codes[3].2, burn)
                .await
                .unwrap()
        );
        revoke(&store, &codes[4].0, None).await.unwrap();
        let before = revocations(&store).await.len();
        let redemptions: Vec<_> = codes
            .iter()
            .map(|(grant, _, code)| redemption(&store, grant, code))
            .collect();

        let outcomes = join_all(redemptions.iter().cloned().map(|one| store.redeem_code(one))).await;
        let outcomes: Vec<_> = outcomes
            .into_iter()
            .map(|outcome| said(outcome.unwrap()))
            .collect();
        let expected = ["redeemed", "superseding", "superseding", "used", "ended"];
        assert_eq!(outcomes, expected, "{database:?}");

        // Grants: the second code of one client supersedes the first.
        let mut states = Vec::new();
        for grant in codes.iter().map(|(grant, ..)| &**grant).chain([&old]) {
            states.push(find(&store, grant).await.state);
        }
        use StoredState::{Active, Pending, Revoked, Superseded};
        let expected = [Active, Superseded, Active, Pending, Revoked, Superseded];
        assert_eq!(states, expected, "{database:?}");

        // Families exist for the redeemed codes, and end with their grants.
        let mut families = Vec::new();
        for redemption in &redemptions {
            let family = found(&store, &redemption.family).await;
            families.push(family.map(|family| family.ended_at.is_none()));
        }
        let expected = [Some(true), Some(false), Some(true), None, None];
        assert_eq!(families, expected, "{database:?}");
        let whole = found(&store, &redemptions[0].family).await.unwrap();
        assert_eq!(
            format!("{:?}", *whole),
            format!("{:?}", redemptions[0].family),
            "{database:?}"
        );

        // Codes whose redemption failed are unchanged.
        let mut used = Vec::new();
        for (grant, token, _) in &codes {
            let (code, _) = store.find_code(&grant.tenant_id, token).await.unwrap().unwrap();
            used.push((code.used_at.is_some(), code.family_id.clone()));
        }
        let family = |index: usize| Some(redemptions[index].family.family_id.clone());
        let expected = [
            (true, family(0)),
            (true, family(1)),
            (true, family(2)),
            (true, None),
            (false, None),
        ];
        assert_eq!(used, expected, "{database:?}");

        // There is one event and one revocation for each, at the position of its change.
        for (action, count) in [
            ("consent.activate", 3),
            ("consent.supersede", 2),
            (audit::action::TOKEN_ISSUE.as_str(), 3),
        ] {
            assert_eq!(events(&store, action).await.len(), count, "{database:?} {action}");
        }
        let superseding = events(&store, "consent.supersede").await;
        let (newest, oldest) = (&superseding[0], &superseding[1]);
        assert_eq!(newest.subject.as_deref(), Some(codes[1].0.grant_id.as_str()));
        assert_eq!(oldest.subject.as_deref(), Some(old.grant_id.as_str()));
        let ended = revocations(&store).await.split_off(before);
        let changes = store.changes_after(None, 500).await.unwrap().position;
        let ids: Vec<_> = ended.iter().map(|ended| ended.id.as_str()).collect();
        assert_eq!(ids, [old.grant_id.as_str(), codes[1].0.grant_id.as_str()]);
        assert_eq!(ended[1].seq, changes.seq, "{database:?}");
        assert_eq!(ended[0].seq, changes.seq - 1, "{database:?}");
        let changes = change::list_after(store.db.read(), ended[0].seq - 1, 10)
            .await
            .unwrap();
        let changes: Vec<_> = changes.into_iter().map(|change| change.id).collect();
        let expected: Vec<_> = ended.iter().map(|ended| format!("grant:{}", ended.id)).collect();
        assert_eq!(changes, expected, "{database:?}");
    }
}

#[tokio::test]
async fn of_racing_redemptions_of_one_code_one_succeeds_and_other_codes_are_redeemed() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (grant, _, code) = pending_code(&store, &client()).await;
        let (of_other, _, other) = pending_code(&store, &client()).await;
        let mut redemptions: Vec<_> = (0..20).map(|_| redemption(&store, &grant, &code)).collect();
        redemptions.push(redemption(&store, &of_other, &other));
        let outcomes = join_all(redemptions.iter().cloned().map(|one| store.redeem_code(one))).await;
        let mut outcomes: Vec<_> = outcomes
            .into_iter()
            .map(|outcome| said(outcome.unwrap()))
            .collect();
        assert_eq!(outcomes.pop(), Some("redeemed"), "{database:?}");
        let won: Vec<_> = (0..20).filter(|&index| outcomes[index] == "redeemed").collect();
        assert_eq!(won.len(), 1, "{database:?} {outcomes:?}");
        let before = outcomes.iter().filter(|&&outcome| outcome == "used");
        assert_eq!(before.count(), 19, "{database:?}");
        for (index, redemption) in redemptions.iter().take(20).enumerate() {
            let exists = found(&store, &redemption.family).await.is_some();
            assert_eq!(exists, index == won[0], "{database:?}");
        }
        assert_eq!(
            events(&store, audit::action::TOKEN_ISSUE.as_str()).await.len(),
            2,
            "{database:?}"
        );
    }
}

#[tokio::test]
async fn a_locked_grant_fails_its_own_redemption_alone() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (held, _, code) = pending_code(&store, &client()).await;
        let (of_other, _, other) = pending_code(&store, &client()).await;
        let Some(holder) = lock(&store, "grants", "grant_id", held.grant_id.as_str()).await else {
            continue;
        };
        let (refused, redeemed) = join(
            store.redeem_code(redemption(&store, &held, &code)),
            store.redeem_code(redemption(&store, &of_other, &other)),
        )
        .await;
        assert!(matches!(refused, Err(Error::Unavailable)));
        assert_eq!(said(redeemed.unwrap()), "redeemed");
        holder.rollback().await.unwrap();
        let again = redemption(&store, &held, &code);
        assert_eq!(said(store.redeem_code(again).await.unwrap()), "redeemed");
    }
}

#[tokio::test]
async fn an_unknown_code_and_one_of_another_tenant_are_not_found_in_a_group() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (grant, token, _) = pending_code(&store, &client()).await;
        let unknown =
            OpaqueToken::generate(accord::text::opaque::TokenKind::AuthorizationCode, &SystemRandom);
        let other = tenant("other");
        let (acme, acme_tenant) = (&token, &grant.tenant_id);
        let lookups = [
            (acme_tenant, acme),
            (&other, acme),
            (acme_tenant, &unknown),
            (acme_tenant, acme),
        ];
        let found = join_all(lookups.map(|(tenant_id, token)| store.find_code(tenant_id, token))).await;
        let found: Vec<_> = found.into_iter().map(|found| found.unwrap().is_some()).collect();
        assert_eq!(found, [true, false, false, true], "{database:?}");
    }
}

#[tokio::test]
async fn families_that_advance_in_one_group_move_once_each() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let mut families = Vec::new();
        for _ in 0..4 {
            families.push(redeemed(&store).await);
        }
        let by = workload();
        let first = families[2].generations;
        let earlier = Generations {
            used: 1,
            current: 2,
            ..first
        };
        // The caller has read this family before somebody moved it.
        let moved = store.advance_family(
            by.clone(),
            &families[3],
            earlier,
            Event::new(audit::action::TOKEN_ISSUE),
        );
        assert!(moved.await.unwrap(), "{database:?}");
        let replayed = Event::test("refresh_token.reuse").refused();
        store
            .end_family(&by, &families[2], "replayed", replayed)
            .await
            .unwrap();
        clock.advance(Duration::from_secs(5));
        let numbers = |used, current| Generations {
            used,
            current,
            handed_out_at: store.now(),
        };
        let callers = [
            (&families[0], numbers(1, 2)),
            (&families[0], numbers(1, 2)),
            // A commit that the database lost had handed out generation 7.
            (&families[1], numbers(7, 8)),
            (&families[2], numbers(1, 2)),
            (&families[3], numbers(1, 2)),
        ];
        let advances = callers.map(|(from, to)| {
            store.advance_family(by.clone(), from, to, Event::new(audit::action::TOKEN_ISSUE))
        });
        let moved: Vec<_> = join_all(advances).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(moved, [true, false, true, false, false], "{database:?}");
        let mut generations = Vec::new();
        for family in &families {
            generations.push(found(&store, family).await.unwrap().generations);
        }
        assert_eq!(
            generations,
            [numbers(1, 2), numbers(7, 8), first, earlier],
            "{database:?}"
        );
        // Four of them are of the redemptions.
        assert_eq!(
            events(&store, audit::action::TOKEN_ISSUE.as_str()).await.len(),
            4 + 1 + 2,
            "{database:?}"
        );
    }
}

/// A group that waited for one row while it holds others could deadlock.
#[tokio::test]
async fn a_locked_family_delays_no_other() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let mut families = Vec::new();
        for _ in 0..2 {
            families.push(redeemed(&store).await);
        }
        let held = families[0].family_id.as_str();
        let Some(holder) = lock(&store, "families", "family_id", held).await else {
            continue;
        };
        let by = workload();
        let advance = |family: &StoredFamily| {
            let to = Generations {
                used: 1,
                current: 2,
                handed_out_at: store.now(),
            };
            let (store, by, family) = (&store, by.clone(), family.clone());
            async move {
                store
                    .advance_family(by, &family, to, Event::new(audit::action::TOKEN_ISSUE))
                    .await
            }
        };
        let mut held = Box::pin(advance(&families[0]));
        let free = async {
            let moved = advance(&families[1]).await.unwrap();
            holder.rollback().await.unwrap();
            moved
        };
        let (held, free) = join(&mut held, free).await;
        assert!(free && held.unwrap(), "{database:?}");
        assert_eq!(
            events(&store, audit::action::TOKEN_ISSUE.as_str()).await.len(),
            2 + 2
        );
    }
}

#[tokio::test]
async fn each_assertion_of_a_group_counts_once() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (one, other) = (client(), client());
        let before = store
            .spend_assertion(Assertion::new(&one, &[0; 32], store.now()))
            .await;
        assert!(before.unwrap());
        let assertions = [
            (&one, 0),
            (&one, 1),
            (&other, 1),
            (&one, 1),
            (&other, 0),
            (&one, 2),
        ];
        let spent = assertions.map(async |(client_id, jti)| {
            let spent = store
                .spend_assertion(Assertion::new(client_id, &[jti; 32], store.now()))
                .await;
            spent.unwrap()
        });
        let spent = join_all(spent).await;
        assert_eq!(spent, [false, true, true, false, true, true], "{database:?}");
    }
}
