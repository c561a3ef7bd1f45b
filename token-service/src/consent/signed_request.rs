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
        setup::{LIFETIME, pushed_request::PushedRequest, request::AuthorizationRequest},
    },
    store::Store,
};

/// Separates these MACs from all others.
const LABEL: &[u8] = b"accord authorization request v1";

/// An authorization request, and the id of the setup that a sign-in stores it under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRequest {
    /// The id of the setup.
    pub setup_id: SetupId,
    /// The request.
    pub request: AuthorizationRequest,
    /// When a sign-in no longer stores it.
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

    /// Continues with a request that its client has pushed. The form outlasts the `request_uri`, so that whoever takes longer
    /// to sign in reaches the decision all the same.
    pub fn of_pushed(store: &Store, pushed: PushedRequest) -> Self {
        Self {
            setup_id: pushed.setup_id,
            request: pushed.request,
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
        let mut parts = text.split('.');
        let (Some(version), Some(payload), Some(mac), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        let decode = |part| URL_SAFE_NO_PAD.decode(part).ok();
        let (Ok(version), Some(payload), Some(mac)) = (version.parse(), decode(payload), decode(mac)) else {
            return Ok(None);
        };
        // A stranger wrote the version. One that is not in memory must not cause a read.
        let keyring = store.keyring.get().await?;
        let Some(key) = keyring.version(purpose::AUTHORIZATION_REQUEST, version) else {
            return Ok(None);
        };
        if !bool::from(key.hmac(&[LABEL, &payload]).ct_eq(&mac)) {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&payload).ok())
    }
}
