//! Connected integrations: a Tenant Admin signs in, reads the tenant's consents, changes a designated user or the allowed
//! networks, or revokes a consent.

use accord::text::id::GrantId;
use axum::{
    extract::RawQuery,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    approval_form::CHOSEN,
    context::{PageContext, PageForm},
    dates,
    error::{PageError, note},
    networks,
    sign_in::{self, STALE_FORM, UNKNOWN_USER},
    view::{Integration, IntegrationPage, IntegrationsPage, ShownDay, SignInPage},
};
use crate::{
    consent::connected::ConsentChange,
    error::Error,
    http::form::Form,
    model::grant::{
        Consent, GrantFilter, GrantState, MAX_REASON_CHARS,
        usage::{Day, Reuse, UsageOfDay},
    },
};

/// How many days of usage a page shows: those of a month, if the integration was used on each.
const SHOWN_DAYS: usize = 31;

/// `GET /{tenant}/integrations`.
pub(super) async fn list(mut page: PageContext, RawQuery(query): RawQuery) -> Result<Response, PageError> {
    if page.session().await?.is_none() {
        return Ok(page.redirect("sign-in"));
    }
    let request = page.list_request("connected", query)?;
    let filter = GrantFilter::default();
    let listed = page.call.list_consents(&page.tenant.tenant_id, &filter, &request);
    let (consents, next) = listed.await?.into_parts();
    let integrations = consents.into_iter().map(|consent| integration(&page, consent));
    let view = IntegrationsPage {
        frame: page.frame(true),
        integrations: integrations.collect(),
        next_url: (!next.is_empty()).then(|| page.path(&format!("integrations?page={next}"))),
    };
    Ok(page.html(StatusCode::OK, &view))
}

/// `GET /{tenant}/integrations/{grant}`: the integration, after a sign-in if there is no session.
pub(super) async fn show(mut page: PageContext) -> Result<Response, PageError> {
    grant_id(&page)?;
    if page.session().await?.is_none() {
        return Ok(page.html(StatusCode::OK, &sign_in_form(&page, &Form::default())));
    }
    integration_page(page, FormState::default()).await
}

/// `GET /{tenant}/integrations/{grant}/receipt`: a file with the receipt of the consent and its proof.
pub(super) async fn receipt(mut page: PageContext) -> Result<Response, PageError> {
    let grant_id = grant_id(&page)?;
    if page.session().await?.is_none() {
        return Ok(page.redirect(&format!("integrations/{grant_id}")));
    }
    let receipt = page
        .call
        .consent_receipt(&page.tenant.tenant_id, &grant_id)
        .await?;
    let file = serde_json::to_vec_pretty(&receipt).map_err(|error| Error::Internal(error.into()))?;
    let name = format!("attachment; filename=\"consent-receipt-{grant_id}.json\"");
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((page.cookies.jar.clone(), headers, file).into_response())
}

/// `POST /{tenant}/sign-in`.
pub(super) async fn sign_in(PageForm { mut page, form: sent }: PageForm) -> Result<Response, PageError> {
    match page.sign_in(None, &sent).await {
        Ok(()) => signed_in(page, &sent).await,
        Err(error) => sign_in::failed(&page, sign_in_form(&page, &sent), error),
    }
}

/// Shows a sign-in form with an invalid CSRF token again, with what was typed.
pub(super) async fn sign_in_stale(
    PageForm { mut page, form: sent }: PageForm,
) -> Result<Response, PageError> {
    // A first press of the button has already signed in.
    if page.session().await?.is_some() {
        return signed_in(page, &sent).await;
    }
    Ok(sign_in::stale(&page, sign_in_form(&page, &sent)))
}

/// Continues after a sign-in: shows the integration that it interrupted, with what was entered there, or else redirects to
/// the list.
async fn signed_in(mut page: PageContext, form: &Form) -> Result<Response, PageError> {
    let Some(text) = form.get("grant") else {
        return Ok(page.redirect("integrations"));
    };
    page.resource = text.to_owned();
    let entered = FormState::entered(form);
    if entered.account_name.is_empty() && entered.reason.is_empty() && entered.networks.is_none() {
        return Ok(page.redirect(&format!("integrations/{}", grant_id(&page)?)));
    }
    let state = FormState {
        notice: Some("You are signed in. Check what you entered, and send it once more.".to_owned()),
        ..entered
    };
    integration_page(page, state).await
}

/// Shows a form with an invalid CSRF token again on the page of its integration, with what was typed.
pub(super) async fn again(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    grant_id(&page)?;
    if page.session().await?.is_none() {
        return Ok(sign_in::stale(&page, sign_in_form(&page, &form)));
    }
    let state = FormState {
        status: StatusCode::FORBIDDEN,
        notice: Some(STALE_FORM.to_owned()),
        ..FormState::entered(&form)
    };
    integration_page(page, state).await
}

/// `POST /{tenant}/integrations/{grant}/designated-user`.
pub(super) async fn change_user(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let grant_id = grant_id(&page)?;
    let name = form.text("account_name").trim();
    if name.is_empty() {
        let state = FormState::invalid(&form, "Enter the account name of a user.");
        return integration_page(page, state).await;
    }
    let tenant_id = &page.tenant.tenant_id;
    let change = ConsentChange::DesignatedUser(name);
    match page.call.change_consent(tenant_id, &grant_id, change).await {
        Ok(consent) => {
            let user = consent.designated_user_label;
            let notice = format!("API transactions now run with the permissions of {user}.");
            integration_page(page, FormState::done(notice)).await
        }
        Err(error @ Error::NotFound("user")) => {
            note(&error);
            integration_page(page, FormState::invalid(&form, UNKNOWN_USER)).await
        }
        Err(error) => sign_in_again(&page, &form, error),
    }
}

/// `POST /{tenant}/integrations/{grant}/networks`.
pub(super) async fn change_networks(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let grant_id = grant_id(&page)?;
    let networks = match networks::read(&form) {
        Ok(networks) => networks,
        Err(error) => {
            let state = FormState {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                networks_error: Some(error),
                ..FormState::entered(&form)
            };
            return integration_page(page, state).await;
        }
    };
    let tenant_id = &page.tenant.tenant_id;
    let change = ConsentChange::AllowedNetworks(&networks);
    let changed = page.call.change_consent(tenant_id, &grant_id, change);
    match changed.await {
        Ok(_) => {
            let notice = match networks.allow_any() {
                true => "The integration can now request tokens from anywhere.",
                false => "The integration can now request tokens from these networks alone.",
            };
            integration_page(page, FormState::done(notice.to_owned())).await
        }
        Err(error) => sign_in_again(&page, &form, error),
    }
}

/// `POST /{tenant}/integrations/{grant}/revoke`.
pub(super) async fn revoke(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let grant_id = grant_id(&page)?;
    // A malformed reason must not prevent a revocation, so drops control characters and what is too long.
    let reason = form.text("reason").chars().filter(|c| !c.is_control());
    let reason: String = reason.take(MAX_REASON_CHARS).collect();
    let tenant_id = &page.tenant.tenant_id;
    match page
        .call
        .revoke_consent(tenant_id, &grant_id, reason.trim())
        .await
    {
        Ok(_) => {
            let notice = "Access was revoked. The integration can no longer reach your data.".to_owned();
            integration_page(page, FormState::done(notice)).await
        }
        Err(error) => sign_in_again(&page, &form, error),
    }
}

fn grant_id(page: &PageContext) -> Result<GrantId, PageError> {
    GrantId::parse(&page.resource).map_err(|_| PageError::MISSING)
}

/// Returns the sign-in form, with what was typed in it and in the form that it interrupts.
fn sign_in_form(page: &PageContext, sent: &Form) -> SignInPage {
    let mut view = sign_in::form(page, "sign-in", Some(sent));
    let grant_id = sent.get("grant").unwrap_or(&page.resource);
    if !grant_id.is_empty() {
        let state = FormState::entered(sent);
        let entered = [
            ("grant", grant_id.to_owned()),
            ("designated_account_name", state.account_name),
            ("reason", state.reason),
            (CHOSEN, state.networks.as_ref().map_or("", |_| "1").to_owned()),
            (networks::FIELD, state.networks.unwrap_or_default()),
        ];
        view.entered = entered
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
    }
    view
}

/// Shows the sign-in form after an error of the session. Returns any other error.
fn sign_in_again(page: &PageContext, sent: &Form, error: Error) -> Result<Response, PageError> {
    sign_in::again_after(page, sign_in_form(page, sent), error, "changed")
}

/// How to present the page of an integration: the status, a notice, and the values and errors of its forms.
#[derive(Default)]
struct FormState {
    status: StatusCode,
    notice: Option<String>,
    account_name: String,
    account_name_error: Option<&'static str>,
    reason: String,
    /// The networks entered; `None` for those that the integration has.
    networks: Option<String>,
    networks_error: Option<String>,
}

impl FormState {
    /// Presents what was entered in a form of the page. A sign-in form carries it in hidden fields, because there
    /// `account_name` is the Tenant Admin's.
    fn entered(form: &Form) -> Self {
        let name = match form.get("password") {
            Some(_) => form.text("designated_account_name"),
            None => form.text("account_name"),
        };
        Self {
            account_name: name.to_owned(),
            reason: form.text("reason").to_owned(),
            networks: form
                .get(networks::FIELD)
                .or(form.get(CHOSEN).map(|_| ""))
                .map(str::to_owned),
            ..Self::default()
        }
    }

    /// Presents a form whose account name has an error.
    fn invalid(form: &Form, account_name_error: &'static str) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            account_name_error: Some(account_name_error),
            ..Self::entered(form)
        }
    }

    /// Presents the notice of a completed change.
    fn done(notice: String) -> Self {
        Self {
            notice: Some(notice),
            ..Self::default()
        }
    }
}

async fn integration_page(mut page: PageContext, state: FormState) -> Result<Response, PageError> {
    let grant_id = grant_id(&page)?;
    let found = page
        .call
        .consent_with_usage(&page.tenant.tenant_id, &grant_id)
        .await;
    let (consent, report) = match found {
        Ok(found) => found,
        Err(error) => return sign_in_again(&page, &Form::default(), error),
    };
    let reuse = report.reuse.map(|(at, reuse)| {
        let what = match reuse {
            Reuse::RefreshToken => "a refresh token",
            Reuse::AuthorizationCode => "the code of the approval",
        };
        (what, dates::minute(at))
    });
    let can_change = matches!(consent.state, GrantState::Active | GrantState::Suspended);
    let can_revoke = can_change || consent.state == GrantState::Pending;
    let networks = networks::write(&consent.grant.allowed_networks);
    let integration = integration(&page, consent);
    let view = IntegrationPage {
        frame: page.frame(true),
        csrf: page.csrf(),
        change_user_url: can_change.then(|| format!("{}/designated-user", integration.url)),
        change_networks_url: can_change.then(|| format!("{}/networks", integration.url)),
        revoke_url: can_revoke.then(|| format!("{}/revoke", integration.url)),
        account_name: state.account_name,
        reason: state.reason,
        account_name_error: state.account_name_error.map(str::to_owned),
        networks: state.networks.unwrap_or(networks),
        networks_error: state.networks_error,
        notice: state.notice,
        reuse,
        days: report.days.into_iter().take(SHOWN_DAYS).map(shown_day).collect(),
        integration,
    };
    Ok(page.html(state.status, &view))
}

fn shown_day((day, usage): (Day, UsageOfDay)) -> ShownDay {
    ShownDay {
        day: dates::day(day.begins()),
        issued: usage.issued,
        rejected: usage.rejected(),
        scopes: usage.scopes.into_iter().collect(),
        addresses: usage.addresses.iter().map(ToString::to_string).collect(),
        has_more_addresses: usage.has_more_addresses,
    }
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
    let now = page.http.consents.store.now();
    let activated_at = consent.grant.activated_at.unwrap_or(consent.grant.created_at);
    let is_live = matches!(consent.state, GrantState::Active | GrantState::Suspended);
    let last_used = match consent.usage.last_used_at {
        Some(at) => dates::minute(at),
        None if consent.usage.may_have_been_used(activated_at, now) => "Not in the last 400 days".to_owned(),
        None => "Never".to_owned(),
    };
    Integration {
        url: page.path(&format!("integrations/{}", consent.grant.grant_id)),
        state,
        class,
        granted_on: dates::minute(consent.grant.created_at),
        ends_on: consent.grant.expires_at.map(dates::minute),
        ended_on: consent.ended_at.map(dates::minute),
        networks: consent.grant.allowed_networks.to_texts(),
        last_used,
        is_unused: is_live && consent.usage.is_unused(activated_at, now),
        consent,
    }
}
