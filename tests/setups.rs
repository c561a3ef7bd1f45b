//! From an authorization request to a decision: what is shown, who may decide, and what is rejected.

use std::time::Duration;

use accord::{
    registry::v1 as reg,
    testing::{
        self,
        calls::{assert_violations, ok},
    },
    token::v1 as tok,
};
use tonic::Code;
use url::Url;

use crate::harness::{
    dev,
    partner::{Party, REDIRECT_URI, World, code_grant},
    refusal::{NOT_FOUND, Refusal, SESSION_INVALID, WRONG_STATE, refused},
    services::Services,
};

const SESSION_MISMATCH: Refusal = (Code::PermissionDenied, "ADMIN_SESSION_MISMATCH");

tests!(
    a_setup_shows_client_scopes_and_reasons_and_reports_all_violations,
    every_failed_sign_in_gets_the_same_error,
    only_a_fresh_session_of_the_setup_decides_it,
    an_approval_grants_at_most_the_requested_scopes_to_a_user_of_the_tenant,
    of_racing_approvals_of_two_sessions_one_wins_with_one_code,
);

async fn a_setup_shows_client_scopes_and_reasons_and_reports_all_violations() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let started = world.start(&partner).await;
    assert_eq!(started.setup.purpose, "To be tested.");
    assert_eq!(started.setup.scopes[0].reason, "because of contacts.read");
    assert!(!started.setup.scopes[0].description.is_empty());
    let request = tok::GetSetupRequest {
        setup_id: started.setup.setup_id.clone(),
    };
    let read = ok(world.setups().get_setup(request).await).setup;
    assert_eq!(read, Some(started.setup));

    let bad = tok::StartSetupRequest {
        request_id: "not-a-uuid".into(),
        tenant_id: "Bad Tenant".into(),
        client_id: "cli_x".into(),
        redirect_uri: String::new(),
        scopes: vec!["a b".into()],
        state: "s".repeat(4097),
        code_challenge: "short".into(),
        resource: String::new(),
        ..Default::default()
    };
    let expected = [
        "client_id",
        "code_challenge",
        "redirect_uri",
        "request_id",
        "scopes[0]",
        "state",
        "tenant_id",
    ];
    assert_violations(world.setups().start_setup(bad).await, &expected);

    let verifier = "v".repeat(43);
    for redirect_uri in [
        "https://app.example/callback/",
        "https://app.example/Callback",
        "https://app.example/callback?x=1",
        "https://app.example/callback#",
        "https://app.example@evil.example/callback",
        "https://app.example./callback",
        "https://app.example/%63allback",
        "https://APP.example/callback",
        "http://app.example/callback",
    ] {
        let mut request = world.setup_request(&partner, &verifier);
        request.redirect_uri = redirect_uri.into();
        assert_violations(world.setups().start_setup(request).await, &["redirect_uri"]);
    }
    let mut beyond = world.setup_request(&partner, &verifier);
    beyond.scopes = vec!["documents.read".into()];
    let result = world.setups().start_setup(beyond).await;
    refused(result, (Code::InvalidArgument, "INVALID_SCOPE"));
    let mut elsewhere = world.setup_request(&partner, &verifier);
    elsewhere.resource = "https://api.other.example".into();
    let result = world.setups().start_setup(elsewhere).await;
    refused(result, (Code::InvalidArgument, "INVALID_TARGET"));
    for (tenant_id, client_id) in [
        ("no-such-firm", partner.client_id.as_str()),
        (world.target.tenant_id.as_str(), "cli_01k9zzzzzzzzzzzzzzzzzzzzzz"),
    ] {
        let mut unknown = world.setup_request(&partner, &verifier);
        (unknown.tenant_id, unknown.client_id) = (tenant_id.into(), client_id.into());
        refused(world.setups().start_setup(unknown).await, NOT_FOUND);
    }

    let mut repeated = world.setup_request(&partner, &verifier);
    repeated.request_id = uuid::Uuid::new_v4().to_string();
    let first = ok(world.setups().start_setup(repeated.clone()).await);
    let second = ok(world.setups().start_setup(repeated.clone()).await);
    assert_eq!(first, second);
    repeated.state = "other".into();
    let result = world.setups().start_setup(repeated).await;
    refused(result, (Code::AlreadyExists, "REQUEST_ID_REUSED"));
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
    let unknown = tok::SignInTenantAdminRequest {
        setup_id: "set_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
        ..good.clone()
    };
    refused(world.setups().sign_in_tenant_admin(unknown).await, NOT_FOUND);
    dev.stop().await.unwrap();
}

async fn only_a_fresh_session_of_the_setup_decides_it() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let (one, other) = (
        world.start(&partner).await.setup.setup_id,
        world.start(&partner).await.setup.setup_id,
    );
    let session = world.sign_in(&one).await;
    let general = world.sign_in("").await;

    let approve = async |setup_id: &str, session: &str| {
        world
            .setups()
            .approve_setup(world.approval(setup_id, session))
            .await
    };
    refused(approve(&other, &session).await, SESSION_MISMATCH);
    refused(approve(&one, &general).await, SESSION_MISMATCH);
    for bad in ["", "x", &format!("ads_{}", "0".repeat(49))] {
        let result = approve(&one, bad).await;
        assert_ne!(result.expect_err(bad).code(), Code::Internal);
    }

    // A session belongs to its workload.
    let mut callers = reg::operator_service_client::OperatorServiceClient::new(world.operator.clone());
    let request = reg::CreateWorkloadRequest {
        name: "another internal service".into(),
        kind: reg::WorkloadKind::InternalService.into(),
        ..Default::default()
    };
    let created = ok(callers.create_workload(request).await);
    let mut thief = world.clone();
    thief.workload = accord_cli::call::with_token(&world.target.token_grpc, &created.workload_token).unwrap();
    let result = thief.setups().approve_setup(world.approval(&one, &session)).await;
    refused(result, SESSION_INVALID);

    clock.advance(Duration::from_secs(5 * 60 + 1));
    let too_old = (Code::PermissionDenied, "SIGN_IN_TOO_OLD");
    refused(approve(&one, &session).await, too_old);
    clock.advance(Duration::from_secs(15 * 60));
    refused(approve(&one, &session).await, SESSION_INVALID);

    // Signing out ends it. A second time, or with an unknown session, it changes nothing.
    let session = world.sign_in(&one).await;
    let sign_out = tok::SignOutTenantAdminRequest {
        admin_session: session.clone(),
    };
    for _ in 0..2 {
        ok(world.setups().sign_out_tenant_admin(sign_out.clone()).await);
    }
    refused(approve(&one, &session).await, SESSION_INVALID);

    // So does the admin's password reset.
    let session = world.sign_in(&one).await;
    let reset = reg::ResetUserPasswordRequest {
        tenant_id: world.target.tenant_id.clone(),
        user_id: world.user_id(&world.target.admin_account_name).await,
        ..Default::default()
    };
    let reset = ok(world.users().reset_user_password(reset).await);
    refused(approve(&one, &session).await, SESSION_INVALID);
    let complete = reg::CompleteEnrolmentRequest {
        enrolment_token: reset.enrolment_token,
        password: world.target.admin_password.clone(),
        ..Default::default()
    };
    ok(world.users().complete_enrolment(complete).await);

    // So does the tenant's suspension, even after reinstatement.
    let session = world.sign_in(&one).await;
    world.suspend(Party::Tenant).await;
    world.reinstate(Party::Tenant).await;
    refused(approve(&one, &session).await, SESSION_INVALID);
    dev.stop().await.unwrap();
}

async fn an_approval_grants_at_most_the_requested_scopes_to_a_user_of_the_tenant() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let started = world.start(&partner).await;
    let setup_id = started.setup.setup_id.clone();
    let session = world.sign_in(&setup_id).await;
    let approval = world.approval(&setup_id, &session);

    let mut beyond = approval.clone();
    beyond.scopes = vec!["documents.read".into()];
    let result = world.setups().approve_setup(beyond).await;
    refused(result, (Code::InvalidArgument, "INVALID_SCOPE"));
    let mut stranger = approval.clone();
    stranger.designated_account_name = "nobody@nowhere.example".into();
    refused(world.setups().approve_setup(stranger).await, NOT_FOUND);
    let mut past = approval.clone();
    past.expire_time = Some(accord::testing::TEST_START.to_timestamp());
    assert_violations(world.setups().approve_setup(past).await, &["expire_time"]);

    let mut some = approval.clone();
    some.scopes = vec!["matters.read".into()];
    let end = accord::clock::Clock::now(&*clock).plus(Duration::from_secs(120));
    some.expire_time = Some(end.to_timestamp());
    let approved = ok(world.setups().approve_setup(some.clone()).await);
    let consent = approved.consent.clone().unwrap();
    assert_eq!(consent.state(), tok::ConsentState::Pending);
    assert_eq!(consent.scopes, ["matters.read"]);
    let url = Url::parse(&approved.redirect_url).unwrap();
    assert!(approved.redirect_url.starts_with(REDIRECT_URI));
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let expected = [
        ("code", approved.authorization_code.as_str()),
        ("state", "state-1"),
        ("iss", world.target.tenant_authority_url.as_str()),
    ];
    assert_eq!(parameters, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));

    let again = world.setups().approve_setup(approval).await;
    assert_eq!(refused(again, WRONG_STATE)["state"], "APPROVED");

    let redeemed = crate::harness::partner::Approved {
        grant_id: consent.grant_id,
        code: approved.authorization_code,
        verifier: started.verifier,
    };
    let issued = world.issue(&partner, code_grant(&redeemed)).await.unwrap();
    assert_eq!(
        (issued.scope.as_str(), issued.expires_in),
        ("matters.read", 120),
        "never past the grant"
    );
    clock.advance(Duration::from_secs(120));
    assert!(!world.active(&issued.refresh_token).await);

    // A setup is a snapshot: after a change of the client it can't be approved.
    let setup_id = world.start(&partner).await.setup.setup_id;
    let session = world.sign_in(&setup_id).await;
    let renamed = reg::SubmitIntegrationRequestRequest {
        display_name: "Another name".into(),
        ..Default::default()
    };
    world.amend_client(&partner, renamed).await;
    let changed = (Code::FailedPrecondition, "CLIENT_CHANGED");
    let approval = world.approval(&setup_id, &session);
    let result = world.setups().approve_setup(approval).await;
    refused(result, changed);

    // A denial goes back to the partner too, and is final: the session that denied gets the same answer again, another
    // one doesn't.
    let other = world.sign_in(&setup_id).await;
    let deny = tok::DenySetupRequest {
        setup_id: setup_id.clone(),
        admin_session: session.clone(),
    };
    let denied = ok(world.setups().deny_setup(deny.clone()).await);
    assert!(
        denied.redirect_url.contains("error=access_denied") && denied.redirect_url.contains("state=state-1")
    );
    assert_eq!(
        ok(world.setups().deny_setup(deny.clone()).await).redirect_url,
        denied.redirect_url
    );
    let deny = tok::DenySetupRequest {
        admin_session: other,
        ..deny
    };
    let again = world.setups().deny_setup(deny).await;
    assert_eq!(refused(again, WRONG_STATE)["state"], "DENIED");

    // After an hour the setup can't be decided.
    let setup_id = world.start(&partner).await.setup.setup_id;
    clock.advance(Duration::from_secs(3600));
    let request = tok::GetSetupRequest {
        setup_id: setup_id.clone(),
    };
    let expired = ok(world.setups().get_setup(request).await).setup.unwrap();
    assert_eq!(expired.state(), tok::SetupState::Expired);
    let sign_in = tok::SignInTenantAdminRequest {
        tenant_id: world.target.tenant_id.clone(),
        setup_id,
        account_name: world.target.admin_account_name.clone(),
        password: world.target.admin_password.clone(),
        ..Default::default()
    };
    refused(world.setups().sign_in_tenant_admin(sign_in).await, WRONG_STATE);
    dev.stop().await.unwrap();
}

async fn of_racing_approvals_of_two_sessions_one_wins_with_one_code() {
    let (registry, token) = (testing::databases(), testing::databases());
    for (registry, token) in registry.iter().zip(&token) {
        let services = Services::start(&registry.url, &token.url).await;
        let world = World::new(&services.target);
        let partner = world.partner().await;
        let setup_id = world.start(&partner).await.setup.setup_id;
        let sessions = [world.sign_in(&setup_id).await, world.sign_in(&setup_id).await];
        let racing = (0..8).map(|racer| {
            let (world, request) = (world.clone(), world.approval(&setup_id, &sessions[racer % 2]));
            tokio::spawn(async move { world.setups().approve_setup(request).await })
        });
        let mut codes = Vec::new();
        for race in racing.collect::<Vec<_>>() {
            match race.await.unwrap() {
                Ok(answer) => codes.push(answer.into_inner().authorization_code),
                lost => drop(refused(lost, WRONG_STATE)),
            }
        }
        assert_eq!(codes.len(), 4, "{}", registry.label);
        codes.dedup();
        assert_eq!(codes.len(), 1, "{}", registry.label);
    }
}
