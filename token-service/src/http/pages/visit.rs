//! A browser at a tenant's pages: the tenant, the cookies, and the proof that a form was sent from one of
//! our pages.
//!
//! Two cookies: the admin session, and a random value that CSRF tokens derive from. A CSRF token holds for
//! one browser, one tenant and one session.

use std::net::IpAddr;

use accord::text::{
    id::{SetupId, TenantId},
    opaque::{OpaqueToken, TokenKind, sha256},
};
use axum::http::HeaderMap;
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    PageError, browser, frame, origin,
    view::{Frame, SessionLinks},
};
use crate::{
    consent::{
        Access,
        admin_session::{self, AdminSession, SignIn},
    },
    error::Error,
    http::{Gateway, discovery::tenant_id, form::Form},
    model::tenant::Tenant,
};

/// Bytes of randomness in the value that CSRF tokens derive from.
const SEED_BYTES: usize = 32;

/// A browser at a tenant's pages. No `Debug`: it holds the session.
pub(super) struct Visit {
    pub(super) gateway: Gateway,
    pub(super) tenant: Tenant,
    pub(super) jar: CookieJar,
    /// The address that the browser calls from, as the gateway in front tells it.
    address: Option<IpAddr>,
}

impl Visit {
    /// A visit to the pages of the tenant of this path.
    pub(super) async fn of(gateway: &Gateway, tenant: &str, headers: &HeaderMap) -> Result<Self, PageError> {
        let tenant = gateway.consents.registry.tenant(&tenant_id(tenant)?).await?.value;
        let mut visit = Self {
            gateway: gateway.clone(),
            tenant,
            jar: CookieJar::from_headers(headers),
            address: client_address(headers),
        };
        if visit.seed().is_none() {
            let mut seed = [0; SEED_BYTES];
            gateway.consents.store.random.fill(&mut seed);
            let cookie = visit.cookie(visit.seed_name(), URL_SAFE_NO_PAD.encode(seed));
            visit.jar = visit.jar.add(cookie);
        }
        Ok(visit)
    }

    pub(super) fn tenant_id(&self) -> &TenantId {
        &self.tenant.tenant_id
    }

    /// A path of this tenant's pages.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/{}/{rest}", self.tenant.tenant_id)
    }

    /// What surrounds a page; with the links of a session, if there is one.
    pub(super) fn frame(&self, signed_in: bool) -> Frame {
        let session = signed_in.then(|| SessionLinks {
            integrations_url: self.path("integrations"),
            sign_out_url: self.path("sign-out"),
            csrf: self.csrf(),
        });
        Frame {
            session,
            ..frame(&self.gateway.product_name, self.tenant.display_name.clone())
        }
    }

    /// By what right the consents of this tenant are read and changed.
    pub(super) fn access(&self) -> Access<'_> {
        Access {
            principal: browser(),
            admin_session: self.session_token(),
            tenant_id: &self.tenant.tenant_id,
        }
    }

    /// The text of the session's token; empty if there is no cookie.
    pub(super) fn session_token(&self) -> &str {
        let cookie = self.jar.get(&self.session_name());
        cookie.map(Cookie::value).unwrap_or_default()
    }

    /// The session at this tenant, if it is a valid one.
    pub(super) async fn session(&self) -> Result<Option<AdminSession>, Error> {
        if self.session_token().is_empty() {
            return Ok(None);
        }
        let service = &self.gateway.consents;
        match admin_session::require(service, &origin(), self.session_token()).await {
            Ok(session) => Ok(Some(session).filter(|session| session.tenant_id == self.tenant.tenant_id)),
            Err(Error::AdminSessionInvalid) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Signs a Tenant Admin in by the fields of a form; the session's cookie is in the jar then.
    pub(super) async fn sign_in(&mut self, setup_id: Option<SetupId>, form: &Form) -> Result<(), Error> {
        let service = &self.gateway.consents;
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
        let (token, _) = admin_session::sign_in(service, &origin(), sign_in).await?;
        // The session that this browser had before would go on unseen.
        self.end_session().await?;
        self.set_session(&token);
        Ok(())
    }

    /// Ends this browser's session, here and for anybody who has its token.
    pub(super) async fn end_session(&mut self) -> Result<(), Error> {
        if let Ok(token) = OpaqueToken::parse(TokenKind::AdminSession, self.session_token()) {
            admin_session::sign_out(&self.gateway.consents, &origin(), &token).await?;
        }
        self.clear_session();
        Ok(())
    }

    fn set_session(&mut self, token: &OpaqueToken) {
        let cookie = self.cookie(self.session_name(), token.expose().to_owned());
        self.jar = std::mem::take(&mut self.jar).add(cookie);
    }

    /// Forgets the session in this browser.
    fn clear_session(&mut self) {
        let cookie = self.cookie(self.session_name(), String::new());
        self.jar = std::mem::take(&mut self.jar).remove(cookie);
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

    /// Refuses a form that was not sent from one of our pages in this browser and session.
    pub(super) fn check_csrf(&self, form: &Form) -> Result<(), PageError> {
        let sent = form.text("csrf").as_bytes();
        if bool::from(sent.ct_eq(self.csrf().as_bytes())) {
            Ok(())
        } else {
            Err(PageError::foreign_form())
        }
    }

    fn seed(&self) -> Option<&str> {
        let seed = self.jar.get(&self.seed_name()).map(Cookie::value);
        seed.filter(|seed| !seed.is_empty())
    }

    /// Whether the pages are reached by TLS. Plain HTTP is for loopback alone, where browsers take no
    /// `Secure` cookies.
    fn is_secure(&self) -> bool {
        !self.tenant.issuer.starts_with("http://")
    }

    fn seed_name(&self) -> String {
        self.cookie_name("accord-csrf".to_owned())
    }

    fn session_name(&self) -> String {
        self.cookie_name(format!("accord-admin-{}", self.tenant.tenant_id))
    }

    /// `__Host-` binds a cookie to exactly this host (RFC 6265bis §4.1.3.2).
    fn cookie_name(&self, name: String) -> String {
        if self.is_secure() {
            format!("__Host-{name}")
        } else {
            name
        }
    }

    fn cookie(&self, name: String, value: String) -> Cookie<'static> {
        Cookie::build((name, value))
            .path("/")
            .http_only(true)
            .secure(self.is_secure())
            // A partner's page leads here, so the first request comes from another site.
            .same_site(SameSite::Lax)
            .build()
    }
}

/// The address that a browser calls from: the last element of `X-Forwarded-For`, which the gateway in
/// front wrote. This listener is reached by nobody else.
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
