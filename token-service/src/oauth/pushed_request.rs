//! Pushed authorization requests (RFC 9126 §2): a client sends its request over a connection of its own, authenticated, and
//! gets a reference for the browser.
//!
//! Opening the reference checks the request again, because the client may have changed since.

use accord::{
    store::audit::{Event, action},
    text::id::TenantId,
};
use zeroize::Zeroizing;

use super::issuance::client_origin;
use crate::{
    cache::Authenticated,
    error::{Error, Result},
    model::setup::{
        self,
        pushed_request::{LIFETIME, request_uri},
        request::Parameters,
    },
    oauth::{
        OAuth,
        client_authentication::{Credentials, authenticate, spend},
        dpop,
        metadata::endpoint_urls,
        note_rejected_client,
    },
};

/// A request to push. No `Debug`: it must not show the credentials.
pub struct Request {
    /// The tenant whose consent the client requests.
    pub tenant_id: TenantId,
    /// The client's credentials.
    pub credentials: Credentials,
    /// The parameters of the authorization request.
    pub parameters: Parameters,
    /// The proof whose key the code is bound to (RFC 9449 §10.1), as it was sent.
    pub dpop_proof: Option<String>,
}

/// The response to a pushed request. No `Debug`: whoever has the URI can open the page in the client's name.
pub struct Pushed {
    /// The URI that refers to the request.
    pub request_uri: Zeroizing<String>,
    /// How long it can be opened, in seconds.
    pub expires_in: u32,
    /// The nonce for the client's next proof.
    pub dpop_nonce: Option<String>,
}

/// Stores a client's authorization request.
///
/// # Errors
/// Those of [`authenticate`], [`dpop::check`] and [`setup::check`]; [`Error::InvalidDpopProof`] for another key than `dpop_jkt`;
/// [`Error::NotFound`] for a client that may not request the tenant's consent, and for an unknown tenant; [`Error::Invalid`] for
/// a redirect URI that is not registered.
pub async fn push(oauth: &OAuth, request: Request) -> Result<Pushed> {
    let authenticated = authenticate(oauth, &request.tenant_id, &request.credentials).await?;
    let client_id = authenticated.client.value.client_id.clone();
    let event = Event::new(action::PUSHED_REQUEST_REFUSE).tenant(&request.tenant_id);
    let pushed = Box::pin(push_for(oauth, authenticated, request)).await;
    pushed.inspect_err(|error| {
        // Who is authenticated and lacks the key may have stolen the rest.
        if matches!(error, Error::InvalidDpopProof(_)) {
            note_rejected_client(&client_id, error.reason(), event);
        }
    })
}

/// Stores the request of an authenticated client.
async fn push_for(oauth: &OAuth, authenticated: Authenticated, request: Request) -> Result<Pushed> {
    let Request {
        tenant_id,
        mut parameters,
        dpop_proof,
        ..
    } = request;
    let client = &authenticated.client.value;
    let tenant = oauth.cache.find_tenant(&tenant_id).await?;
    // The same for both: a client need not learn which tenants exist.
    let tenant = tenant.filter(|_| client.tenants.contains_key(&tenant_id));
    let tenant = tenant.ok_or(Error::NotFound("tenant"))?.value;
    let mut key = None;
    if let Some(proof) = &dpop_proof {
        let urls = endpoint_urls(oauth, &tenant, "par");
        key = Box::pin(dpop::check(oauth, client, &tenant_id, Some(proof), &urls)).await?;
    }
    client.check_redirect_uri(&parameters.redirect_uri)?;
    setup::check(&parameters, &tenant, client)?;
    let mut dpop_nonce = None;
    if let Some(key) = &mut key {
        parameters.dpop_jkt = Some(same_key(parameters.dpop_jkt, key.jkt())?);
        dpop_nonce = dpop::next_nonce(oauth, key).await?;
        key.spend(oauth, &client.client_id)?;
    }
    spend(oauth, authenticated.assertion).await?;
    let (origin, client_id) = (client_origin(&client.client_id), &client.client_id);
    let pushed = oauth
        .store
        .push_request(origin, &tenant_id, client_id, &parameters);
    Ok(Pushed {
        request_uri: request_uri(&pushed.await?),
        expires_in: LIFETIME.as_secs() as u32,
        dpop_nonce,
    })
}

/// Returns the key that the code is bound to: that of the proof, which `dpop_jkt` names if it is there (RFC 9449 §10.1).
fn same_key(dpop_jkt: Option<String>, proven: &str) -> Result<String> {
    if dpop_jkt.is_some_and(|named| named != proven) {
        let rule = format!("must be signed by the key that dpop_jkt names, and not by {proven}");
        return Err(Error::InvalidDpopProof(rule));
    }
    Ok(proven.to_owned())
}
