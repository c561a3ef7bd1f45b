//! A checker against an authority that fails, delays, repeats and answers out of order.

#![allow(clippy::unwrap_used, clippy::panic)]

use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::*;
use crate::{
    token::v1::RevocationKind,
    verify::{
        LEASE,
        testing::{Authority, EXPECTED, Fault, NOW, Signer, WORKLOAD, claims},
    },
};

const MS: Duration = Duration::from_millis(1);
/// Longer than the lease, one poll and one lost answer.
const SOON: Duration = Duration::from_secs(4);

async fn started(authority: &Authority) -> Checker {
    let checker = authority.checker().start().unwrap();
    timeout(SOON, checker.ready()).await.unwrap();
    checker
}

fn token(signer: &Signer, jti: &str) -> String {
    signer.sign(&AccessTokenClaims {
        jti: jti.into(),
        ..claims()
    })
}

/// Revokes six tokens, one every 300 ms, while `fault` happens to `length` answers from the
/// `first` on, and looks at all tokens every 100 ms.
async fn burst(signer: &Signer, fault: Fault, first: usize, length: usize) {
    let what = format!("{fault:?} from {first} on, {length} times");
    let authority = Authority::new(signer);
    let tokens: Vec<_> = (0..6).map(|jti| token(signer, &jti.to_string())).collect();
    let live = token(signer, "live");
    let checker = started(&authority).await;
    authority.spoil(vec![None; first]);
    authority.spoil(vec![Some(fault); length]);

    let mut revoked_at = vec![None; tokens.len()];
    let mut refused = vec![false; tokens.len()];
    for step in 0..60 {
        if step % 3 == 2 && step / 3 < tokens.len() {
            let next = step / 3;
            authority.revoke(RevocationKind::Jti, &next.to_string());
            revoked_at[next] = Some(Instant::now());
        }
        sleep(100 * MS).await;
        for (index, token) in tokens.iter().enumerate() {
            match checker.check(token, &EXPECTED).await {
                Ok(_) => {
                    let late = revoked_at[index].is_some_and(|at: Instant| at.elapsed() > LEASE);
                    assert!(!late, "{what}: {index} counts after the bound");
                    assert!(!refused[index], "{what}: {index} counts again");
                }
                Err(VerifyError::Revoked) => {
                    assert!(revoked_at[index].is_some(), "{what}: {index} was not revoked");
                    refused[index] = true;
                }
                Err(VerifyError::Stale) => {}
                Err(other) => panic!("{what}: {other}"),
            }
        }
        match checker.check(&live, &EXPECTED).await {
            Ok(_) | Err(VerifyError::Stale) => {}
            Err(other) => panic!("{what}: {other}"),
        }
    }
    // It recovers by itself, and then knows everything.
    timeout(2 * SOON, checker.ready()).await.unwrap();
    assert_eq!(checker.check(&live, &EXPECTED).await.map(drop), Ok(()), "{what}");
    for token in &tokens {
        let refused = checker.check(token, &EXPECTED).await;
        assert_eq!(refused, Err(VerifyError::Revoked), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_answers_nothing_counts_two_seconds_after_it_was_revoked() {
    let signer = Signer::new("k1");
    for fault in [
        Fault::Fails(Code::Unavailable),
        Fault::Fails(Code::InvalidArgument),
        Fault::ArrivesAfter(400 * MS),
        Fault::ArrivesAfter(900 * MS),
        Fault::ArrivesAfter(1500 * MS),
        Fault::IsOld(300 * MS),
        Fault::IsOld(1900 * MS),
        Fault::Repeats,
        Fault::BeginsAgain,
    ] {
        for first in 0..6 {
            for length in [1, 4] {
                burst(&signer, fault, first, length).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_answers_everything_is_refused_and_it_recovers_by_itself() {
    let signer = Signer::new("k1");
    let authority = Authority::new(&signer);
    let checker = started(&authority).await;
    let live = token(&signer, "live");
    let at = Instant::now();
    authority.set_down(true);
    while checker.check(&live, &EXPECTED).await.is_ok() {
        assert!(at.elapsed() <= LEASE);
        sleep(10 * MS).await;
    }
    assert!(at.elapsed() > LEASE - 500 * MS, "a lease lasts");
    for _ in 0..20 {
        assert_eq!(checker.check(&live, &EXPECTED).await, Err(VerifyError::Stale));
        assert!(!checker.is_ready());
        sleep(500 * MS).await;
    }
    authority.revoke(RevocationKind::Client, "cli_1");
    authority.set_down(false);
    timeout(SOON, checker.ready()).await.unwrap();
    assert_eq!(checker.check(&live, &EXPECTED).await, Err(VerifyError::Revoked));
}

#[tokio::test(start_paused = true)]
async fn nothing_counts_before_keys_and_a_whole_snapshot_are_there() {
    let signer = Signer::new("k1");
    let authority = Authority::new(&signer);
    for jti in 0..5 {
        authority.revoke(RevocationKind::Jti, &jti.to_string());
    }
    authority.set_keys_down(true);
    authority.spoil([Some(Fault::Fails(Code::Unavailable)); 6]);
    let checker = authority.checker().start().unwrap();
    let (live, revoked) = (token(&signer, "live"), token(&signer, "4"));
    assert!(timeout(2 * LEASE, checker.ready()).await.is_err());
    assert_eq!(checker.check(&live, &EXPECTED).await, Err(VerifyError::NoKeys));
    authority.set_keys_down(false);
    timeout(SOON, checker.ready()).await.unwrap();
    assert_eq!(checker.check(&live, &EXPECTED).await.map(drop), Ok(()));
    assert_eq!(
        checker.check(&revoked, &EXPECTED).await,
        Err(VerifyError::Revoked)
    );

    // What is there is enough: nobody is asked.
    let calls = authority.calls();
    for _ in 0..100 {
        checker.check(&live, &EXPECTED).await.unwrap();
        checker.check(&revoked, &EXPECTED).await.unwrap_err();
    }
    assert_eq!(authority.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_asked_for_once_in_five_seconds() {
    let [first, second, forged] = ["k1", "k2", "k3"].map(Signer::new);
    let authority = Authority::new(&first);
    let checker = started(&authority).await;
    let key_reads = || authority.calls().1;
    let before = key_reads();
    authority.set_keys(&[&first, &second]);
    sleep(Duration::from_secs(5)).await;

    // Many at a time share one answer.
    let rotated = token(&second, "1");
    let checks = (0..20).map(|_| {
        let (checker, token) = (checker.clone(), rotated.clone());
        tokio::spawn(async move { checker.check(&token, &EXPECTED).await })
    });
    for check in checks.collect::<Vec<_>>() {
        check.await.unwrap().unwrap();
    }
    assert_eq!(key_reads(), before + 1);

    let forged = token(&forged, "1");
    for _ in 0..20 {
        assert_eq!(
            checker.check(&forged, &EXPECTED).await,
            Err(VerifyError::UnknownKey)
        );
    }
    assert_eq!(key_reads(), before + 1);
    sleep(Duration::from_secs(5)).await;
    for _ in 0..20 {
        assert_eq!(
            checker.check(&forged, &EXPECTED).await,
            Err(VerifyError::UnknownKey)
        );
    }
    assert_eq!(key_reads(), before + 2);

    // When it can't be asked for, nobody knows.
    authority.set_keys_down(true);
    sleep(Duration::from_secs(5)).await;
    for _ in 0..20 {
        assert_eq!(checker.check(&forged, &EXPECTED).await, Err(VerifyError::NoKeys));
    }
    assert_eq!(key_reads(), before + 3);
    checker.check(&rotated, &EXPECTED).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn keys_come_and_go_within_a_minute_and_a_revoked_one_at_once() {
    let [first, second] = ["k1", "k2"].map(Signer::new);
    let authority = Authority::new(&first);
    let checker = started(&authority).await;
    authority.set_keys(&[&second]);
    checker.check(&token(&first, "1"), &EXPECTED).await.unwrap();
    sleep(Duration::from_secs(61)).await;
    let gone = checker.check(&token(&first, "1"), &EXPECTED).await;
    assert_eq!(gone, Err(VerifyError::UnknownKey));
    checker.check(&token(&second, "1"), &EXPECTED).await.unwrap();

    let before = authority.calls().1;
    authority.revoke(RevocationKind::Kid, "k2");
    sleep(600 * MS).await;
    let revoked = checker.check(&token(&second, "1"), &EXPECTED).await;
    assert_eq!(revoked, Err(VerifyError::Revoked));
    assert_eq!(authority.calls().1, before + 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_read_long_ago_count_no_more() {
    let signer = Signer::new("k1");
    let authority = Authority::new(&signer);
    let checker = started(&authority).await;
    // The end of a key may have been told, and forgotten again, while nobody could ask.
    authority.set_keys_down(true);
    sleep(Duration::from_secs(500)).await;
    checker.check(&token(&signer, "1"), &EXPECTED).await.unwrap();
    sleep(Duration::from_secs(101)).await;
    let refused = checker.check(&token(&signer, "1"), &EXPECTED).await;
    assert_eq!(refused, Err(VerifyError::NoKeys));
    assert!(!checker.is_ready());
    authority.set_keys_down(false);
    timeout(SOON, checker.ready()).await.unwrap();
    checker.check(&token(&signer, "1"), &EXPECTED).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_epoch_begins_anew() {
    let [first, second] = ["k1", "k2"].map(Signer::new);
    let authority = Authority::new(&first);
    let checker = started(&authority).await;
    authority.set_keys(&[&second]);
    authority.set_keys_down(true);
    authority.restore("cc-dd");
    sleep(600 * MS).await;
    // Keys may have changed with it, so those of before are good for nothing.
    let of_new = AccessTokenClaims {
        rev: "cc-dd.0.0".into(),
        ..claims()
    };
    let with_old_key = first.sign(&of_new);
    assert_eq!(
        checker.check(&with_old_key, &EXPECTED).await,
        Err(VerifyError::NoKeys)
    );
    authority.set_keys_down(false);
    timeout(SOON, checker.ready()).await.unwrap();
    assert_eq!(
        checker.check(&with_old_key, &EXPECTED).await,
        Err(VerifyError::UnknownKey)
    );
    checker.check(&second.sign(&of_new), &EXPECTED).await.unwrap();
    let of_old = checker.check(&token(&second, "1"), &EXPECTED).await;
    assert_eq!(of_old, Err(VerifyError::Revoked));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_nobody_knows_any_more_is_given_up() {
    let signer = Signer::new("k1");
    let authority = Authority::new(&signer);
    let checker = started(&authority).await;
    authority.forget_cursors();
    authority.revoke(RevocationKind::Jti, "1");
    sleep(1100 * MS).await;
    let (live, revoked) = (token(&signer, "live"), token(&signer, "1"));
    assert_eq!(
        checker.check(&revoked, &EXPECTED).await,
        Err(VerifyError::Revoked)
    );
    checker.check(&live, &EXPECTED).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_for_its_tenant_until_its_end() {
    let signer = Signer::new("k1");
    let authority = Authority::new(&signer);
    let checker = started(&authority).await;
    let token = |exp: i64| {
        signer.sign(&AccessTokenClaims {
            exp: u32::try_from(exp).unwrap(),
            ..claims()
        })
    };
    assert_eq!(
        checker.check(&token(NOW), &EXPECTED).await,
        Err(VerifyError::Expired)
    );
    checker.check(&token(NOW + 1), &EXPECTED).await.unwrap();
    let elsewhere = Expected {
        tenant_id: "firm2",
        ..EXPECTED
    };
    let refused = checker.check(&token(NOW + 1), &elsewhere).await;
    assert_eq!(refused, Err(VerifyError::WrongTarget));
    let forged = Signer::new("k1").sign(&claims());
    assert_eq!(
        checker.check(&forged, &EXPECTED).await,
        Err(VerifyError::Signature)
    );
    assert_eq!(checker.check("", &EXPECTED).await, Err(VerifyError::Malformed));
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_takes_the_task_along() {
    let authority = Authority::new(&Signer::new("k1"));
    let checker = started(&authority).await;
    let clone = checker.clone();
    drop(checker);
    let before = authority.calls().0;
    sleep(SOON).await;
    assert!(authority.calls().0 > before);
    drop(clone);
    // What was sent already may still arrive.
    sleep(100 * MS).await;
    let before = authority.calls();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(authority.calls(), before);
}

#[tokio::test]
async fn plaintext_is_for_loopback() {
    for good in [
        "http://127.0.0.1:50052",
        "http://localhost:1/",
        "http://[::1]:50052",
        "http://127.9.9.9",
    ] {
        assert!(Checker::builder(good, WORKLOAD).is_ok(), "{good}");
    }
    for bad in [
        "",
        "127.0.0.1:50052",
        "https://127.0.0.1:50052",
        "http://token-service:50052",
        "http://10.0.0.1:50052",
        "http://localhost.example:1",
        "http://u:p@localhost:1",
        "http://localhost:1/path",
        "http://localhost:1/?q",
        "/",
    ] {
        let refused = Checker::builder(bad, WORKLOAD).map(drop);
        assert_eq!(refused, Err(ConnectError::Address), "{bad}");
    }
    for bad in ["", "acw_1 2", "acw_\n", "acw_\u{e9}"] {
        let refused = Checker::builder("http://127.0.0.1:1", bad).map(drop);
        assert_eq!(refused, Err(ConnectError::Token), "{bad}");
    }
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let refused = Checker::connect("http://127.0.0.1:1", WORKLOAD).map(drop);
    assert_eq!(refused, Err(ConnectError::NoRuntime));
}

#[tokio::test]
async fn debug_shows_no_token() {
    let builder = Checker::builder("http://127.0.0.1:1", WORKLOAD).unwrap();
    assert!(format!("{:?}", builder.token.header()).contains("Sensitive"));
    let shown = format!("{builder:?}");
    let shown = format!("{shown} {:?}", builder.start().unwrap());
    assert!(!shown.contains("acw_"), "{shown}");
}
