//! Connected integrations: a tenant's consents, and what its Tenant Admins can do about them.

use accord::text::{id::GrantId, page::PageRequest, validation::Violations};
use axum::{extract::RawQuery, http::StatusCode, response::Response};

use super::{
    context::{PageContext, PageForm},
    dates,
    error::PageError,
    sign_in::{self, UNKNOWN_USER},
    view::{Integration, IntegrationPage, IntegrationsPage},
};
use crate::{
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
    let tenant_id = &page.tenant.tenant_id;
    let (mut v, filters) = (Violations::default(), [tenant_id.as_str()]);
    let request = PageRequest::parse(&mut v, "connected", &filters, PAGE_SIZE, query.text("page"));
    let request = request.ok_or(PageError::NOT_FOUND)?;
    let filter = GrantFilter::default();
    let listed = page.call.list_consents(tenant_id, &filter, &request).await?;
    let (consents, next) = listed.into_parts();
    let integrations = consents.into_iter().map(|consent| integration(&page, consent));
    let view = IntegrationsPage {
        frame: page.frame(true),
        integrations: integrations.collect(),
        next_url: (!next.is_empty()).then(|| page.path(&format!("integrations?page={next}"))),
    };
    Ok(page.html(StatusCode::OK, &view))
}

/// `GET /{tenant}/integrations/{grant}`.
pub(super) async fn show(mut page: PageContext) -> Result<Response, PageError> {
    if page.session().await?.is_none() {
        return Ok(page.redirect("sign-in"));
    }
    integration_page(page, None, None).await
}

/// `POST /{tenant}/integrations/{grant}/designated-user`.
pub(super) async fn change_user(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let grant_id = grant_id(&page)?;
    let name = form.text("account_name").trim();
    if name.is_empty() {
        return integration_page(page, None, Some("Enter the account name of a user.")).await;
    }
    let tenant_id = &page.tenant.tenant_id;
    match page.call.change_designated_user(tenant_id, &grant_id, name).await {
        Ok(consent) => {
            let user = consent.designated_user_label;
            let notice = format!("API transactions now run with the permissions of {user}.");
            integration_page(page, Some(notice), None).await
        }
        Err(Error::NotFound("user")) => integration_page(page, None, Some(UNKNOWN_USER)).await,
        Err(error) => sign_in_again(&page, error),
    }
}

/// `POST /{tenant}/integrations/{grant}/revoke`.
pub(super) async fn revoke(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let grant_id = grant_id(&page)?;
    // A revocation protects, so no reason prevents it: what a reason can't hold is left out.
    let reason = form.text("reason").chars().filter(|c| !c.is_control());
    let reason: String = reason.take(MAX_REASON).collect();
    let tenant_id = &page.tenant.tenant_id;
    match page
        .call
        .revoke_consent(tenant_id, &grant_id, reason.trim())
        .await
    {
        Ok(_) => {
            let notice = "Access was revoked. The integration can no longer reach your data.".to_owned();
            integration_page(page, Some(notice), None).await
        }
        Err(error) => sign_in_again(&page, error),
    }
}

fn grant_id(page: &PageContext) -> Result<GrantId, PageError> {
    GrantId::parse(&page.resource).map_err(|_| PageError::NOT_FOUND)
}

fn sign_in_again(page: &PageContext, error: Error) -> Result<Response, PageError> {
    sign_in::again(page, sign_in::form(page, "sign-in", None), error, "changed")
}

async fn integration_page(
    mut page: PageContext,
    notice: Option<String>,
    account_name_error: Option<&str>,
) -> Result<Response, PageError> {
    let grant_id = grant_id(&page)?;
    let consent = match page.call.get_consent(&page.tenant.tenant_id, &grant_id).await {
        Ok(consent) => consent,
        Err(error) => return sign_in_again(&page, error),
    };
    let can_change = matches!(consent.state, GrantState::Active | GrantState::Suspended);
    let can_revoke = can_change || consent.state == GrantState::Pending;
    let integration = integration(&page, consent);
    let view = IntegrationPage {
        frame: page.frame(true),
        csrf: page.csrf(),
        change_user_url: can_change.then(|| format!("{}/designated-user", integration.url)),
        revoke_url: can_revoke.then(|| format!("{}/revoke", integration.url)),
        account_name_error: account_name_error.map(str::to_owned),
        notice,
        integration,
    };
    if account_name_error.is_some() {
        return Ok(page.html(StatusCode::UNPROCESSABLE_ENTITY, &view));
    }
    Ok(page.html(StatusCode::OK, &view))
}

fn integration(page: &PageContext, consent: Consent) -> Integration {
    let (state, class) = match consent.state {
        GrantState::Pending => ("Waiting", "waiting"),
        GrantState::Active => ("Active", "active"),
        GrantState::Suspended => ("Suspended", "suspended"),
        GrantState::Revoked => ("Revoked", "ended"),
        GrantState::Expired => ("Ended", "ended"),
        GrantState::Superseded => ("Replaced", "ended"),
    };
    Integration {
        url: page.path(&format!("integrations/{}", consent.grant.grant_id)),
        state,
        class,
        granted_on: dates::minute(consent.grant.created_at),
        ends_on: consent.grant.expires_at.map(dates::minute),
        ended_on: consent.ended_at.map(dates::minute),
        last_used: consent.last_used_at.map(dates::minute),
        consent,
    }
}
