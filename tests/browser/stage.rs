//! An environment, a browser and a partner's site together, and the steps that many tests take.

use std::sync::Arc;

use accord::{
    clock::ManualClock,
    registry::v1::{
        self as reg, integration_request_service_client::IntegrationRequestServiceClient,
        register_client_response::Credentials,
    },
    testing::calls::ok,
    text::opaque::sha256,
    token::v1 as tok,
};
use accord_cli::dev::Dev;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tempfile::TempDir;
use url::Url;

use super::partner_site::{PartnerSite, Received};
use crate::harness::{
    browser::Browser,
    dev,
    partner::{Partner, World},
};

/// PKCE verifier of every request here.
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more";

/// An integration request.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub partner_name: &'a str,
    pub client_name: &'a str,
    pub goals: &'a str,
    /// Each scope with its reason.
    pub scopes: &'a [(&'a str, &'a str)],
}

/// A partner with a realistic integration, because the screenshots show it.
pub const FILEHARBOUR: Ask<'_> = Ask {
    partner_name: "Fileharbour GmbH",
    client_name: "Fileharbour Desktop",
    goals: "File documents straight into the right matter, and keep the names of clients up to date.",
    scopes: &[
        (
            "contacts.read",
            "To file each document under the client it belongs to.",
        ),
        (
            "matters.read",
            "To offer the open matters when a document is filed.",
        ),
        (
            "calendar.read",
            "To suggest the next deadline of the matter as the document’s due date.",
        ),
    ],
};

pub struct Stage {
    _directory: TempDir,
    dev: Dev,
    pub clock: Arc<ManualClock>,
    pub world: World,
    pub site: PartnerSite,
    pub browser: Browser,
}

impl Stage {
    pub async fn set() -> Self {
        let browser = Browser::start().await;
        let (directory, dev, clock) = dev::start_with_clock().await;
        Self {
            _directory: directory,
            world: World::new(&dev.file),
            dev,
            clock,
            site: PartnerSite::start().await,
            browser,
        }
    }

    /// Ends everything in good order.
    pub async fn strike(self) {
        self.browser.quit().await;
        self.dev.stop().await.unwrap();
    }

    /// The address of a page of the tenant.
    pub fn page(&self, rest: &str) -> String {
        format!(
            "{}/{}/{rest}",
            self.world.target.http_url, self.world.target.tenant_id
        )
    }

    /// Takes a request in, approves it and registers the client.
    pub async fn register(&self, ask: Ask<'_>, delivery: reg::DeliveryMethod) -> reg::RegisterClientResponse {
        let mut requests = IntegrationRequestServiceClient::new(self.world.operator.clone());
        let scope = |(name, reason): &(&str, &str)| reg::RequestedScope {
            name: (*name).into(),
            reason: (*reason).into(),
        };
        let request = reg::SubmitIntegrationRequestRequest {
            partner_name: ask.partner_name.into(),
            display_name: ask.client_name.into(),
            contact_email: "integrations@fileharbour.example".into(),
            goals: ask.goals.into(),
            tenant_ids: vec![self.world.target.tenant_id.clone()],
            scopes: ask.scopes.iter().map(scope).collect(),
            redirect_uris: vec![self.site.redirect_uri()],
            ..Default::default()
        };
        let request = ok(requests.submit_integration_request(request).await)
            .integration_request
            .unwrap();
        let integration_request_id = request.integration_request_id;
        let request = reg::ApproveIntegrationRequestRequest {
            integration_request_id: integration_request_id.clone(),
        };
        requests.approve_integration_request(request).await.unwrap();
        let request = reg::RegisterClientRequest {
            integration_request_id,
            delivery: delivery.into(),
            ..Default::default()
        };
        ok(self.world.clients().register_client(request).await)
    }

    /// Registers a partner. Returns its credentials.
    pub async fn partner(&self, ask: Ask<'_>) -> Partner {
        let registered = self.register(ask, reg::DeliveryMethod::Inline).await;
        let Some(Credentials::Bundle(bundle)) = registered.credentials else {
            panic!("no bundle");
        };
        Partner {
            client_id: bundle.client_id,
            client_secret: bundle.client_secret,
        }
    }

    /// Returns the authorization URL of the partner. No scopes mean all of the client's.
    pub fn authorization_url(&self, partner: &Partner, scopes: &[&str], state: &str) -> Url {
        let issuer = &self.world.target.tenant_authority_url;
        let challenge = URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes()));
        let mut url = Url::parse(&format!("{issuer}/oauth2/authorize")).unwrap();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &partner.client_id)
            .append_pair("redirect_uri", &self.site.redirect_uri())
            .append_pair("state", state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if !scopes.is_empty() {
            url.query_pairs_mut().append_pair("scope", &scopes.join(" "));
        }
        url
    }

    /// Follows the partner's link, up to the form to sign in.
    pub async fn connect(&self, partner: &Partner, scopes: &[&str], state: &str) {
        let url = self.authorization_url(partner, scopes, state);
        self.browser.open(&self.site.connect_page(&url)).await;
        self.browser.press("Connect").await;
        self.browser.arrive("Sign in").await;
    }

    /// Signs the environment's admin in at the form that is shown.
    pub async fn sign_in(&self) {
        let target = &self.world.target;
        self.sign_in_as(&target.admin_account_name, &target.admin_password)
            .await;
    }

    pub async fn sign_in_as(&self, account_name: &str, password: &str) {
        self.browser.fill("account_name", account_name).await;
        self.browser.fill("password", password).await;
        self.browser.press("Sign in").await;
    }

    /// Goes from the partner's page to the request that waits for a decision.
    pub async fn ask(&self, partner: &Partner, scopes: &[&str], state: &str) {
        self.connect(partner, scopes, state).await;
        self.sign_in().await;
        self.browser.arrive("asks for access").await;
    }

    /// Designates the API user and approves the ticked scopes.
    pub async fn approve(&self) {
        let user = &self.world.target.api_user_account_name;
        self.browser.fill("designated_account_name", user).await;
        self.browser.press("Approve access").await;
    }

    /// Returns the response at the partner. The browser is at the callback.
    pub async fn back_at_the_partner(&self) -> Received {
        self.browser.arrive("Back at the partner").await;
        let mut received = self.site.received();
        assert_eq!(received.len(), 1, "{received:?}");
        received.remove(0)
    }

    /// Redeems the code of the response.
    pub async fn redeem(&self, partner: &Partner, received: &Received) -> tok::IssueTokenResponse {
        let grant = tok::issue_token_request::Grant::AuthorizationCode(tok::AuthorizationCodeGrant {
            code: received.get("code").to_owned(),
            redirect_uri: self.site.redirect_uri(),
            code_verifier: VERIFIER.to_owned(),
        });
        self.world.issue(partner, grant).await.unwrap()
    }

    /// Goes through a whole setup in the browser. Returns the first tokens. No scopes mean all of the client's.
    pub async fn connected(&self, partner: &Partner, scopes: &[&str]) -> tok::IssueTokenResponse {
        self.ask(partner, scopes, "state-1").await;
        self.approve().await;
        let received = self.back_at_the_partner().await;
        self.redeem(partner, &received).await
    }

    /// Registers another Tenant Admin. Returns the enrolment link.
    pub async fn enrolment_link(&self, account_name: &str) -> String {
        let request = reg::RegisterUserRequest {
            tenant_id: self.world.target.tenant_id.clone(),
            account_name: account_name.into(),
            label: "Administrator 2".into(),
            tenant_admin: true,
            ..Default::default()
        };
        ok(self.world.users().register_user(request).await).enrolment_link
    }
}
