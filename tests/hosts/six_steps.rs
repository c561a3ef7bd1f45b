//! The six steps through the three-host form: an operator and a partner, the Tenant Admin's pages in a browser, tokens,
//! renewal, and a resource server.

use accord::{
    registry::v1::{
        self as reg, integration_request_service_client::IntegrationRequestServiceClient,
        register_client_response::Credentials,
    },
    testing::calls::ok,
};
use reqwest::{Client, Url};
use serde_json::Value;

use super::{identities, installation::Installation};
use crate::{
    browser::partner_site::PartnerSite,
    harness::{browser::Browser, partner::World},
};

tests_on_hosts!(the_six_steps_lead_through_every_host_and_a_revoked_certificate_through_none);

/// A PKCE pair.
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more";

/// Collects a request, approves it, and registers the client. Returns the one-time link to its credentials.
async fn register(world: &World, redirect_uri: &str) -> String {
    let mut requests = IntegrationRequestServiceClient::new(world.operator.clone());
    let request = reg::SubmitIntegrationRequestRequest {
        partner_name: "Fileharbour GmbH".into(),
        display_name: "Fileharbour Desktop".into(),
        contact_email: "integrations@fileharbour.example".into(),
        goals: "File documents into the right matter.".into(),
        tenant_ids: vec![world.target.tenant_id.clone()],
        scopes: vec![reg::RequestedScope {
            name: "contacts.read".into(),
            reason: "To file each document under its client.".into(),
        }],
        redirect_uris: vec![redirect_uri.into()],
        ..Default::default()
    };
    let submitted = ok(requests.submit_integration_request(request).await);
    let integration_request_id = submitted.integration_request.unwrap().integration_request_id;
    let request = reg::ApproveIntegrationRequestRequest {
        integration_request_id: integration_request_id.clone(),
    };
    ok(requests.approve_integration_request(request).await);
    let request = reg::RegisterClientRequest {
        integration_request_id,
        delivery: reg::DeliveryMethod::Link.into(),
        ..Default::default()
    };
    let registered = ok(world.clients().register_client(request).await);
    let Some(Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };
    link.url
}

async fn post(
    client: &Client,
    issuer: &str,
    endpoint: &str,
    of: (&str, &str),
    form: &[(&str, &str)],
) -> Value {
    let request = client.post(format!("{issuer}/oauth2/{endpoint}"));
    let answer = request
        .basic_auth(of.0, Some(of.1))
        .form(form)
        .send()
        .await
        .unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{endpoint}: {body}");
    body
}

async fn the_six_steps_lead_through_every_host_and_a_revoked_certificate_through_none() {
    let installation = Installation::start().await;
    let world = installation.world();
    let (browser, site) = (Browser::start().await, PartnerSite::start().await);
    let link = register(&world, &site.redirect_uri()).await;
    assert!(link.starts_with("https://auth.example/claim/"), "{link}");

    browser.open(&link).await;
    browser.press("Show the credentials").await;
    let mut shown = Vec::new();
    for field in ["#client_id", "#client_secret", "#tenant_authority_url-0"] {
        shown.push(browser.see(field).await.value().await.unwrap().unwrap());
    }
    let (client_id, client_secret, issuer) = (&*shown[0], &*shown[1], &*shown[2]);

    let mut url: Url = format!("{issuer}/oauth2/authorize").parse().unwrap();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client_id)
        .append_pair("redirect_uri", &site.redirect_uri())
        .append_pair("state", "state-1")
        .append_pair("code_challenge", &crate::harness::partner::challenge(VERIFIER))
        .append_pair("code_challenge_method", "S256");
    browser.open(&site.connect_page(&url)).await;
    browser.press("Connect").await;
    browser.arrive("Sign in").await;
    browser
        .fill("account_name", &world.target.admin_account_name)
        .await;
    browser.fill("password", &world.target.admin_password).await;
    browser.press("Sign in").await;
    browser.arrive("asks for access").await;
    let user = &world.target.api_user_account_name;
    browser.fill("designated_account_name", user).await;
    browser.press("Approve access").await;
    browser.arrive("Back at the partner").await;
    let received = site.received().remove(0);
    browser.quit().await;

    let client = installation.client(None);
    let of = (client_id, client_secret);
    let form = [
        ("grant_type", "authorization_code"),
        ("code", received.get("code")),
        ("redirect_uri", &site.redirect_uri()),
        ("code_verifier", VERIFIER),
    ];
    let first = post(&client, issuer, "token", of, &form).await;
    let refresh_token = first["refresh_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    let renewed = post(&client, issuer, "token", of, &form).await;
    let own = post(
        &client,
        issuer,
        "token",
        of,
        &[("grant_type", "client_credentials")],
    )
    .await;

    for issued in [&first, &renewed, &own] {
        let token = issued["access_token"].as_str().unwrap();
        let introspected = post(&client, issuer, "introspect", of, &[("token", token)]).await;
        assert_eq!(introspected["active"], true, "{introspected}");
        assert!(world.active(token).await);
        let answer = installation
            .resource_server
            .get(&client, token)
            .send()
            .await
            .unwrap();
        let resource: Value = answer.error_for_status().unwrap().json().await.unwrap();
        assert_eq!(resource["client_id"], client_id);
    }
    let token = own["access_token"].as_str().unwrap();
    identities::follow_the_list(&installation, &client, token).await;
}
