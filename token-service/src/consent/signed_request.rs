//! Authorization requests that nobody has signed in for. They travel in the sign-in form, signed, and not in the
//! database: a browser that prefetches the page, or a stranger who opens it a million times, stores nothing.

use accord::{
    clock::UnixMillis,
    text::id::{SetupId, TenantId},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::{
    error::{Error, Result},
    model::{
        purpose,
        setup::{LIFETIME, request::AuthorizationRequest},
    },
    store::Store,
};

/// Separates these MACs from all others.
const LABEL: &[u8] = b"accord authorization request v1";

/// Separates the MACs of opened requests from all others.
const OPENED_LABEL: &[u8] = b"accord opened request v1";
/// The most opened requests that a browser's cookie holds.
const MAX_OPENED: usize = 8;

/// An authorization request, and the id of the setup that a sign-in stores it under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRequest {
    /// The id of the setup.
    pub setup_id: SetupId,
    /// The request.
    pub request: AuthorizationRequest,
    /// From when on no sign-in stores it.
    pub expires_at: UnixMillis,
}

impl SignedRequest {
    /// Gives a request the id of its setup.
    pub fn new(store: &Store, request: AuthorizationRequest) -> Self {
        Self {
            setup_id: SetupId::generate(&*store.clock, &*store.random),
            request,
            expires_at: store.now().plus(LIFETIME),
        }
    }

    /// Returns the request with its MAC, in characters of base64url and dots.
    pub async fn sign(&self, store: &Store) -> Result<String> {
        let payload = serde_json::to_vec(self).map_err(|error| Error::Internal(error.into()))?;
        let keyring = store.keyring.get().await?;
        let key = keyring.current(purpose::AUTHORIZATION_REQUEST)?;
        let mac = key.hmac(&[LABEL, &payload]);
        let (payload, mac) = (URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(mac));
        Ok(format!("{}.{payload}.{mac}", key.version()))
    }

    /// Reads a request that [`Self::sign`] returned for this setup of this tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`] for any other text; [`Error::WrongState`] after its end.
    pub async fn verify(store: &Store, tenant_id: &TenantId, setup_id: &SetupId, text: &str) -> Result<Self> {
        let request = Self::read(store, text)
            .await?
            .filter(|signed| (&signed.request.tenant_id, &signed.setup_id) == (tenant_id, setup_id));
        let request = request.ok_or(Error::NotFound("setup"))?;
        if store.now() >= request.expires_at {
            return Err(Error::WrongState {
                resource: "setup",
                state: "EXPIRED",
            });
        }
        Ok(request)
    }

    async fn read(store: &Store, text: &str) -> Result<Option<Self>> {
        let parts = || {
            let (version, signed) = text.split_once('.')?;
            let (payload, mac) = signed.split_once('.')?;
            let decode = |part| URL_SAFE_NO_PAD.decode(part).ok();
            Some((version.parse().ok()?, decode(payload)?, decode(mac)?))
        };
        let Some((version, payload, mac)) = parts() else {
            return Ok(None);
        };
        // A stranger wrote the version. One that is not in memory must not cause a read.
        let keyring = store.keyring.get().await?;
        let key = keyring.version(purpose::AUTHORIZATION_REQUEST, version);
        let key = key.filter(|key| bool::from(key.hmac(&[LABEL, &payload]).ct_eq(&mac)));
        Ok(key.and_then(|_| serde_json::from_slice(&payload).ok()))
    }
}

/// The pushed requests that a browser has opened, as its cookie holds them. It may open them again after their `request_uri` has
/// expired, for as long as their form lasts: the browser reloads that page, or goes back to it.
///
/// An entry is `<version of the key>.<end in seconds>.<MAC>`, and names nothing.
#[derive(Debug, Default)]
pub struct OpenedRequests(String);

impl OpenedRequests {
    /// Reads the cookie, which may be empty or anything.
    pub fn new(cookie: &str) -> Self {
        Self(cookie.to_owned())
    }

    /// Returns the cookie.
    pub fn into_text(self) -> String {
        self.0
    }

    /// Returns until when the browser may open this request again; `None` if it has not opened it, and after the end.
    pub async fn end(&self, store: &Store, setup_id: &SetupId) -> Result<Option<UnixMillis>> {
        let keyring = store.keyring.get().await?;
        let end = self.entries(store.now()).find_map(|(entry, end)| {
            let (version, rest) = entry.split_once('.')?;
            let mac = URL_SAFE_NO_PAD.decode(rest.split_once('.')?.1).ok()?;
            let key = keyring.version(purpose::AUTHORIZATION_REQUEST, version.parse().ok()?)?;
            let signed = [OPENED_LABEL, setup_id.as_str().as_bytes(), &end.to_be_bytes()];
            bool::from(key.hmac(&signed).ct_eq(&mac)).then_some(end)
        });
        Ok(end.map(|end| UnixMillis::from_millis(end.saturating_mul(1000))))
    }

    /// Adds a request. Forgets those that have ended, and the oldest of too many. Returns until when the browser may open it
    /// again: longer than others may open the `request_uri`, so that whoever signs in slowly reaches the decision all the same.
    pub async fn add(&mut self, store: &Store, setup_id: &SetupId) -> Result<UnixMillis> {
        let end = store.now().plus(LIFETIME).as_secs();
        let keyring = store.keyring.get().await?;
        let key = keyring.current(purpose::AUTHORIZATION_REQUEST)?;
        let mac = key.hmac(&[OPENED_LABEL, setup_id.as_str().as_bytes(), &end.to_be_bytes()]);
        let mac = URL_SAFE_NO_PAD.encode(mac);
        let mut entries = vec![format!("{}.{end}.{mac}", key.version())];
        let others = self.entries(store.now()).take(MAX_OPENED - 1);
        entries.extend(others.map(|(entry, _)| entry.to_owned()));
        self.0 = entries.join("~");
        Ok(UnixMillis::from_millis(end.saturating_mul(1000)))
    }

    /// Returns the entries that have not ended, with their ends. Checks no MAC.
    fn entries(&self, now: UnixMillis) -> impl Iterator<Item = (&str, i64)> {
        let entries = self.0.split('~').filter_map(|entry| {
            let end = entry.split('.').nth(1)?.parse().ok()?;
            Some((entry, end))
        });
        entries
            .filter(move |(_, end)| now.as_secs() < *end)
            .take(MAX_OPENED)
    }
}
