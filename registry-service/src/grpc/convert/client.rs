//! Clients, their secrets and deliveries.

use accord::{
    clock::UnixMillis,
    registry::v1 as pb,
    text::{
        id::{ClientId, IntegrationRequestId, SecretId, TenantId},
        opaque::{OpaqueToken, TokenKind},
        page::PageRequest,
        release_code::ReleaseCode,
        validation::Violations,
    },
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Result, UpdateMask, etag,
    integration_request::{redirect_uris, scope_message, scopes, tenant_ids},
    security::{allowed_networks, dpop_jkts, security_profile, with_security},
};
use crate::model::{
    client::{Client, ClientUpdate, State},
    client_keys::ClientKeys,
    client_secret::{ClientSecret, NewSecret, Reason, Revocation},
    delivery::{Bundle, Link, Method, claim_url},
    integration_request::References,
    tenant::authority_url,
};

accord::message_enum!(State = pb::ClientState { Active, Suspended });
accord::message_enum!(Method = pb::DeliveryMethod { Inline, Link });

/// Reads a `ClaimDeliveryRequest`.
pub fn claim(request: pb::ClaimDeliveryRequest) -> Result<(OpaqueToken, Option<Uuid>, Option<ReleaseCode>)> {
    let mut v = Violations::default();
    let token = Zeroizing::new(request.claim_token);
    let token = v.check("claim_token", OpaqueToken::parse(TokenKind::Claim, &token));
    let request_id = v.request_id("request_id", &request.request_id);
    let code = Zeroizing::new(request.release_code);
    let code = v.optional("release_code", &code, ReleaseCode::parse);
    v.finish(|| Some((token?, request_id?, code?)))
}

/// Reads a `RegisterClientRequest`. `second_operator` is the setting of that name. Returns no way of delivery for a client that
/// gets no secret, whatever the message says: there is nothing secret to hand over.
pub fn register(
    request: &pb::RegisterClientRequest,
    has_secret: bool,
    second_operator: bool,
) -> Result<(IntegrationRequestId, Option<Method>, Option<Uuid>)> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let id = IntegrationRequestId::parse(&request.integration_request_id);
    let id = v.check("integration_request_id", id);
    let delivery = method(&mut v, request.delivery, second_operator && has_secret);
    v.finish(|| Some((id?, has_secret.then_some(delivery?), request_id?)))
}

/// Reads how to hand credentials over. UNSPECIFIED means INLINE. With a second operator, the one who creates credentials
/// does not see them.
fn method(v: &mut Violations, delivery: i32, second_operator: bool) -> Option<Method> {
    let method = v.filter::<pb::DeliveryMethod, _>("delivery", delivery)?;
    match method.unwrap_or(Method::Inline) {
        Method::Inline if second_operator => {
            v.add(
                "delivery",
                "must be DELIVERY_METHOD_LINK, because a second operator is required",
            );
            None
        }
        method => Some(method),
    }
}

/// Reads a `ListClientsRequest`.
pub fn list(request: &pb::ListClientsRequest) -> Result<(Option<TenantId>, Option<State>, PageRequest)> {
    let mut v = Violations::default();
    let tenant_id = v.optional("tenant_id", &request.tenant_id, TenantId::parse);
    let state = v.filter::<pb::ClientState, _>("state", request.state);
    let filters = [request.tenant_id.as_str(), &request.state.to_string()];
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "clients", &filters, size, token);
    v.finish(|| Some((tenant_id?, state?, page?)))
}

/// Reads an `UpdateClientRequest`.
pub fn update(request: pb::UpdateClientRequest) -> Result<(ClientId, ClientUpdate)> {
    let mut v = Violations::default();
    let mut references = References {
        prefix: "client.",
        ..References::default()
    };
    let client = request.client.unwrap_or_default();
    let client_id = v.check("client.client_id", ClientId::parse(&client.client_id));
    let known = [
        "allowed_networks",
        "dpop_jkts",
        "redirect_uris",
        "scopes",
        "tenant_ids",
    ];
    let mask = UpdateMask::parse(&mut v, request.update_mask, &known);
    let update = ClientUpdate {
        etag: etag(&client.etag),
        redirect_uris: mask.read("redirect_uris", || {
            Some(redirect_uris(
                &mut v,
                "client.redirect_uris",
                &client.redirect_uris,
                1,
            ))
        }),
        scopes: mask.read("scopes", || {
            // An empty reason stands for the stored one.
            Some(scopes(&mut v, &mut references, &client.scopes, 1, 0..=1000))
        }),
        tenant_ids: mask.read("tenant_ids", || {
            Some(tenant_ids(&mut v, &mut references, &client.tenant_ids, 1))
        }),
        dpop_jkts: mask.read("dpop_jkts", || {
            Some(dpop_jkts(&mut v, "client.dpop_jkts", &client.dpop_jkts, 1))
        }),
        allowed_networks: mask.read("allowed_networks", || {
            allowed_networks(&mut v, "client.", &client.allowed_networks)
        }),
        ..ClientUpdate::default()
    };
    v.finish(|| Some((client_id?, update)))
}

/// Reads a `SetClientKeysRequest`.
pub fn set_keys(request: &pb::SetClientKeysRequest) -> Result<(ClientId, ClientKeys)> {
    let mut v = Violations::default();
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    let keys = v.merge(ClientKeys::parse(&request.json_web_key_set));
    v.finish(|| Some((client_id?, keys?)))
}

/// Reads a `CreateClientSecretRequest`. Rejects an `expire_time` that is not after `now`. `second_operator` is the setting
/// of that name.
pub fn create_secret(
    request: &pb::CreateClientSecretRequest,
    now: UnixMillis,
    second_operator: bool,
) -> Result<(NewSecret, Option<Uuid>)> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    let expires_at = v.future_time("expire_time", request.expire_time.as_ref(), now);
    let delivery = method(&mut v, request.delivery, second_operator);
    v.finish(|| {
        let new = NewSecret {
            client_id: client_id?,
            expires_at: expires_at?,
            delivery: delivery?,
        };
        Some((new, request_id?))
    })
}

/// Reads a `ListClientSecretsRequest`.
pub fn list_secrets(request: &pb::ListClientSecretsRequest) -> Result<(ClientId, PageRequest)> {
    let mut v = Violations::default();
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "client_secrets", &[&request.client_id], size, token);
    v.finish(|| Some((client_id?, page?)))
}

/// Reads a `RevokeClientSecretRequest`.
pub fn revoke_secret(request: &pb::RevokeClientSecretRequest) -> Result<Revocation> {
    let mut v = Violations::default();
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    let secret_id = v.check("secret_id", SecretId::parse(&request.secret_id));
    let reason = match pb::SecretRevocationReason::try_from(request.reason) {
        Ok(pb::SecretRevocationReason::Rotated) => Ok(Reason::Rotated),
        Ok(pb::SecretRevocationReason::Compromised) => Ok(Reason::Compromised),
        _ => Err("must be SECRET_REVOCATION_REASON_ROTATED or SECRET_REVOCATION_REASON_COMPROMISED"),
    };
    let reason = v.check("reason", reason);
    v.finish(|| {
        Some(Revocation {
            client_id: client_id?,
            secret_id: secret_id?,
            reason: reason?,
            force: request.force,
        })
    })
}

/// Reads a `CreateDeliveryRequest`.
pub fn create_delivery(request: &pb::CreateDeliveryRequest) -> Result<(ClientId, Option<Uuid>)> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    v.finish(|| Some((client_id?, request_id?)))
}

/// Writes a client.
pub fn message(client: Client) -> pb::Client {
    let scopes = client.scopes.into_iter().map(scope_message);
    with_security!(
        client.security,
        pb::Client {
            client_id: client.client_id.into(),
            display_name: client.presentation.display_name,
            partner_name: client.presentation.partner_name,
            purpose: client.presentation.goals,
            integration_request_id: client.integration_request_id.into(),
            tenant_ids: client.tenant_ids.into_iter().map(String::from).collect(),
            scopes: scopes.collect(),
            redirect_uris: client.redirect_uris,
            state: pb::ClientState::from(client.state).into(),
            create_time: Some(client.created_at.to_timestamp()),
            update_time: Some(client.updated_at.to_timestamp()),
            etag: client.etag.to_string(),
            json_web_key_set: client.json_web_key_set,
            security_profile: security_profile(client.fapi_from).into(),
            profile_start_time: client.fapi_from.map(UnixMillis::to_timestamp),
        }
    )
}

/// Writes what is known of a secret.
pub fn secret(secret: ClientSecret) -> pb::ClientSecret {
    let reason = match secret.revoked {
        Some((_, Reason::Compromised)) => pb::SecretRevocationReason::Compromised,
        Some((_, Reason::Rotated)) => pb::SecretRevocationReason::Rotated,
        // The link expired unopened: no operator gave a reason.
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

/// Writes a bundle.
pub fn bundle(bundle: Bundle, public_base_url: &str) -> pb::CredentialBundle {
    let endpoints = bundle.endpoints.into_iter();
    let endpoints = endpoints.map(|(tenant_id, cloud_api_url)| pb::Endpoint {
        tenant_authority_url: authority_url(public_base_url, &tenant_id),
        tenant_id: tenant_id.into(),
        cloud_api_url,
    });
    pb::CredentialBundle {
        client_id: bundle.client_id.into(),
        client_secret: bundle
            .client_secret
            .map(|secret| secret.expose().to_owned())
            .unwrap_or_default(),
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
