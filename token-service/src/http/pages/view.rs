//! What each page says: one struct per page, with the text that its template puts in place.
//!
//! Everything here comes formatted, and much of it was written by partners. So no rule is decided
//! here, and no text is marked as safe: askama escapes every value for HTML.

use askama::Template;
use zeroize::Zeroizing;

/// What every page shows around its content.
#[derive(Clone, Debug)]
pub(in crate::http) struct Frame {
    /// The product's name, as configured.
    pub product_name: String,
    /// The tenant's display name; empty where a page belongs to no tenant.
    pub tenant_name: String,
    /// Where the stylesheet lies.
    pub stylesheet: String,
    /// The links of a signed-in admin.
    pub session: Option<SessionLinks>,
}

/// Where a signed-in admin can go from every page.
#[derive(Clone)]
pub(in crate::http) struct SessionLinks {
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
pub(in crate::http) struct SignInPage {
    /// What surrounds the page.
    pub frame: Frame,
    /// Where the form is posted.
    pub action: String,
    /// The form's CSRF token.
    pub csrf: String,
    /// Who asks for access; present when signing in to decide a setup.
    pub client: Option<Asking>,
    /// Why the last attempt failed; shown above the form.
    pub error: Option<String>,
    /// Something to know first, such as that a session ended.
    pub notice: Option<String>,
}

/// Who asks for access.
#[derive(Clone, Debug)]
pub(in crate::http) struct Asking {
    /// The integration's display name.
    pub client_name: String,
    /// The partner's name.
    pub partner_name: String,
}

/// Who asks for what and why, and the form that decides it.
#[derive(Template)]
#[template(path = "consent.html")]
pub(in crate::http) struct ConsentPage {
    /// What surrounds the page.
    pub frame: Frame,
    /// Where the approval is posted.
    pub approve_url: String,
    /// Where the refusal is posted.
    pub deny_url: String,
    /// The CSRF token of both forms.
    pub csrf: String,
    /// The integration's display name.
    pub client_name: String,
    /// The partner's name.
    pub partner_name: String,
    /// The integration's goals, in the partner's words.
    pub purpose: String,
    /// The host that the browser goes to afterwards.
    pub redirect_host: String,
    /// Each scope asked for.
    pub scopes: Vec<ScopeChoice>,
    /// How this differs from the grant that exists already.
    pub changes: Option<ScopeChanges>,
    /// The designated user's account name, as entered before.
    pub account_name: String,
    /// The end date, as entered before: `YYYY-MM-DD` or empty.
    pub end_date: String,
    /// The first day that can be chosen: `YYYY-MM-DD`.
    pub earliest_end_date: String,
    /// What is wrong with what was entered before.
    pub errors: ConsentErrors,
}

/// A scope that the admin grants or leaves out.
#[derive(Clone, Debug)]
pub(in crate::http) struct ScopeChoice {
    /// The scope's name.
    pub name: String,
    /// What it allows, from the catalogue.
    pub description: String,
    /// Why the partner needs it, in the partner's words.
    pub reason: String,
    /// Whether it is ticked.
    pub checked: bool,
    /// Whether the existing grant is without it; means nothing where there is no such grant.
    pub is_new: bool,
}

/// How a request differs from the grant that exists already.
#[derive(Clone, Debug)]
pub(in crate::http) struct ScopeChanges {
    /// The day of the existing grant.
    pub granted_on: String,
    /// The scopes that would be new.
    pub added: Vec<String>,
    /// The granted scopes that are asked for no more.
    pub dropped: Vec<String>,
    /// The label of the existing grant's designated user.
    pub designated_user: String,
}

/// What is wrong with a consent form's fields.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct ConsentErrors {
    /// About the choice of scopes.
    pub scopes: Option<String>,
    /// About the designated user's account name.
    pub account_name: Option<String>,
    /// About the end date.
    pub end_date: Option<String>,
}

impl ConsentErrors {
    /// Whether anything is wrong.
    fn any(&self) -> bool {
        self.scopes.is_some() || self.account_name.is_some() || self.end_date.is_some()
    }
}

/// The page that takes the browser back to the partner.
#[derive(Template)]
#[template(path = "leaving.html")]
pub(in crate::http) struct LeavingPage {
    /// What surrounds the page.
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
pub(in crate::http) struct IntegrationsPage {
    /// What surrounds the page.
    pub frame: Frame,
    /// The grants of this page of the list.
    pub integrations: Vec<Integration>,
    /// What was just done.
    pub notice: Option<String>,
    /// The next page of the list.
    pub next_url: Option<String>,
}

/// A grant, as its tenant's admins see it.
#[derive(Clone, Debug)]
pub(in crate::http) struct Integration {
    /// The page of this grant.
    pub url: String,
    /// The integration's display name.
    pub client_name: String,
    /// The partner's name.
    pub partner_name: String,
    /// The integration's goals, in the partner's words.
    pub purpose: String,
    /// Where the grant stands.
    pub state: StateBadge,
    /// What is granted.
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
    pub last_token: Option<String>,
    /// The Client ID.
    pub client_id: String,
    /// The grant's id.
    pub grant_id: String,
}

/// A granted scope.
#[derive(Clone, Debug)]
pub(in crate::http) struct ScopeLine {
    /// The scope's name.
    pub name: String,
    /// What it allows.
    pub description: String,
}

/// Where a grant stands, in a word.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct StateBadge {
    /// Active, Waiting, Suspended, Revoked, Ended or Replaced.
    pub label: &'static str,
    /// The stylesheet's class: `active`, `waiting`, `suspended` or `ended`.
    pub class: &'static str,
}

/// One grant, with what an admin can do about it.
#[derive(Template)]
#[template(path = "integration.html")]
pub(in crate::http) struct IntegrationPage {
    /// What surrounds the page.
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
    /// What is wrong with the account name entered.
    pub account_name_error: Option<String>,
    /// What was just done.
    pub notice: Option<String>,
}

/// The form where a new admin chooses a password.
#[derive(Template)]
#[template(path = "enrolment.html")]
pub(in crate::http) struct EnrolmentPage {
    /// What surrounds the page.
    pub frame: Frame,
    /// Where the form is posted.
    pub action: String,
    /// The form's CSRF token.
    pub csrf: String,
    /// What is wrong with the passwords entered.
    pub errors: Vec<String>,
}

/// Says that the password is set.
#[derive(Template)]
#[template(path = "enrolled.html")]
pub(in crate::http) struct EnrolledPage {
    /// What surrounds the page.
    pub frame: Frame,
    /// Where to sign in.
    pub sign_in_url: String,
}

/// A one-time link before it is opened.
#[derive(Template)]
#[template(path = "claim.html")]
pub(in crate::http) struct ClaimPage {
    /// What surrounds the page.
    pub frame: Frame,
    /// Where the button posts to.
    pub action: String,
}

/// The credentials of a one-time link, shown once.
#[derive(Template)]
#[template(path = "claimed.html")]
pub(in crate::http) struct ClaimedPage {
    /// What surrounds the page.
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
pub(in crate::http) struct Endpoint {
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
pub(in crate::http) struct MessagePage {
    /// What surrounds the page.
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
