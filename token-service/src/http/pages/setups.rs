//! The pages of a setup: a Tenant Admin signs in, reads the client's request with its scopes and reasons, and approves
//! or denies it.

use accord::{
    clock::UnixMillis,
    text::id::{ScopeName, SetupId},
};
use axum::{http::StatusCode, response::Response};
use url::Url;

use super::{
    approval_form,
    context::{PageContext, PageForm},
    dates,
    error::{PageError, note},
    networks,
    sign_in::{self, STALE_FORM, UNKNOWN_USER},
    view::{ConsentErrors, ConsentPage, Leaving, LeavingPage, ScopeChanges, ScopeChoice, SignInPage},
};
use crate::{
    consent::{
        setup::{ApprovedSetup, check_request},
        signed_request::SignedRequest,
    },
    error::{Error, Result},
    http::form::Form,
    model::{
        client::{Client, ClientScope},
        grant::Consent,
        setup::{NewSetup, Setup, SetupState, require_active},
        tenant::Tenant,
    },
};

/// The hidden field of a request that nobody has signed in for.
const REQUEST: &str = "request";

/// What a Tenant Admin signs in to decide.
pub(super) enum PendingSetup {
    /// A pending setup.
    Stored(Box<Setup>),
    /// A request that becomes a setup when somebody signs in.
    Request {
        new: Box<NewSetup>,
        /// The signed request, as the form holds it.
        text: String,
    },
}

impl PendingSetup {
    /// Checks a partner's request against its tenant and client.
    pub(super) async fn request(
        page: &PageContext,
        signed: SignedRequest,
        parties: (Tenant, Client),
    ) -> Result<Self> {
        let text = signed.sign(&page.http.consents.store).await?;
        Self::checked(signed, text, parties, page.http.consents.store.now())
    }

    /// Finds the setup of the path, or the request in a form that was sent there.
    async fn of(page: &mut PageContext, form: &Form) -> Result<Self> {
        let text = form.text(REQUEST);
        match pending_setup(page).await {
            Err(Error::NotFound(_)) if !text.is_empty() => {
                let setup_id = SetupId::parse(&page.resource).map_err(|_| Error::NotFound("setup"))?;
                let store = &page.http.consents.store;
                let signed = SignedRequest::verify(store, &page.tenant.tenant_id, &setup_id, text).await?;
                let request = &signed.request;
                let (tenant_id, client_id) = (&request.tenant_id, &request.client_id);
                let parties =
                    page.call
                        .tenant_and_client(tenant_id, client_id, &request.parameters.redirect_uri);
                let parties = parties.await?;
                Self::checked(signed, text.to_owned(), parties, page.http.consents.store.now())
            }
            found => Ok(Self::Stored(Box::new(found?))),
        }
    }

    fn checked(
        signed: SignedRequest,
        text: String,
        parties: (Tenant, Client),
        now: UnixMillis,
    ) -> Result<Self> {
        let new = check_request(signed.setup_id, signed.request, parties, now)?;
        Ok(Self::Request {
            new: Box::new(new),
            text,
        })
    }

    fn setup_id(&self) -> &SetupId {
        match self {
            Self::Stored(setup) => &setup.setup_id,
            Self::Request { new, .. } => &new.setup_id,
        }
    }
}

/// `GET /{tenant}/setups/{setup}`: the request to decide, or the sign-in form if there is no session for this setup.
pub(super) async fn show(mut page: PageContext) -> Result<Response, PageError> {
    let setup = pending_setup(&page).await?;
    if may_decide(&mut page, &setup.setup_id).await? {
        consent_page(page, &setup, FormState::default(), ConsentErrors::default()).await
    } else {
        let pending = PendingSetup::Stored(Box::new(setup));
        Ok(page.html(StatusCode::OK, &sign_in_form(&page, &pending, None)))
    }
}

/// `POST /{tenant}/setups/{setup}/sign-in`.
pub(super) async fn sign_in(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let pending = PendingSetup::of(&mut page, &form).await?;
    match page.sign_in(Some(pending.setup_id().clone()), &form).await {
        Ok(()) => signed_in(page, pending, &form).await,
        Err(error) => sign_in::failed(&page, sign_in_form(&page, &pending, Some(&form)), error),
    }
}

/// Continues after a sign-in: stores a new request, and shows the choices that the sign-in interrupted, or else
/// redirects to the setup.
async fn signed_in(mut page: PageContext, pending: PendingSetup, form: &Form) -> Result<Response, PageError> {
    let setup = &match pending {
        PendingSetup::Stored(setup) => *setup,
        PendingSetup::Request { new, .. } => page.call.store_setup(*new).await?,
    };
    if approval_form::has_choices(form) {
        let state = FormState {
            form: Some(form),
            status: StatusCode::OK,
            notice: Some("You are signed in. Check your choices, then approve once more."),
        };
        return consent_page(page, setup, state, ConsentErrors::default()).await;
    }
    Ok(page.redirect(&format!("setups/{}", setup.setup_id)))
}

/// Shows a form with an invalid CSRF token again, with what was typed.
pub(super) async fn again(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let pending = PendingSetup::of(&mut page, &form).await?;
    let has_session = may_decide(&mut page, pending.setup_id()).await?;
    // A first press of the button has already signed in.
    if has_session && form.get("password").is_some() {
        return signed_in(page, pending, &form).await;
    }
    if let PendingSetup::Stored(setup) = &pending
        && has_session
    {
        let state = FormState {
            form: Some(&form).filter(|form| approval_form::has_choices(form)),
            status: StatusCode::FORBIDDEN,
            notice: Some(STALE_FORM),
        };
        return consent_page(page, setup, state, ConsentErrors::default()).await;
    }
    Ok(sign_in::stale(&page, sign_in_form(&page, &pending, Some(&form))))
}

/// `POST /{tenant}/setups/{setup}/approve`. A second press of the button gets the first one's answer.
pub(super) async fn approve(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    let setup = tenant_setup(&page).await?;
    if !may_decide(&mut page, &setup.setup_id).await? {
        setup.require_pending(page.http.consents.store.now())?;
        return sign_in_again(&page, &setup, Error::AdminSessionInvalid, Some(&form));
    }
    let approve = match approval_form::read(&setup, &form, page.http.consents.store.now()) {
        Ok(approve) => approve,
        Err(errors) => return consent_page(page, &setup, FormState::invalid(&form), errors).await,
    };
    match page.call.approve_setup(approve).await {
        Ok(approved) => Ok(approved_page(&page, &setup, &approved, StatusCode::OK)),
        // The other button was pressed first. Its answer may have been lost.
        Err(error) if is_decided(&error, SetupState::Denied) => {
            match page.call.deny_setup(&setup.setup_id).await {
                Ok((setup, url)) => Ok(leaving(&page, &setup, &url, None, StatusCode::CONFLICT)),
                Err(_) => Err(error.into()),
            }
        }
        Err(error @ Error::NotFound("user")) => {
            note(&error);
            let errors = ConsentErrors {
                account_name: Some(UNKNOWN_USER.to_owned()),
                ..ConsentErrors::default()
            };
            consent_page(page, &setup, FormState::invalid(&form), errors).await
        }
        Err(error) => sign_in_again(&page, &setup, error, Some(&form)),
    }
}

/// `POST /{tenant}/setups/{setup}/deny`. A second press of the button gets the first one's answer.
pub(super) async fn deny(PageForm { mut page, .. }: PageForm) -> Result<Response, PageError> {
    let setup = tenant_setup(&page).await?;
    match page.call.deny_setup(&setup.setup_id).await {
        Ok((setup, url)) => Ok(leaving(&page, &setup, &url, None, StatusCode::OK)),
        // The other button was pressed first. Its answer may have been lost.
        Err(error) if is_decided(&error, SetupState::Approved) => {
            match page.call.approved_before(&setup.setup_id).await {
                Ok(approved) => Ok(approved_page(&page, &setup, &approved, StatusCode::CONFLICT)),
                Err(_) => Err(error.into()),
            }
        }
        Err(error) => {
            setup.require_pending(page.http.consents.store.now())?;
            sign_in_again(&page, &setup, error, None)
        }
    }
}

/// Reads the setup of the path. Rejects a suspended tenant.
async fn tenant_setup(page: &PageContext) -> Result<Setup> {
    let store = &page.http.consents.store;
    let setup_id = SetupId::parse(&page.resource).map_err(|_| Error::NotFound("setup"))?;
    let setup = store.get_tenant_setup(&page.tenant.tenant_id, &setup_id).await?;
    require_active("tenant", page.tenant.active)?;
    Ok(setup)
}

/// Reads the setup of the path. Rejects a setup that is not pending, and a suspended tenant.
async fn pending_setup(page: &PageContext) -> Result<Setup> {
    let setup = tenant_setup(page).await?;
    setup.require_pending(page.http.consents.store.now())?;
    Ok(setup)
}

/// Returns whether the browser has a session that was opened for this setup.
async fn may_decide(page: &mut PageContext, setup_id: &SetupId) -> Result<bool> {
    let session = page.session().await?;
    Ok(session.is_some_and(|session| session.setup_id.as_ref() == Some(setup_id)))
}

/// Returns the sign-in form, with what was typed in it and in the form that it interrupts.
pub(super) fn sign_in_form(page: &PageContext, pending: &PendingSetup, sent: Option<&Form>) -> SignInPage {
    let path = format!("setups/{}/sign-in", pending.setup_id());
    let mut view = sign_in::form(page, &path, sent);
    view.client = Some(match pending {
        PendingSetup::Stored(setup) => setup.display.clone(),
        PendingSetup::Request { new, .. } => new.display.clone(),
    });
    if let PendingSetup::Request { text, .. } = pending {
        view.entered = vec![(REQUEST, text.clone())];
    }
    if let Some(form) = sent.filter(|form| approval_form::has_choices(form)) {
        view.entered.extend(approval_form::hidden_fields(form));
    }
    view
}

/// Shows the sign-in form after an error of the session. Returns any other error.
fn sign_in_again(
    page: &PageContext,
    setup: &Setup,
    error: Error,
    sent: Option<&Form>,
) -> Result<Response, PageError> {
    let pending = PendingSetup::Stored(Box::new(setup.clone()));
    sign_in::again_after(page, sign_in_form(page, &pending, sent), error, "decided")
}

/// How to present the consent page: the form that was sent, if any, the status and a notice.
#[derive(Default)]
struct FormState<'a> {
    form: Option<&'a Form>,
    status: StatusCode,
    notice: Option<&'static str>,
}

impl<'a> FormState<'a> {
    /// Presents a form with errors.
    fn invalid(form: &'a Form) -> Self {
        Self {
            form: Some(form),
            status: StatusCode::UNPROCESSABLE_ENTITY,
            ..Self::default()
        }
    }
}

/// Shows the consent page. `state` holds the choices so far, and `errors` what is wrong with them.
async fn consent_page(
    mut page: PageContext,
    setup: &Setup,
    state: FormState<'_>,
    errors: ConsentErrors,
) -> Result<Response, PageError> {
    let call = &mut page.call;
    let current = match call.current_consent(&setup.tenant_id, &setup.client_id).await {
        Ok(current) => current,
        Err(error) => return sign_in_again(&page, setup, error, state.form),
    };
    let form = state.form;
    let grant = current.as_ref().map(|consent| &consent.grant);
    let is_new = |scope: &ClientScope| grant.is_some_and(|grant| !grant.allows(scope));
    let scopes = setup.scopes.iter().map(|scope| ScopeChoice {
        name: scope.name.to_string(),
        description: scope.description.clone(),
        reason: scope.reason.clone(),
        // Preselects no scope that the current consent lacks; without a consent, preselects all.
        checked: match form {
            Some(form) => form.all("scope").any(|name| name == scope.name.as_str()),
            None => !is_new(scope),
        },
        is_new: is_new(scope),
    });
    let field = |name| form.map(|form| form.text(name).to_owned()).unwrap_or_default();
    let redirect = Url::parse(&setup.redirect_uri).ok();
    let now = page.http.consents.store.now();
    let view = ConsentPage {
        frame: page.frame(true),
        setup_id: setup.setup_id.to_string(),
        csrf: page.csrf(),
        client: setup.display.clone(),
        redirect_host: redirect
            .as_ref()
            .and_then(Url::host_str)
            .unwrap_or_default()
            .to_owned(),
        scopes: scopes.collect(),
        changes: current.as_ref().map(|consent| changes(setup, consent)),
        account_name: field("designated_account_name"),
        end_date: field("end_date"),
        networks: match (form, grant) {
            (Some(form), _) => form.text(networks::FIELD).to_owned(),
            (None, Some(grant)) => networks::write(&grant.allowed_networks),
            (None, None) => String::new(),
        },
        earliest_end_date: dates::earliest_input(now),
        now: dates::minute(now),
        notice: state.notice,
        errors,
    };
    Ok(page.html(state.status, &view))
}

/// Compares the requested scopes with those of the current consent.
fn changes(setup: &Setup, consent: &Consent) -> ScopeChanges {
    let held: Vec<&ScopeName> = consent.scopes.iter().map(|scope| &scope.name).collect();
    let requested: Vec<&ScopeName> = setup.scopes.iter().map(|scope| &scope.name).collect();
    let added = requested.iter().filter(|name| !held.contains(name));
    let dropped = held.iter().filter(|name| !requested.contains(name));
    ScopeChanges {
        granted_on: dates::day(consent.grant.created_at),
        added: added.map(ToString::to_string).collect(),
        dropped: dropped.map(ToString::to_string).collect(),
        designated_user: consent.designated_user_label.clone(),
    }
}

/// Returns whether a setup was decided in this way before.
fn is_decided(error: &Error, decided: SetupState) -> bool {
    matches!(error, Error::WrongState { resource: "setup", state } if *state == <&str>::from(decided))
}

fn approved_page(
    page: &PageContext,
    setup: &Setup,
    approved: &ApprovedSetup,
    status: StatusCode,
) -> Response {
    let ends_on = approved.consent.grant.expires_at.map(dates::minute);
    leaving(page, setup, &approved.redirect_url, Some(ends_on), status)
}

/// Sends the browser back to the partner by a page instead of a redirect: browsers would apply the policy `form-action`
/// to the redirect, and to each further redirect of the partner. `approved` is `None` after a denial; after an approval
/// it holds when the access ends, if it does. With the status 409 the other button was pressed too late, and the person
/// goes on by a click: what they want is not clear.
fn leaving(
    page: &PageContext,
    setup: &Setup,
    url: &str,
    approved: Option<Option<String>>,
    status: StatusCode,
) -> Response {
    let view = LeavingPage {
        frame: page.frame(false),
        url: url.to_owned(),
        partner_name: setup.display.partner_name.clone(),
        too_late: status == StatusCode::CONFLICT,
        outcome: match approved {
            Some(_) => Leaving::Approved,
            None => Leaving::Denied,
        },
        ends_on: approved.flatten(),
    };
    page.html(status, &view)
}
