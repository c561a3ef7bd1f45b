//! The cookies of the pages: the admin session, the pushed requests that the browser has opened, and a random seed that identifies
//! the browser. CSRF tokens and the request ids of forms derive from the seed.

use accord::{
    random::Random,
    text::opaque::{OpaqueToken, sha256_of_parts},
};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use uuid::{Builder, Uuid};

use crate::model::tenant::Tenant;

/// The cookie that holds the seed.
const SEED: &str = "accord-csrf";
/// Bytes of randomness in the seed.
const SEED_BYTES: usize = 32;

/// The cookies of a browser.
pub(super) struct Cookies {
    pub(super) jar: CookieJar,
    /// Whether browsers reach the pages over TLS. Plain HTTP is for loopback only, where some browsers reject `Secure`
    /// cookies.
    secure: bool,
    /// Whether the request carried a seed. The cookie is `Lax`, so browsers don't send it with a form of another site.
    pub(super) had_seed: bool,
}

impl Cookies {
    /// Reads the cookies of a request, and adds a seed if there is none.
    pub(super) fn read(headers: &HeaderMap, secure: bool, random: &dyn Random) -> Self {
        let jar = CookieJar::from_headers(headers);
        let mut cookies = Self {
            jar,
            secure,
            had_seed: true,
        };
        if cookies.seed().is_empty() {
            let mut seed = [0; SEED_BYTES];
            random.fill(&mut seed);
            cookies.had_seed = false;
            cookies.set(SEED, URL_SAFE_NO_PAD.encode(seed));
        }
        cookies
    }

    /// Returns the value of a cookie; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        let cookie = self.jar.get(&self.full_name(name));
        cookie.map(Cookie::value).unwrap_or_default()
    }

    pub(super) fn set(&mut self, name: &str, value: String) {
        let cookie = self.cookie(name, value);
        self.jar = std::mem::take(&mut self.jar).add(cookie);
    }

    pub(super) fn remove(&mut self, name: &str) {
        let cookie = self.cookie(name, String::new());
        self.jar = std::mem::take(&mut self.jar).remove(cookie);
    }

    /// Returns the seed, which identifies this browser.
    pub(super) fn seed(&self) -> &str {
        self.get(SEED)
    }

    /// Returns the id of this browser's request to use a link. It is the same each time, so that a second press of the
    /// button repeats the first.
    pub(super) fn request_id(&self, link: &OpaqueToken) -> Uuid {
        let parts = ["accord link v1", self.seed(), link.expose()];
        let digest = sha256_of_parts(&parts);
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Builder::from_random_bytes(half).into_uuid()
    }

    fn cookie(&self, name: &str, value: String) -> Cookie<'static> {
        Cookie::build((self.full_name(name), value))
            .path("/")
            .http_only(true)
            .secure(self.secure)
            // Not `Strict`: the first request comes from a partner's page, which is another site.
            .same_site(SameSite::Lax)
            .build()
    }

    /// Returns the full name of a cookie. `__Host-` binds a cookie to exactly this host (RFC 6265bis §4.1.3.2).
    fn full_name(&self, name: &str) -> String {
        let prefix = if self.secure { "__Host-" } else { "" };
        format!("{prefix}{name}")
    }
}

/// Returns whether browsers reach a tenant's pages over TLS.
pub(super) fn is_secure(tenant: &Tenant) -> bool {
    !tenant.issuer.starts_with("http://")
}

/// Returns whether browsers reach the host that a request names over TLS: all but a loopback host. True for no host.
pub(super) fn is_secure_host(headers: &HeaderMap) -> bool {
    let host = headers
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let host = authority.as_ref().map(|authority| authority.host());
    !matches!(host, Some("127.0.0.1" | "[::1]" | "localhost"))
}
