//! Steps 4 and 5: from the partner's authorization request to the Tenant Admin's decision.

use accord::{
    random::Random,
    registry::v1::CredentialBundle,
    text::opaque::sha256,
    token::v1::{self as pb, setup_service_client::SetupServiceClient},
};
use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use url::Url;

use super::{
    narrator::{Narrator, masked},
    onboarding::{REDIRECT_URI, SCOPES},
};
use crate::{
    call::{answer, with_token},
    dev_file::DevFile,
};

const STATE: &str = "demo-state-1";

/// A PKCE pair (RFC 7636), method S256.
pub struct Pkce {
    /// The secret of the partner.
    pub verifier: String,
    /// The challenge in the authorization request.
    pub challenge: String,
}

impl Pkce {
    /// Generates a pair.
    pub fn new(random: &dyn Random) -> Self {
        let mut bytes = [0; 32];
        random.fill(&mut bytes);
        let verifier = URL_SAFE_NO_PAD.encode(bytes);
        let challenge = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
        Self { verifier, challenge }
    }
}

/// The result of the Tenant Admin's decision.
pub struct Approval {
    /// The admin's session.
    pub admin_session: String,
    /// The authorization code in the redirect.
    pub code: String,
}

/// Starts a setup from the partner's authorization request. Checks that it shows the partner's reasons.
pub async fn start(
    target: &DevFile,
    say: &mut Narrator<'_>,
    bundle: &CredentialBundle,
    pkce: &Pkce,
) -> anyhow::Result<pb::Setup> {
    let mut setups = SetupServiceClient::new(with_token(&target.token_grpc, &target.workload_token)?);
    let request = pb::StartSetupRequest {
        request_id: String::new(),
        tenant_id: target.tenant_id.clone(),
        client_id: bundle.client_id.clone(),
        redirect_uri: REDIRECT_URI.to_owned(),
        scopes: SCOPES.iter().map(|(name, _)| (*name).to_owned()).collect(),
        state: STATE.to_owned(),
        code_challenge: pkce.challenge.clone(),
        resource: target.cloud_api_url.clone(),
        ..Default::default()
    };
    say.sent(
        "internal service",
        "SetupService.StartSetup",
        &[
            ("tenant_id", &request.tenant_id),
            ("client_id", &request.client_id),
            ("redirect_uri", &request.redirect_uri),
            ("scopes", &request.scopes.join(" ")),
            ("code_challenge", &request.code_challenge),
        ],
    )?;
    let setup = answer("StartSetup", setups.start_setup(request).await)?
        .setup
        .context("no setup in the response")?;
    say.got(&[
        ("setup_id", &setup.setup_id),
        (
            "requested by",
            &format!("{} ({})", setup.client_display_name, setup.partner_name),
        ),
        ("purpose", &setup.purpose),
    ])?;
    for scope in &setup.scopes {
        say.got(&[
            ("scope", &scope.name),
            ("allows", &scope.description),
            ("partner's reason", &scope.reason),
        ])?;
        let reason = SCOPES
            .iter()
            .find(|(name, _)| *name == scope.name)
            .map(|(_, reason)| *reason);
        ensure!(
            reason == Some(scope.reason.as_str()),
            "the partner's reason must be shown"
        );
    }
    Ok(setup)
}

/// Signs the Tenant Admin in and approves the setup. Checks the redirect.
pub async fn approve(
    target: &DevFile,
    say: &mut Narrator<'_>,
    setup: &pb::Setup,
) -> anyhow::Result<Approval> {
    let mut setups = SetupServiceClient::new(with_token(&target.token_grpc, &target.workload_token)?);
    let request = pb::SignInTenantAdminRequest {
        tenant_id: target.tenant_id.clone(),
        setup_id: setup.setup_id.clone(),
        account_name: target.admin_account_name.clone(),
        password: target.admin_password.clone(),
        ..Default::default()
    };
    say.sent(
        "Tenant Admin",
        "SetupService.SignInTenantAdmin",
        &[("account_name", "********"), ("password", "********")],
    )?;
    let admin_session =
        answer("SignInTenantAdmin", setups.sign_in_tenant_admin(request).await)?.admin_session;
    say.got(&[("admin_session", &masked(&admin_session))])?;

    let request = pb::ApproveSetupRequest {
        setup_id: setup.setup_id.clone(),
        admin_session: admin_session.clone(),
        scopes: Vec::new(),
        designated_account_name: target.api_user_account_name.clone(),
        expire_time: None,
        ..Default::default()
    };
    say.sent(
        "Tenant Admin",
        "SetupService.ApproveSetup",
        &[
            ("setup_id", &setup.setup_id),
            ("admin_session", &masked(&admin_session)),
            ("scopes", "(all requested scopes)"),
            ("designated_account_name", "********"),
        ],
    )?;
    let approved = answer("ApproveSetup", setups.approve_setup(request).await)?;
    let consent = approved.consent.context("no consent in the response")?;
    say.got(&[
        ("grant_id", &consent.grant_id),
        ("state", consent.state().as_str_name()),
        ("designated_user_id", &consent.designated_user_id),
        ("authorization_code", &masked(&approved.authorization_code)),
    ])?;
    let code = read_redirect(&approved.redirect_url, target)?;
    ensure!(
        code == approved.authorization_code,
        "the redirect must carry the code"
    );
    Ok(Approval { admin_session, code })
}

/// Returns the code of the redirect, as a partner does: only with its own state, and from this issuer (RFC 9207 §2.4).
fn read_redirect(redirect_url: &str, target: &DevFile) -> anyhow::Result<String> {
    ensure!(
        redirect_url.starts_with(REDIRECT_URI),
        "the redirect must go to the partner"
    );
    let url = Url::parse(redirect_url)?;
    let parameter = |name: &str| {
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    ensure!(
        parameter("state").as_deref() == Some(STATE),
        "the redirect must carry the state"
    );
    ensure!(
        parameter("iss").as_ref() == Some(&target.tenant_authority_url),
        "the redirect must name the issuer"
    );
    parameter("code").context("the redirect carries no code")
}
