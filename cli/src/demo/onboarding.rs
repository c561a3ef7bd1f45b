//! Steps 1 to 3: from a partner's request to its credentials.

use accord::registry::v1::{
    self as pb, client_service_client::ClientServiceClient,
    integration_request_service_client::IntegrationRequestServiceClient,
    provisioning_service_client::ProvisioningServiceClient, register_client_response::Credentials,
};
use anyhow::{Context, ensure};

use super::narrator::{Narrator, masked};
use crate::{
    call::{answer, open, with_token},
    dev_file::DevFile,
};

/// The partner's redirect URI.
pub const REDIRECT_URI: &str = "https://fileharbour.example/oauth/callback";
/// The scopes that the partner requests, with its reasons.
pub const SCOPES: [(&str, &str); 2] = [
    (
        "contacts.read",
        "To file each document under the client it belongs to.",
    ),
    (
        "matters.read",
        "To offer the open matters when a document is filed.",
    ),
];

/// Records the partner's request, and returns its id.
pub async fn collect(target: &DevFile, say: &mut Narrator<'_>) -> anyhow::Result<String> {
    let mut requests =
        IntegrationRequestServiceClient::new(with_token(&target.registry_grpc, &target.operator_token)?);
    let scope = |(name, reason): (&str, &str)| pb::RequestedScope {
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    let request = pb::SubmitIntegrationRequestRequest {
        partner_name: "Fileharbour GmbH".to_owned(),
        display_name: "Fileharbour".to_owned(),
        contact_email: "integrations@fileharbour.example".to_owned(),
        goals: "File documents straight into the right matter.".to_owned(),
        tenant_ids: vec![target.tenant_id.clone()],
        scopes: SCOPES.into_iter().map(scope).collect(),
        redirect_uris: vec![REDIRECT_URI.to_owned()],
        ..Default::default()
    };
    let mut fields = vec![
        ("partner_name", request.partner_name.as_str()),
        ("display_name", &request.display_name),
        ("goals", &request.goals),
        ("tenant_ids", &target.tenant_id),
        ("redirect_uris", REDIRECT_URI),
    ];
    fields.extend(SCOPES);
    say.sent(
        "operator",
        "IntegrationRequestService.SubmitIntegrationRequest",
        &fields,
    )?;
    let response = requests.submit_integration_request(request.clone()).await;
    let recorded = answer("SubmitIntegrationRequest", response)?
        .integration_request
        .context("no request in the response")?;
    say.got(&[
        ("integration_request_id", &recorded.integration_request_id),
        ("state", recorded.state().as_str_name()),
    ])?;
    ensure!(
        recorded.state() == pb::IntegrationRequestState::Submitted,
        "it must be SUBMITTED"
    );
    Ok(recorded.integration_request_id)
}

/// Approves the request and registers the client. Returns the one-time link to its credentials.
pub async fn register(
    target: &DevFile,
    say: &mut Narrator<'_>,
    integration_request_id: &str,
) -> anyhow::Result<pb::DeliveryLink> {
    let channel = with_token(&target.registry_grpc, &target.operator_token)?;
    let id = ("integration_request_id", integration_request_id);
    say.sent(
        "operator",
        "IntegrationRequestService.ApproveIntegrationRequest",
        &[id],
    )?;
    let request = pb::ApproveIntegrationRequestRequest {
        integration_request_id: integration_request_id.to_owned(),
    };
    let mut requests = IntegrationRequestServiceClient::new(channel.clone());
    let response = requests.approve_integration_request(request).await;
    let approved = answer("ApproveIntegrationRequest", response)?
        .integration_request
        .context("no request in the response")?;
    say.got(&[("state", approved.state().as_str_name())])?;

    say.sent(
        "operator",
        "ClientService.RegisterClient",
        &[id, ("delivery", "DELIVERY_METHOD_LINK")],
    )?;
    let request = pb::RegisterClientRequest {
        request_id: String::new(),
        integration_request_id: integration_request_id.to_owned(),
        delivery: pb::DeliveryMethod::Link.into(),
    };
    let response = ClientServiceClient::new(channel).register_client(request).await;
    let registered = answer("RegisterClient", response)?;
    let client = registered.client.context("no client in the response")?;
    let Some(Credentials::DeliveryLink(link)) = registered.credentials else {
        anyhow::bail!("no link in the response");
    };
    say.got(&[
        ("client_id", &client.client_id),
        ("state", client.state().as_str_name()),
        ("delivery_link.claim_token", &masked(&link.claim_token)),
    ])?;
    Ok(link)
}

/// Opens the link, and checks that it opens only once.
pub async fn provision(
    target: &DevFile,
    say: &mut Narrator<'_>,
    link: &pb::DeliveryLink,
) -> anyhow::Result<pb::CredentialBundle> {
    let mut provisioning = ProvisioningServiceClient::new(open(&target.registry_grpc)?);
    let request = pb::ClaimDeliveryRequest {
        claim_token: link.claim_token.clone(),
        ..Default::default()
    };
    let token = masked(&link.claim_token);
    say.sent(
        "partner",
        "ProvisioningService.ClaimDelivery",
        &[("claim_token", &token)],
    )?;
    let response = provisioning.claim_delivery(request.clone()).await;
    let bundle = answer("ClaimDelivery", response)?
        .bundle
        .context("no bundle in the response")?;
    let endpoint = bundle.endpoints.first().context("no endpoint in the bundle")?;
    say.got(&[
        ("client_id", &bundle.client_id),
        ("client_secret", &masked(&bundle.client_secret)),
        ("tenant_authority_url", &endpoint.tenant_authority_url),
        ("cloud_api_url", &endpoint.cloud_api_url),
    ])?;
    ensure!(
        endpoint.tenant_authority_url == target.tenant_authority_url,
        "the bundle must name the tenant's authority"
    );

    say.sent(
        "partner",
        "ProvisioningService.ClaimDelivery, again",
        &[("claim_token", &token)],
    )?;
    match provisioning.claim_delivery(request).await {
        Ok(_) => anyhow::bail!("a one-time link opened twice"),
        Err(status) => say.got(&[("rejected", &format!("{:?}", status.code()))])?,
    }
    Ok(bundle)
}
