//! Master keys and data keys are rotated by the command line, beside services that serve.

use std::{os::unix::fs::PermissionsExt, path::Path};

use accord::random::{Random, SystemRandom};

pub mod pkcs11;

use crate::harness::{
    partner::{World, own_grant, refresh_grant},
    services::Services,
};

tests!(
    master_and_data_keys_rotate_while_both_services_serve,
    a_data_key_without_that_purpose_is_not_rotated,
);

/// Writes a master key that only its owner can read.
fn write_key(path: &Path) {
    let mut key = [0; 32];
    SystemRandom.fill(&mut key);
    std::fs::write(path, key).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

async fn master_and_data_keys_rotate_while_both_services_serve() {
    let databases = [accord::testing::sqlite(), accord::testing::sqlite()];
    let mut services = Services::start(&databases[0].url, &databases[1].url).await;
    let world = World::new(&services.target);
    let partner = world.partner().await;
    let mut tokens = world.first_tokens(&partner).await;
    // Everything that rests on a data key: secrets, families, repeated calls, names, passwords.
    let mut works = async |when: &str| {
        let renewed = world.issue(&partner, refresh_grant(&tokens.refresh_token)).await;
        tokens = renewed.unwrap_or_else(|status| panic!("{when}: {status}"));
        let own = world.issue(&partner, own_grant()).await;
        let own = own.unwrap_or_else(|status| panic!("{when}: {status}"));
        assert!(world.active(&own.access_token).await, "{when}");
        let other = world.partner().await;
        world.first_tokens(&other).await;
    };
    works("before").await;

    let directory = tempfile::tempdir().unwrap();
    let new_key = directory.path().join("new.key");
    write_key(&new_key);
    let new_key = new_key.to_str().unwrap();
    let rotate = ["rotate-master-key", "--new-master-key-file", new_key];
    for (done, count) in [
        (services.run_registry(&rotate), 8),
        (services.run_token(&rotate), 9),
    ] {
        let expected = format!("{count} data keys are wrapped by the new master key");
        assert_eq!(done, expected);
    }
    works("after a rotation of the master keys").await;
    for purpose in [
        "account-name",
        "pepper",
        "delivery",
        "secret-tag",
        "row",
        "idempotency",
    ] {
        let arguments = ["rotate-data-key", purpose, "--new-master-key-file", new_key];
        let done = services.run_registry(&arguments);
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
        let arguments = ["rotate-data-key", purpose, "--new-master-key-file", new_key];
        let done = services.run_token(&arguments);
        assert!(done.starts_with(&format!("{purpose} version 2")), "{done}");
    }
    works("after a rotation of the data keys").await;
    // Its own old key alone opens nothing any more: a start says so, and names no file.
    let refused = services.fail_token(&["check-config"]);
    assert!(
        refused.contains("the keyring is wrapped by the master key"),
        "{refused}"
    );

    services.set_token("ACCORD_TOKEN_MASTER_KEY_FILE", new_key);
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
