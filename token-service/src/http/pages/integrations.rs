//! Connected integrations: a tenant's consents, and what its Tenant Admins can do about them.

use accord::text::{id::GrantId, page::PageRequest, validation::Violations};
use axum::{
    extract::{Path, RawQuery},
    http::StatusCode,
    response::Response,
};

use super::{
    context::{PageContext, PageForm},
    dates,
    error::PageError,
    sign_in::SignInForm,
    view::{Integration, IntegrationPage, IntegrationsPage, ScopeLine, StateBadge},
};
use crate::{
    consent::connected,
    error::Error,
    http::form::Form,
    model::grant::{Consent, GrantFilter, GrantState},
};

/// How many integrations a page of the list shows.
const PAGE_SIZE: i32 = 25;
/// The most characters of a reason.
const MAX_REASON: usize = 1000;

/// `GET /{tenant}/integrations`.
pub(super) async fn list(mut page: PageContext, RawQuery(query): RawQuery) -> Result<Response, PageError> {
    if page.session().await?.is_none() {
        return Ok(page.redirect("sign-in"));
    }
    let query = Form::parse(query.unwrap_or_default().as_bytes())?;
    let filters = [page.tenant_id().as_str()];
    let mut v = Violations::default();
    let request = PageRequest::parse(&mut v, "connected", &filters, PAGE_SIZE, query.text("page"));
    let request = request.ok_or_else(PageError::not_found)?;
    let (consents, facts, access) = page.operation();
    let listed = connected::list(consents, facts, access, &GrantFilter::default(), &request).await?;
    let next = listed.next_page_token;
    let view = IntegrationsPage {
        frame: page.frame(true),
        integrations: listed
            .items
            .into_iter()
            .map(|consent| integration(&page, consent))
            .collect(),
        notice: None,
        next_url: (!next.is_empty()).then(|| page.path(&format!("integrations?page={next}"))),
    };
    Ok(page.html(StatusCode::OK, &view))
}

/// `GET /{tenant}/integrations/{grant}`.
pub(super) async fn show(
    mut page: PageContext,
    Path((_, grant)): Path<(String, String)>,
) -> Result<Response, PageError> {
    if page.session().await?.is_none() {
        return Ok(page.redirect("sign-in"));
    }
    integration_page(page, &grant_id(&grant)?, None, None).await
}

/// `POST /{tenant}/integrations/{grant}/designated-user`.
pub(super) async fn change_user(
    Path((_, grant)): Path<(String, String)>,
    PageForm { mut page, form }: PageForm,
) -> Result<Response, PageError> {
    let grant_id = grant_id(&grant)?;
    let name = form.text("account_name").trim();
    if name.is_empty() {
        return integration_page(page, &grant_id, None, Some("Enter the account name of a user.")).await;
    }
    let (consents, facts, access) = page.operation();
    match connected::change_designated_user(consents, facts, access, &grant_id, name).await {
        Ok(consent) => {
            let user = consent.designated_user_label;
            let notice = format!("API transactions now run with the permissions of {user}.");
            integration_page(page, &grant_id, Some(notice), None).await
        }
        Err(Error::NotFound("user")) => {
            let error = "No active user of this organisation has this account name.";
            integration_page(page, &grant_id, None, Some(error)).await
        }
        Err(error) => sign_in_again(&page, error),
    }
}

/// `POST /{tenant}/integrations/{grant}/revoke`.
pub(super) async fn revoke(
    Path((_, grant)): Path<(String, String)>,
    PageForm { mut page, form }: PageForm,
) -> Result<Response, PageError> {
    let grant_id = grant_id(&grant)?;
    let reason = form.text("reason").chars().filter(|c| !c.is_control());
    let reason: String = reason.take(MAX_REASON).collect();
    let (consents, facts, access) = page.operation();
    match connected::revoke(consents, facts, access, &grant_id, reason.trim()).await {
        Ok(_) => {
            let notice = "Access was revoked. The integration can no longer reach your data.".to_owned();
            integration_page(page, &grant_id, Some(notice), None).await
        }
        Err(error) => sign_in_again(&page, error),
    }
}

fn grant_id(text: &str) -> Result<GrantId, PageError> {
    GrantId::parse(text).map_err(|_| PageError::not_found())
}

/// Shows the sign-in form when the error is about the session.
fn sign_in_again(page: &PageContext, error: Error) -> Result<Response, PageError> {
    match error {
        Error::AdminSessionInvalid | Error::SignInTooOld => {
            let form = SignInForm {
                notice: Some("For safety, please sign in once more. Nothing was changed yet."),
                ..SignInForm::of_integrations(page)
            };
            Ok(form.show(page))
        }
        error => Err(error.into()),
    }
}

async fn integration_page(
    mut page: PageContext,
    grant_id: &GrantId,
    notice: Option<String>,
    account_name_error: Option<&str>,
) -> Result<Response, PageError> {
    let (consents, facts, access) = page.operation();
    let consent = match connected::get(consents, facts, access, grant_id).await {
        Ok(consent) => consent,
        Err(error) => return sign_in_again(&page, error),
    };
    let can_change = matches!(consent.state, GrantState::Active | GrantState::Suspended);
    let can_revoke = can_change || consent.state == GrantState::Pending;
    let integration = integration(&page, consent);
    let status = match account_name_error {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    };
    let view = IntegrationPage {
        frame: page.frame(true),
        csrf: page.csrf(),
        change_user_url: can_change.then(|| format!("{}/designated-user", integration.url)),
        revoke_url: can_revoke.then(|| format!("{}/revoke", integration.url)),
        error: None,
        account_name_error: account_name_error.map(str::to_owned),
        notice,
        integration,
    };
    Ok(page.html(status, &view))
}

fn integration(page: &PageContext, consent: Consent) -> Integration {
    let grant = consent.grant;
    let scopes = consent.scopes.into_iter().map(|scope| ScopeLine {
        name: scope.name.into(),
        description: scope.description,
    });
    Integration {
        url: page.path(&format!("integrations/{}", grant.grant_id)),
        client: grant.profile,
        state: badge(consent.state),
        scopes: scopes.collect(),
        designated_user: consent.designated_user_label,
        granted_by: consent.granted_by_label,
        granted_on: dates::minute(grant.created_at),
        ends_on: grant.expires_at.map(dates::minute),
        ended_on: consent.ended_at.map(dates::minute),
        last_used: consent.last_used_at.map(dates::minute),
        client_id: grant.client_id.into(),
        grant_id: grant.grant_id.into(),
    }
}

fn badge(state: GrantState) -> StateBadge {
    let (label, class) = match state {
        GrantState::Pending => ("Waiting", "waiting"),
        GrantState::Active => ("Active", "active"),
        GrantState::Suspended => ("Suspended", "suspended"),
        GrantState::Revoked => ("Revoked", "ended"),
        GrantState::Expired => ("Ended", "ended"),
        GrantState::Superseded => ("Replaced", "ended"),
    };
    StateBadge { label, class }
}
