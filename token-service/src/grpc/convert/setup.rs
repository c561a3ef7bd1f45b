//! Converts setups and admin sessions.

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, SetupId, TenantId},
        network::AllowedNetworks,
        validation::Violations,
    },
    token::v1 as pb,
};
use url::form_urlencoded;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{address, consent, present, scopes};
use crate::{
    consent::{
        admin_session::SignIn,
        setup::{ApprovedSetup, ConsentChoices, SetupRequest},
    },
    error::{COMES_ALONE, Result},
    model::setup::{
        Setup, SetupState,
        request::{AuthorizationRequest, Parameters},
    },
};

accord::message_enum! { SetupState = pb::SetupState { Pending, Approved, Denied, Expired } }

/// Reads a `StartSetupRequest`. Does not decide whether the redirect URI is registered.
pub fn start(mut request: pb::StartSetupRequest) -> Result<(SetupRequest, Option<Uuid>)> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    let request_uri = std::mem::take(&mut request.request_uri);
    if !request_uri.is_empty() {
        no_parameters(&mut v, &request);
        return Ok(v.finish(|| {
            let pushed = SetupRequest::Pushed {
                tenant_id: tenant_id?,
                client_id: client_id?,
                request_uri,
            };
            Some((pushed, request_id?))
        })?);
    }
    let parameters = parameters(&mut v, request);
    Ok(v.finish(|| {
        let given = AuthorizationRequest {
            tenant_id: tenant_id?,
            client_id: client_id?,
            parameters,
            pushed: false,
        };
        Some((SetupRequest::Given(given), request_id?))
    })?)
}

/// Rejects the parameters that a pushed request holds itself.
fn no_parameters(v: &mut Violations, request: &pb::StartSetupRequest) {
    for (field, is_set) in [
        ("redirect_uri", !request.redirect_uri.is_empty()),
        ("scopes", !request.scopes.is_empty()),
        ("state", !request.state.is_empty()),
        ("code_challenge", !request.code_challenge.is_empty()),
        ("resource", !request.resource.is_empty()),
        ("dpop_jkt", !request.dpop_jkt.is_empty()),
    ] {
        if is_set {
            v.add(field, COMES_ALONE);
        }
    }
}

/// Reads the parameters of an authorization request.
pub(super) fn parameters(v: &mut Violations, request: pb::StartSetupRequest) -> Parameters {
    present(v, "redirect_uri", &request.redirect_uri);
    let scopes = scopes(v, &request.scopes);
    let parameters = Parameters {
        redirect_uri: request.redirect_uri,
        scopes,
        state_parameter: form_urlencoded::byte_serialize(request.state.as_bytes()).collect(),
        code_challenge: request.code_challenge,
        resource: request.resource,
        dpop_jkt: Some(request.dpop_jkt).filter(|jkt| !jkt.is_empty()),
    };
    for (name, rule) in parameters.broken_rules() {
        v.add(name, rule);
    }
    parameters
}

/// Reads a `SignInTenantAdminRequest`. The registry decides what an account name or a password may be.
pub fn sign_in(request: pb::SignInTenantAdminRequest) -> Result<SignIn, Violations> {
    let mut v = Violations::default();
    let account_name = Zeroizing::new(request.account_name);
    let password = Zeroizing::new(request.password);
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let setup_id = v.optional("setup_id", &request.setup_id, SetupId::parse);
    present(&mut v, "account_name", &account_name);
    present(&mut v, "password", &password);
    let address = v.optional("client_address", &request.client_address, address);
    v.finish(|| {
        Some(SignIn {
            tenant_id: tenant_id?,
            setup_id: setup_id?,
            account_name,
            password,
            address: address?,
        })
    })
}

/// Reads an `ApproveSetupRequest`. Rejects an end that is not after `now`.
pub fn approve(request: pb::ApproveSetupRequest, now: UnixMillis) -> Result<ConsentChoices> {
    let mut v = Violations::default();
    let designated_account_name = Zeroizing::new(request.designated_account_name);
    let setup_id = v.check("setup_id", SetupId::parse(&request.setup_id));
    let scopes = scopes(&mut v, &request.scopes);
    present(&mut v, "designated_account_name", &designated_account_name);
    let expires_at = v.future_time("expire_time", request.expire_time.as_ref(), now);
    let allowed_networks = v.merge(AllowedNetworks::parse(&request.allowed_networks));
    Ok(v.finish(|| {
        Some(ConsentChoices {
            setup_id: setup_id?,
            scopes,
            designated_account_name,
            expires_at: expires_at?,
            allowed_networks: allowed_networks?,
        })
    })?)
}

/// Writes a setup with its state at `now`.
pub fn message(setup: Setup, now: UnixMillis) -> pb::Setup {
    let state = setup.state_at(now);
    let scopes = setup.scopes.into_iter().map(|scope| pb::SetupScope {
        name: scope.name.into(),
        description: scope.description,
        reason: scope.reason,
    });
    pb::Setup {
        scopes: scopes.collect(),
        state: pb::SetupState::from(state).into(),
        setup_id: setup.setup_id.into(),
        tenant_id: setup.tenant_id.into(),
        tenant_display_name: setup.tenant_display_name,
        client_id: setup.client_id.into(),
        client_display_name: setup.display.display_name,
        partner_name: setup.display.partner_name,
        purpose: setup.display.purpose,
        bound_tokens: setup.display.bound_tokens,
        client_networks: setup.display.allowed_networks,
        redirect_uri: setup.redirect_uri,
        create_time: Some(setup.created_at.to_timestamp()),
        expire_time: Some(setup.expires_at.to_timestamp()),
    }
}

/// Writes the result of an approval.
pub fn approve_response(approved: ApprovedSetup) -> pb::ApproveSetupResponse {
    pb::ApproveSetupResponse {
        consent: Some(consent::message(approved.consent)),
        authorization_code: approved.code.expose().to_owned(),
        redirect_url: approved.redirect_url.to_string(),
    }
}
