//! What a setup and a Tenant Admin's session take from the registry. Their own rules are tested in token-service/tests/rpc.

use accord::{registry::v1 as reg, testing::calls::ok, token::v1 as tok};
use tonic::Code;

use crate::harness::{
    dev,
    partner::{Party, World},
    refusal::{NOT_FOUND, SESSION_INVALID, refused},
};

tests!(
    a_setup_shows_and_needs_the_client_as_it_is_registered,
    every_failed_sign_in_gets_the_same_error,
    a_password_reset_and_a_suspension_end_sessions,
);

async fn a_setup_shows_and_needs_the_client_as_it_is_registered() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let setup = world.start(&partner).await.setup;
    assert_eq!(setup.purpose, "To be tested.");
    assert_eq!(setup.scopes[0].reason, "because of contacts.read");
    assert!(!setup.scopes[0].description.is_empty());

    let verifier = "v".repeat(43);
    for (tenant_id, client_id) in [
        ("no-such-firm", partner.client_id.as_str()),
        (world.target.tenant_id.as_str(), "cli_01k9zzzzzzzzzzzzzzzzzzzzzz"),
    ] {
        let mut unknown = world.setup_request(&partner, &verifier);
        (unknown.tenant_id, unknown.client_id) = (tenant_id.into(), client_id.into());
        refused(world.setups().start_setup(unknown).await, NOT_FOUND);
    }

    let session = world.sign_in(&setup.setup_id).await;
    let approval = world.approval(&setup.setup_id, &session);
    let mut stranger = approval.clone();
    stranger.designated_account_name = "nobody@nowhere.example".into();
    refused(world.setups().approve_setup(stranger).await, NOT_FOUND);
    let renamed = reg::SubmitIntegrationRequestRequest {
        display_name: "Another name".into(),
        ..Default::default()
    };
    world.amend_client(&partner, renamed).await;
    let changed = (Code::FailedPrecondition, "CLIENT_CHANGED");
    refused(world.setups().approve_setup(approval).await, changed);
    dev.stop().await.unwrap();
}

async fn every_failed_sign_in_gets_the_same_error() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let good = tok::SignInTenantAdminRequest {
        tenant_id: world.target.tenant_id.clone(),
        setup_id: String::new(),
        account_name: world.target.admin_account_name.clone(),
        password: world.target.admin_password.clone(),
        ..Default::default()
    };
    assert!(world.setups().sign_in_tenant_admin(good.clone()).await.is_ok());
    let upper = tok::SignInTenantAdminRequest {
        account_name: good.account_name.to_uppercase(),
        ..good.clone()
    };
    assert!(
        world.setups().sign_in_tenant_admin(upper).await.is_ok(),
        "names are compared without case"
    );
    let (tenant, name, password) = (&*good.tenant_id, &*good.account_name, &*good.password);
    for (tenant_id, account_name, password) in [
        (tenant, name, "wrong-but-long-enough"),
        (tenant, name, &*format!("{password}\0")),
        (tenant, name, "short"),
        (tenant, &world.target.api_user_account_name, password),
        (tenant, "nobody@nowhere.example", password),
        ("no-such-firm", name, password),
    ] {
        let attempt = tok::SignInTenantAdminRequest {
            tenant_id: tenant_id.into(),
            account_name: account_name.into(),
            password: password.into(),
            ..Default::default()
        };
        let result = world.setups().sign_in_tenant_admin(attempt).await;
        refused(result, (Code::Unauthenticated, "SIGN_IN_FAILED"));
    }
    dev.stop().await.unwrap();
}

async fn a_password_reset_and_a_suspension_end_sessions() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let setup_id = world.start(&partner).await.setup.setup_id;
    let approve = async |session: &str| {
        let approval = world.approval(&setup_id, session);
        world.setups().approve_setup(approval).await
    };

    let session = world.sign_in(&setup_id).await;
    let reset = reg::ResetUserPasswordRequest {
        tenant_id: world.target.tenant_id.clone(),
        user_id: world.user_id(&world.target.admin_account_name).await,
        ..Default::default()
    };
    let reset = ok(world.users().reset_user_password(reset).await);
    refused(approve(&session).await, SESSION_INVALID);
    let complete = reg::CompleteEnrolmentRequest {
        enrolment_token: reset.enrolment_token,
        password: world.target.admin_password.clone(),
        ..Default::default()
    };
    ok(world.users().complete_enrolment(complete).await);

    // Reinstating the tenant does not bring the session back.
    let session = world.sign_in(&setup_id).await;
    world.suspend(Party::Tenant).await;
    world.reinstate(Party::Tenant).await;
    refused(approve(&session).await, SESSION_INVALID);
    let session = world.sign_in(&setup_id).await;
    ok(approve(&session).await);
    dev.stop().await.unwrap();
}
