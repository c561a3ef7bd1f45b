//! Clients, their secrets and deliveries between messages and the nouns.

use accord::{
    clock::UnixMillis,
    registry::v1 as pb,
    text::{
        id::{ClientId, IntegrationRequestId, SecretId, TenantId},
        opaque::{OpaqueToken, TokenKind},
        page::{Page, PageRequest},
        validation::Violations,
    },
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{etag, integration_request, mask};
use crate::model::{
    client::{Client, ClientUpdate, Filter, NewClient, State},
    client_keys::ClientKeys,
    client_secret::{ClientSecret, NewSecret, Reason, Revocation},
    delivery::{Bundle, Link, Method, claim_url},
    integration_request::{Malformed, References},
    tenant::authority_url,
};

/// Reads a `RegisterClientRequest`.
///
/// # Errors
/// All violations.
pub fn register(request: &pb::RegisterClientRequest) -> Result<(NewClient, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let integration_request_id = v.check(
        "integration_request_id",
        IntegrationRequestId::parse(&request.integration_request_id),
    );
    let delivery = method(&mut v, request.delivery);
    match (request_id, integration_request_id, delivery) {
        (Some(request_id), Some(integration_request_id), Some(delivery)) => {
            let new = NewClient {
                integration_request_id,
                delivery,
            };
            Ok((new, request_id))
        }
        _ => Err(v),
    }
}

fn method(v: &mut Violations, delivery: i32) -> Option<Method> {
    match pb::DeliveryMethod::try_from(delivery) {
        Ok(pb::DeliveryMethod::Unspecified | pb::DeliveryMethod::Inline) => Some(Method::Inline),
        Ok(pb::DeliveryMethod::Link) => Some(Method::Link),
        Err(_) => {
            v.add("delivery", "must be a known method");
            None
        }
    }
}

/// Reads a client's id, where it is all that a message holds.
///
/// # Errors
/// The violation.
pub fn client_id(client_id: &str) -> Result<ClientId, Violations> {
    let mut v = Violations::default();
    v.check("client_id", ClientId::parse(client_id)).ok_or(v)
}

/// Reads a `ListClientsRequest`.
///
/// # Errors
/// All violations.
pub fn list(request: &pb::ListClientsRequest) -> Result<(Filter, PageRequest), Violations> {
    let mut v = Violations::default();
    let tenant_id = match request.tenant_id.as_str() {
        "" => Some(None),
        id => v.check("tenant_id", TenantId::parse(id)).map(Some),
    };
    let state = match pb::ClientState::try_from(request.state) {
        Ok(pb::ClientState::Unspecified) => Some(None),
        Ok(pb::ClientState::Active) => Some(Some(State::Active)),
        Ok(pb::ClientState::Suspended) => Some(Some(State::Suspended)),
        Err(_) => {
            v.add("state", "must be a known state");
            None
        }
    };
    let filters = [request.tenant_id.as_str(), &request.state.to_string()];
    let page = PageRequest::parse(
        &mut v,
        "clients",
        &filters,
        request.page_size,
        &request.page_token,
    );
    match (tenant_id, state, page) {
        (Some(tenant_id), Some(state), Some(page)) => Ok((Filter { tenant_id, state }, page)),
        _ => Err(v),
    }
}

/// Reads an `UpdateClientRequest`.
///
/// # Errors
/// All violations, and what the message refers to, for a check that these exist.
pub fn update(request: pb::UpdateClientRequest) -> Result<(ClientId, ClientUpdate), Malformed> {
    let mut v = Violations::default();
    let mut references = References {
        prefix: "client.",
        ..References::default()
    };
    let client = request.client.unwrap_or_default();
    let client_id = v.check("client.client_id", ClientId::parse(&client.client_id));
    let mut update = ClientUpdate {
        etag: etag(&client.etag),
        ..ClientUpdate::default()
    };
    let known = ["display_name", "redirect_uris", "scopes", "tenant_ids"];
    let mut paths = mask(&mut v, request.update_mask, &known);
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        match path.as_str() {
            "display_name" => {
                update.display_name = v.text("client.display_name", &client.display_name, 1..=200)
            }
            "redirect_uris" => {
                let uris =
                    integration_request::redirect_uris(&mut v, "client.redirect_uris", &client.redirect_uris);
                update.redirect_uris = Some(uris);
            }
            "scopes" => {
                update.scopes = Some(integration_request::scopes(
                    &mut v,
                    &mut references,
                    &client.scopes,
                ));
            }
            "tenant_ids" => {
                let ids = integration_request::tenant_ids(&mut v, &mut references, &client.tenant_ids);
                update.tenant_ids = Some(ids);
            }
            _ => {}
        }
    }
    match client_id {
        Some(client_id) if v.is_empty() => {
            update.references = references;
            Ok((client_id, update))
        }
        _ => Err(Malformed {
            violations: v,
            references,
        }),
    }
}

/// Reads a `SetClientKeysRequest`.
///
/// # Errors
/// All violations.
pub fn set_keys(request: &pb::SetClientKeysRequest) -> Result<(ClientId, ClientKeys), Violations> {
    let mut v = Violations::default();
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    match (client_id, ClientKeys::parse(&request.json_web_key_set)) {
        (Some(client_id), Ok(keys)) => Ok((client_id, keys)),
        (_, keys) => {
            v.extend(keys.err().unwrap_or_default());
            Err(v)
        }
    }
}

/// Reads a `CreateClientSecretRequest`; `now` bounds the end.
///
/// # Errors
/// All violations.
pub fn create_secret(
    request: &pb::CreateClientSecretRequest,
    now: UnixMillis,
) -> Result<(NewSecret, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    let expires_at = match &request.expire_time {
        None => Some(None),
        Some(time) => match UnixMillis::from_timestamp(time) {
            Some(end) if end > now => Some(Some(end)),
            _ => {
                v.add("expire_time", "must be in the future");
                None
            }
        },
    };
    let delivery = method(&mut v, request.delivery);
    match (request_id, client_id, expires_at, delivery) {
        (Some(request_id), Some(client_id), Some(expires_at), Some(delivery)) => {
            let new = NewSecret {
                client_id,
                expires_at,
                delivery,
            };
            Ok((new, request_id))
        }
        _ => Err(v),
    }
}

/// Reads a `ListClientSecretsRequest`.
///
/// # Errors
/// All violations.
pub fn list_secrets(request: &pb::ListClientSecretsRequest) -> Result<(ClientId, PageRequest), Violations> {
    let mut v = Violations::default();
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    let filters = [request.client_id.as_str()];
    let page = PageRequest::parse(
        &mut v,
        "client_secrets",
        &filters,
        request.page_size,
        &request.page_token,
    );
    match (client_id, page) {
        (Some(client_id), Some(page)) => Ok((client_id, page)),
        _ => Err(v),
    }
}

/// Reads a `RevokeClientSecretRequest`.
///
/// # Errors
/// All violations.
pub fn revoke_secret(request: &pb::RevokeClientSecretRequest) -> Result<Revocation, Violations> {
    let mut v = Violations::default();
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    let secret_id = v.check("secret_id", SecretId::parse(&request.secret_id));
    let reason = match pb::SecretRevocationReason::try_from(request.reason) {
        Ok(pb::SecretRevocationReason::Rotated) => Some(Reason::Rotated),
        Ok(pb::SecretRevocationReason::Compromised) => Some(Reason::Compromised),
        Ok(pb::SecretRevocationReason::Unspecified) | Err(_) => {
            v.add(
                "reason",
                "must be SECRET_REVOCATION_REASON_ROTATED or SECRET_REVOCATION_REASON_COMPROMISED",
            );
            None
        }
    };
    match (client_id, secret_id, reason) {
        (Some(client_id), Some(secret_id), Some(reason)) => Ok(Revocation {
            client_id,
            secret_id,
            reason,
            force: request.force,
        }),
        _ => Err(v),
    }
}

/// Reads a `CreateDeliveryRequest`.
///
/// # Errors
/// All violations.
pub fn create_delivery(request: &pb::CreateDeliveryRequest) -> Result<(ClientId, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    match (client_id, request_id) {
        (Some(client_id), Some(request_id)) => Ok((client_id, request_id)),
        _ => Err(v),
    }
}

/// Reads a `ClaimDeliveryRequest`.
///
/// # Errors
/// The violation.
pub fn claim(request: pb::ClaimDeliveryRequest) -> Result<OpaqueToken, Violations> {
    let mut v = Violations::default();
    let token = Zeroizing::new(request.claim_token);
    v.check("claim_token", OpaqueToken::parse(TokenKind::Claim, &token))
        .ok_or(v)
}

/// Writes a client.
pub fn message(client: Client) -> pb::Client {
    let scopes = client.scopes.into_iter().map(integration_request::scope_message);
    pb::Client {
        client_id: client.client_id.into(),
        display_name: client.presentation.display_name,
        partner_name: client.presentation.partner_name,
        purpose: client.presentation.goals,
        integration_request_id: client.integration_request_id.into(),
        tenant_ids: client.tenant_ids.into_iter().map(String::from).collect(),
        scopes: scopes.collect(),
        redirect_uris: client.redirect_uris,
        state: state(client.state).into(),
        create_time: Some(client.created_at.to_timestamp()),
        update_time: Some(client.updated_at.to_timestamp()),
        etag: client.etag.to_string(),
        json_web_key_set: client.json_web_key_set,
    }
}

/// Writes a client's state.
pub fn state(state: State) -> pb::ClientState {
    match state {
        State::Active => pb::ClientState::Active,
        State::Suspended => pb::ClientState::Suspended,
    }
}

/// Writes a page of clients.
pub fn list_response(clients: Page<Client>) -> pb::ListClientsResponse {
    let page = clients.map(message);
    pb::ListClientsResponse {
        clients: page.items,
        next_page_token: page.next_page_token,
    }
}

/// Writes what is known of a secret.
pub fn secret(secret: ClientSecret) -> pb::ClientSecret {
    let reason = match secret.revoked {
        Some((_, Reason::Compromised)) => pb::SecretRevocationReason::Compromised,
        Some((_, Reason::Rotated)) => pb::SecretRevocationReason::Rotated,
        // A link that ended unopened is nobody's reason: the secret never lived.
        Some((_, Reason::Unclaimed)) | None => pb::SecretRevocationReason::Unspecified,
    };
    pb::ClientSecret {
        secret_id: secret.secret_id.into(),
        client_id: secret.client_id.into(),
        create_time: Some(secret.created_at.to_timestamp()),
        expire_time: secret.expires_at.map(UnixMillis::to_timestamp),
        last_use_time: secret.last_used_at.map(UnixMillis::to_timestamp),
        revoke_time: secret.revoked.map(|(at, _)| at.to_timestamp()),
        revocation_reason: reason.into(),
        claimed: !secret.awaiting_claim,
    }
}

/// Writes a page of secrets.
pub fn list_secrets_response(secrets: Page<ClientSecret>) -> pb::ListClientSecretsResponse {
    let page = secrets.map(secret);
    pb::ListClientSecretsResponse {
        secrets: page.items,
        next_page_token: page.next_page_token,
    }
}

/// Writes a bundle.
pub fn bundle(bundle: Bundle, public_base_url: &str) -> pb::CredentialBundle {
    let endpoints = bundle.endpoints.into_iter().map(|endpoint| pb::Endpoint {
        tenant_authority_url: authority_url(public_base_url, &endpoint.tenant_id),
        tenant_id: endpoint.tenant_id.into(),
        cloud_api_url: endpoint.cloud_api_url,
    });
    pb::CredentialBundle {
        client_id: bundle.client_id.into(),
        client_secret: bundle.client_secret.expose().to_owned(),
        endpoints: endpoints.collect(),
    }
}

/// Writes a link.
pub fn link(link: Link, public_base_url: &str) -> pb::DeliveryLink {
    pb::DeliveryLink {
        url: claim_url(public_base_url, &link.claim_token),
        claim_token: link.claim_token.expose().to_owned(),
        expire_time: Some(link.expires_at.to_timestamp()),
        delivery_id: link.delivery_id.into(),
    }
}
