//! A checker whose authority fails, delays and repeats responses.

#![allow(clippy::unwrap_used, clippy::panic)]

use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::*;
use crate::{
    token::v1::RevocationKind,
    verify::{
        LEASE, bearer,
        testing::{Authority, Fault, NOW, Signer, WORKLOAD, claims, tenant},
    },
};

const MS: Duration = Duration::from_millis(1);
/// Longer than the lease, one poll and one lost response.
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

/// Revokes six tokens, one every 300 ms, and checks all tokens every 100 ms. `fault` happens to `length` responses from
/// number `first` on.
async fn check_during(signer: &Signer, fault: Fault, first: usize, length: usize) {
    let what = format!("{fault:?}, {length} times from {first}");
    let authority = Authority::new(signer);
    let tokens: Vec<_> = (0..6).map(|jti| token(signer, &jti.to_string())).collect();
    let live = token(signer, "live");
    let checker = started(&authority).await;
    authority.spoil(vec![None; first]);
    authority.spoil(vec![Some(fault); length]);

    let mut revoked_at = vec![None; tokens.len()];
    let mut rejected = vec![false; tokens.len()];
    for step in 0..60 {
        if step % 3 == 2 && step / 3 < tokens.len() {
            let next = step / 3;
            authority.revoke(RevocationKind::Jti, &next.to_string());
            revoked_at[next] = Some(Instant::now());
        }
        sleep(100 * MS).await;
        for (index, token) in tokens.iter().enumerate() {
            match checker.check(token, &tenant()).await {
                Ok(_) => {
                    let late = revoked_at[index].is_some_and(|at: Instant| at.elapsed() > LEASE);
                    assert!(!late, "{what}: {index} is accepted after the bound");
                    assert!(!rejected[index], "{what}: {index} is accepted again");
                }
                Err(VerifyError::Revoked) => {
                    assert!(revoked_at[index].is_some(), "{what}: {index} was not revoked");
                    rejected[index] = true;
                }
                Err(VerifyError::Stale) => {}
                Err(other) => panic!("{what}: {other}"),
            }
        }
        match checker.check(&live, &tenant()).await {
            Ok(_) | Err(VerifyError::Stale) => {}
            Err(other) => panic!("{what}: {other}"),
        }
    }
    // The checker recovers and knows every revocation.
    timeout(2 * SOON, checker.ready()).await.unwrap();
    assert_eq!(checker.check(&live, &tenant()).await.map(drop), Ok(()), "{what}");
    for token in &tokens {
        let result = checker.check(token, &tenant()).await;
        assert_eq!(result, Err(VerifyError::Revoked), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_rejected_after_two_seconds_whatever_happens_to_responses() {
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
        Fault::StartsSnapshot,
    ] {
        for first in 0..6 {
            for length in [1, 4] {
                check_during(&signer, fault, first, length).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_responses_every_token_is_rejected_until_they_resume() {
    let signer = Signer::new("k1");
    let authority = Authority::new(&signer);
    let checker = started(&authority).await;
    let live = token(&signer, "live");
    let at = Instant::now();
    authority.set_down(true);
    while checker.check(&live, &tenant()).await.is_ok() {
        assert!(at.elapsed() <= LEASE);
        sleep(10 * MS).await;
    }
    assert!(at.elapsed() > LEASE - 500 * MS, "the lease is still valid");
    for _ in 0..20 {
        assert_eq!(checker.check(&live, &tenant()).await, Err(VerifyError::Stale));
        assert!(!checker.is_ready());
        sleep(500 * MS).await;
    }
    authority.revoke(RevocationKind::Client, "cli_1");
    authority.set_down(false);
    timeout(SOON, checker.ready()).await.unwrap();
    assert_eq!(checker.check(&live, &tenant()).await, Err(VerifyError::Revoked));
}

#[tokio::test(start_paused = true)]
async fn every_token_is_rejected_before_keys_and_a_whole_snapshot_are_read() {
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
    assert_eq!(checker.check(&live, &tenant()).await, Err(VerifyError::NoKeys));
    authority.set_keys_down(false);
    timeout(SOON, checker.ready()).await.unwrap();
    assert_eq!(checker.check(&live, &tenant()).await.map(drop), Ok(()));
    assert_eq!(
        checker.check(&revoked, &tenant()).await,
        Err(VerifyError::Revoked)
    );

    // Checks send no requests.
    let calls = authority.calls();
    for _ in 0..100 {
        checker.check(&live, &tenant()).await.unwrap();
        checker.check(&revoked, &tenant()).await.unwrap_err();
    }
    assert_eq!(authority.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_cause_one_read_in_five_seconds() {
    let [first, second, forged] = ["k1", "k2", "k3"].map(Signer::new);
    let authority = Authority::new(&first);
    let checker = started(&authority).await;
    let key_reads = || authority.calls().1;
    let before = key_reads();
    authority.set_keys(&[&first, &second]);
    sleep(Duration::from_secs(5)).await;

    // Concurrent checks share one read.
    let rotated = token(&second, "1");
    let checks = (0..20).map(|_| {
        let (checker, token) = (checker.clone(), rotated.clone());
        tokio::spawn(async move { checker.check(&token, &tenant()).await })
    });
    for check in checks.collect::<Vec<_>>() {
        check.await.unwrap().unwrap();
    }
    assert_eq!(key_reads(), before + 1);

    let forged = token(&forged, "1");
    for _ in 0..20 {
        assert_eq!(
            checker.check(&forged, &tenant()).await,
            Err(VerifyError::UnknownKey)
        );
    }
    assert_eq!(key_reads(), before + 1);
    sleep(Duration::from_secs(5)).await;
    for _ in 0..20 {
        assert_eq!(
            checker.check(&forged, &tenant()).await,
            Err(VerifyError::UnknownKey)
        );
    }
    assert_eq!(key_reads(), before + 2);

    // Without a read the checker can't tell.
    authority.set_keys_down(true);
    sleep(Duration::from_secs(5)).await;
    for _ in 0..20 {
        assert_eq!(checker.check(&forged, &tenant()).await, Err(VerifyError::NoKeys));
    }
    assert_eq!(key_reads(), before + 3);
    checker.check(&rotated, &tenant()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn keys_change_within_a_minute_and_revoked_ones_at_once() {
    let [first, second] = ["k1", "k2"].map(Signer::new);
    let authority = Authority::new(&first);
    let checker = started(&authority).await;
    authority.set_keys(&[&second]);
    checker.check(&token(&first, "1"), &tenant()).await.unwrap();
    sleep(Duration::from_secs(61)).await;
    let removed = checker.check(&token(&first, "1"), &tenant()).await;
    assert_eq!(removed, Err(VerifyError::UnknownKey));
    checker.check(&token(&second, "1"), &tenant()).await.unwrap();

    let before = authority.calls().1;
    authority.revoke(RevocationKind::Kid, "k2");
    sleep(600 * MS).await;
    let revoked = checker.check(&token(&second, "1"), &tenant()).await;
    assert_eq!(revoked, Err(VerifyError::Revoked));
    assert_eq!(authority.calls().1, before + 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_read_too_long_ago_are_not_used() {
    let signer = Signer::new("k1");
    let authority = Authority::new(&signer);
    let checker = started(&authority).await;
    // Meanwhile the feed may have listed the revocation of a key and dropped it.
    authority.set_keys_down(true);
    sleep(Duration::from_secs(500)).await;
    checker.check(&token(&signer, "1"), &tenant()).await.unwrap();
    sleep(Duration::from_secs(101)).await;
    let result = checker.check(&token(&signer, "1"), &tenant()).await;
    assert_eq!(result, Err(VerifyError::NoKeys));
    assert!(!checker.is_ready());
    authority.set_keys_down(false);
    timeout(SOON, checker.ready()).await.unwrap();
    checker.check(&token(&signer, "1"), &tenant()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_drops_keys_and_revocations() {
    let [first, second] = ["k1", "k2"].map(Signer::new);
    let authority = Authority::new(&first);
    let checker = started(&authority).await;
    authority.set_keys(&[&second]);
    authority.set_keys_down(true);
    authority.restore("cc-dd");
    sleep(600 * MS).await;
    // The keys may have changed with the epoch, so the old ones are not used.
    let of_new = AccessTokenClaims {
        rev: "cc-dd.0.0".into(),
        ..claims()
    };
    let with_old_key = first.sign(&of_new);
    assert_eq!(
        checker.check(&with_old_key, &tenant()).await,
        Err(VerifyError::NoKeys)
    );
    authority.set_keys_down(false);
    timeout(SOON, checker.ready()).await.unwrap();
    assert_eq!(
        checker.check(&with_old_key, &tenant()).await,
        Err(VerifyError::UnknownKey)
    );
    checker.check(&second.sign(&of_new), &tenant()).await.unwrap();
    let of_old = checker.check(&token(&second, "1"), &tenant()).await;
    assert_eq!(of_old, Err(VerifyError::Revoked));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_cursor_is_reset() {
    let signer = Signer::new("k1");
    let authority = Authority::new(&signer);
    let checker = started(&authority).await;
    authority.forget_cursors();
    authority.revoke(RevocationKind::Jti, "1");
    sleep(1100 * MS).await;
    let (live, revoked) = (token(&signer, "live"), token(&signer, "1"));
    assert_eq!(
        checker.check(&revoked, &tenant()).await,
        Err(VerifyError::Revoked)
    );
    checker.check(&live, &tenant()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_is_valid_for_its_tenant_until_it_expires() {
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
        checker.check(&token(NOW), &tenant()).await,
        Err(VerifyError::Expired)
    );
    checker.check(&token(NOW + 1), &tenant()).await.unwrap();
    let elsewhere = Tenant {
        tenant_id: "firm2".into(),
        ..tenant()
    };
    let result = checker.check(&token(NOW + 1), &elsewhere).await;
    assert_eq!(result, Err(VerifyError::WrongTarget));
    let forged = Signer::new("k1").sign(&claims());
    assert_eq!(
        checker.check(&forged, &tenant()).await,
        Err(VerifyError::Signature)
    );
    assert_eq!(checker.check("", &tenant()).await, Err(VerifyError::Malformed));
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_clone() {
    let authority = Authority::new(&Signer::new("k1"));
    let checker = started(&authority).await;
    let clone = checker.clone();
    drop(checker);
    let before = authority.calls().0;
    sleep(SOON).await;
    assert!(authority.calls().0 > before);
    drop(clone);
    // A request may already be sent.
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
        let result = Checker::builder(bad, WORKLOAD).map(drop);
        assert_eq!(result, Err(ConnectError::Address), "{bad}");
    }
    for bad in ["", "acw_1 2", "acw_\n", "acw_\u{e9}"] {
        let result = Checker::builder("http://127.0.0.1:1", bad).map(drop);
        assert_eq!(result, Err(ConnectError::Token), "{bad}");
    }
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let result = Checker::connect("http://127.0.0.1:1", WORKLOAD).map(drop);
    assert_eq!(result, Err(ConnectError::NoRuntime));
}

#[tokio::test]
async fn debug_shows_no_token() {
    let builder = Checker::builder("http://127.0.0.1:1", WORKLOAD).unwrap();
    assert!(format!("{:?}", bearer::header(WORKLOAD)).contains("Sensitive"));
    let shown = format!("{builder:?}");
    let shown = format!("{shown} {:?}", builder.start().unwrap());
    assert!(!shown.contains("acw_"), "{shown}");
}
