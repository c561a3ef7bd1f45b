//! Networks of a client and of a consent: where tokens are issued, what a rejected caller learns, and what stays.

use std::time::Duration;

use accord::{
    audit::v1::{AuditActorKind, AuditEvent, AuditOutcome},
    rpc::auth::Role,
    token::v1 as pb,
};
use tonic::{Code, Request, Status};

use crate::{
    harness::{assert_rejected, assert_violations, ok},
    http::{Request as HttpRequest, assert_error, keys::ClientKey, token::TOKEN},
    world::{REDIRECT_URI, VERIFIER, World},
};

const INSIDE: &str = "203.0.113.7";
const OUTSIDE: &str = "198.51.100.9";
const NETWORKS: [&str; 2] = ["203.0.113.0/24", "2001:db8::/32"];

fn networks() -> Vec<String> {
    NETWORKS.map(str::to_owned).to_vec()
}

/// Requests a token through a gateway that forwards this address.
async fn issue_from(
    world: &World,
    address: &str,
    request: pb::IssueTokenRequest,
) -> Result<pb::IssueTokenResponse, Status> {
    let mut request = Request::new(request);
    request
        .metadata_mut()
        .insert("x-forwarded-for", address.parse().unwrap());
    Ok(world.tokens().issue_token(request).await?.into_inner())
}

/// Requests a token over HTTP through a gateway that forwards this address.
async fn post_from(world: &World, address: &str, fields: &[(&str, &str)]) -> crate::http::Answer {
    let request = HttpRequest::post(TOKEN).header("x-forwarded-for", address);
    request.basic(&world.client).form(fields).send(world).await
}

#[track_caller]
fn assert_network_not_allowed<T>(answer: Result<T, Status>, address: &str) {
    let metadata = assert_rejected(answer, Code::PermissionDenied, "NETWORK_NOT_ALLOWED");
    assert_eq!(metadata["client_address"], address);
}

/// A world whose client, or whose consents, are limited to [`NETWORKS`].
async fn limited(is_client: bool) -> World {
    let world = World::start().await;
    if is_client {
        world.change_client(|client| client.allowed_networks = networks());
    }
    world
}

/// A code of a consent with these networks.
async fn code_with(world: &World, networks: Vec<String>) -> (String, String) {
    let approved = world
        .approved(&world.client, |approval| approval.allowed_networks = networks)
        .await;
    (approved.authorization_code, approved.consent.unwrap().grant_id)
}

async fn refusals(world: &World) -> Vec<AuditEvent> {
    world.audit_events("token.refuse").await
}

#[tokio::test]
async fn every_grant_is_limited_to_the_networks_and_nothing_is_spent_outside() {
    for is_client in [true, false] {
        let world = limited(is_client).await;
        let of_consent = if is_client { Vec::new() } else { networks() };
        let (code, _) = code_with(&world, of_consent.clone()).await;
        assert_network_not_allowed(issue_from(&world, OUTSIDE, world.by_code(&code)).await, OUTSIDE);
        // A wrong verifier would invalidate the code if sent from inside.
        let mut wrong = world.by_code(&code);
        if let Some(pb::issue_token_request::Grant::AuthorizationCode(grant)) = &mut wrong.grant {
            grant.code_verifier = "wrong".repeat(10);
        }
        assert_network_not_allowed(issue_from(&world, OUTSIDE, wrong).await, OUTSIDE);
        let first = issue_from(&world, INSIDE, world.by_code(&code)).await.unwrap();

        // A used code from outside is no replay.
        assert_network_not_allowed(issue_from(&world, OUTSIDE, world.by_code(&code)).await, OUTSIDE);
        let by_refresh_token = world.by_refresh_token(&first.refresh_token);
        assert_network_not_allowed(
            issue_from(&world, OUTSIDE, by_refresh_token.clone()).await,
            OUTSIDE,
        );
        let second = issue_from(&world, INSIDE, by_refresh_token.clone())
            .await
            .unwrap();
        let third = issue_from(&world, INSIDE, world.by_refresh_token(&second.refresh_token))
            .await
            .unwrap();
        // Nor is a refresh token that was used up.
        assert_network_not_allowed(issue_from(&world, OUTSIDE, by_refresh_token).await, OUTSIDE);
        issue_from(
            &world,
            "2001:db8::7",
            world.by_refresh_token(&third.refresh_token),
        )
        .await
        .unwrap();

        let by_client = world.by_client_credentials();
        assert_network_not_allowed(issue_from(&world, OUTSIDE, by_client.clone()).await, OUTSIDE);
        // Not through a gateway.
        assert_network_not_allowed(world.issue(by_client.clone()).await, "127.0.0.1");
        issue_from(&world, INSIDE, by_client).await.unwrap();
    }
}

#[tokio::test]
async fn over_http_the_partner_learns_its_own_address() {
    for is_client in [true, false] {
        let world = limited(is_client).await;
        let (code, _) = code_with(&world, if is_client { Vec::new() } else { networks() }).await;
        let by_code = [
            ("grant_type", "authorization_code"),
            ("code", &*code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        let answer = post_from(&world, OUTSIDE, &by_code).await;
        assert_error(&answer, 400, "unauthorized_client");
        let description = answer.text("error_description");
        assert!(description.contains(OUTSIDE), "{description}");
        let first = post_from(&world, INSIDE, &by_code).await;
        assert_eq!(first.status, 200, "{}", first.body);
        let refresh_token = first.text("refresh_token");
        let by_refresh_token = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &*refresh_token),
        ];
        assert_error(
            &post_from(&world, OUTSIDE, &by_refresh_token).await,
            400,
            "unauthorized_client",
        );
        assert_eq!(post_from(&world, INSIDE, &by_refresh_token).await.status, 200);
        let by_client = [("grant_type", "client_credentials")];
        assert_error(
            &post_from(&world, OUTSIDE, &by_client).await,
            400,
            "unauthorized_client",
        );
        assert_eq!(post_from(&world, INSIDE, &by_client).await.status, 200);
    }
}

#[tokio::test]
async fn an_address_has_many_forms_and_an_unknown_one_is_nowhere() {
    let world = limited(true).await;
    let (code, _) = code_with(&world, Vec::new()).await;
    issue_from(&world, INSIDE, world.by_code(&code)).await.unwrap();
    for inside in [
        "203.0.113.255",
        "203.0.113.7:51034",
        "::ffff:203.0.113.7",
        "[2001:db8::1]:443",
        "\"[2001:DB8::1]\"",
        "9.9.9.9, 203.0.113.7",
    ] {
        let issued = issue_from(&world, inside, world.by_client_credentials()).await;
        issued.unwrap_or_else(|status| panic!("{inside}: {status}"));
    }
    for (outside, reported) in [
        ("203.0.114.0", "203.0.114.0"),
        ("::ffff:203.0.114.1", "203.0.114.1"),
        ("2001:db9::1", "2001:db9::1"),
        ("::203.0.113.7", "::cb00:7107"),
        ("203.0.113.7, 198.51.100.9:99", OUTSIDE),
        // What the gateway wrote is no address.
        ("203.0.113.7, unknown", ""),
        ("203.0.113.7:", ""),
        ("", ""),
    ] {
        assert_network_not_allowed(
            issue_from(&world, outside, world.by_client_credentials()).await,
            reported,
        );
    }
    // Without networks the address does not matter.
    world.change_client(|client| client.allowed_networks = Vec::new());
    issue_from(&world, "unknown", world.by_client_credentials())
        .await
        .unwrap();
    for all in [&["0.0.0.0/0"][..], &["0.0.0.0/0", "::/0"]] {
        world.change_client(|client| client.allowed_networks = all.iter().map(|&all| all.into()).collect());
        issue_from(&world, OUTSIDE, world.by_client_credentials())
            .await
            .unwrap();
        assert_network_not_allowed(
            issue_from(&world, "unknown", world.by_client_credentials()).await,
            "",
        );
    }
}

#[tokio::test]
async fn the_address_is_as_many_elements_from_the_right_as_gateways_are_trusted() {
    let world = World::start_with(|settings| settings.service.trusted_hops = 2).await;
    world.change_client(|client| client.allowed_networks = networks());
    let (code, _) = code_with(&world, Vec::new()).await;
    let request = world.by_code(&code);
    for (forwarded, told) in [
        (INSIDE, ""),
        ("203.0.113.7, 198.51.100.9, 192.0.2.1", OUTSIDE),
        ("198.51.100.9, 203.0.113.7", OUTSIDE),
    ] {
        assert_network_not_allowed(issue_from(&world, forwarded, request.clone()).await, told);
    }
    issue_from(&world, "198.51.100.9, 203.0.113.7, 192.0.2.1", request)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_assertion_counts_once_from_inside() {
    let world = limited(true).await;
    let (code, _) = code_with(&world, Vec::new()).await;
    issue_from(&world, INSIDE, world.by_code(&code)).await.unwrap();
    let key = ClientKey::of_client(&world, "ES256");
    let assertion = key.assertion(&world);
    let mut request = world.by_client_credentials();
    request.client_authentication = Some(pb::issue_token_request::ClientAuthentication::ClientAssertion(
        assertion,
    ));
    for _ in 0..2 {
        assert_network_not_allowed(issue_from(&world, OUTSIDE, request.clone()).await, OUTSIDE);
    }
    issue_from(&world, INSIDE, request.clone()).await.unwrap();
    let again = issue_from(&world, INSIDE, request).await;
    assert_rejected(again, Code::Unauthenticated, "INVALID_CLIENT");
}

#[tokio::test]
async fn a_rejected_call_is_counted_by_reason_and_is_an_event() {
    for is_client in [true, false] {
        let world = limited(is_client).await;
        let (code, grant_id) = code_with(&world, if is_client { Vec::new() } else { networks() }).await;
        issue_from(&world, INSIDE, world.by_code(&code)).await.unwrap();
        let by_client = [("grant_type", "client_credentials")];
        post_from(&world, OUTSIDE, &by_client).await;
        let event = refusals(&world).await.remove(0);
        assert_eq!(
            (event.actor_kind(), event.outcome(), &event.actor_id),
            (AuditActorKind::Client, AuditOutcome::Refused, &world.client_id)
        );
        assert_eq!(
            (
                event.tenant_id.as_str(),
                event.client_id.as_str(),
                event.subject.as_str(),
                event.caller_address.as_str()
            ),
            ("acme", world.client_id.as_str(), grant_id.as_str(), OUTSIDE)
        );
        assert_eq!(event.detail["error_reason"], "NETWORK_NOT_ALLOWED");
        assert_eq!(event.detail["grant_type"], "client_credentials");
        // A flood is counted, not listed.
        for _ in 0..20 {
            let refused = issue_from(&world, OUTSIDE, world.by_client_credentials()).await;
            assert_network_not_allowed(refused, OUTSIDE);
        }
        assert_eq!(refusals(&world).await.len(), 10);
        world.clock().advance(Duration::from_secs(60));
        post_from(&world, OUTSIDE, &by_client).await;
        let counted = world.audit_events("call.reject").await;
        let counts: i64 = counted
            .iter()
            .map(|event| event.detail["count"].parse::<i64>().unwrap())
            .sum();
        assert_eq!(counts, 11, "{counted:?}");

        world.usage_written().await;
        let request = pb::GetGrantUsageRequest {
            tenant_id: "acme".into(),
            grant_id,
            admin_session: String::new(),
        };
        let usage = ok(world.consents_of(Role::Auditor).get_grant_usage(request).await);
        let rejections: Vec<_> = usage.days[0]
            .rejections
            .iter()
            .map(|rejected| (rejected.reason.as_str(), rejected.count))
            .collect();
        assert_eq!(rejections, [("NETWORK_NOT_ALLOWED", 22)]);
    }
}

#[tokio::test]
async fn introspection_and_revocation_are_not_limited() {
    let world = limited(true).await;
    let (code, _) = code_with(&world, networks()).await;
    let issued = issue_from(&world, INSIDE, world.by_code(&code)).await.unwrap();
    let mut request = Request::new(world.client.introspecting(&issued.access_token));
    let outside = OUTSIDE.parse().unwrap();
    request.metadata_mut().insert("x-forwarded-for", outside);
    let introspected = ok(world.tokens().introspect_token(request).await);
    assert_eq!(introspected.active, Some(true));
    // A partner that finds its token stolen revokes it from wherever it is.
    let mut request = Request::new(world.client.revoking(&issued.access_token));
    let outside = OUTSIDE.parse().unwrap();
    request.metadata_mut().insert("x-forwarded-for", outside);
    ok(world.tokens().revoke_token(request).await);
    assert!(!world.is_active(&issued.access_token).await);
}

fn changing(grant_id: &str, session: &str, networks: Vec<String>) -> pb::ChangeAllowedNetworksRequest {
    pb::ChangeAllowedNetworksRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.into(),
        admin_session: session.into(),
        allowed_networks: networks,
    }
}

async fn change(world: &World, request: pb::ChangeAllowedNetworksRequest) -> Result<pb::Consent, Status> {
    let answer = world.consents().change_allowed_networks(request).await?;
    Ok(answer.into_inner().consent.unwrap())
}

#[tokio::test]
async fn a_tenant_admin_changes_the_networks_of_a_consent() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let session = world.sign_in("").await;
    let grant_id = &tokens.grant_id;
    let unlimited = change(&world, changing(grant_id, &session, Vec::new()))
        .await
        .unwrap();
    assert!(unlimited.allowed_networks.is_empty());
    assert!(
        world
            .audit_events("consent.change_allowed_networks")
            .await
            .is_empty()
    );

    let mapped = vec!["::ffff:203.0.113.0/120".to_owned(), NETWORKS[1].to_owned()];
    let limited = change(&world, changing(grant_id, &session, mapped))
        .await
        .unwrap();
    assert_eq!(limited.allowed_networks, NETWORKS);
    assert_eq!(world.consent(grant_id).await, limited);
    let listing = pb::ListConsentsRequest {
        tenant_id: "acme".into(),
        admin_session: session.clone(),
        ..Default::default()
    };
    assert_eq!(world.list(listing).await.unwrap().consents, [limited]);
    let event = world
        .audit_events("consent.change_allowed_networks")
        .await
        .remove(0);
    assert_eq!((&event.actor_id, &event.subject), (&world.admin_id, grant_id));
    assert_eq!(event.detail["old_networks"], "");
    assert_eq!(event.detail["new_networks"], NETWORKS.join(" "));

    // Narrowing ends nothing, and counts from the next request on.
    assert!(world.is_active(&tokens.access_token).await);
    let outside = world.refresh(&tokens.refresh_token).await;
    assert_network_not_allowed(outside, "127.0.0.1");
    issue_from(&world, INSIDE, world.by_refresh_token(&tokens.refresh_token))
        .await
        .unwrap();
    // Both count.
    world.change_client(|client| client.allowed_networks = vec!["203.0.113.0/28".into()]);
    issue_from(&world, INSIDE, world.by_client_credentials())
        .await
        .unwrap();
    assert_network_not_allowed(
        issue_from(&world, "203.0.113.99", world.by_client_credentials()).await,
        "203.0.113.99",
    );
    change(&world, changing(grant_id, &session, vec![NETWORKS[1].into()]))
        .await
        .unwrap();
    assert_network_not_allowed(
        issue_from(&world, INSIDE, world.by_client_credentials()).await,
        INSIDE,
    );
    change(&world, changing(grant_id, &session, Vec::new()))
        .await
        .unwrap();
    issue_from(&world, INSIDE, world.by_client_credentials())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_of_the_networks_needs_a_fresh_sign_in_and_an_active_consent() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let pending = world.pending_grant().await;
    let session = world.sign_in("").await;
    let refused = change(&world, changing(&pending, &session, networks())).await;
    assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
    let bad = pb::ChangeAllowedNetworksRequest {
        tenant_id: "A".into(),
        ..changing(
            "x",
            &session,
            vec!["10.0.0.0/8".into(), "10.1.2.3/8".into(), "office".into()],
        )
    };
    let fields = [
        "tenant_id",
        "grant_id",
        "allowed_networks[1]",
        "allowed_networks[2]",
    ];
    assert_violations(change(&world, bad).await, &fields);
    let overlapping = changing(&grant_id, &session, vec!["::/0".into(), NETWORKS[1].into()]);
    assert_violations(change(&world, overlapping).await, &["allowed_networks[1]"]);
    let foreign = world.sign_in_at("globex").await;
    let refused = change(&world, changing(&grant_id, &foreign, networks())).await;
    assert_rejected(refused, Code::NotFound, "NOT_FOUND");
    for role in Role::ALL {
        let request = changing(&grant_id, "", networks());
        let refused = world.consents_of(role).change_allowed_networks(request).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    world.clock().advance(Duration::from_millis(300_001));
    let refused = change(&world, changing(&grant_id, &session, networks())).await;
    assert_rejected(refused, Code::PermissionDenied, "SIGN_IN_TOO_OLD");
    assert!(world.consent(&grant_id).await.allowed_networks.is_empty());
}

#[tokio::test]
async fn an_approval_with_wrong_networks_is_rejected_and_its_event_names_the_right_ones() {
    let world = World::start().await;
    let setup_id = world.setup().await.setup_id;
    let session = world.sign_in(&setup_id).await;
    let mut approval = world.approval(&setup_id, &session);
    approval.allowed_networks = vec!["10.1.2.3/8".into()];
    let refused = world.setups().approve_setup(approval.clone()).await;
    assert_violations(refused, &["allowed_networks[0]"]);
    approval.allowed_networks = networks();
    let approved = ok(world.setups().approve_setup(approval.clone()).await);
    assert_eq!(approved.consent.unwrap().allowed_networks, NETWORKS);
    let event = world.audit_events("consent.approve").await.remove(0);
    assert_eq!(event.detail["allowed_networks"], NETWORKS.join(" "));
    // The same decision with other networks is another one.
    approval.allowed_networks.pop();
    let refused = world.setups().approve_setup(approval).await;
    assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
}
