//! The context of a request to a tenant's pages: the tenant, the call with the registry's facts, the cookies, and the
//! proof that a form was sent from one of our pages.
//!
//! There are two cookies: the admin session, and a random seed of CSRF tokens. A CSRF token is valid for one browser,
//! one tenant and one session.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
};

use accord::{
    rpc::auth::{Caller, Principal, WorkloadKind},
    text::{
        id::{SetupId, WorkloadId},
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
    view::{Frame, html},
};
use crate::{
    consent::{
        Call,
        admin_session::{self, SignIn},
    },
    error::{Error, Result},
    http::{HttpState, discovery::tenant_id, form::Form},
    model::{
        admin_session::{AdminSession, EndReason},
        tenant::Tenant,
    },
};

/// The cookie that holds the seed.
const SEED: &str = "accord-csrf";
/// Bytes of randomness in the seed of CSRF tokens.
const SEED_BYTES: usize = 32;

/// The caller that the pages act as: a gateway. No workload is registered under this id.
pub(super) static PAGES: LazyLock<Principal> = LazyLock::new(|| {
    let id = WorkloadId::parse("wkl_00000000000000000000000000");
    id.map_or(Principal::Anonymous, |id| {
        let kind = WorkloadKind::Gateway;
        Principal::Caller(Caller::Workload { id, kind })
    })
});

/// A request to a tenant's pages. No `Debug`: it holds the session's token.
pub(super) struct PageContext {
    pub(super) http: Arc<HttpState>,
    pub(super) tenant: Tenant,
    /// The path's second parameter: the id of a setup or grant, or the token of a link; empty if there is none.
    pub(super) resource: String,
    pub(super) call: Call,
    jar: CookieJar,
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
        let mut call = Call::new(&http.consents, PAGES.clone(), String::new());
        let tenant = call.tenant(&tenant_id).await?.value.clone();
        let jar = CookieJar::from_headers(&parts.headers);
        call.admin_session = Zeroizing::new(cookie_value(&jar, &session_name(&tenant)).to_owned());
        let mut page = Self {
            http: http.clone(),
            tenant,
            resource: params.next().unwrap_or_default().to_owned(),
            call,
            jar,
            address: client_address(&parts.headers),
        };
        if page.seed().is_empty() {
            let mut seed = [0; SEED_BYTES];
            http.consents.store.random.fill(&mut seed);
            let cookie = page.cookie(cookie_name(&page.tenant, SEED), URL_SAFE_NO_PAD.encode(seed));
            page.jar = page.jar.add(cookie);
        }
        Ok(page)
    }
}

/// A form that was posted to a tenant's pages with a valid CSRF token.
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
            Err(PageError::FOREIGN_FORM)
        }
    }
}

impl PageContext {
    /// Returns the path of a page of this tenant, `/{tenant}/{rest}`.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/{}/{rest}", self.tenant.tenant_id)
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
        (self.jar.clone(), html(status, page)).into_response()
    }

    /// Returns a redirect to a page of this tenant, with the cookies.
    pub(super) fn redirect(&self, rest: &str) -> Response {
        (self.jar.clone(), Redirect::to(&self.path(rest))).into_response()
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
        // The new cookie replaces the earlier session's, which would otherwise stay open.
        if let Err(error) = self.end_session().await {
            tracing::warn!(%error, "the earlier session stays open until it expires");
        }
        let cookie = self.cookie(session_name(&self.tenant), token.expose().to_owned());
        self.jar = std::mem::take(&mut self.jar).add(cookie);
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
        let cookie = self.cookie(session_name(&self.tenant), String::new());
        self.jar = std::mem::take(&mut self.jar).remove(cookie);
        Ok(())
    }

    /// Returns the CSRF token of this browser's forms.
    pub(super) fn csrf(&self) -> String {
        let session = cookie_value(&self.jar, &session_name(&self.tenant));
        // No part contains NUL, so two lists never join to the same text: cookies can't, and a tenant's id is a slug.
        let parts = [
            "accord csrf v1",
            self.seed(),
            self.tenant.tenant_id.as_str(),
            session,
        ];
        URL_SAFE_NO_PAD.encode(sha256(parts.join("\0").as_bytes()))
    }

    fn seed(&self) -> &str {
        cookie_value(&self.jar, &cookie_name(&self.tenant, SEED))
    }

    fn cookie(&self, name: String, value: String) -> Cookie<'static> {
        Cookie::build((name, value))
            .path("/")
            .http_only(true)
            .secure(is_secure(&self.tenant))
            // Not `Strict`: the first request comes from a partner's page, which is another site.
            .same_site(SameSite::Lax)
            .build()
    }
}

/// Returns the value of a cookie; empty if there is none.
fn cookie_value<'a>(jar: &'a CookieJar, name: &str) -> &'a str {
    jar.get(name).map(Cookie::value).unwrap_or_default()
}

/// Returns whether browsers reach the pages over TLS. Plain HTTP is for loopback only, where some browsers reject
/// `Secure` cookies.
fn is_secure(tenant: &Tenant) -> bool {
    !tenant.issuer.starts_with("http://")
}

fn session_name(tenant: &Tenant) -> String {
    cookie_name(tenant, &format!("accord-admin-{}", tenant.tenant_id))
}

/// Returns the full name of a cookie. `__Host-` binds a cookie to exactly this host (RFC 6265bis §4.1.3.2).
fn cookie_name(tenant: &Tenant, name: &str) -> String {
    let prefix = if is_secure(tenant) { "__Host-" } else { "" };
    format!("{prefix}{name}")
}

/// Returns the address that a browser calls from: the last element of `X-Forwarded-For`, which the gateway in front
/// wrote. Only the gateway reaches this listener.
///
/// Empty elements don't count (RFC 9110 §5.6.1). The bytes before the last element are the caller's, and may be any.
fn client_address(headers: &HeaderMap) -> Option<IpAddr> {
    let values = headers.get_all("x-forwarded-for").iter().rev();
    let mut elements = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    forwarded_address(elements.find(|element| !element.trim_ascii().is_empty())?)
}

/// Parses an address with or without port, brackets and quotes, as gateways write it.
fn forwarded_address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim();
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = bare.parse().ok().or_else(with_port)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append("x-forwarded-for", value);
        }
        client_address(&headers).map(|address| address.to_string())
    }

    #[test]
    fn the_gateway_wrote_the_last_forwarded_address() {
        for values in [
            &["203.0.113.7"][..],
            &["9.9.9.9, 203.0.113.7"],
            &["9.9.9.9", "203.0.113.7"],
            &["9.9.9.9,203.0.113.7:51034 "],
            &["\"203.0.113.7:51034\""],
            &["::ffff:203.0.113.7"],
            &["203.0.113.7, ,"],
            &["203.0.113.7", ""],
            // What the caller sent must not hide what the gateway added.
            &["\u{e9}, 203.0.113.7"],
            &["\"9.9.9.9, 203.0.113.7"],
        ] {
            assert_eq!(address(values).as_deref(), Some("203.0.113.7"), "{values:?}");
        }
        for value in [
            "2001:db8::1",
            "[2001:db8::1]",
            "[2001:db8::1]:443",
            "\"[2001:db8::1]:443\"",
            "2001:DB8:0::1",
        ] {
            assert_eq!(
                address(&["9.9.9.9", value]).as_deref(),
                Some("2001:db8::1"),
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_none_and_what_stands_before_it_does_not_count() {
        for last in [
            "unknown",
            "_hidden",
            "203.0.113.7:",
            "203.0.113.7:x",
            "203.0.113.07",
            "[203.0.113.7",
            "a.example",
            "1",
        ] {
            assert_eq!(address(&["9.9.9.9", last]), None, "{last}");
            assert_eq!(address(&[&format!("9.9.9.9, {last}")]), None, "{last}");
        }
        for values in [&[][..], &[""], &[" , "], &["", ""]] {
            assert_eq!(address(values), None, "{values:?}");
        }
    }
}
