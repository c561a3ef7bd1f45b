//! Clients that enter and leave the FAPI 2.0 profile, beside the algorithms that access tokens are signed by.

use super::*;

#[tokio::test]
async fn a_client_moves_into_the_profile_at_a_date() {
    let harness = seeded().await;
    let (created, secret) = registered(&harness).await;
    let client_id = &created.client_id;
    let start = harness.clock.now().plus(48 * HOUR);
    let into = pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "private_key_jwt".into(),
        json_web_key_set: KEYS.into(),
        security_profile: pb::SecurityProfile::Fapi20.into(),
        profile_start_time: Some(start.to_timestamp()),
        ..Default::default()
    };
    let before = profile(&harness, client_id).await;
    let amended = harness.amend(client_id, into.clone()).await;
    assert_eq!(amended.security_profile(), pb::SecurityProfile::Fapi20);
    assert_eq!(amended.profile_start_time, Some(start.to_timestamp()));
    assert_eq!(amended.token_endpoint_auth_method, "private_key_jwt");
    let event = harness.audit_events("client.amend").await.remove(0);
    assert_eq!(
        event.detail["security_profile"],
        format!(
            r#"{{"new":{{"fapi_2_0_from":{}}},"old":null}}"#,
            start.as_millis()
        )
    );
    assert_eq!(
        event.detail["token_endpoint_auth_method"],
        r#"{"new":"private_key_jwt","old":null}"#
    );
    let after = profile(&harness, client_id).await;
    assert!(after.version > before.version);
    assert_eq!(after.profile_start_time, Some(start.to_timestamp()));
    assert_eq!(after.live_secrets, before.live_secrets);

    // Until then its secret works, and there is no new one.
    assert!(authenticate(&harness, client_id, &secret).await.is_ok());
    let creating = pb::CreateClientSecretRequest {
        client_id: client_id.clone(),
        ..Default::default()
    };
    assert_violations(
        client(&harness).create_client_secret(creating).await,
        &["client_id"],
    );
    harness.clock.set(start.minus(Duration::from_millis(1)));
    assert!(authenticate(&harness, client_id, &secret).await.is_ok());
    harness.clock.set(start);
    let refused = authenticate(&harness, client_id, &secret).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");

    // A start that has passed is not postponed: that would bring the secret back.
    let later = pb::SubmitIntegrationRequestRequest {
        client_id: client_id.clone(),
        security_profile: pb::SecurityProfile::Fapi20.into(),
        profile_start_time: Some(start.plus(HOUR).to_timestamp()),
        ..Default::default()
    };
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    assert_violations(
        requests.submit_integration_request(later).await,
        &["profile_start_time"],
    );
    let same = pb::SubmitIntegrationRequestRequest {
        client_id: client_id.clone(),
        security_profile: pb::SecurityProfile::Fapi20.into(),
        ..Default::default()
    };
    assert_violations(requests.submit_integration_request(same).await, &["client_id"]);

    // Out of it, and in again: the secret has ended.
    let out = pb::SubmitIntegrationRequestRequest {
        security_profile: pb::SecurityProfile::None.into(),
        ..Default::default()
    };
    let left = harness.amend(client_id, out).await;
    assert_eq!(left.security_profile(), pb::SecurityProfile::Unspecified);
    assert_eq!(left.profile_start_time, None);
    assert_eq!(left.token_endpoint_auth_method, "private_key_jwt");
    let ended = secrets(&harness, client_id).await.remove(0);
    assert_eq!(ended.revocation_reason(), Reason::Rotated);
    let event = harness.audit_events("client.amend").await.remove(0);
    assert_eq!(event.detail["secrets_ended"], "1");
    let again = pb::SubmitIntegrationRequestRequest {
        profile_start_time: Some(start.plus(HOUR).to_timestamp()),
        ..into
    };
    harness.amend(client_id, again).await;
    let refused = authenticate(&harness, client_id, &secret).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
    assert!(profile(&harness, client_id).await.live_secrets.is_empty());
}

/// Tells the registry by which algorithms access tokens are signed.
async fn report(harness: &Harness, algorithms: &[&str]) -> Result<(), Status> {
    let mut directory = DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService));
    let request = pb::ReportSigningAlgorithmsRequest {
        algorithms: algorithms.iter().map(ToString::to_string).collect(),
    };
    directory.report_signing_algorithms(request).await.map(drop)
}

#[track_caller]
fn assert_wrong_state<T>(answer: Result<T, Status>, resource: &str) {
    let status = answer.map(drop).unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["resource"], resource, "{status:?}");
    assert!(status.message().contains("PS256, ES256 or EdDSA"), "{status:?}");
    assert_rejected::<()>(Err(status), Code::FailedPrecondition, "WRONG_STATE");
}

#[tokio::test]
async fn the_profile_and_signing_keys_for_rs256_exclude_each_other() {
    let harness = Harness::start().await;
    seed(&harness).await;
    let under_the_profile = pb::SubmitIntegrationRequestRequest {
        security_profile: pb::SecurityProfile::Fapi20.into(),
        ..by_key()
    };
    let mut registrar = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    let mut approver = IntegrationRequestServiceClient::new(harness.operator(Role::Approver));
    let (open, _) = registered_without_secret(&harness, by_key()).await;
    let joins = pb::SubmitIntegrationRequestRequest {
        client_id: open.client_id.clone(),
        security_profile: pb::SecurityProfile::Fapi20.into(),
        ..Default::default()
    };
    // Requests from the time before the algorithm changed, as far as they came.
    let submitted = ok(registrar
        .submit_integration_request(under_the_profile.clone())
        .await);
    let approve = pb::ApproveIntegrationRequestRequest {
        integration_request_id: submitted.integration_request.unwrap().integration_request_id,
    };
    let for_new = register(
        &harness.approved(under_the_profile.clone()).await,
        DeliveryMethod::Unspecified,
    );
    let for_known = pb::AmendClientRequest {
        integration_request_id: harness.approved(joins.clone()).await,
    };
    report(&harness, &["EdDSA", "RS256"]).await.unwrap();
    let answer = registrar
        .submit_integration_request(under_the_profile.clone())
        .await;
    assert_wrong_state(answer, "signing_key");
    assert_wrong_state(registrar.submit_integration_request(joins).await, "signing_key");
    let answer = approver.approve_integration_request(approve.clone()).await;
    assert_wrong_state(answer, "signing_key");
    assert_wrong_state(
        client(&harness).register_client(for_new.clone()).await,
        "signing_key",
    );
    assert_wrong_state(
        client(&harness).amend_client(for_known.clone()).await,
        "signing_key",
    );
    // What has nothing to do with the profile goes on.
    registered_without_secret(&harness, by_key()).await;

    report(&harness, &["PS256"]).await.unwrap();
    ok(approver.approve_integration_request(approve).await);
    let amended = ok(client(&harness).amend_client(for_known).await).client.unwrap();
    assert_wrong_state(report(&harness, &["RS256"]).await, "client");
    let leaves = pb::SubmitIntegrationRequestRequest {
        security_profile: pb::SecurityProfile::None.into(),
        ..Default::default()
    };
    harness.amend(&amended.client_id, leaves).await;
    report(&harness, &["RS256"]).await.unwrap();
    assert_wrong_state(client(&harness).register_client(for_new).await, "signing_key");
    // Each report that changed something is an event.
    let events = harness.audit_events("signing_algorithms.report").await;
    let told: Vec<_> = events
        .iter()
        .rev()
        .map(|event| event.detail["new"].as_str())
        .collect();
    assert_eq!(told, ["EdDSA RS256", "PS256", "RS256"]);
    let many = vec!["EdDSA"; 11];
    assert_violations(report(&harness, &[]).await, &["algorithms"]);
    assert_violations(report(&harness, &many).await, &["algorithms"]);
    assert_violations(
        report(&harness, &["a b", ""]).await,
        &["algorithms[0]", "algorithms[1]"],
    );
}
