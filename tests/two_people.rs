//! Two persons bring a partner and a Tenant Admin in, as `serve` requires by default: one creates, the other approves and
//! releases, and what one of them holds opens nothing, neither by RPC nor on the pages.

use accord::{
    registry::v1::{
        self as reg, client_service_client::ClientServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        provisioning_service_client::ProvisioningServiceClient, user_service_client::UserServiceClient,
    },
    rpc::channel::HopChannel,
    rpc::status::{ErrorReason, reason_of},
    testing::calls::ok,
};
use accord_cli::call;
use tonic::{Code, Status};

use crate::harness::{
    partner::{Partner, World, own_grant},
    services::Services,
};

tests!(two_persons_bring_a_partner_in_and_one_does_not);

const PASSWORD: &str = "correct horse battery staple";

#[track_caller]
fn rejected<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: ErrorReason) {
    let status = answer.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status)),
        (code, Some(reason)),
        "{status:?}"
    );
}

async fn two_persons_bring_a_partner_in_and_one_does_not() {
    let databases = [accord::testing::sqlite(), accord::testing::sqlite()];
    let services = Services::start(&databases[0].url, &databases[1].url).await;
    let (registry, address) = services.registry_with_second_operator();
    let operator = |name: &str, roles: &[&str], person: &str| -> HopChannel {
        let mut arguments = vec!["operator", "create", name, "--person", person];
        for role in roles {
            arguments.extend(["--role", role]);
        }
        call::with_token(&address, &services.run_registry(&arguments)).unwrap()
    };
    let grace = operator(
        "grace",
        &["registrar", "approver", "security", "auditor"],
        "Grace Hopper",
    );
    let laptop = operator("grace-laptop", &["approver"], "grace hopper");
    let ada = operator("ada", &["approver"], "Ada Lovelace");
    let target = &services.target;
    let world = World::new(target);

    let scope = reg::RequestedScope {
        name: "contacts.read".into(),
        reason: "to read contacts".into(),
    };
    let submit = reg::SubmitIntegrationRequestRequest {
        partner_name: "Partner".into(),
        contact_email: "dev@partner.example".into(),
        goals: "To be tested.".into(),
        tenant_ids: vec![target.tenant_id.clone()],
        scopes: vec![scope],
        redirect_uris: vec![crate::harness::partner::REDIRECT_URI.into()],
        ..Default::default()
    };
    let mut requests = IntegrationRequestServiceClient::new(grace.clone());
    let submitted = ok(requests.submit_integration_request(submit).await);
    let integration_request_id = submitted.integration_request.unwrap().integration_request_id;
    let approve = reg::ApproveIntegrationRequestRequest {
        integration_request_id: integration_request_id.clone(),
    };
    let second = ErrorReason::SecondOperatorRequired;
    for same in [&grace, &laptop] {
        let mut requests = IntegrationRequestServiceClient::new(same.clone());
        let approved = requests.approve_integration_request(approve.clone()).await;
        rejected(approved, Code::PermissionDenied, second);
    }
    let mut requests = IntegrationRequestServiceClient::new(ada.clone());
    ok(requests.approve_integration_request(approve).await);

    let mut clients = ClientServiceClient::new(grace.clone());
    let mut register = reg::RegisterClientRequest {
        integration_request_id,
        ..Default::default()
    };
    let inline = clients.register_client(register.clone()).await;
    rejected(inline, Code::InvalidArgument, ErrorReason::InvalidFields);
    register.delivery = reg::DeliveryMethod::Link.into();
    let registered = ok(clients.register_client(register).await);
    let Some(reg::register_client_response::Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };

    // The page of the other registry, which has the setting off, opens no link that waits for its release.
    let http = reqwest::Client::new();
    let open = async |release_code: &str| {
        let form = [("release_code", release_code)];
        let page = http.post(&link.url).form(&form).send().await.unwrap();
        (page.status().as_u16(), page.text().await.unwrap())
    };
    let form = http.get(&link.url).send().await.unwrap().text().await.unwrap();
    assert!(form.contains(r#"name="release_code""#), "{form}");
    assert_eq!(open("").await.0, 410);
    let release = reg::ReleaseDeliveryRequest {
        delivery_id: link.delivery_id.clone(),
    };
    let mut provisioning = ProvisioningServiceClient::new(laptop.clone());
    let same_person = provisioning.release_delivery(release.clone()).await;
    rejected(same_person, Code::PermissionDenied, second);
    let mut provisioning = ProvisioningServiceClient::new(ada.clone());
    let code = ok(provisioning.release_delivery(release).await).release_code;
    let wrong = if code == "0000-0000" {
        "1111-1111"
    } else {
        "0000-0000"
    };
    let (status, told) = open(wrong).await;
    assert_eq!(status, 410);
    assert!(!told.contains("acs_") && !told.contains(&code));
    let (status, shown) = open(&code.to_lowercase()).await;
    assert_eq!(status, 200, "{shown}");
    let at = shown.find("acs_").expect("a Client Secret");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let client_secret: String = shown[at..].chars().take_while(|c| is_part(*c)).collect();

    // A Tenant Admin, whose account Grace alone can't take.
    let mut users = UserServiceClient::new(grace.clone());
    let register = reg::RegisterUserRequest {
        tenant_id: target.tenant_id.clone(),
        account_name: "new.admin@demo-firm.example".into(),
        label: "Administrator 2".into(),
        tenant_admin: true,
        ..Default::default()
    };
    let invited = ok(users.register_user(register).await);
    let release = reg::ReleaseEnrolmentRequest {
        tenant_id: target.tenant_id.clone(),
        user_id: invited.user.unwrap().user_id,
    };
    rejected(
        users.release_enrolment(release.clone()).await,
        Code::PermissionDenied,
        second,
    );
    let mut anyone = UserServiceClient::new(call::open(&target.registry_grpc).unwrap());
    let mut complete = reg::CompleteEnrolmentRequest {
        enrolment_token: invited.enrolment_token,
        password: PASSWORD.into(),
        ..Default::default()
    };
    let alone = anyone.complete_enrolment(complete.clone()).await;
    rejected(alone, Code::FailedPrecondition, ErrorReason::LinkInvalid);
    let mut approver = UserServiceClient::new(ada.clone());
    complete.release_code = ok(approver.release_enrolment(release).await).release_code;
    ok(anyone.complete_enrolment(complete).await);

    // The partner and the new Tenant Admin are in.
    let partner = Partner {
        client_id: registered.client.unwrap().client_id,
        client_secret,
    };
    let mut target = target.clone();
    target.admin_account_name = "new.admin@demo-firm.example".into();
    target.admin_password = PASSWORD.into();
    let tokens = World::new(&target).first_tokens(&partner).await;
    assert!(world.active(&tokens.access_token).await);
    assert_eq!(tokens.scope, "contacts.read");
    let own = world.issue(&partner, own_grant()).await.unwrap();
    assert!(world.active(&own.access_token).await);

    // Nor does one person widen the client.
    let amend = reg::SubmitIntegrationRequestRequest {
        client_id: partner.client_id,
        redirect_uris: vec!["https://elsewhere.example/callback".into()],
        ..Default::default()
    };
    let mut requests = IntegrationRequestServiceClient::new(grace.clone());
    let submitted = ok(requests.submit_integration_request(amend).await);
    let integration_request_id = submitted.integration_request.unwrap().integration_request_id;
    let approve = reg::ApproveIntegrationRequestRequest {
        integration_request_id: integration_request_id.clone(),
    };
    let alone = requests.approve_integration_request(approve.clone()).await;
    rejected(alone, Code::PermissionDenied, second);
    let amend = reg::AmendClientRequest {
        integration_request_id,
    };
    let early = clients.amend_client(amend.clone()).await;
    rejected(early, Code::FailedPrecondition, ErrorReason::WrongState);
    ok(IntegrationRequestServiceClient::new(ada)
        .approve_integration_request(approve)
        .await);
    let client = ok(clients.amend_client(amend).await).client.unwrap();
    assert_eq!(client.redirect_uris.len(), 2);

    let plain = code.replace('-', "");
    for process in [&services.registry, &registry, &services.token] {
        let log = process.stderr();
        assert!(
            !log.contains(&code) && !log.contains(&plain),
            "a release code in a log"
        );
    }
}
