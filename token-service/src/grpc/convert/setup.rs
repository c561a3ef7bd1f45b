//! Setups and admin sessions between messages and the nouns.

use std::collections::HashSet;

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, ScopeName, SetupId, TenantId},
        opaque::{OpaqueToken, TokenKind},
        validation::{Violations, list_field},
    },
    token::v1 as pb,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::consent;
use crate::{
    consent::{
        admin_session::SignIn,
        decision::{Approve, Approved},
    },
    model::setup::{AuthorizationRequest, Setup, SetupState, is_code_challenge, is_state},
};

/// Scopes in one request.
const MAX_SCOPES: usize = 100;

/// Reads a `StartSetupRequest`. Whether the redirect URI is a registered one is not decided here.
///
/// # Errors
/// All violations.
pub fn start(request: pb::StartSetupRequest) -> Result<(AuthorizationRequest, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let client_id = v.check("client_id", ClientId::parse(&request.client_id));
    if request.redirect_uri.is_empty() {
        v.add("redirect_uri", "must not be empty");
    }
    let scopes = scopes(&mut v, &request.scopes);
    if !is_state(&request.state) {
        v.add(
            "state",
            "must have at most 1024 characters, all of them printable ASCII",
        );
    }
    if !is_code_challenge(&request.code_challenge) {
        v.add(
            "code_challenge",
            "must be a PKCE challenge of method S256: 43 base64url characters",
        );
    }
    match (request_id, tenant_id, client_id) {
        (Some(request_id), Some(tenant_id), Some(client_id)) if v.is_empty() => {
            let request = AuthorizationRequest {
                tenant_id,
                client_id,
                redirect_uri: request.redirect_uri,
                scopes,
                state_parameter: request.state,
                code_challenge: request.code_challenge,
                resource: request.resource,
            };
            Ok((request, request_id))
        }
        _ => Err(v),
    }
}

/// Reads up to 100 different scopes, at `scopes`.
fn scopes(v: &mut Violations, names: &[String]) -> Vec<ScopeName> {
    if names.len() > MAX_SCOPES {
        v.add("scopes", format!("must have at most {MAX_SCOPES} elements"));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let field = list_field("scopes", index);
        let Some(name) = v.check(&field, ScopeName::parse(name)) else {
            continue;
        };
        if seen.insert(name.clone()) {
            read.push(name);
        } else {
            v.add(field, "must differ from those before");
        }
    }
    read
}

/// Reads a setup's id, where it is all that a message holds beside a session.
///
/// # Errors
/// The violation.
pub fn setup_id(setup_id: &str) -> Result<SetupId, Violations> {
    let mut v = Violations::default();
    v.check("setup_id", SetupId::parse(setup_id)).ok_or(v)
}

/// Reads a `SignInTenantAdminRequest`. What an account name or a password may be is the registry's to
/// say.
///
/// # Errors
/// All violations.
pub fn sign_in(request: pb::SignInTenantAdminRequest) -> Result<SignIn, Violations> {
    let mut v = Violations::default();
    let account_name = Zeroizing::new(request.account_name);
    let password = Zeroizing::new(request.password);
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let setup_id = match request.setup_id.as_str() {
        "" => Some(None),
        text => v.check("setup_id", SetupId::parse(text)).map(Some),
    };
    if account_name.is_empty() {
        v.add("account_name", "must not be empty");
    }
    if password.is_empty() {
        v.add("password", "must not be empty");
    }
    let address = match request.client_address.as_str() {
        "" => None,
        text => match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                v.add("client_address", "must be an IP address, or empty");
                None
            }
        },
    };
    match (tenant_id, setup_id) {
        (Some(tenant_id), Some(setup_id)) if v.is_empty() => Ok(SignIn {
            tenant_id,
            setup_id,
            account_name,
            password,
            address,
        }),
        _ => Err(v),
    }
}

/// Reads a `SignOutTenantAdminRequest`.
///
/// # Errors
/// The violation.
pub fn sign_out(request: pb::SignOutTenantAdminRequest) -> Result<OpaqueToken, Violations> {
    let mut v = Violations::default();
    let text = Zeroizing::new(request.admin_session);
    v.check(
        "admin_session",
        OpaqueToken::parse(TokenKind::AdminSession, &text),
    )
    .ok_or(v)
}

/// Reads an `ApproveSetupRequest`, and the text of its session.
///
/// # Errors
/// All violations, that of an end which is not after `now` included.
pub fn approve(
    request: pb::ApproveSetupRequest,
    now: UnixMillis,
) -> Result<(Approve, Zeroizing<String>), Violations> {
    let mut v = Violations::default();
    let admin_session = Zeroizing::new(request.admin_session);
    let designated_account_name = Zeroizing::new(request.designated_account_name);
    let setup_id = v.check("setup_id", SetupId::parse(&request.setup_id));
    let scopes = scopes(&mut v, &request.scopes);
    if designated_account_name.is_empty() {
        v.add("designated_account_name", "must not be empty");
    }
    let expires_at = match &request.expire_time {
        None => None,
        Some(time) => {
            let time = UnixMillis::from_timestamp(time).filter(|time| *time > now);
            if time.is_none() {
                v.add("expire_time", "must be absent, or a valid time in the future");
            }
            time
        }
    };
    match setup_id {
        Some(setup_id) if v.is_empty() => {
            let approve = Approve {
                setup_id,
                scopes,
                designated_account_name,
                expires_at,
            };
            Ok((approve, admin_session))
        }
        _ => Err(v),
    }
}

/// Writes a setup as it stands at `now`.
pub fn message(setup: Setup, now: UnixMillis) -> pb::Setup {
    let scopes = setup.scopes.iter().map(|scope| pb::SetupScope {
        name: scope.name.to_string(),
        description: scope.description.clone(),
        reason: scope.reason.clone(),
    });
    pb::Setup {
        scopes: scopes.collect(),
        state: state(setup.state_at(now)).into(),
        setup_id: setup.setup_id.into(),
        tenant_id: setup.tenant_id.into(),
        tenant_display_name: setup.tenant_display_name,
        client_id: setup.client_id.into(),
        client_display_name: setup.profile.display_name,
        partner_name: setup.profile.partner_name,
        purpose: setup.profile.purpose,
        redirect_uri: setup.redirect_uri,
        create_time: Some(setup.created_at.to_timestamp()),
        expire_time: Some(setup.expires_at.to_timestamp()),
    }
}

/// Writes a setup's state.
pub fn state(state: SetupState) -> pb::SetupState {
    match state {
        SetupState::Pending => pb::SetupState::Pending,
        SetupState::Approved => pb::SetupState::Approved,
        SetupState::Denied => pb::SetupState::Denied,
        SetupState::Expired => pb::SetupState::Expired,
    }
}

/// Writes the answer to an approval.
pub fn approve_response(approved: Approved) -> pb::ApproveSetupResponse {
    pb::ApproveSetupResponse {
        consent: Some(consent::message(approved.consent)),
        authorization_code: approved.code.expose().to_owned(),
        redirect_url: approved.redirect_url.to_string(),
    }
}
