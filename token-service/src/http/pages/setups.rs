//! Deciding a partner's request: sign in, see who asks for what and why, approve or deny.

use std::sync::Arc;

use accord::text::id::{ScopeName, SetupId};
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use url::Url;
use zeroize::Zeroizing;

use super::{
    PageError, html, origin, sign_in, text,
    view::{Asking, ConsentErrors, ConsentPage, LeavingPage, ScopeChanges, ScopeChoice},
    visit::Visit,
};
use crate::{
    consent::{
        self, Consent,
        setup::{self, Approve, Setup},
    },
    error::Error,
    http::{
        Gateway,
        form::{Form, Posted},
    },
};

/// The longest account name that is looked at, in bytes.
const MAX_ACCOUNT_NAME_BYTES: usize = 1024;

/// `GET /{tenant}/setups/{setup}`: the sign-in form, or the request to decide.
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, setup)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let (visit, setup) = pending(&gateway, &tenant, &setup, &headers).await?;
    if may_decide(&visit, &setup).await? {
        consent_page(&visit, &setup, None).await
    } else {
        Ok(sign_in_form(&visit, &setup, None).show(&visit))
    }
}

/// `POST /{tenant}/setups/{setup}/sign-in`.
pub(super) async fn sign_in(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, setup)): Path<(String, String)>,
    headers: HeaderMap,
    Posted(form): Posted,
) -> Result<Response, PageError> {
    let (mut visit, setup) = pending(&gateway, &tenant, &setup, &headers).await?;
    visit.check_csrf(&form)?;
    match visit.sign_in(Some(setup.setup_id.clone()), &form).await {
        Ok(()) => Ok((visit.jar.clone(), Redirect::to(&path(&visit, &setup, ""))).into_response()),
        Err(error) => sign_in_form(&visit, &setup, None).refuse(&visit, error),
    }
}

/// `POST /{tenant}/setups/{setup}/approve`.
pub(super) async fn approve(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, setup)): Path<(String, String)>,
    headers: HeaderMap,
    Posted(form): Posted,
) -> Result<Response, PageError> {
    let (visit, setup) = pending(&gateway, &tenant, &setup, &headers).await?;
    visit.check_csrf(&form)?;
    if !may_decide(&visit, &setup).await? {
        return Ok(sign_in_again(&visit, &setup));
    }
    let approve = match read(&visit, &setup, &form) {
        Ok(approve) => approve,
        Err(errors) => return consent_page(&visit, &setup, Some((&form, errors))).await,
    };
    match setup::approve(&gateway.consents, &origin(), visit.session_token(), approve).await {
        Ok(approved) => Ok(leaving(&visit, &setup, &approved.redirect_url, true)),
        Err(Error::NotFound("user")) => {
            let errors = ConsentErrors {
                account_name: Some("No active user of this organisation has this account name.".to_owned()),
                ..ConsentErrors::default()
            };
            consent_page(&visit, &setup, Some((&form, errors))).await
        }
        Err(error) => decided_otherwise(&visit, &setup, error),
    }
}

/// `POST /{tenant}/setups/{setup}/deny`.
pub(super) async fn deny(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, setup)): Path<(String, String)>,
    headers: HeaderMap,
    Posted(form): Posted,
) -> Result<Response, PageError> {
    let (visit, setup) = pending(&gateway, &tenant, &setup, &headers).await?;
    visit.check_csrf(&form)?;
    if !may_decide(&visit, &setup).await? {
        return Ok(sign_in_again(&visit, &setup));
    }
    let origin = origin();
    let denied = setup::deny(&gateway.consents, &origin, visit.session_token(), &setup.setup_id);
    match denied.await {
        Ok((setup, redirect_url)) => Ok(leaving(&visit, &setup, &redirect_url, false)),
        Err(error) => decided_otherwise(&visit, &setup, error),
    }
}

/// The setup of a path, which waits for a decision.
async fn pending(
    gateway: &Gateway,
    tenant: &str,
    setup: &str,
    headers: &HeaderMap,
) -> Result<(Visit, Setup), PageError> {
    let visit = Visit::of(gateway, tenant, headers).await?;
    let setup_id = SetupId::parse(setup).map_err(|_| Error::NotFound("setup"))?;
    let setup = setup::of_tenant(&gateway.consents, visit.tenant_id(), &setup_id).await?;
    setup.require_pending(gateway.consents.store.now())?;
    if !visit.tenant.active {
        return Err(PageError::wrong_state("tenant", "SUSPENDED"));
    }
    Ok((visit, setup))
}

async fn may_decide(visit: &Visit, setup: &Setup) -> Result<bool, Error> {
    let session = visit.session().await?;
    Ok(session.is_some_and(|session| session.setup_id.as_ref() == Some(&setup.setup_id)))
}

fn path(visit: &Visit, setup: &Setup, rest: &str) -> String {
    visit.path(&format!("setups/{}{rest}", setup.setup_id))
}

fn sign_in_form(visit: &Visit, setup: &Setup, notice: Option<&'static str>) -> sign_in::Form {
    sign_in::Form {
        action: path(visit, setup, "/sign-in"),
        client: Some(Asking {
            client_name: setup.client_display_name.clone(),
            partner_name: setup.partner_name.clone(),
        }),
        notice,
    }
}

fn sign_in_again(visit: &Visit, setup: &Setup) -> Response {
    let notice = "For safety, please sign in once more. Nothing was decided yet.";
    sign_in_form(visit, setup, Some(notice)).show(visit)
}

/// What becomes of a decision that was not taken.
fn decided_otherwise(visit: &Visit, setup: &Setup, error: Error) -> Result<Response, PageError> {
    match error {
        Error::SignInTooOld | Error::AdminSessionInvalid | Error::AdminSessionMismatch => {
            Ok(sign_in_again(visit, setup))
        }
        error => Err(error.into()),
    }
}

/// Reads an approval; or what is wrong with it. No box ticked must never mean all of them.
fn read(visit: &Visit, setup: &Setup, form: &Form) -> Result<Approve, ConsentErrors> {
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
        errors.account_name = Some("No active user of this organisation has this account name.".to_owned());
    }
    let now = visit.gateway.consents.store.now();
    let expires_at = match form.get("end_date").map(text::end_of_day) {
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
    if errors.scopes.is_some() || errors.account_name.is_some() || errors.end_date.is_some() {
        return Err(errors);
    }
    Ok(Approve {
        setup_id: setup.setup_id.clone(),
        scopes,
        designated_account_name: Zeroizing::new(account_name.to_owned()),
        expires_at,
    })
}

/// The request to decide; with what was entered before and what is wrong with it.
async fn consent_page(
    visit: &Visit,
    setup: &Setup,
    entered: Option<(&Form, ConsentErrors)>,
) -> Result<Response, PageError> {
    let service = &visit.gateway.consents;
    let current = match consent::current(service, visit.access(), &setup.client_id).await {
        Err(Error::AdminSessionInvalid) => return Ok(sign_in_again(visit, setup)),
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
        // What goes beyond an earlier consent is never granted by just pressing a button.
        checked: match &entered {
            Some((form, _)) => form.all("scope").any(|name| name == scope.name.as_str()),
            None => granted(&scope.name),
        },
        is_new: !granted(&scope.name),
    });
    let status = if entered.is_some() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let field = |name| {
        entered
            .as_ref()
            .map(|(form, _)| form.text(name).to_owned())
            .unwrap_or_default()
    };
    let redirect = Url::parse(&setup.redirect_uri).ok();
    let page = ConsentPage {
        frame: visit.frame(true),
        approve_url: path(visit, setup, "/approve"),
        deny_url: path(visit, setup, "/deny"),
        csrf: visit.csrf(),
        client_name: setup.client_display_name.clone(),
        partner_name: setup.partner_name.clone(),
        purpose: setup.purpose.clone(),
        redirect_host: redirect
            .and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_default(),
        scopes: scopes.collect(),
        changes: current.as_ref().map(|consent| changes(setup, consent)),
        account_name: field("designated_account_name"),
        end_date: field("end_date"),
        earliest_end_date: text::next_day_input(service.store.now()),
        errors: entered.map(|(_, errors)| errors).unwrap_or_default(),
    };
    Ok((visit.jar.clone(), html(status, &page)).into_response())
}

fn changes(setup: &Setup, consent: &Consent) -> ScopeChanges {
    let grant = &consent.grant;
    let asked: Vec<&ScopeName> = setup.scopes.iter().map(|scope| &scope.name).collect();
    let added = asked.iter().filter(|name| !grant.scopes.contains(name));
    let dropped = grant.scopes.iter().filter(|name| !asked.contains(name));
    ScopeChanges {
        granted_on: text::day(grant.created_at),
        added: added.map(ToString::to_string).collect(),
        dropped: dropped.map(ToString::to_string).collect(),
        designated_user: consent.designated_user_label.clone(),
    }
}

/// Back to the partner. A page, and no redirect: a browser would hold a redirect, and every one that the
/// partner adds, to the policy of where forms may go.
fn leaving(visit: &Visit, setup: &Setup, url: &str, approved: bool) -> Response {
    let page = LeavingPage {
        frame: visit.frame(false),
        url: url.to_owned(),
        partner_name: setup.partner_name.clone(),
        approved,
    };
    (visit.jar.clone(), html(StatusCode::OK, &page)).into_response()
}
