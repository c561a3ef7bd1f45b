//! The drill of `deploy/backup`: copies of both databases, made under load, are restored and serve again.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::{
    document::file,
    partner::{World, own_grant, refresh_grant},
    refusal::{CONSENT_REQUIRED, INVALID_GRANT},
    services::Services,
};

tests!(restored_databases_serve_within_five_minutes_and_nothing_revoked_lives,);

/// How long the whole drill may take.
const WITHIN: Duration = Duration::from_secs(300);

fn script(name: &str, arguments: [&str; 3]) {
    let output = Command::new(file("deploy/backup").join(name))
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {stderr}");
}

async fn restored_databases_serve_within_five_minutes_and_nothing_revoked_lives() {
    let databases = [(); 4].map(|()| accord::testing::postgres());
    let [Some(registry), Some(token), Some(new_registry), Some(new_token)] = databases else {
        return;
    };
    let mut services = Services::start(&registry.url, &token.url).await;
    let world = World::new(&services.target);
    let (partner, other) = (world.partner().await, world.partner().await);
    let tokens = world.first_tokens(&partner).await;
    let ended = world.first_tokens(&other).await;
    world.revoke_consent(&ended.grant_id).await;

    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (stop, partner) = (stop.clone(), partner.clone());
        let world = World::new(&services.target);
        tokio::spawn(async move {
            let mut last = None;
            while !stop.load(Ordering::Relaxed) {
                // No call fails while the copies are made.
                let issued = world.issue(&partner, own_grant()).await.unwrap();
                last = Some(issued.access_token);
            }
            last.unwrap()
        })
    };
    let directory = tempfile::tempdir().unwrap();
    let copies = directory.path().join("copies").to_str().unwrap().to_owned();
    tokio::task::spawn_blocking({
        let (registry, token, copies) = (registry.url.clone(), token.url.clone(), copies.clone());
        move || script("backup.sh", [&registry, &token, &copies])
    })
    .await
    .unwrap();
    stop.store(true, Ordering::Relaxed);
    let last = load.await.unwrap();

    let lost_at = Instant::now();
    services.stop();
    script("restore.sh", [&copies, &new_registry.url, &new_token.url]);
    services.start_restored(&new_registry.url, &new_token.url);
    let world = World::new(&services.target);
    for token in [&tokens.access_token, &ended.access_token, &last] {
        assert!(!world.active(token).await);
    }
    world
        .is_refused(&partner, refresh_grant(&tokens.refresh_token), INVALID_GRANT)
        .await;
    world.is_refused(&other, own_grant(), CONSENT_REQUIRED).await;
    // Standing consents work by client credentials, and by a new setup.
    let own = world.is_issued(&partner, own_grant()).await;
    assert!(world.active(&own.access_token).await);
    let again = world.first_tokens(&partner).await;
    assert!(world.active(&again.access_token).await);
    assert!(lost_at.elapsed() < WITHIN, "{:?}", lost_at.elapsed());
}
