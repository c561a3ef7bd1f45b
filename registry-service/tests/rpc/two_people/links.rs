//! Credentials go by links, which open with the code of a second person.

use super::*;

#[tokio::test]
async fn credentials_go_by_a_link_and_open_with_the_code_of_a_second_person() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let mut registrar = ClientServiceClient::new(harness.operator(Role::Registrar));
    let approved = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = |delivery| register(&approved.integration_request_id, delivery);
    for inline in [pb::DeliveryMethod::Unspecified, pb::DeliveryMethod::Inline] {
        let refused = registrar.register_client(register(inline)).await;
        assert_violations(refused, &["delivery"]);
        let secret = pb::CreateClientSecretRequest {
            client_id: crate::client::UNKNOWN.into(),
            delivery: inline.into(),
            ..Default::default()
        };
        assert_violations(registrar.create_client_secret(secret).await, &["delivery"]);
    }
    let registered = ok(registrar
        .register_client(register(pb::DeliveryMethod::Link))
        .await);
    let Some(pb::register_client_response::Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };
    let claim = async |release_code: &str| {
        let request = pb::ClaimDeliveryRequest {
            claim_token: link.claim_token.clone(),
            release_code: release_code.into(),
            ..Default::default()
        };
        let mut partner = ProvisioningServiceClient::new(harness.anonymous());
        partner.claim_delivery(request).await.map(Response::into_inner)
    };
    let nothing_told = |answer: Result<pb::ClaimDeliveryResponse, Status>| {
        let metadata = assert_rejected(answer, Code::FailedPrecondition, "LINK_INVALID");
        assert_eq!(metadata, Default::default());
    };
    nothing_told(claim("").await);
    assert_violations(claim("7KQ2-M9X").await, &["release_code"]);
    let release = pb::ReleaseDeliveryRequest {
        delivery_id: link.delivery_id.clone(),
    };
    // Whoever created it has no role for the release, or is the same person.
    let refused = ProvisioningServiceClient::new(harness.operator(Role::Registrar))
        .release_delivery(release.clone())
        .await;
    assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    let mut admin = ProvisioningServiceClient::new(harness.operator(Role::Admin));
    let deliver = pb::CreateDeliveryRequest {
        client_id: registered.client.unwrap().client_id,
        ..Default::default()
    };
    let other = ok(admin.create_delivery(deliver).await).delivery_link.unwrap();
    let refused = admin
        .release_delivery(pb::ReleaseDeliveryRequest {
            delivery_id: other.delivery_id,
        })
        .await;
    assert_rejected(refused, Code::PermissionDenied, "SECOND_OPERATOR_REQUIRED");
    // A new link has ended the one before.
    let mut approver = ProvisioningServiceClient::new(harness.operator(Role::Approver));
    let metadata = assert_rejected(
        approver.release_delivery(release).await,
        Code::FailedPrecondition,
        "WRONG_STATE",
    );
    assert_eq!(
        (&*metadata["resource"], &*metadata["state"]),
        ("delivery", "ENDED")
    );
    nothing_told(claim("").await);
    for (id, code, reason) in [
        ("dlv_01k9zzzzzzzzzzzzzzzzzzzzzz", Code::NotFound, "NOT_FOUND"),
        ("dlv_1", Code::InvalidArgument, "INVALID_FIELDS"),
    ] {
        let release = pb::ReleaseDeliveryRequest {
            delivery_id: id.into(),
        };
        assert_rejected(approver.release_delivery(release).await, code, reason);
    }
}

#[tokio::test]
async fn a_release_code_opens_links_in_whatever_form_it_is_typed() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let approved = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = register(&approved.integration_request_id, pb::DeliveryMethod::Link);
    let mut registrar = ClientServiceClient::new(harness.operator(Role::Registrar));
    let registered = ok(registrar.register_client(register).await);
    let Some(pb::register_client_response::Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };
    let mut approver = ProvisioningServiceClient::new(harness.operator(Role::Approver));
    let delivery_id = link.delivery_id;
    let released = approver
        .release_delivery(pb::ReleaseDeliveryRequest { delivery_id })
        .await;
    let released = ok(released);
    // What the approver compares before passing the code on.
    assert_eq!(released.client_id, registered.client.as_ref().unwrap().client_id);
    assert_eq!(
        released.client_display_name,
        registered.client.as_ref().unwrap().display_name
    );
    assert_eq!(released.contact_email, "dev@partner.example");
    assert!(!released.creator.is_empty() && released.create_time.is_some());
    let code = released.release_code;
    assert_eq!((code.len(), &code[4..5]), (9, "-"), "two groups of four");
    let claim = pb::ClaimDeliveryRequest {
        claim_token: link.claim_token,
        release_code: code.replace('-', " ").to_lowercase(),
        ..Default::default()
    };
    let mut partner = ProvisioningServiceClient::new(harness.anonymous());
    let bundle = ok(partner.claim_delivery(claim).await).bundle.unwrap();
    let client_id = registered.client.unwrap().client_id;
    let authenticated = crate::client::authenticate(&harness, &client_id, &bundle.client_secret).await;
    assert!(authenticated.is_ok());

    let mut users = UserServiceClient::new(harness.operator(Role::Registrar));
    let register = pb::RegisterUserRequest {
        tenant_id: "acme".into(),
        account_name: "ada".into(),
        label: "Administrator 1".into(),
        tenant_admin: true,
        ..Default::default()
    };
    let registered = ok(users.register_user(register).await);
    let user = registered.user.unwrap();
    let release = pb::ReleaseEnrolmentRequest {
        tenant_id: "acme".into(),
        user_id: user.user_id.clone(),
    };
    let mut approver = UserServiceClient::new(harness.operator(Role::Approver));
    let released = ok(approver.release_enrolment(release).await);
    assert_eq!(released.label, "Administrator 1");
    assert!(!released.creator.is_empty() && released.create_time.is_some());
    let code = released.release_code;
    let enrol = async |release_code: &str| {
        let request = pb::CompleteEnrolmentRequest {
            enrolment_token: registered.enrolment_token.clone(),
            password: PASSWORD.into(),
            release_code: release_code.into(),
            ..Default::default()
        };
        UserServiceClient::new(harness.anonymous())
            .complete_enrolment(request)
            .await
    };
    let metadata = assert_rejected(enrol("").await, Code::FailedPrecondition, "LINK_INVALID");
    assert_eq!(metadata, Default::default());
    enrol(&code.replace('-', "")).await.unwrap();
    for (tenant_id, user_id, code, reason) in [
        ("acme", &*user.user_id, Code::FailedPrecondition, "WRONG_STATE"),
        (
            "acme",
            "usr_01k9zzzzzzzzzzzzzzzzzzzzzz",
            Code::NotFound,
            "NOT_FOUND",
        ),
        ("globex", &*user.user_id, Code::NotFound, "NOT_FOUND"),
        ("", "", Code::InvalidArgument, "INVALID_FIELDS"),
    ] {
        let release = pb::ReleaseEnrolmentRequest {
            tenant_id: tenant_id.into(),
            user_id: user_id.into(),
        };
        assert_rejected(approver.release_enrolment(release).await, code, reason);
    }
}
