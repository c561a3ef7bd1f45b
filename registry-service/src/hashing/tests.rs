#![allow(clippy::unwrap_used)]

use std::{fs, process::Command, time::Duration};

use accord::testing;
use argon2::PasswordHasher as _;

use super::*;
use crate::store::testing::store;

fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

#[tokio::test]
async fn every_byte_counts() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let long = "x".repeat(100);
    let hashed = hasher.hash(bytes(&format!("{long}a\0b"))).await.unwrap();
    assert!(
        hashed.phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{}",
        hashed.phc
    );
    for (secret, expected) in [
        (format!("{long}a\0b"), true),
        (format!("{long}a\0c"), false),
        (format!("{long}a"), false),
        (format!("{long}b\0b"), false),
        (long[..72].to_owned(), false),
    ] {
        assert_eq!(
            hasher
                .verify(Line::Secrets, bytes(&secret), Some(&hashed))
                .await
                .unwrap(),
            expected
        );
    }
    let again = hasher.hash(bytes(&format!("{long}a\0b"))).await.unwrap();
    assert_ne!(again.phc, hashed.phc, "each hash has its own salt");
}

#[tokio::test]
async fn few_wait_and_the_next_is_turned_away_without_a_run() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let taken = hasher.fill(Line::Secrets);
    let refused = hasher.verify(Line::Secrets, bytes("anything"), None).await;
    assert!(matches!(refused, Err(Error::Busy)));
    assert_eq!(hasher.runs(), 0);
    // Passwords wait elsewhere.
    let password = hasher.verify(Line::Passwords, Zeroizing::default(), None).await;
    assert!(!password.unwrap());
    // What is made inside a transaction has a line of its own.
    hasher.hash(bytes("anything")).await.unwrap();
    drop(taken);
    assert!(
        !hasher
            .verify(Line::Secrets, bytes("anything"), None)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn after_a_wrong_guess_its_line_rests_and_the_other_does_not() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let (secrets, passwords) = (hasher.secrets.turns.clone(), hasher.passwords.turns.clone());
    let (all, free) = (secrets.available_permits(), hasher.permits.available_permits());
    let hashed = hasher.hash(bytes("right")).await.unwrap();
    tokio::time::pause();
    for (secret, resting) in [("right", 0), ("wrong", 1)] {
        let verified = hasher.verify(Line::Secrets, bytes(secret), Some(&hashed)).await;
        assert_eq!(verified.unwrap(), resting == 0);
        tokio::task::yield_now().await;
        assert_eq!(secrets.available_permits(), all - resting, "{secret}");
        assert_eq!(passwords.available_permits(), all);
        assert_eq!(hasher.permits.available_permits(), free);
    }
    // Also after those who do not wait for their answer.
    let slept = tokio::time::Instant::now();
    drop(
        secrets
            .clone()
            .acquire_many_owned(u32::try_from(all).unwrap())
            .await,
    );
    assert!(slept.elapsed() > Duration::ZERO, "the clock went on");
    let guess = hasher.verify(Line::Secrets, bytes("wrong"), None);
    tokio::select! { biased; _ = guess => unreachable!(), () = tokio::task::yield_now() => {} }
    drop(secrets.acquire_many_owned(u32::try_from(all).unwrap()).await);
    assert_eq!(hasher.runs(), 4);
}

#[test]
fn wrong_secrets_are_followed_by_longer_rests_than_wrong_passwords_and_none_by_a_long_one() {
    let run = Duration::from_millis(15);
    let rests = [Line::Secrets, Line::Guesses, Line::Passwords].map(|line| line.rest_after(run).as_millis());
    assert_eq!(rests, [90, 90, 30]);
    assert_eq!(Line::Guesses.rest_after(Duration::from_secs(3)), LONGEST_REST);
}

#[tokio::test]
async fn a_check_against_nothing_is_one_run_and_fails() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    for expected in 1..=2 {
        assert!(
            !hasher
                .verify(Line::Secrets, bytes("anything"), None)
                .await
                .unwrap()
        );
        assert_eq!(hasher.runs(), expected);
    }
}

/// A hash as it was made before threads with memory of their own: by argon2's own interface.
fn hashed_plainly(hasher: &Hasher, secret: &[u8], algorithm: Algorithm, params: Params) -> Hashed {
    let pepper = hasher.keyring.current(purpose::PEPPER).unwrap();
    let key = pepper.expose_for_pepper();
    let argon2 = Argon2::new_with_secret(key, algorithm, Version::V0x13, params).unwrap();
    let phc: PasswordHash = argon2.hash_password_with_salt(secret, &[7; SALT_BYTES]).unwrap();
    Hashed {
        phc: phc.to_string(),
        pepper_version: pepper.version(),
    }
}

#[tokio::test]
async fn hashes_that_are_stored_stay_good_whatever_they_cost() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let usual = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap();
    for (algorithm, params) in [
        (Algorithm::Argon2id, usual),
        (Algorithm::Argon2id, Params::new(64, 1, 2, Some(16)).unwrap()),
        (
            Algorithm::Argon2i,
            Params::new(2 * MEMORY_KIB, 1, 1, Some(64)).unwrap(),
        ),
    ] {
        let stored = hashed_plainly(&hasher, b"the secret", algorithm, params);
        for (secret, expected) in [("the secret", true), ("the secreT", false), ("", false)] {
            let verified = hasher.verify(Line::Secrets, bytes(secret), Some(&stored)).await;
            assert_eq!(verified.unwrap(), expected, "{} {secret}", stored.phc);
        }
    }
}

#[tokio::test]
async fn new_hashes_are_what_argon2_makes_of_the_secret() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let hashed = hasher.hash(bytes("the secret")).await.unwrap();
    let pepper = hasher.keyring.current(purpose::PEPPER).unwrap();
    let usual = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap();
    let key = pepper.expose_for_pepper();
    let argon2 = Argon2::new_with_secret(key, Algorithm::Argon2id, Version::V0x13, usual).unwrap();
    let again = PasswordHash::new(&hashed.phc).unwrap();
    let plain: PasswordHash = argon2
        .hash_password_with_salt(b"the secret", &again.salt.unwrap())
        .unwrap();
    assert_eq!(plain.to_string(), hashed.phc);
}

#[tokio::test]
async fn a_stored_hash_that_cannot_be_checked_is_a_failure_and_no_refusal() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let good = hasher.hash(bytes("the secret")).await.unwrap();
    let (salted, _) = good.phc.rsplit_once('$').unwrap();
    for phc in [
        String::new(),
        salted.to_owned(),
        good.phc.replace("argon2id", "argon2x"),
        good.phc.replace("v=19", "v=18"),
        good.phc.replace("t=2", "t=0"),
    ] {
        let stored = Hashed { phc, ..good.clone() };
        let verified = hasher
            .verify(Line::Secrets, bytes("the secret"), Some(&stored))
            .await;
        assert!(matches!(verified, Err(Error::Hashing)), "{}", stored.phc);
    }
    assert!(
        hasher
            .verify(Line::Secrets, bytes("the secret"), Some(&good))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_keeps_its_permit_until_it_ends() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let all = hasher.permits.available_permits();
    let Turn { permits, .. } = hasher.turn(Line::Secrets).await.unwrap();
    let (begins, begun) = tokio::sync::oneshot::channel();
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    let threads = hasher.threads.clone();
    let caller = tokio::spawn(async move {
        let work = move |_: &mut Memory| {
            begins.send(()).unwrap();
            ended.recv().unwrap();
            Ok(())
        };
        threads.run(permits, work).await
    });
    begun.await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(hasher.permits.available_permits(), all - 1);
    ends.send(()).unwrap();
    let back = hasher.permits.acquire_many(u32::try_from(all).unwrap());
    assert!(back.await.is_ok());
}

#[tokio::test]
async fn threads_end_with_the_last_hasher() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let mut threads = Vec::new();
    for pool in [&hasher.threads, &hasher.new_thread] {
        let here = |_: &mut Memory| Ok(fs::canonicalize("/proc/thread-self").ok());
        threads.extend(pool.run((), here).await.unwrap());
    }
    let other = hasher.clone();
    drop(hasher);
    assert!(
        !other
            .verify(Line::Secrets, bytes("anything"), None)
            .await
            .unwrap()
    );
    assert!(threads.iter().all(|thread| thread.exists()));
    drop(other);
    let gone = async {
        while threads.iter().any(|thread| thread.exists()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

/// What the process has in memory, in KiB, where that can be read.
fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// In a process of its own, since other tests hash meanwhile.
#[test]
fn many_runs_leave_as_much_memory_as_threads_take() {
    let itself = std::env::current_exe().unwrap();
    let alone = Command::new(itself)
        .args(["--exact", "hashing::tests::alone_many_runs", "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && said.contains("1 passed"), "{said}");
}

#[ignore = "started by another test"]
#[tokio::test(flavor = "multi_thread")]
async fn alone_many_runs() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let Some(before) = resident_kib() else { return };
    let threads = hasher.permits.available_permits() + 1;
    // A right secret: after a wrong one there would be rests.
    let secret = bytes("right");
    let hashed = hasher.hash(secret.clone()).await.unwrap();
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (hasher, secret, hashed) = (hasher.clone(), secret.clone(), hashed.clone());
        runs.spawn(async move {
            if number % 10 == 0 {
                return hasher.hash(secret).await.map(drop);
            }
            // Those who find no place come again.
            while let Err(error) = hasher.verify(Line::Secrets, secret.clone(), Some(&hashed)).await {
                assert!(matches!(error, Error::Busy));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap().unwrap();
    }
    assert_eq!(hasher.runs(), 201);
    let grown = resident_kib().unwrap().saturating_sub(before);
    let limit = threads as u64 * u64::from(MEMORY_KIB) + 16 * 1024;
    assert!(grown < limit, "{grown} KiB more, of {limit}");
}
