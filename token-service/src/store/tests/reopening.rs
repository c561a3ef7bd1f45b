//! Codes whose redemption was not answered, and replicas that redeem at the same moment.

use accord::testing::edited_rows::replace;
use futures_util::future::join;

use super::{
    super::entity::code,
    together::{pending_code, redemption, said},
    *,
};
use crate::{
    model::code::Code,
    store::{PendingAnswer, Redemption, RedemptionOutcome, StoredCode},
};

async fn redeem(store: &Store, redemption: &Redemption) -> PendingAnswer {
    match store.redeem_code(redemption.clone()).await.unwrap() {
        RedemptionOutcome::Redeemed { answer, .. } => answer,
        other => panic!("{other:?}"),
    }
}

/// Reads a code as soon as it is not about to become usable again.
async fn settled(store: &Store, code: (&TenantId, &OpaqueToken)) -> StoredCode {
    loop {
        match store.find_code(code.0, code.1).await {
            Err(Error::Unavailable) => tokio::task::yield_now().await,
            found => return found.unwrap().unwrap().0,
        }
    }
}

#[tokio::test]
async fn a_code_whose_answer_did_not_leave_is_usable_until_it_expires() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let (grant, token, code) = pending_code(&store, &client()).await;
        let key = (&grant.tenant_id, &token);
        let redemption = redemption(&store, &grant, &code);

        // The caller goes away, and the code is in doubt at once.
        drop(redeem(&store, &redemption).await);
        assert!(matches!(
            store.find_code(key.0, key.1).await,
            Err(Error::Unavailable)
        ));
        let reopened = settled(&store, key).await;
        assert_eq!(
            (reopened.used_at, reopened.expires_at, &reopened.family_id),
            (None, code.expires_at, &Some(redemption.family.family_id.clone())),
            "{database:?}"
        );
        assert_eq!(events(&store, "code.reopen").await.len(), 1);
        // It does not begin a second family.
        assert_eq!(
            said(store.redeem_code(redemption.clone()).await.unwrap()),
            "ended"
        );

        // Neither it nor what comes of it can be put back.
        let row = async || {
            let row = entity::code::Entity::find_by_id(token.digest().to_vec()).one(store.db.read());
            row.await.unwrap().unwrap()
        };
        let reopened_row = row().await;

        // Of racing calls one gets the tokens, and a call that fails gives the next one a chance.
        for attempt in 0..2 {
            let issued = || Event::new(audit::action::TOKEN_ISSUE).subject("again");
            let racers =
                (0..5).map(|_| store.redeem_again(&redemption.origin, &code, &redemption.family, issued()));
            let answers: Vec<_> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
            let mut won: Vec<_> = answers.into_iter().flatten().collect();
            assert_eq!(won.len(), 1, "{database:?}");
            match attempt {
                0 => won.remove(0).reopen().await,
                _ => won.remove(0).confirm(),
            }
            let used = settled(&store, key).await.used_at;
            assert_eq!(used.is_some(), attempt == 1, "{database:?}");
        }
        assert_eq!(
            settled(&store, key).await.expires_at,
            redemption.family.expires_at
        );

        let used = row().await;
        replace::<entity::code::Entity>(&store.db, &used, &reopened_row).await;
        assert!(store.find_code(key.0, key.1).await.is_err(), "{database:?}");
        replace::<entity::code::Entity>(&store.db, &reopened_row, &used).await;
        settled(&store, key).await;

        // One that expires meanwhile stays used.
        let (other, token, code) = pending_code(&store, &client()).await;
        let answer = redeem(&store, &super::together::redemption(&store, &other, &code)).await;
        clock.advance(CODE_LIFETIME);
        answer.reopen().await;
        assert!(settled(&store, (key.0, &token)).await.used_at.is_some());
    }
}

#[tokio::test]
async fn a_redemption_that_is_tried_again_after_a_rollback_reopens_no_code() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (grant, token, code) = pending_code(&store, &client()).await;
        let first = redemption(&store, &grant, &code);
        let (grant, _, code) = pending_code(&store, &client()).await;
        let edited = redemption(&store, &grant, &code);
        let edit = code::Entity::update_many().col_expr(code::Column::Mac, Expr::value(vec![1_u8]));
        let edit = edit.filter(code::Column::CodeHash.eq(code.digest.to_vec()));
        edit.exec(store.db.read()).await.unwrap();

        // Both are in one group, which fails. Then each is redeemed alone.
        let (redeemed, rejected) = join(redeem(&store, &first), store.redeem_code(edited)).await;
        assert!(matches!(rejected, Err(Error::Internal(_))), "{database:?}");
        redeemed.confirm();
        let code = settled(&store, (&grant.tenant_id, &token)).await;
        assert!(code.used_at.is_some(), "{database:?}");
        assert!(events(&store, "code.reopen").await.is_empty(), "{database:?}");
    }
}

#[tokio::test]
async fn a_code_is_in_doubt_until_the_last_of_its_tasks_has_ended() {
    let database = sqlite();
    let (store, _) = store(&database.url).await;
    let (grant, token, code) = pending_code(&store, &client()).await;
    let redemption = redemption(&store, &grant, &code);
    let answer = redeem(&store, &redemption).await;
    let writes = store.db.write().await.unwrap();
    drop(answer);
    let expired = Code {
        expires_at: store.now(),
        ..Code::clone(&code)
    };
    let earlier = store
        .reopenings
        .answer(&redemption.origin, &expired, &redemption.family);
    earlier.reopen().await;
    let found = store.find_code(&grant.tenant_id, &token).await;
    assert!(matches!(found, Err(Error::Unavailable)));
    writes.rollback().await.unwrap();
    assert_eq!(settled(&store, (&grant.tenant_id, &token)).await.used_at, None);
}

#[tokio::test]
async fn replicas_that_redeem_codes_of_one_client_at_the_same_moment_redeem_them_all() {
    for database in databases() {
        let (first, clock) = store(&database.url).await;
        let other = accord::testing::another_replica(&first.db, &database.url).await;
        let second = Store::new(other, first.keyring.clone(), clock, first.random.clone());
        for _ in 0..10 {
            let client_id = client();
            let mut redemptions = Vec::new();
            for _ in 0..4 {
                let (grant, _, code) = pending_code(&first, &client_id).await;
                redemptions.push(redemption(&first, &grant, &code));
            }
            let racers = redemptions.into_iter().enumerate().map(|(index, redemption)| {
                let store = [&first, &second][index % 2];
                store.redeem_code(redemption)
            });
            let mut outcomes: Vec<_> = join_all(racers).await;
            let outcomes: Vec<_> = outcomes.drain(..).map(|outcome| said(outcome.unwrap())).collect();
            let superseding = outcomes.iter().filter(|said| **said == "superseding");
            assert_eq!(superseding.count(), 3, "{database:?} {outcomes:?}");
        }
    }
}
