#![allow(clippy::unwrap_used)]

use std::{fs, process::Command, time::Duration};

use accord::{random::SeededRandom, testing};
use argon2::PasswordHasher as _;

use super::*;
use crate::store::testing::store;

fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

async fn hasher() -> (testing::TestDatabase, Hasher) {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    (database, store.hasher.clone())
}

/// Verifies a text as a Client Secret of `owner`.
async fn verify(hasher: &Hasher, owner: &str, secret: &str, stored: &Argon2Hash) -> Result<bool, Error> {
    hasher
        .verify_secret(owner, &secret_id(1), bytes(secret), stored)
        .await
}

fn secret_id(seed: u64) -> SecretId {
    SecretId::generate(&*testing::test_clock(), &SeededRandom::new(seed))
}

#[tokio::test]
async fn a_hash_covers_every_byte_and_the_owner() {
    let (_database, hasher) = hasher().await;
    let long = "x".repeat(100);
    let right = format!("{long}a\0b");
    let hashed = hasher.hash("cli_1", bytes(&right)).await.unwrap();
    assert!(
        hashed.phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{}",
        hashed.phc
    );
    for (owner, secret, expected) in [
        ("cli_1", right.clone(), true),
        ("cli_2", right.clone(), false),
        ("", right.clone(), false),
        ("cli_1", format!("{long}a\0c"), false),
        ("cli_1", format!("{long}a"), false),
        ("cli_1", format!("{long}b\0b"), false),
        ("cli_1", long[..72].to_owned(), false),
    ] {
        assert_eq!(
            verify(&hasher, owner, &secret, &hashed).await.unwrap(),
            expected,
            "{owner} {secret}"
        );
        let password = hasher.verify_password(bytes(&secret), Some((owner, &hashed)));
        assert_eq!(password.await.unwrap(), expected, "{owner} {secret}");
    }
    let again = hasher.hash("cli_1", bytes(&right)).await.unwrap();
    assert_ne!(again.phc, hashed.phc, "each hash has its own salt");
}

#[tokio::test]
async fn a_full_queue_rejects_and_the_others_continue() {
    let (_database, hasher) = hasher().await;
    let hashed = hasher.hash("cli_1", bytes("right")).await.unwrap();
    for full in [&hasher.passwords, &hasher.secrets, &hasher.new_hashes] {
        let all = u32::try_from(full.slots.available_permits()).unwrap();
        let before = hasher.runs();
        let _taken = full.slots.clone().try_acquire_many_owned(all).unwrap();
        let answers = [
            hasher
                .verify_password(bytes("right"), Some(("cli_1", &hashed)))
                .await
                .err(),
            verify(&hasher, "cli_1", "right", &hashed).await.err(),
            hasher.hash("cli_1", bytes("right")).await.err(),
        ];
        let rejected = answers
            .iter()
            .filter(|answer| matches!(answer, Some(Error::Busy)));
        assert_eq!((rejected.count(), hasher.runs() - before), (1, 2));
        assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 2);
    }
}

#[tokio::test]
async fn each_secret_is_checked_by_one_run_at_a_time() {
    let (_database, hasher) = hasher().await;
    let hashed = hasher.hash("cli_1", bytes("right")).await.unwrap();
    let running = hasher.lock(&secret_id(1)).await.unwrap();
    let check = |seed| {
        let (hasher, hashed) = (hasher.clone(), hashed.clone());
        tokio::spawn(async move {
            hasher
                .verify_secret("cli_1", &secret_id(seed), bytes("right"), &hashed)
                .await
        })
    };
    let waiting: Vec<_> = (1..CHECKS_OF_A_SECRET).map(|_| check(1)).collect();
    assert!(check(2).await.unwrap().unwrap());
    assert!(matches!(check(1).await.unwrap(), Err(Error::Busy)));
    assert_eq!(hasher.runs(), 2);
    drop(running);
    for check in waiting {
        assert!(check.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_password_of_an_unknown_user_fails_after_one_run() {
    let (_database, hasher) = hasher().await;
    for expected in 1..=2 {
        assert!(!hasher.verify_password(bytes("anything"), None).await.unwrap());
        assert_eq!(hasher.runs(), expected);
    }
}

#[tokio::test]
async fn a_hash_is_what_argon2_makes_whatever_it_cost() {
    let (_database, hasher) = hasher().await;
    let pepper = hasher.pepper(None).await.unwrap();
    for (memory, passes, lanes, length) in [
        (MEMORY_KIB, PASSES, 1, 32),
        (64, 1, 2, 16),
        (2 * MEMORY_KIB, 1, 1, 64),
    ] {
        let mut params = ParamsBuilder::new();
        params
            .m_cost(memory)
            .t_cost(passes)
            .p_cost(lanes)
            .output_len(length);
        let plain = params.build().unwrap();
        let bound = params
            .data(AssociatedData::new(b"cli_1").unwrap())
            .build()
            .unwrap();
        let key = pepper.expose_for_pepper();
        let argon2 = Argon2::new_with_secret(key, Algorithm::Argon2id, Version::V0x13, bound).unwrap();
        let mut hash: PasswordHash = argon2
            .hash_password_with_salt(b"the secret", &[7; SALT_BYTES])
            .unwrap();
        hash.params = ParamsString::try_from(&plain).unwrap();
        let stored = Argon2Hash {
            phc: hash.to_string(),
            pepper_version: pepper.version(),
        };
        for (secret, expected) in [("the secret", true), ("the secreT", false), ("", false)] {
            let verified = verify(&hasher, "cli_1", secret, &stored).await.unwrap();
            assert_eq!(verified, expected, "{} {secret}", stored.phc);
        }
    }
}

#[tokio::test]
async fn a_stored_hash_that_cannot_be_read_is_an_internal_error() {
    let (_database, hasher) = hasher().await;
    let good = hasher.hash("cli_1", bytes("the secret")).await.unwrap();
    let (salted, _) = good.phc.rsplit_once('$').unwrap();
    for phc in [
        String::new(),
        salted.to_owned(),
        good.phc.replace("argon2id", "argon2x"),
        good.phc.replace("argon2id", "argon2i"),
        good.phc.replace("v=19", "v=18"),
        good.phc.replace("t=2", "t=0"),
    ] {
        let stored = Argon2Hash { phc, ..good.clone() };
        let verified = verify(&hasher, "cli_1", "the secret", &stored).await;
        assert!(matches!(verified, Err(Error::Hashing)), "{}", stored.phc);
    }
}

#[tokio::test]
async fn a_run_keeps_its_permit_although_its_caller_went_away() {
    let (_database, hasher) = hasher().await;
    let queue = hasher.passwords.clone();
    let (begins, begun) = tokio::sync::oneshot::channel();
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    let caller = tokio::spawn(async move {
        let work = move |_: &mut Memory| {
            begins.send(()).unwrap();
            ended.recv().unwrap();
            Ok(())
        };
        queue.run((), work).await
    });
    begun.await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(hasher.passwords.permits.available_permits(), 0);
    ends.send(()).unwrap();
    assert!(hasher.passwords.permits.acquire().await.is_ok());
}

#[tokio::test]
async fn threads_end_with_the_last_hasher() {
    let database = testing::sqlite();
    let (store, _) = store(&database.url).await;
    let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
    let mut threads = Vec::new();
    for queue in [&hasher.passwords, &hasher.secrets, &hasher.new_hashes] {
        let here = |_: &mut Memory| Ok(fs::canonicalize("/proc/thread-self").ok());
        threads.extend(queue.run((), here).await.unwrap());
    }
    let other = hasher.clone();
    drop(hasher);
    other.hash("cli_1", bytes("anything")).await.unwrap();
    assert!(threads.iter().all(|thread| thread.exists()));
    drop(other);
    let gone = async {
        while threads.iter().any(|thread| thread.exists()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

/// Returns the resident memory of the process in KiB, where it can be read.
fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Runs in a process of its own, because other tests hash at the same time.
#[test]
fn memory_is_bounded_by_the_number_of_threads() {
    let itself = std::env::current_exe().unwrap();
    let alone = Command::new(itself)
        .args(["--exact", "hashing::tests::alone_many_runs", "--ignored"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && output.contains("1 passed"), "{output}");
}

#[ignore = "started by another test"]
#[tokio::test(flavor = "multi_thread")]
async fn alone_many_runs() {
    let (_database, hasher) = hasher().await;
    let Some(before) = resident_kib() else { return };
    let threads = hasher.secrets.permits.available_permits() + 1;
    let hashed = hasher.hash("cli_1", bytes("right")).await.unwrap();
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (hasher, hashed) = (hasher.clone(), hashed.clone());
        runs.spawn(async move {
            if number % 10 == 0 {
                return hasher.hash("cli_1", bytes("right")).await.map(drop);
            }
            let secret_id = secret_id(number);
            let check = || hasher.verify_secret("cli_1", &secret_id, bytes("right"), &hashed);
            while let Err(error) = check().await {
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
