//! The pages of a setup: a Tenant Admin signs in, reads the client's request with its scopes and reasons, and approves
//! or denies it.

use accord::text::id::{ScopeName, SetupId};
use axum::{http::StatusCode, response::Response};
use url::Url;
use zeroize::Zeroizing;

use super::{
    context::{PageContext, PageForm},
    dates,
    error::PageError,
    sign_in::{self, UNKNOWN_USER},
    view::{ConsentErrors, ConsentPage, LeavingPage, ScopeChanges, ScopeChoice, SignInPage},
};
use crate::{
    consent::setup::{Approve, require_active},
    error::{Error, Result},
    http::form::Form,
    model::{client::ClientScope, grant::Consent, setup::Setup},
};

/// `GET /{tenant}/setups/{setup}`: the request to decide, or the sign-in form if there is no session for this setup.
pub(super) async fn show(mut page: PageContext) -> Result<Response, PageError> {
    let setup = pending_setup(&page).await?;
    if may_decide(&mut page, &setup).await? {
        consent_page(page, &setup, None, ConsentErrors::default()).await
    } else {
        Ok(page.html(StatusCode::OK, &sign_in_form(&page, &setup)))
    }
}

/// `POST /{tenant}/setups/{setup}/sign-in`.
pub(super) async fn sign_in(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let setup = pending_setup(&page).await?;
    match page.sign_in(Some(setup.setup_id.clone()), &form).await {
        Ok(()) => Ok(page.redirect(&format!("setups/{}", setup.setup_id))),
        Err(error) => sign_in::failed(&page, sign_in_form(&page, &setup), error),
    }
}

/// `POST /{tenant}/setups/{setup}/approve`.
pub(super) async fn approve(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let setup = pending_setup(&page).await?;
    if !may_decide(&mut page, &setup).await? {
        return sign_in_again(&page, &setup, Error::AdminSessionInvalid);
    }
    let approve = match read_approval(&page, &setup, &form) {
        Ok(approve) => approve,
        Err(errors) => return consent_page(page, &setup, Some(&form), errors).await,
    };
    match page.call.approve_setup(approve).await {
        Ok(approved) => Ok(leaving(&page, &setup, &approved.redirect_url, true)),
        Err(Error::NotFound("user")) => {
            let errors = ConsentErrors {
                account_name: Some(UNKNOWN_USER.to_owned()),
                ..ConsentErrors::default()
            };
            consent_page(page, &setup, Some(&form), errors).await
        }
        Err(error) => sign_in_again(&page, &setup, error),
    }
}

/// `POST /{tenant}/setups/{setup}/deny`.
pub(super) async fn deny(PageForm { mut page, .. }: PageForm) -> Result<Response, PageError> {
    let setup = pending_setup(&page).await?;
    match page.call.deny_setup(&setup.setup_id).await {
        Ok((setup, redirect_url)) => Ok(leaving(&page, &setup, &redirect_url, false)),
        Err(error) => sign_in_again(&page, &setup, error),
    }
}

/// Reads the setup of the path. Rejects a setup that is not pending, and a suspended tenant.
async fn pending_setup(page: &PageContext) -> Result<Setup> {
    let store = &page.http.consents.store;
    let setup_id = SetupId::parse(&page.resource).map_err(|_| Error::NotFound("setup"))?;
    let setup = store.get_tenant_setup(&page.tenant.tenant_id, &setup_id).await?;
    setup.require_pending(store.now())?;
    require_active("tenant", page.tenant.active)?;
    Ok(setup)
}

/// Returns whether the browser has a session that was opened for this setup.
async fn may_decide(page: &mut PageContext, setup: &Setup) -> Result<bool> {
    let session = page.session().await?;
    Ok(session.is_some_and(|session| session.setup_id.as_ref() == Some(&setup.setup_id)))
}

fn sign_in_form(page: &PageContext, setup: &Setup) -> SignInPage {
    let path = format!("setups/{}/sign-in", setup.setup_id);
    sign_in::form(page, &path, Some(setup.profile.clone()))
}

fn sign_in_again(page: &PageContext, setup: &Setup, error: Error) -> Result<Response, PageError> {
    sign_in::again(page, sign_in_form(page, setup), error, "decided")
}

/// Reads an approval, or the errors of the form. Rejects a form without scopes: in an [`Approve`] it would mean all of
/// them.
fn read_approval(page: &PageContext, setup: &Setup, form: &Form) -> Result<Approve, ConsentErrors> {
    let mut errors = ConsentErrors::default();
    let mut scopes = Vec::new();
    for name in form.all("scope") {
        match ScopeName::parse(name) {
            Ok(name) if scopes.contains(&name) => {}
            Ok(name) if setup.scopes.iter().any(|scope| scope.name == name) => scopes.push(name),
            _ => errors.scopes = Some("Choose from the permissions listed.".to_owned()),
        }
    }
    if scopes.is_empty() {
        errors.scopes = Some("Choose at least one permission, or deny the request.".to_owned());
    }
    let account_name = form.text("designated_account_name").trim();
    if account_name.is_empty() {
        errors.account_name = Some("Enter the account name of a user.".to_owned());
    }
    let end_date = form.get("end_date").map(dates::end_of_day);
    if end_date == Some(None) {
        errors.end_date = Some("Enter a date, such as 2027-01-31.".to_owned());
    }
    let expires_at = end_date.flatten();
    if expires_at.is_some_and(|end| end <= page.http.consents.store.now()) {
        errors.end_date = Some("Choose a day that is still to come.".to_owned());
    }
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

/// Shows the request to decide. After a failed attempt, `sent` is the form as it was sent, and `errors` are its errors.
async fn consent_page(
    mut page: PageContext,
    setup: &Setup,
    sent: Option<&Form>,
    errors: ConsentErrors,
) -> Result<Response, PageError> {
    let call = &mut page.call;
    let current = match call.current_consent(&setup.tenant_id, &setup.client_id).await {
        Ok(current) => current,
        Err(error) => return sign_in_again(&page, setup, error),
    };
    let grant = current.as_ref().map(|consent| &consent.grant);
    let granted = |scope: &ClientScope| grant.is_none_or(|grant| grant.allows(scope));
    let scopes = setup.scopes.iter().map(|scope| ScopeChoice {
        name: scope.name.to_string(),
        description: scope.description.clone(),
        reason: scope.reason.clone(),
        // A scope that the current consent lacks is not preselected.
        checked: match sent {
            Some(form) => form.all("scope").any(|name| name == scope.name.as_str()),
            None => granted(scope),
        },
        is_new: !granted(scope),
    });
    let field = |name| sent.map(|form| form.text(name).to_owned()).unwrap_or_default();
    let redirect = Url::parse(&setup.redirect_uri).ok();
    let view = ConsentPage {
        frame: page.frame(true),
        setup_id: setup.setup_id.to_string(),
        csrf: page.csrf(),
        client: setup.profile.clone(),
        redirect_host: redirect
            .as_ref()
            .and_then(Url::host_str)
            .unwrap_or_default()
            .to_owned(),
        scopes: scopes.collect(),
        changes: current.as_ref().map(|consent| changes(setup, consent)),
        account_name: field("designated_account_name"),
        end_date: field("end_date"),
        earliest_end_date: dates::next_day_input(page.http.consents.store.now()),
        errors,
    };
    if sent.is_some() {
        return Ok(page.html(StatusCode::UNPROCESSABLE_ENTITY, &view));
    }
    Ok(page.html(StatusCode::OK, &view))
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

/// Sends the browser back to the partner by a page. Browsers would apply the policy `form-action` to a redirect, and to
/// each further redirect of the partner.
fn leaving(page: &PageContext, setup: &Setup, url: &str, approved: bool) -> Response {
    let view = LeavingPage {
        frame: page.frame(false),
        url: url.to_owned(),
        partner_name: setup.profile.partner_name.clone(),
        approved,
    };
    page.html(StatusCode::OK, &view)
}
