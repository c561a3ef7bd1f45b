//! Connected integrations: what a tenant has consented to, and what its admins can do about it.

use std::sync::Arc;

use accord::text::{id::GrantId, page::PageRequest};
use axum::{
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};

use super::{
    PageError, html, sign_in, text,
    view::{Integration, IntegrationPage, IntegrationsPage, ScopeLine, StateBadge},
    visit::Visit,
};
use crate::{
    consent::{self, Connected, Revoke},
    error::Error,
    http::{
        Gateway,
        form::{Form, Posted},
    },
    model::grant::State as ConsentState,
};

/// How many integrations a page of the list shows.
const PAGE_SIZE: i32 = 25;
/// The longest reason, in characters.
const MAX_REASON: usize = 1000;

/// `GET /{tenant}/integrations`.
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let visit = Visit::of(&gateway, &tenant, &headers).await?;
    if visit.session().await?.is_none() {
        return Ok(to_sign_in(&visit));
    }
    let query = Form::parse(query.unwrap_or_default().as_bytes())?;
    let page = PageRequest::parse(
        "connected",
        &[visit.tenant_id().as_str()],
        PAGE_SIZE,
        query.text("page"),
    );
    let page = page.map_err(|_| PageError::not_found())?;
    let connected = consent::list_connected(&gateway.consents, visit.access(), &page).await?;
    let next = connected.next_page_token;
    let page = IntegrationsPage {
        frame: visit.frame(true),
        integrations: connected
            .items
            .iter()
            .map(|item| integration(&visit, item))
            .collect(),
        notice: None,
        next_url: (!next.is_empty()).then(|| visit.path(&format!("integrations?page={next}"))),
    };
    Ok((visit.jar.clone(), html(StatusCode::OK, &page)).into_response())
}

/// `GET /{tenant}/integrations/{grant}`.
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, grant)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let visit = Visit::of(&gateway, &tenant, &headers).await?;
    if visit.session().await?.is_none() {
        return Ok(to_sign_in(&visit));
    }
    page(&visit, &grant_id(&grant)?, Said::default()).await
}

/// `POST /{tenant}/integrations/{grant}/designated-user`.
pub(super) async fn change_user(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, grant)): Path<(String, String)>,
    headers: HeaderMap,
    Posted(form): Posted,
) -> Result<Response, PageError> {
    let visit = Visit::of(&gateway, &tenant, &headers).await?;
    visit.check_csrf(&form)?;
    let grant_id = grant_id(&grant)?;
    let name = form.text("account_name").trim();
    let said = if name.is_empty() {
        Said::account_name("Enter the account name of a user.")
    } else {
        let changed = consent::change_designated_user(&gateway.consents, visit.access(), &grant_id, name);
        match changed.await {
            Ok(consent) => Said::done(format!(
                "API transactions now run with the permissions of {}.",
                consent.designated_user_label
            )),
            Err(Error::NotFound("user")) => {
                Said::account_name("No active user of this organisation has this account name.")
            }
            Err(error) => return refused(&visit, error),
        }
    };
    page(&visit, &grant_id, said).await
}

/// `POST /{tenant}/integrations/{grant}/revoke`.
pub(super) async fn revoke(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, grant)): Path<(String, String)>,
    headers: HeaderMap,
    Posted(form): Posted,
) -> Result<Response, PageError> {
    let visit = Visit::of(&gateway, &tenant, &headers).await?;
    visit.check_csrf(&form)?;
    let grant_id = grant_id(&grant)?;
    let reason: String = form
        .text("reason")
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON)
        .collect();
    let revoke = Revoke {
        grant_id: grant_id.clone(),
        reason: reason.trim().to_owned(),
    };
    match consent::revoke(&gateway.consents, visit.access(), &revoke).await {
        Ok(_) => {
            let told = "Access was revoked. The integration can no longer reach your data.".to_owned();
            page(&visit, &grant_id, Said::done(told)).await
        }
        Err(error) => refused(&visit, error),
    }
}

/// What the page of an integration says after something was tried.
#[derive(Default)]
struct Said {
    notice: Option<String>,
    account_name_error: Option<String>,
}

impl Said {
    fn done(notice: String) -> Self {
        Self {
            notice: Some(notice),
            account_name_error: None,
        }
    }

    fn account_name(error: &str) -> Self {
        Self {
            notice: None,
            account_name_error: Some(error.to_owned()),
        }
    }
}

fn grant_id(text: &str) -> Result<GrantId, PageError> {
    GrantId::parse(text).map_err(|_| PageError::not_found())
}

fn to_sign_in(visit: &Visit) -> Response {
    (visit.jar.clone(), Redirect::to(&visit.path("sign-in"))).into_response()
}

/// What a step that was not taken leads to.
fn refused(visit: &Visit, error: Error) -> Result<Response, PageError> {
    match error {
        Error::AdminSessionInvalid | Error::SignInTooOld => {
            let form = sign_in::Form {
                action: visit.path("sign-in"),
                notice: Some("For safety, please sign in once more. Nothing was changed yet."),
                client: None,
            };
            Ok(form.show(visit))
        }
        error => Err(error.into()),
    }
}

async fn page(visit: &Visit, grant_id: &GrantId, said: Said) -> Result<Response, PageError> {
    let service = &visit.gateway.consents;
    let connected = match consent::get_connected(service, visit.access(), grant_id).await {
        Ok(connected) => connected,
        Err(error) => return refused(visit, error),
    };
    let integration = integration(visit, &connected);
    let can_change = matches!(
        connected.consent.state,
        ConsentState::Active | ConsentState::Suspended
    );
    let can_revoke = can_change || connected.consent.state == ConsentState::Pending;
    let status = match said.account_name_error {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    };
    let page = IntegrationPage {
        frame: visit.frame(true),
        csrf: visit.csrf(),
        change_user_url: can_change.then(|| format!("{}/designated-user", integration.url)),
        revoke_url: can_revoke.then(|| format!("{}/revoke", integration.url)),
        error: None,
        account_name_error: said.account_name_error,
        notice: said.notice,
        integration,
    };
    Ok((visit.jar.clone(), html(status, &page)).into_response())
}

fn integration(visit: &Visit, connected: &Connected) -> Integration {
    let Connected { consent, .. } = connected;
    let grant = &consent.grant;
    Integration {
        url: visit.path(&format!("integrations/{}", grant.grant_id)),
        client_name: grant.client_display_name.clone(),
        partner_name: connected.partner_name.clone(),
        purpose: grant.purpose.clone(),
        state: badge(consent.state),
        scopes: connected
            .scopes
            .iter()
            .map(|scope| ScopeLine {
                name: scope.name.to_string(),
                description: scope.description.clone(),
            })
            .collect(),
        designated_user: consent.designated_user_label.clone(),
        granted_by: connected.granted_by_label.clone(),
        granted_on: text::minute(grant.created_at),
        ends_on: grant.expires_at.map(text::minute),
        ended_on: consent.ended_at.map(text::minute),
        last_token: connected.last_token_at.map(text::minute),
        client_id: grant.client_id.to_string(),
        grant_id: grant.grant_id.to_string(),
    }
}

fn badge(state: ConsentState) -> StateBadge {
    let (label, class) = match state {
        ConsentState::Pending => ("Waiting", "waiting"),
        ConsentState::Active => ("Active", "active"),
        ConsentState::Suspended => ("Suspended", "suspended"),
        ConsentState::Revoked => ("Revoked", "ended"),
        ConsentState::Expired => ("Ended", "ended"),
        ConsentState::Superseded => ("Replaced", "ended"),
    };
    StateBadge { label, class }
}
