//! The context of a request to a tenant's pages: the tenant, the registry's facts, the cookies, and the proof
//! that a form was sent from one of our pages.
//!
//! Two cookies: the admin session, and a random seed of CSRF tokens. A CSRF token is valid for one browser,
//! one tenant and one session.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use accord::{
    rpc::auth::{Caller, Principal, WorkloadKind},
    store::audit::Origin,
    text::{
        id::{SetupId, TenantId, WorkloadId},
        opaque::{OpaqueToken, TokenKind, sha256},
    },
};
use askama::Template;
use axum::{
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    error::PageError,
    view::{Frame, SessionLinks, html},
};
use crate::{
    consent::{
        Consents, Facts,
        admin_session::{self, SignIn},
        connected::Access,
    },
    error::Error,
    http::{HttpState, discovery::tenant_id, form::Form},
    model::{
        admin_session::{AdminSession, EndReason},
        tenant::Tenant,
    },
};

/// Bytes of randomness in the seed of CSRF tokens.
const SEED_BYTES: usize = 32;

/// The principal of the pages themselves. No such workload is registered, so that nobody else can be it.
static PAGES: LazyLock<Option<Principal>> = LazyLock::new(|| {
    let id = WorkloadId::parse("wkl_00000000000000000000000000").ok()?;
    Some(Principal::Caller(Caller::Workload {
        id,
        kind: WorkloadKind::Gateway,
    }))
});

fn principal() -> &'static Principal {
    PAGES.as_ref().unwrap_or(&Principal::Anonymous)
}

/// The origin of audit events that a browser causes.
pub(super) fn origin() -> Origin {
    principal().origin()
}

/// A request to the pages of the tenant of its path. No `Debug`: it holds the session.
pub(super) struct PageContext {
    pub(super) http: Arc<HttpState>,
    pub(super) tenant: Tenant,
    facts: Facts,
    jar: CookieJar,
    /// The browser's address, as the gateway in front forwards it.
    address: Option<IpAddr>,
}

impl FromRequestParts<Arc<HttpState>> for PageContext {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, http: &Arc<HttpState>) -> Result<Self, PageError> {
        let params = RawPathParams::from_request_parts(parts, http).await;
        let params = params.map_err(|_| PageError::not_found())?;
        let tenant = params.iter().find(|(name, _)| *name == "tenant");
        let tenant_id = tenant_id(tenant.map(|(_, value)| value).unwrap_or_default())?;
        let mut facts = Facts::new(&http.consents.registry);
        let tenant = facts.tenant(&tenant_id).await?.ok_or(Error::NotFound("tenant"))?;
        let mut page = Self {
            http: http.clone(),
            tenant: tenant.value.clone(),
            facts,
            jar: CookieJar::from_headers(&parts.headers),
            address: client_address(&parts.headers),
        };
        if page.seed().is_none() {
            let mut seed = [0; SEED_BYTES];
            http.consents.store.random.fill(&mut seed);
            let cookie = page.cookie(page.seed_name(), URL_SAFE_NO_PAD.encode(seed));
            page.jar = page.jar.add(cookie);
        }
        Ok(page)
    }
}

/// A form of a tenant's pages, whose CSRF token is valid.
pub(super) struct PageForm {
    pub(super) page: PageContext,
    pub(super) form: Form,
}

impl FromRequest<Arc<HttpState>> for PageForm {
    type Rejection = PageError;

    async fn from_request(request: Request, http: &Arc<HttpState>) -> Result<Self, PageError> {
        let (mut parts, body) = request.into_parts();
        let page = PageContext::from_request_parts(&mut parts, http).await?;
        let form = Form::read(Request::from_parts(parts, body)).await?;
        let sent = form.text("csrf").as_bytes();
        if bool::from(sent.ct_eq(page.csrf().as_bytes())) {
            Ok(Self { page, form })
        } else {
            Err(PageError::foreign_form())
        }
    }
}

impl PageContext {
    pub(super) fn tenant_id(&self) -> &TenantId {
        &self.tenant.tenant_id
    }

    /// A path of this tenant's pages.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/{}/{rest}", self.tenant.tenant_id)
    }

    /// The frame of a page; with the links of a session when `signed_in`.
    pub(super) fn frame(&self, signed_in: bool) -> Frame {
        let session = signed_in.then(|| SessionLinks {
            integrations_url: self.path("integrations"),
            sign_out_url: self.path("sign-out"),
            csrf: self.csrf(),
        });
        Frame {
            session,
            ..Frame::new(&self.http.product_name, &self.tenant.display_name)
        }
    }

    /// Answers with a page, and the cookies.
    pub(super) fn html(&self, status: StatusCode, page: &impl Template) -> Response {
        (self.jar.clone(), html(status, page)).into_response()
    }

    /// Answers with a redirect to a path of this tenant's pages, and the cookies.
    pub(super) fn redirect(&self, rest: &str) -> Response {
        (self.jar.clone(), Redirect::to(&self.path(rest))).into_response()
    }

    /// The arguments of an operation on the tenant's consents.
    pub(super) fn operation(&mut self) -> (&Consents, &mut Facts, Access<'_>) {
        let cookie = self.jar.get(&session_name(&self.tenant));
        let admin_session = cookie.map(Cookie::value).unwrap_or_default();
        let access = Access::new(principal(), admin_session, &self.tenant.tenant_id);
        (&self.http.consents, &mut self.facts, access)
    }

    /// The text of the session's token; empty if there is no cookie.
    fn session_token(&self) -> &str {
        let cookie = self.jar.get(&session_name(&self.tenant));
        cookie.map(Cookie::value).unwrap_or_default()
    }

    /// The session at this tenant, if it is valid.
    pub(super) async fn session(&mut self) -> Result<Option<AdminSession>, Error> {
        let (consents, facts, access) = self.operation();
        match admin_session::require(consents, facts, &origin(), access.admin_session).await {
            Ok(session) => Ok(Some(session).filter(|session| session.tenant_id == self.tenant.tenant_id)),
            Err(Error::AdminSessionInvalid) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Signs a Tenant Admin in with the fields of a form, and sets the session's cookie.
    pub(super) async fn sign_in(&mut self, setup_id: Option<SetupId>, form: &Form) -> Result<(), Error> {
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
        let (token, _) = admin_session::sign_in(&self.http.consents, &origin(), sign_in).await?;
        // Otherwise the browser's earlier session would stay open.
        self.end_session().await?;
        let cookie = self.cookie(session_name(&self.tenant), token.expose().to_owned());
        self.jar = std::mem::take(&mut self.jar).add(cookie);
        Ok(())
    }

    /// Ends this browser's session, here and for anybody who has its token.
    pub(super) async fn end_session(&mut self) -> Result<(), Error> {
        if let Ok(token) = OpaqueToken::parse(TokenKind::AdminSession, self.session_token()) {
            let store = &self.http.consents.store;
            store
                .end_admin_session(&origin(), &token.digest(), EndReason::SignedOut)
                .await?;
        }
        let cookie = self.cookie(session_name(&self.tenant), String::new());
        self.jar = std::mem::take(&mut self.jar).remove(cookie);
        Ok(())
    }

    /// The CSRF token of this browser's forms.
    pub(super) fn csrf(&self) -> String {
        let parts = [
            "accord csrf v1",
            self.seed().unwrap_or_default(),
            self.tenant.tenant_id.as_str(),
            self.session_token(),
        ];
        // No part holds a NUL: cookies can't, and a tenant's id is a slug.
        URL_SAFE_NO_PAD.encode(sha256(parts.join("\0").as_bytes()))
    }

    fn seed(&self) -> Option<&str> {
        let seed = self.jar.get(&self.seed_name()).map(Cookie::value);
        seed.filter(|seed| !seed.is_empty())
    }

    fn seed_name(&self) -> String {
        cookie_name(&self.tenant, "accord-csrf".to_owned())
    }

    fn cookie(&self, name: String, value: String) -> Cookie<'static> {
        Cookie::build((name, value))
            .path("/")
            .http_only(true)
            .secure(is_secure(&self.tenant))
            // A partner's page links here, so that the first request comes from another site.
            .same_site(SameSite::Lax)
            .build()
    }
}

/// Whether browsers reach the pages by TLS. Plain HTTP is for loopback alone, where browsers take no `Secure`
/// cookies.
fn is_secure(tenant: &Tenant) -> bool {
    !tenant.issuer.starts_with("http://")
}

fn session_name(tenant: &Tenant) -> String {
    cookie_name(tenant, format!("accord-admin-{}", tenant.tenant_id))
}

/// `__Host-` binds a cookie to exactly this host (RFC 6265bis §4.1.3.2).
fn cookie_name(tenant: &Tenant, name: String) -> String {
    if is_secure(tenant) {
        format!("__Host-{name}")
    } else {
        name
    }
}

/// The address that a browser calls from: the last element of `X-Forwarded-For`, which the gateway in front
/// wrote. Nobody else reaches this listener.
fn client_address(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_gateway_s_word_counts_and_a_browser_s_does_not() {
        let address = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            client_address(&headers).map(|address| address.to_string())
        };
        assert_eq!(address(&["1.2.3.4"]).as_deref(), Some("1.2.3.4"));
        assert_eq!(address(&["9.9.9.9, 1.2.3.4"]).as_deref(), Some("1.2.3.4"));
        assert_eq!(
            address(&["9.9.9.9", "2001:db8::1"]).as_deref(),
            Some("2001:db8::1")
        );
        assert_eq!(address(&["unknown"]), None);
        assert_eq!(address(&[]), None);
    }
}
