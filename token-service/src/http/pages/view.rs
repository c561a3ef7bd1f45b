//! The content of each page: one struct per page, with the values of its template.
//!
//! Dates are formatted already, and no template decides a rule. Partners wrote many of the texts, so none is marked
//! as safe: askama escapes every value for HTML.

use std::sync::LazyLock;

use accord::text::opaque::sha256;
use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    model::{client::DisplayInfo, grant::Consent},
    registry::links::CredentialBundle,
};

/// The one stylesheet.
pub(super) const STYLESHEET: &str = include_str!("../../../assets/accord.css");

/// The stylesheet's path. It changes with the content, so that browsers may cache it forever.
pub(super) static STYLESHEET_URL: LazyLock<String> = LazyLock::new(|| {
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

/// The frame of every page. No `Debug`: it holds a CSRF token.
pub(super) struct Frame {
    /// The product's name, as configured.
    pub product_name: String,
    /// The tenant's display name; empty where a page belongs to no tenant.
    pub tenant_name: String,
    /// The stylesheet's path.
    pub stylesheet: String,
    /// The path of the tenant's pages; empty where a page belongs to no tenant.
    pub base: String,
    /// The CSRF token of the sign-out form; `None` without a session.
    pub csrf: Option<String>,
}

impl Frame {
    /// The frame of a page without a session.
    pub fn new(product_name: &str, tenant_name: &str) -> Self {
        Self {
            product_name: product_name.to_owned(),
            tenant_name: tenant_name.to_owned(),
            stylesheet: STYLESHEET_URL.clone(),
            base: String::new(),
            csrf: None,
        }
    }
}

/// The form where an admin signs in.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignInPage {
    pub frame: Frame,
    /// Where the form is posted.
    pub action: String,
    /// The form's CSRF token.
    pub csrf: String,
    /// The account name, as entered before.
    pub account_name: String,
    /// What was entered in the form that this sign-in interrupts, by the names of hidden fields.
    pub entered: Vec<(&'static str, String)>,
    /// The client that requests access; present when signing in to decide a setup.
    pub client: Option<DisplayInfo>,
    /// Why the last attempt failed; shown above the form.
    pub error: Option<String>,
    /// A notice above the form, such as that a session ended.
    pub notice: Option<String>,
}

/// A request with its scopes and reasons, and the form that decides it.
#[derive(Template)]
#[template(path = "consent.html")]
pub(super) struct ConsentPage {
    pub frame: Frame,
    /// The setup.
    pub setup_id: String,
    /// The CSRF token of both forms.
    pub csrf: String,
    /// The client.
    pub client: DisplayInfo,
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
    /// The networks, as entered before, or those of the grant that exists already.
    pub networks: String,
    /// The first day that can be chosen: `YYYY-MM-DD`.
    pub earliest_end_date: String,
    /// The time now.
    pub now: String,
    /// A notice above the request.
    pub notice: Option<&'static str>,
    /// The errors in what was entered before.
    pub errors: ConsentErrors,
}

/// A scope that the admin grants or leaves out.
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
#[derive(Default)]
pub(super) struct ConsentErrors {
    /// About the choice of scopes.
    pub scopes: Option<String>,
    /// About the designated user's account name.
    pub account_name: Option<String>,
    /// About the end date.
    pub end_date: Option<String>,
    /// About the networks.
    pub networks: Option<String>,
}

impl ConsentErrors {
    /// Whether there is any error.
    pub fn any(&self) -> bool {
        let Self {
            scopes,
            account_name,
            end_date,
            networks,
        } = self;
        [scopes, account_name, end_date, networks]
            .into_iter()
            .any(Option::is_some)
    }
}

/// What became of a request whose browser goes back to the partner.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Access was approved.
    Approved,
    /// Access was denied.
    Denied,
    /// The request has an error, and nobody was asked.
    Rejected,
}

/// The page that takes the browser back to the partner.
#[derive(Template)]
#[template(path = "leaving.html")]
pub(super) struct LeavingPage {
    pub frame: Frame,
    /// The whole location, with the partner's code or error.
    pub url: String,
    /// The partner's name.
    pub partner_name: String,
    /// Whether this answers the other button, pressed after the decision.
    pub too_late: bool,
    /// What became of the request.
    pub outcome: Leaving,
    /// When the access will end, if an end was set.
    pub ends_on: Option<String>,
}

/// The tenant's grants.
#[derive(Template)]
#[template(path = "integrations.html")]
pub(super) struct IntegrationsPage {
    pub frame: Frame,
    /// The grants of this page of the list.
    pub integrations: Vec<Integration>,
    /// The next page of the list.
    pub next_url: Option<String>,
}

/// A grant, as its tenant's admins see it.
pub(super) struct Integration {
    /// The page of this grant.
    pub url: String,
    /// The grant.
    pub consent: Consent,
    /// The state in a word: Active, Waiting, Suspended, Revoked, Ended or Replaced.
    pub state: &'static str,
    /// The state's class in the stylesheet: `active`, `waiting`, `suspended` or `ended`.
    pub class: &'static str,
    /// When it was granted.
    pub granted_on: String,
    /// When it will end, if an end was set.
    pub ends_on: Option<String>,
    /// When it ended, if it did.
    pub ended_on: Option<String>,
    /// The networks that tokens may be requested from; empty for any.
    pub networks: Vec<String>,
    /// When a token was last issued, or that none was.
    pub last_used: String,
    /// Whether access lasts, and was not used for 90 days.
    pub is_unused: bool,
}

/// One grant, with what an admin can do about it.
#[derive(Template)]
#[template(path = "integration.html")]
pub(super) struct IntegrationPage {
    pub frame: Frame,
    /// The grant.
    pub integration: Integration,
    /// The CSRF token of all forms.
    pub csrf: String,
    /// Where another designated user is posted; `None` where the state rules it out.
    pub change_user_url: Option<String>,
    /// Where other networks are posted; `None` where the state rules it out.
    pub change_networks_url: Option<String>,
    /// Where the revocation is posted; `None` where the state rules it out.
    pub revoke_url: Option<String>,
    /// The account name of another designated user, as entered before.
    pub account_name: String,
    /// The reason of a revocation, as entered before.
    pub reason: String,
    /// The error of the account name entered.
    pub account_name_error: Option<String>,
    /// The networks, as entered before or as they are.
    pub networks: String,
    /// The error of the networks entered.
    pub networks_error: Option<String>,
    /// What the admin just did.
    pub notice: Option<String>,
    /// What was used a second time, and when.
    pub reuse: Option<(&'static str, String)>,
    /// How the grant was used, by day, the newest first.
    pub days: Vec<ShownDay>,
}

/// How a grant was used on a day.
pub(super) struct ShownDay {
    /// The day.
    pub day: String,
    /// How many tokens were issued.
    pub issued: i64,
    /// How many requests were rejected.
    pub rejected: i64,
    /// The scopes of the tokens.
    pub scopes: Vec<String>,
    /// The first addresses that the tokens were requested from.
    pub addresses: Vec<String>,
    /// Whether there were more.
    pub has_more_addresses: bool,
}

/// What operators did to the tenant.
#[derive(Template)]
#[template(path = "operator_actions.html")]
pub(super) struct OperatorActionsPage {
    pub frame: Frame,
    /// The actions of this page of the list.
    pub actions: Vec<ShownAction>,
    /// The next page of the list.
    pub next_url: Option<String>,
    /// Whether the registry does not answer, so that nothing is listed.
    pub is_unavailable: bool,
}

/// What an operator did.
pub(super) struct ShownAction {
    /// What was done, in plain words.
    pub description: String,
    /// When.
    pub time: String,
    /// The id of the operator.
    pub operator_id: String,
    /// Why; empty if no reason was given.
    pub reason: String,
    /// The id of what it was done to; empty if none.
    pub subject: String,
    /// The client concerned; empty if none.
    pub client_id: String,
}

/// The form where a new admin chooses a password.
#[derive(Template)]
#[template(path = "enrolment.html")]
pub(super) struct EnrolmentPage {
    pub frame: Frame,
    /// Where the form is posted.
    pub action: String,
    /// The form's CSRF token.
    pub csrf: String,
    /// The errors of the passwords entered.
    pub errors: Vec<String>,
    /// The error of the release code entered.
    pub release_code_error: Option<String>,
}

/// Says that the password is set.
#[derive(Template)]
#[template(path = "enrolled.html")]
pub(super) struct EnrolledPage {
    pub frame: Frame,
    /// Where to sign in.
    pub sign_in_url: String,
}

/// A one-time link before it is opened.
#[derive(Template)]
#[template(path = "claim.html")]
pub(super) struct ClaimPage {
    pub frame: Frame,
    /// Where the button posts to.
    pub action: String,
    /// The id of the request that the button sends, for a browser that keeps no cookies.
    pub request_id: String,
    /// The error of the release code entered.
    pub release_code_error: Option<String>,
}

/// The credentials of a one-time link, shown once.
#[derive(Template)]
#[template(path = "claimed.html")]
pub(super) struct ClaimedPage {
    pub frame: Frame,
    /// The credentials, and where each tenant is reached.
    pub bundle: CredentialBundle,
}

/// A page that says one thing: an error, or what cannot be done.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage {
    pub frame: Frame,
    /// The heading.
    pub title: String,
    /// What happened, and what can be done.
    pub text: String,
    /// A reference to quote, such as a request id.
    pub detail: Option<String>,
    /// The path of a page to go on from.
    pub next_page: Option<String>,
}

#[cfg(test)]
mod tests;
