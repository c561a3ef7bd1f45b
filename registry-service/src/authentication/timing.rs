//! Whether the time of a sign-in tells something: Welch's t over samples that were taken in turn.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use accord::{
    store::audit::Event,
    text::{account_name::AccountName, id::TenantId},
};
use zeroize::Zeroizing;

use super::tenant_admin::{complete_enrolment, sign_in};
use crate::{
    model::user::{Completion, NewUser, password::Password},
    store::{
        Store,
        testing::{add_tenants, creation, origin, store},
    },
};

const PASSWORD: &str = "a long enough password";
/// Samples of each kind. The slower quarter is dropped, since it tells of other processes.
const ROUNDS: usize = 32;
/// Samples of one distribution stay well below, also on a busy machine.
const LIMIT: f64 = 6.0;

async fn attempt(store: &Store, name: &str, password: &str) {
    let name = AccountName::parse(name).ok();
    let password = Zeroizing::new(password.to_owned());
    let tenant_id = TenantId::parse("acme").unwrap();
    let _ = sign_in(store, origin(), tenant_id, name, password).await;
}

/// Returns mean and squared standard error of the logarithms, because noise multiplies.
fn summary(mut seconds: Vec<f64>) -> (f64, f64) {
    seconds.sort_by(f64::total_cmp);
    let kept: Vec<_> = seconds[..ROUNDS * 3 / 4]
        .iter()
        .map(|seconds| seconds.ln())
        .collect();
    let n = kept.len() as f64;
    let mean = kept.iter().sum::<f64>() / n;
    let variance = kept.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, variance / n)
}

fn welch(one: (f64, f64), other: (f64, f64)) -> f64 {
    ((one.0 - other.0) / (one.1 + other.1).sqrt()).abs()
}

#[tokio::test]
async fn the_time_of_a_sign_in_tells_neither_account_nor_password() {
    let database = accord::testing::sqlite();
    let (store, _) = store(&database.url).await;
    add_tenants(&store).await;
    let ada = NewUser {
        tenant_id: TenantId::parse("acme").unwrap(),
        account_name: AccountName::parse("ada").unwrap(),
        label: "Administrator 1".into(),
        tenant_admin: true,
    };
    let created = store.create_user(&creation("RegisterUser"), ada).await;
    let token = created.unwrap().1.unwrap();
    let chosen = Password::parse(PASSWORD).unwrap();
    let completion = Completion {
        token,
        release_code: None,
        password: chosen,
        request_id: None,
    };
    complete_enrolment(&store, origin(), completion).await.unwrap();
    let mut samples: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        for (kind, seconds) in samples.iter_mut().enumerate() {
            let started = Instant::now();
            match kind {
                0 => attempt(&store, "ada", "not the password of anybody").await,
                1 => attempt(&store, "ada", PASSWORD).await,
                2 => attempt(&store, "nobody", PASSWORD).await,
                3 => attempt(&store, "ada", "short").await,
                // The control: what a sign-in costs that skips the hash of an unknown account.
                _ => store
                    .record(&origin(), Event::test("user.sign_in").refused())
                    .await
                    .unwrap(),
            }
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let [wrong, right, unknown, short, planted] = samples.map(summary);
    for (what, other) in [("right", right), ("unknown", unknown), ("short", short)] {
        let t = welch(wrong, other);
        assert!(t < LIMIT, "{what}: t is {t:.1}");
    }
    let t = welch(wrong, planted);
    assert!(t > LIMIT, "the control: t is {t:.1}");
}
