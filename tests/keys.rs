//! Master keys and data keys are rotated by the command line, beside services that serve.

use std::time::{Duration, Instant};

use accord::{
    keys::FileMasterKey,
    random::SystemRandom,
    store::Database,
    testing::{TestDatabase, postgres},
};
use accord_cli::dev_file::DevFile;
use sea_orm::{
    ConnectionTrait,
    sea_query::{Alias, Expr, ExprTrait, Query},
};

pub mod pkcs11;

use crate::harness::{
    partner::{World, own_grant, refresh_grant},
    services::Services,
};

tests!(
    master_and_data_keys_rotate_while_both_services_serve,
    a_data_key_without_that_purpose_is_not_rotated,
);

async fn master_and_data_keys_rotate_while_both_services_serve() {
    let Some(databases) = postgres().zip(postgres()) else {
        return;
    };
    let databases = [databases.0, databases.1];
    let mut services = Services::start(&databases[0].url, &databases[1].url).await;
    let (mut replica, address) = services.another_token_service();
    let world = World::new(&services.target);
    let elsewhere = DevFile {
        token_grpc: address,
        ..services.target.clone()
    };
    let elsewhere = World::new(&elsewhere);
    let partner = world.partner().await;
    let mut tokens = world.first_tokens(&partner).await;
    // Everything that rests on a data key: secrets, families, repeated calls, names, passwords. What one replica issues, the
    // other one renews.
    let mut works = async |when: &str| {
        for (here, there) in [(&world, &elsewhere), (&elsewhere, &world)] {
            let renewed = here.issue(&partner, refresh_grant(&tokens.refresh_token)).await;
            tokens = renewed.unwrap_or_else(|status| panic!("{when}: {status}"));
            let own = here.issue(&partner, own_grant()).await;
            let own = own.unwrap_or_else(|status| panic!("{when}: {status}"));
            assert!(there.active(&own.access_token).await, "{when}");
            let other = here.partner().await;
            let first = here.first_tokens(&other).await;
            let renewed = there.issue(&other, refresh_grant(&first.refresh_token)).await;
            renewed.unwrap_or_else(|status| panic!("{when}: {status}"));
        }
    };
    works("before").await;

    for purpose in [
        "account-name",
        "pepper",
        "delivery",
        "secret-tag",
        "row",
        "idempotency",
    ] {
        let done = services.run_registry(&["rotate-data-key", purpose]);
        assert!(
            done.starts_with(&format!("{purpose} version 2 is used in 60 s")),
            "{done}"
        );
    }
    for purpose in [
        "authorization-request",
        "dpop-nonce",
        "refresh",
        "signing-key",
        "verified-secret",
        "idempotency",
    ] {
        let done = services.run_token(&["rotate-data-key", purpose]);
        assert!(done.starts_with(&format!("{purpose} version 2")), "{done}");
    }
    // A new version is used a minute later, under load all the time.
    let rotated = Instant::now();
    while !uses_second_versions(&databases).await {
        works("after a rotation of the data keys").await;
        assert!(
            rotated.elapsed() < Duration::from_secs(180),
            "version 2 is not used"
        );
    }
    assert!(
        rotated.elapsed() >= Duration::from_secs(55),
        "{:?}",
        rotated.elapsed()
    );
    works("with the second versions").await;

    let directory = tempfile::tempdir().unwrap();
    let new_key = directory.path().join("new.key");
    FileMasterKey::create(&new_key, &SystemRandom).unwrap();
    let new_key = new_key.to_str().unwrap();
    let rotate = ["rotate-master-key", "--new-master-key-file", new_key];
    for (done, count) in [
        (services.run_registry(&rotate), 14),
        (services.run_token(&rotate), 15),
    ] {
        let expected = format!("{count} data keys are wrapped by the new master key");
        assert_eq!(done, expected);
    }
    works("after a rotation of the master keys").await;
    // Its own old key alone opens nothing any more: a start says so, and names no file.
    let refused = services.fail_token(&["check-config"]);
    assert!(
        refused.contains("the keyring is wrapped by the master key"),
        "{refused}"
    );

    replica.signal("TERM");
    assert!(replica.wait().success());
    services.set_token("ACCORD_TOKEN_MASTER_KEY_FILE", new_key);
    let refused = services.fail_token(&rotate);
    assert!(refused.contains("is the key in use"), "{refused}");
    services.token.signal("TERM");
    assert!(services.token.wait().success());
    services.start_token_service_again();
    let world = World::new(&services.target);
    let own = world.issue(&partner, own_grant()).await.unwrap();
    assert!(
        world.active(&own.access_token).await,
        "after a start with the new key"
    );
}

/// Returns whether rows of both databases were made with the second versions of data keys.
async fn uses_second_versions(databases: &[TestDatabase; 2]) -> bool {
    for (database, columns) in databases.iter().zip([
        &[
            ("client_secrets", "pepper_version"),
            ("client_secrets", "tag_key_version"),
        ][..],
        &[("families", "key_version"), ("verified_secrets", "key_version")],
    ]) {
        let db = Database::connect(&database.url).await.unwrap();
        for (table, column) in columns {
            let query = Query::select()
                .column(Alias::new(*column))
                .from(Alias::new(*table))
                .and_where(Expr::col(Alias::new(*column)).eq(2))
                .limit(1)
                .to_owned();
            if db.read().query_one(&query).await.unwrap().is_none() {
                return false;
            }
        }
        db.close().await;
    }
    true
}

async fn a_data_key_without_that_purpose_is_not_rotated() {
    let databases = [accord::testing::sqlite(), accord::testing::sqlite()];
    let services = Services::start(&databases[0].url, &databases[1].url).await;
    let refused = services.fail_token(&["rotate-data-key", "pepper"]);
    let purposes = "there are authorization-request, dpop-nonce, refresh, signing-key, verified-secret, audit-event, row, audit-log, idempotency";
    assert!(refused.contains(purposes), "{refused}");
    let refused = services.fail_token(&["check-config", "--signing-algorithm", "HS256"]);
    assert!(
        refused.contains("--signing-algorithm must be one of Ed25519, EdDSA, ES256"),
        "{refused}"
    );
    assert!(!refused.contains("HS256"), "{refused}");
    let refused = services.fail_token(&["rotate-master-key"]);
    assert!(refused.contains("--new-master-key-file"), "{refused}");
}
