//! Decides a partner's request: sign in, see the client, its scopes and its reasons, approve or deny.

use accord::text::id::{ScopeName, SetupId};
use axum::{extract::Path, http::StatusCode, response::Response};
use url::Url;
use zeroize::Zeroizing;

use super::{
    context::{PageContext, PageForm, origin},
    dates,
    error::PageError,
    sign_in::SignInForm,
    view::{ConsentErrors, ConsentPage, LeavingPage, ScopeChanges, ScopeChoice},
};
use crate::{
    consent::{
        connected,
        decision::{self, Approve},
    },
    error::Error,
    http::form::Form,
    model::{grant::Consent, setup::Setup},
};

/// The longest account name, in bytes.
const MAX_ACCOUNT_NAME_BYTES: usize = 1024;
const UNKNOWN_USER: &str = "No active user of this organisation has this account name.";

/// `GET /{tenant}/setups/{setup}`: the sign-in form, or the request to decide.
pub(super) async fn show(
    mut page: PageContext,
    Path((_, setup)): Path<(String, String)>,
) -> Result<Response, PageError> {
    let setup = pending_setup(&page, &setup).await?;
    if may_decide(&mut page, &setup).await? {
        consent_page(page, &setup, None).await
    } else {
        Ok(sign_in_form(&page, &setup, None).show(&page))
    }
}

/// `POST /{tenant}/setups/{setup}/sign-in`.
pub(super) async fn sign_in(
    Path((_, setup)): Path<(String, String)>,
    PageForm { mut page, form }: PageForm,
) -> Result<Response, PageError> {
    let setup = pending_setup(&page, &setup).await?;
    match page.sign_in(Some(setup.setup_id.clone()), &form).await {
        Ok(()) => Ok(page.redirect(&path(&setup, ""))),
        Err(error) => sign_in_form(&page, &setup, None).fail(&page, error),
    }
}

/// `POST /{tenant}/setups/{setup}/approve`.
pub(super) async fn approve(
    Path((_, setup)): Path<(String, String)>,
    PageForm { mut page, form }: PageForm,
) -> Result<Response, PageError> {
    let setup = pending_setup(&page, &setup).await?;
    if !may_decide(&mut page, &setup).await? {
        return Ok(sign_in_again(&page, &setup));
    }
    let approve = match read(&page, &setup, &form) {
        Ok(approve) => approve,
        Err(errors) => return consent_page(page, &setup, Some((&form, errors))).await,
    };
    let (consents, facts, access) = page.operation();
    match decision::approve(consents, facts, &origin(), access.admin_session, approve).await {
        Ok(approved) => Ok(leaving(&page, &setup, &approved.redirect_url, true)),
        Err(Error::NotFound("user")) => {
            let errors = ConsentErrors {
                account_name: Some(UNKNOWN_USER.to_owned()),
                ..ConsentErrors::default()
            };
            consent_page(page, &setup, Some((&form, errors))).await
        }
        Err(error) => not_decided(&page, &setup, error),
    }
}

/// `POST /{tenant}/setups/{setup}/deny`.
pub(super) async fn deny(
    Path((_, setup)): Path<(String, String)>,
    PageForm { mut page, .. }: PageForm,
) -> Result<Response, PageError> {
    let setup = pending_setup(&page, &setup).await?;
    let (consents, facts, access) = page.operation();
    match decision::deny(consents, facts, &origin(), access.admin_session, &setup.setup_id).await {
        Ok((setup, redirect_url)) => Ok(leaving(&page, &setup, &redirect_url, false)),
        Err(error) => not_decided(&page, &setup, error),
    }
}

/// The setup of a path, which waits for a decision.
async fn pending_setup(page: &PageContext, setup: &str) -> Result<Setup, PageError> {
    let store = &page.http.consents.store;
    let setup_id = SetupId::parse(setup).map_err(|_| Error::NotFound("setup"))?;
    let setup = store.get_tenant_setup(page.tenant_id(), &setup_id).await?;
    setup.require_pending(store.now())?;
    if !page.tenant.active {
        return Err(PageError::wrong_state("tenant", "SUSPENDED"));
    }
    Ok(setup)
}

async fn may_decide(page: &mut PageContext, setup: &Setup) -> Result<bool, Error> {
    let session = page.session().await?;
    Ok(session.is_some_and(|session| session.setup_id.as_ref() == Some(&setup.setup_id)))
}

fn path(setup: &Setup, rest: &str) -> String {
    format!("setups/{}{rest}", setup.setup_id)
}

fn sign_in_form(page: &PageContext, setup: &Setup, notice: Option<&'static str>) -> SignInForm {
    SignInForm {
        action: page.path(&path(setup, "/sign-in")),
        client: Some(setup.profile.clone()),
        notice,
    }
}

fn sign_in_again(page: &PageContext, setup: &Setup) -> Response {
    let notice = "For safety, please sign in once more. Nothing was decided yet.";
    sign_in_form(page, setup, Some(notice)).show(page)
}

/// Shows the sign-in form when the error is about the session.
fn not_decided(page: &PageContext, setup: &Setup, error: Error) -> Result<Response, PageError> {
    match error {
        Error::SignInTooOld | Error::AdminSessionInvalid | Error::AdminSessionMismatch => {
            Ok(sign_in_again(page, setup))
        }
        error => Err(error.into()),
    }
}

/// Reads an approval, or its errors. Rejects a form without scopes, which an approval takes for all of them.
fn read(page: &PageContext, setup: &Setup, form: &Form) -> Result<Approve, ConsentErrors> {
    let mut errors = ConsentErrors::default();
    let mut scopes = Vec::new();
    for name in form.all("scope") {
        match ScopeName::parse(name) {
            Ok(name) if setup.scopes.iter().any(|scope| scope.name == name) => {
                if !scopes.contains(&name) {
                    scopes.push(name);
                }
            }
            _ => errors.scopes = Some("Choose from the permissions listed.".to_owned()),
        }
    }
    if scopes.is_empty() {
        errors.scopes = Some("Choose at least one permission, or deny the request.".to_owned());
    }
    let account_name = form.text("designated_account_name").trim();
    if account_name.is_empty() {
        errors.account_name = Some("Enter the account name of a user.".to_owned());
    } else if account_name.len() > MAX_ACCOUNT_NAME_BYTES {
        errors.account_name = Some(UNKNOWN_USER.to_owned());
    }
    let now = page.http.consents.store.now();
    let expires_at = match form.get("end_date").map(dates::end_of_day) {
        None => None,
        Some(Some(end)) if end > now => Some(end),
        Some(Some(_)) => {
            errors.end_date = Some("Choose a day that is still to come.".to_owned());
            None
        }
        Some(None) => {
            errors.end_date = Some("Enter a date, such as 2027-01-31.".to_owned());
            None
        }
    };
    if errors.any() {
        return Err(errors);
    }
    Ok(Approve {
        setup_id: setup.setup_id.clone(),
        scopes,
        designated_account_name: Zeroizing::new(account_name.to_owned()),
        expires_at,
    })
}

/// Shows the request to decide; after a failed attempt with the form as it was sent and its errors.
async fn consent_page(
    mut page: PageContext,
    setup: &Setup,
    failed: Option<(&Form, ConsentErrors)>,
) -> Result<Response, PageError> {
    let (consents, facts, access) = page.operation();
    let current = match connected::current(consents, facts, access, &setup.client_id).await {
        Err(Error::AdminSessionInvalid) => return Ok(sign_in_again(&page, setup)),
        current => current?,
    };
    let granted = |name: &ScopeName| {
        current
            .as_ref()
            .is_none_or(|consent| consent.grant.scopes.contains(name))
    };
    let scopes = setup.scopes.iter().map(|scope| ScopeChoice {
        name: scope.name.to_string(),
        description: scope.description.clone(),
        reason: scope.reason.clone(),
        // A scope beyond the earlier consent needs a tick of its own.
        checked: match &failed {
            Some((form, _)) => form.all("scope").any(|name| name == scope.name.as_str()),
            None => granted(&scope.name),
        },
        is_new: !granted(&scope.name),
    });
    let status = if failed.is_some() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let field = |name| {
        failed
            .as_ref()
            .map(|(form, _)| form.text(name).to_owned())
            .unwrap_or_default()
    };
    let redirect = Url::parse(&setup.redirect_uri).ok();
    let view = ConsentPage {
        frame: page.frame(true),
        approve_url: page.path(&path(setup, "/approve")),
        deny_url: page.path(&path(setup, "/deny")),
        csrf: page.csrf(),
        client: setup.profile.clone(),
        redirect_host: redirect
            .and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_default(),
        scopes: scopes.collect(),
        changes: current.as_ref().map(|consent| changes(setup, consent)),
        account_name: field("designated_account_name"),
        end_date: field("end_date"),
        earliest_end_date: dates::next_day_input(page.http.consents.store.now()),
        errors: failed.map(|(_, errors)| errors).unwrap_or_default(),
    };
    Ok(page.html(status, &view))
}

fn changes(setup: &Setup, consent: &Consent) -> ScopeChanges {
    let grant = &consent.grant;
    let requested: Vec<&ScopeName> = setup.scopes.iter().map(|scope| &scope.name).collect();
    let added = requested.iter().filter(|name| !grant.scopes.contains(name));
    let dropped = grant.scopes.iter().filter(|name| !requested.contains(name));
    ScopeChanges {
        granted_on: dates::day(grant.created_at),
        added: added.map(ToString::to_string).collect(),
        dropped: dropped.map(ToString::to_string).collect(),
        designated_user: consent.designated_user_label.clone(),
    }
}

/// Takes the browser back to the partner by a page. The policy of where forms may go would also apply to a
/// redirect, and to every one that the partner adds.
fn leaving(page: &PageContext, setup: &Setup, url: &str, approved: bool) -> Response {
    let view = LeavingPage {
        frame: page.frame(false),
        url: url.to_owned(),
        partner_name: setup.profile.partner_name.clone(),
        approved,
    };
    page.html(StatusCode::OK, &view)
}
