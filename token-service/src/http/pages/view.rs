//! The content of each page: one struct per page, with the values of its template.
//!
//! Values are formatted already, and partners wrote many of them. So no template decides a rule, and no text
//! is marked as safe: askama escapes every value for HTML.

use std::sync::LazyLock;

use accord::text::opaque::sha256;
use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::model::client::Profile;

/// The one stylesheet.
pub(super) const STYLESHEET: &str = include_str!("../../../assets/accord.css");

/// The stylesheet's path. It changes with the content, so that browsers may cache it for ever.
static STYLESHEET_URL: LazyLock<String> = LazyLock::new(|| {
    let hash = URL_SAFE_NO_PAD.encode(sha256(STYLESHEET.as_bytes()));
    format!("/accord.css?{}", &hash[..12])
});

/// Renders a page.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page can't be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The frame of every page.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The product's name, as configured.
    pub product_name: String,
    /// The tenant's display name; empty where a page belongs to no tenant.
    pub tenant_name: String,
    /// The stylesheet's path.
    pub stylesheet: String,
    /// The links of a signed-in admin.
    pub session: Option<SessionLinks>,
}

impl Frame {
    /// The frame of a page that nobody is signed in to.
    pub fn new(product_name: &str, tenant_name: &str) -> Self {
        Self {
            product_name: product_name.to_owned(),
            tenant_name: tenant_name.to_owned(),
            stylesheet: STYLESHEET_URL.clone(),
            session: None,
        }
    }
}

/// Where a signed-in admin can go from every page.
#[derive(Clone)]
pub(super) struct SessionLinks {
    /// The list of connected integrations.
    pub integrations_url: String,
    /// Where the sign-out form is posted.
    pub sign_out_url: String,
    /// The sign-out form's CSRF token.
    pub csrf: String,
}

impl std::fmt::Debug for SessionLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionLinks")
            .field("integrations_url", &self.integrations_url)
            .field("sign_out_url", &self.sign_out_url)
            .finish_non_exhaustive()
    }
}

/// The form where an admin signs in.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignInPage {
    /// The frame.
    pub frame: Frame,
    /// Where the form is posted.
    pub action: String,
    /// The form's CSRF token.
    pub csrf: String,
    /// The client that requests access; present when signing in to decide a setup.
    pub client: Option<Profile>,
    /// Why the last attempt failed; shown above the form.
    pub error: Option<String>,
    /// A notice above the form, such as that a session ended.
    pub notice: Option<String>,
}

/// A request with its scopes and reasons, and the form that decides it.
#[derive(Template)]
#[template(path = "consent.html")]
pub(super) struct ConsentPage {
    /// The frame.
    pub frame: Frame,
    /// Where the approval is posted.
    pub approve_url: String,
    /// Where the refusal is posted.
    pub deny_url: String,
    /// The CSRF token of both forms.
    pub csrf: String,
    /// The client.
    pub client: Profile,
    /// The host of the redirect URI.
    pub redirect_host: String,
    /// The scopes requested.
    pub scopes: Vec<ScopeChoice>,
    /// How this differs from the grant that exists already.
    pub changes: Option<ScopeChanges>,
    /// The designated user's account name, as entered before.
    pub account_name: String,
    /// The end date, as entered before: `YYYY-MM-DD` or empty.
    pub end_date: String,
    /// The first day that can be chosen: `YYYY-MM-DD`.
    pub earliest_end_date: String,
    /// The errors in what was entered before.
    pub errors: ConsentErrors,
}

/// A scope that the admin grants or leaves out.
#[derive(Clone, Debug)]
pub(super) struct ScopeChoice {
    /// The scope's name.
    pub name: String,
    /// What it allows, from the catalogue.
    pub description: String,
    /// Why the partner needs it, in the partner's words.
    pub reason: String,
    /// Whether it is ticked.
    pub checked: bool,
    /// Whether the existing grant lacks it; without an existing grant it means nothing.
    pub is_new: bool,
}

/// How a request differs from the grant that exists already.
#[derive(Clone, Debug)]
pub(super) struct ScopeChanges {
    /// The day of the existing grant.
    pub granted_on: String,
    /// The scopes that would be new.
    pub added: Vec<String>,
    /// The granted scopes that the request no longer contains.
    pub dropped: Vec<String>,
    /// The label of the existing grant's designated user.
    pub designated_user: String,
}

/// The errors of a consent form's fields.
#[derive(Clone, Debug, Default)]
pub(super) struct ConsentErrors {
    /// About the choice of scopes.
    pub scopes: Option<String>,
    /// About the designated user's account name.
    pub account_name: Option<String>,
    /// About the end date.
    pub end_date: Option<String>,
}

impl ConsentErrors {
    /// Whether there is any error.
    pub fn any(&self) -> bool {
        self.scopes.is_some() || self.account_name.is_some() || self.end_date.is_some()
    }
}

/// The page that takes the browser back to the partner.
#[derive(Template)]
#[template(path = "leaving.html")]
pub(super) struct LeavingPage {
    /// The frame.
    pub frame: Frame,
    /// The whole location, with the partner's code or error.
    pub url: String,
    /// The partner's name.
    pub partner_name: String,
    /// Whether access was approved.
    pub approved: bool,
}

/// The tenant's grants.
#[derive(Template)]
#[template(path = "integrations.html")]
pub(super) struct IntegrationsPage {
    /// The frame.
    pub frame: Frame,
    /// The grants of this page of the list.
    pub integrations: Vec<Integration>,
    /// What the admin just did.
    pub notice: Option<String>,
    /// The next page of the list.
    pub next_url: Option<String>,
}

/// A grant, as its tenant's admins see it.
#[derive(Clone, Debug)]
pub(super) struct Integration {
    /// The page of this grant.
    pub url: String,
    /// The client.
    pub client: Profile,
    /// The state.
    pub state: StateBadge,
    /// The scopes granted.
    pub scopes: Vec<ScopeLine>,
    /// The designated user's label.
    pub designated_user: String,
    /// The label of the admin who granted it.
    pub granted_by: String,
    /// When it was granted.
    pub granted_on: String,
    /// When it will end, if an end was set.
    pub ends_on: Option<String>,
    /// When it ended, if it did.
    pub ended_on: Option<String>,
    /// When a token was last issued; `None` means never.
    pub last_used: Option<String>,
    /// The Client ID.
    pub client_id: String,
    /// The grant's id.
    pub grant_id: String,
}

/// A granted scope.
#[derive(Clone, Debug)]
pub(super) struct ScopeLine {
    /// The scope's name.
    pub name: String,
    /// What it allows.
    pub description: String,
}

/// A grant's state in a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateBadge {
    /// Active, Waiting, Suspended, Revoked, Ended or Replaced.
    pub label: &'static str,
    /// The stylesheet's class: `active`, `waiting`, `suspended` or `ended`.
    pub class: &'static str,
}

/// One grant, with what an admin can do about it.
#[derive(Template)]
#[template(path = "integration.html")]
pub(super) struct IntegrationPage {
    /// The frame.
    pub frame: Frame,
    /// The grant.
    pub integration: Integration,
    /// The CSRF token of both forms.
    pub csrf: String,
    /// Where another designated user is posted; `None` where the state rules it out.
    pub change_user_url: Option<String>,
    /// Where the revocation is posted; `None` where the state rules it out.
    pub revoke_url: Option<String>,
    /// Why the last action failed as a whole.
    pub error: Option<String>,
    /// The error of the account name entered.
    pub account_name_error: Option<String>,
    /// What the admin just did.
    pub notice: Option<String>,
}

/// The form where a new admin chooses a password.
#[derive(Template)]
#[template(path = "enrolment.html")]
pub(super) struct EnrolmentPage {
    /// The frame.
    pub frame: Frame,
    /// Where the form is posted.
    pub action: String,
    /// The form's CSRF token.
    pub csrf: String,
    /// The errors of the passwords entered.
    pub errors: Vec<String>,
}

/// Says that the password is set.
#[derive(Template)]
#[template(path = "enrolled.html")]
pub(super) struct EnrolledPage {
    /// The frame.
    pub frame: Frame,
    /// Where to sign in.
    pub sign_in_url: String,
}

/// A one-time link before it is opened.
#[derive(Template)]
#[template(path = "claim.html")]
pub(super) struct ClaimPage {
    /// The frame.
    pub frame: Frame,
    /// Where the button posts to.
    pub action: String,
}

/// The credentials of a one-time link, shown once.
#[derive(Template)]
#[template(path = "claimed.html")]
pub(super) struct ClaimedPage {
    /// The frame.
    pub frame: Frame,
    /// The Client ID.
    pub client_id: String,
    /// The Client Secret.
    pub client_secret: Zeroizing<String>,
    /// Where each tenant is reached.
    pub endpoints: Vec<Endpoint>,
}

/// Where a tenant is reached.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// The tenant.
    pub tenant_id: String,
    /// Its Tenant Authority URL.
    pub tenant_authority_url: String,
    /// Its Cloud API URL.
    pub cloud_api_url: String,
}

/// A page that says one thing: an error, or what cannot be done.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage {
    /// The frame.
    pub frame: Frame,
    /// The heading.
    pub title: String,
    /// What happened, and what can be done.
    pub text: String,
    /// A reference to quote, such as a request id.
    pub detail: Option<String>,
    /// Where to go from here: the address and its text.
    pub link: Option<(String, String)>,
}

#[cfg(test)]
mod tests;
