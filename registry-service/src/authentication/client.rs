//! Clients, by their secrets.

use accord::{
    clock::UnixMillis,
    position::Position,
    text::{
        id::{ClientId, SecretId},
        opaque,
    },
};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    model::{
        client::{self, ClientProfile},
        client_secret::{ClientSecret, SecretUse, USE_RESOLUTION},
    },
    store::Store,
};

/// A client that authenticated.
#[derive(Clone, Debug)]
pub struct AuthenticatedClient {
    /// The client.
    pub client: ClientProfile,
    /// Its secret.
    pub secret_id: SecretId,
    /// When that secret expires.
    pub expires_at: Option<UnixMillis>,
    /// The feed position at which the client was read.
    pub position: Position,
}

/// Authenticates a client. Only a live secret of an active client costs an argon2 run: the tag rejects what was
/// never issued, and the database what has ended.
///
/// # Errors
/// [`Error::InvalidClient`], whatever the reason; [`Error::Busy`].
pub async fn authenticate(
    store: &Store,
    client_id: &str,
    secret: &str,
) -> Result<AuthenticatedClient, Error> {
    let client_id = ClientId::parse(client_id).map_err(|_| Error::InvalidClient)?;
    let secret = opaque::ClientSecret::parse(secret).map_err(|_| Error::InvalidClient)?;
    if !store.is_tagged_for(&secret, &client_id) {
        return Err(Error::InvalidClient);
    }
    let (stored, _) = live(store, &client_id, secret.secret_id()).await?;
    let text = Zeroizing::new(secret.expose().as_bytes().to_vec());
    let hasher = store.hasher();
    let is_right = hasher.verify_secret(client_id.as_str(), secret.secret_id(), text, &stored.hashed);
    if !is_right.await? {
        return Err(Error::InvalidClient);
    }
    // The secret may have ended while the run waited. Its hash never changes.
    let position = store.position().await?;
    let (stored, client) = live(store, &client_id, secret.secret_id()).await?;
    let now = store.now();
    if stored
        .last_used_at
        .is_none_or(|last| now.since(last) >= USE_RESOLUTION)
    {
        let used = SecretUse {
            client_id,
            secret_id: stored.secret_id.clone(),
            used_at: now,
        };
        store.record_secret_uses(vec![used]).await?;
    }
    Ok(AuthenticatedClient {
        client,
        secret_id: stored.secret_id,
        expires_at: stored.expires_at,
        position,
    })
}

/// Reads a live secret of an active client.
async fn live(
    store: &Store,
    client_id: &ClientId,
    secret_id: &SecretId,
) -> Result<(ClientSecret, ClientProfile), Error> {
    let secret = store.find_client_secret(client_id, secret_id).await?;
    let secret = secret.filter(|secret| secret.is_live_at(store.now()));
    let client = store.find_client_profile(client_id).await?;
    let client = client.filter(|client| client.client.state == client::State::Active);
    secret.zip(client).ok_or(Error::InvalidClient)
}
