//! Authenticates clients by their secrets.

use std::time::Duration;

use accord::{
    log_limit::LogLimit,
    position::Position,
    text::{
        id::{ClientId, SecretId},
        opaque,
    },
};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Result},
    hashing::secret_tag,
    model::{
        client::{self, Client, ClientProfile},
        client_secret::{ClientSecret, SecretUse, USE_RESOLUTION},
    },
    store::Store,
};

/// How often the log may say that the last use of a secret was not written.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Authenticates a client. Only a live secret of an active client costs an argon2 run: the tag rejects secrets that
/// were never issued, and the database those that have ended. Returns the client and its secret with the position of
/// the change feed at which they were read. Writes when the secret was used, and only logs it if that fails.
///
/// # Errors
/// [`Error::InvalidClient`], whatever the reason; [`Error::Busy`]; [`StoreError::Unavailable`](accord::store::StoreError::Unavailable)
/// without every tag key in use.
pub async fn authenticate(
    store: &Store,
    client_id: &str,
    secret: &str,
) -> Result<(ClientProfile, ClientSecret, Position)> {
    let client_id = ClientId::parse(client_id).map_err(|_| Error::InvalidClient)?;
    let secret = opaque::ClientSecret::parse(secret).map_err(|_| Error::InvalidClient)?;
    // Tries all keys, so that known and unknown clients take the same time.
    let keyring = store.keyring.complete().await?;
    let tag_keys: Vec<_> = secret_tag::all(&keyring).collect();
    if !secret.is_tagged_for(&client_id, &tag_keys) {
        return Err(Error::InvalidClient);
    }
    let (stored, _) = live(store, &client_id, secret.secret_id()).await?;
    let text = Zeroizing::new(secret.expose().as_bytes().to_vec());
    let is_right = store
        .hasher
        .verify_secret(client_id.as_str(), secret.secret_id(), text, &stored.hashed);
    if !is_right.await? {
        return Err(Error::InvalidClient);
    }
    // Reads again, because the secret may have ended while the run waited. Its hash never changes.
    let position = store.position().await?;
    let (stored, client) = live(store, &client_id, secret.secret_id()).await?;
    let now = store.now();
    let last_used_at = stored.last_used_at;
    if last_used_at.is_none_or(|last| now.since(last) >= USE_RESOLUTION) {
        let used = SecretUse {
            client_id,
            secret_id: stored.secret_id.clone(),
            used_at: now,
        };
        if let Err(error) = store.write_secret_uses(vec![used]).await {
            log_unwritten_use(&error);
        }
    }
    Ok((client, stored, position))
}

fn log_unwritten_use(error: &Error) {
    static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);
    if let Some(unlogged) = LIMIT.check(&error.to_string()) {
        tracing::warn!(%error, unlogged, "the last use of a secret was not written");
    }
}

/// Reads a live secret of an active client that authenticates by secrets.
async fn live(
    store: &Store,
    client_id: &ClientId,
    secret_id: &SecretId,
) -> Result<(ClientSecret, ClientProfile)> {
    let secret = store.find_client_secret(client_id, secret_id).await?;
    let secret = secret.filter(|secret| secret.is_live_at(store.now()));
    let client = store.find_client_profile(client_id).await?;
    let takes_it =
        |client: &Client| client.state == client::State::Active && client.accepts_secrets(store.now());
    let client = client.filter(|profile| takes_it(&profile.client));
    secret.zip(client).ok_or(Error::InvalidClient)
}
