//! The context of a request to a tenant's pages: the tenant, the call with the registry's facts, the cookies, and the
//! proof that a form was sent from one of our pages.
//!
//! A CSRF token is valid for one browser, one tenant and one session. A form whose token is stale, such as one that
//! waited in another tab, changes nothing and comes back with what was typed.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use accord::{
    rpc::{
        auth::{Caller, Principal, WorkloadKind},
        context,
    },
    store::audit::CallerAddress,
    text::{
        id::{SetupId, WorkloadId},
        opaque::{OpaqueToken, TokenKind, sha256_of_parts},
        page::PageRequest,
        validation::Violations,
    },
};
use askama::Template;
use axum::{
    extract::{FromRequestParts, RawPathParams, Request, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Redirect, Response},
    routing::{MethodRouter, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    cookies::{Cookies, is_secure},
    error::PageError,
    view::{Frame, html},
};
use crate::{
    consent::{
        ConsentCall,
        admin_session::{self, SignIn},
    },
    error::{Error, Result},
    http::{HttpState, discovery::tenant_id, form::Form},
    model::{
        admin_session::{AdminSession, EndReason},
        tenant::Tenant,
    },
};

/// The caller that the pages act as: a gateway. No workload is registered under this id.
pub(super) static PAGES: LazyLock<Principal> = LazyLock::new(|| {
    let id = WorkloadId::parse("wkl_00000000000000000000000000");
    id.map_or(Principal::Anonymous, |id| {
        let kind = WorkloadKind::Gateway;
        Principal::Caller(Caller::Workload { id, kind }, None)
    })
});

/// How many entries a page of a list shows.
const PAGE_SIZE: i32 = 25;

/// A request to a tenant's pages. No `Debug`: it holds the session's token.
pub(super) struct PageContext {
    pub(super) http: Arc<HttpState>,
    pub(super) tenant: Tenant,
    /// The path's second parameter: the id of a setup or grant, or the token of a link; empty if there is none.
    pub(super) resource: String,
    pub(super) call: ConsentCall,
    pub(super) cookies: Cookies,
    /// The browser's address, as the gateway in front forwards it.
    address: Option<IpAddr>,
}

impl FromRequestParts<Arc<HttpState>> for PageContext {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, http: &Arc<HttpState>) -> Result<Self, PageError> {
        let params = RawPathParams::from_request_parts(parts, http).await;
        let params = params.map_err(|_| PageError::NOT_FOUND)?;
        let mut params = params.iter().map(|(_, value)| value);
        let tenant_id = tenant_id(params.next().unwrap_or_default())?;
        let mut call = ConsentCall::new(&http.consents, PAGES.clone(), String::new());
        let tenant = call.tenant(&tenant_id).await?.value.clone();
        let cookies = Cookies::read(&parts.headers, is_secure(&tenant), &*http.consents.store.random);
        call.admin_session = Zeroizing::new(cookies.get(&session_name(&tenant)).to_owned());
        Ok(Self {
            http: http.clone(),
            tenant,
            resource: params.next().unwrap_or_default().to_owned(),
            call,
            cookies,
            address: context::address().and_then(CallerAddress::forwarded),
        })
    }
}

/// A form that was posted to a tenant's pages from one of them.
pub(super) struct PageForm {
    pub(super) page: PageContext,
    pub(super) form: Form,
}

impl PageForm {
    /// Reads a form. Returns whether its CSRF token is valid. Rejects a form with an invalid token unless it came from
    /// this site: `Sec-Fetch-Site` says so, or the browser sent the seed's cookie ([`Cookies::had_seed`]).
    async fn read(request: Request, http: &Arc<HttpState>) -> Result<(Self, bool), PageError> {
        let (mut parts, body) = request.into_parts();
        let page = PageContext::from_request_parts(&mut parts, http).await?;
        let site = parts.headers.get("sec-fetch-site");
        let is_own_form = site.is_some_and(|site| site == "same-origin") || page.cookies.had_seed;
        let form = Form::read(Request::from_parts(parts, body)).await?;
        let sent = form.text("csrf").as_bytes();
        let is_valid = bool::from(sent.ct_eq(page.csrf().as_bytes()));
        if is_valid || is_own_form {
            Ok((Self { page, form }, is_valid))
        } else {
            Err(PageError::FOREIGN_FORM)
        }
    }
}

/// Passes a form with a valid CSRF token to `handle`. Passes any other to `again`, which shows the form with what was
/// typed, and must change nothing.
pub(super) fn form<H, A, F, G>(handle: H, again: A) -> MethodRouter<Arc<HttpState>>
where
    H: Fn(PageForm) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, PageError>> + Send,
    A: Fn(PageForm) -> G + Clone + Send + Sync + 'static,
    G: Future<Output = Result<Response, PageError>> + Send,
{
    post(
        async move |State(http): State<Arc<HttpState>>, request: Request| match PageForm::read(request, &http)
            .await?
        {
            (form, true) => handle(form).await,
            (form, false) => again(form).await,
        },
    )
}

impl PageContext {
    /// Returns the path of a page of this tenant, `/{tenant}/{rest}`.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/{}/{rest}", self.tenant.tenant_id)
    }

    /// Returns which page of a list of this tenant a query asks for. `list` binds the query's token to the list.
    pub(super) fn list_request(
        &self,
        list: &'static str,
        query: Option<String>,
    ) -> Result<PageRequest, PageError> {
        let query = Form::parse(query.unwrap_or_default().as_bytes())?;
        let (mut v, filters) = (Violations::default(), [self.tenant.tenant_id.as_str()]);
        let request = PageRequest::parse(&mut v, list, &filters, PAGE_SIZE, query.text("page"));
        request.ok_or(PageError::MISSING)
    }

    /// Returns the frame of a page. If `signed_in`, it links to the integrations and has the sign-out form.
    pub(super) fn frame(&self, signed_in: bool) -> Frame {
        Frame {
            base: format!("/{}", self.tenant.tenant_id),
            csrf: signed_in.then(|| self.csrf()),
            ..Frame::new(&self.http.product_name, &self.tenant.display_name)
        }
    }

    /// Returns a response with a page and the cookies.
    pub(super) fn html(&self, status: StatusCode, page: &impl Template) -> Response {
        (self.cookies.jar.clone(), html(status, page)).into_response()
    }

    /// Returns a redirect to a page of this tenant, with the cookies.
    pub(super) fn redirect(&self, rest: &str) -> Response {
        (self.cookies.jar.clone(), Redirect::to(&self.path(rest))).into_response()
    }

    /// Returns the session, if it is valid and of this tenant.
    pub(super) async fn session(&mut self) -> Result<Option<AdminSession>> {
        match self.call.require_session().await {
            Ok(session) => Ok(Some(session).filter(|session| session.tenant_id == self.tenant.tenant_id)),
            Err(Error::AdminSessionInvalid) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Signs a Tenant Admin in with the fields of a form, ends the browser's earlier session, and sets the cookie.
    pub(super) async fn sign_in(&mut self, setup_id: Option<SetupId>, form: &Form) -> Result<()> {
        let sign_in = SignIn {
            tenant_id: self.tenant.tenant_id.clone(),
            setup_id,
            account_name: Zeroizing::new(form.text("account_name").to_owned()),
            password: Zeroizing::new(form.text("password").to_owned()),
            address: self.address,
        };
        if sign_in.account_name.is_empty() || sign_in.password.is_empty() {
            return Err(Error::SignInFailed);
        }
        let (token, _) = admin_session::sign_in(&self.http.consents, &PAGES.origin(), sign_in).await?;
        // The new cookie replaces the earlier session's, after which this browser could no longer end that session.
        if let Err(error) = self.end_session().await {
            tracing::warn!(%error, "the earlier session stays open until it expires");
        }
        let session = token.expose().to_owned();
        self.call = ConsentCall::new(&self.http.consents, PAGES.clone(), session.clone());
        self.cookies.set(&session_name(&self.tenant), session);
        Ok(())
    }

    /// Ends this browser's session in the store, for everyone who has its token, and removes its cookie.
    pub(super) async fn end_session(&mut self) -> Result<()> {
        if let Ok(token) = OpaqueToken::parse(TokenKind::AdminSession, &self.call.admin_session) {
            let (store, reason) = (&self.http.consents.store, EndReason::SignedOut);
            store
                .end_admin_session(&PAGES.origin(), &token.digest(), reason)
                .await?;
        }
        self.cookies.remove(&session_name(&self.tenant));
        Ok(())
    }

    /// Returns the CSRF token of this browser's forms.
    pub(super) fn csrf(&self) -> String {
        // NUL separates the parts: a tenant's id is a slug, and our cookies hold base64 and tokens. We never set a
        // cookie that decodes to a NUL.
        let parts = [
            "accord csrf v1",
            self.cookies.seed(),
            self.tenant.tenant_id.as_str(),
            self.cookies.get(&session_name(&self.tenant)),
        ];
        URL_SAFE_NO_PAD.encode(sha256_of_parts(&parts))
    }
}

fn session_name(tenant: &Tenant) -> String {
    format!("accord-admin-{}", tenant.tenant_id)
}
