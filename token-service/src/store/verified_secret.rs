//! Client Secrets that a replica verified, so that no other replica needs an argon2 run for them. That a text is this
//! secret never changes. Whether the secret is live is a fact of the registry.

use accord::{
    clock::UnixMillis,
    keys::DataKey,
    text::{id::ClientId, opaque::ClientSecret},
};
use sea_orm::{ActiveValue::Set, IntoActiveModel, entity::prelude::*, sea_query::OnConflict};
use subtle::ConstantTimeEq;

use super::{
    Store,
    batch::verified_secret::SecretKey,
    entity::verified_secret::{ActiveModel, Column, Entity},
};
use crate::{
    error::Result,
    model::{client::LiveSecret, purpose},
};

impl Store {
    /// Returns whether a replica has verified this secret of the client.
    pub async fn is_verified_secret(&self, client_id: &ClientId, secret: &ClientSecret) -> Result<bool> {
        let key = SecretKey {
            client_id: client_id.clone(),
            secret_id: secret.secret_id().clone(),
        };
        let Some(row) = self.secret_lookups.submit(key).await? else {
            return Ok(false);
        };
        let keyring = self
            .keyring
            .with_version(purpose::VERIFIED_SECRET, row.key_version);
        let keyring = keyring.await?;
        let key = keyring.require(purpose::VERIFIED_SECRET, row.key_version)?;
        Ok(mac(key, client_id, secret).ct_eq(&row.mac).into())
    }

    /// Records that the registry verified this secret of the client.
    pub async fn insert_verified_secret(
        &self,
        client_id: &ClientId,
        secret: &ClientSecret,
        expires_at: Option<UnixMillis>,
    ) -> Result<()> {
        let keyring = self.keyring.get().await?;
        let key = keyring.current(purpose::VERIFIED_SECRET)?;
        let row = ActiveModel {
            client_id: Set(client_id.to_string()),
            secret_id: Set(secret.secret_id().to_string()),
            key_version: Set(key.version()),
            mac: Set(mac(key, client_id, secret).to_vec()),
            expires_at: Set(expires_at.map(UnixMillis::as_millis)),
        };
        let replace = OnConflict::columns([Column::ClientId, Column::SecretId])
            .update_columns([Column::KeyVersion, Column::Mac, Column::ExpiresAt])
            .to_owned();
        let tx = self.db.write().await?;
        Entity::insert(row)
            .on_conflict(replace)
            .exec_without_returning(&tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Removes a client's verified secrets that are no longer live, and records when the others expire.
    pub async fn retain_verified_secrets(&self, client_id: &ClientId, live: &[LiveSecret]) -> Result<()> {
        let of_client = || Entity::find().filter(Column::ClientId.eq(client_id.as_str()));
        if of_client().one(self.db.read()).await?.is_none() {
            return Ok(());
        }
        let tx = self.db.write().await?;
        for row in of_client().all(&tx).await? {
            let live = live.iter().find(|live| live.secret_id.as_str() == row.secret_id);
            let mut row = row.into_active_model();
            if let Some(live) = live {
                row.expires_at = Set(live.expires_at.map(UnixMillis::as_millis));
                Entity::update(row).exec(&tx).await?;
            } else {
                Entity::delete(row).exec(&tx).await?;
            }
        }
        Ok(tx.commit().await?)
    }
}

fn mac(key: &DataKey, client_id: &ClientId, secret: &ClientSecret) -> [u8; 32] {
    key.hmac(&[
        client_id.as_str().as_bytes(),
        secret.secret_id().as_str().as_bytes(),
        secret.expose().as_bytes(),
    ])
}

#[cfg(test)]
#[path = "tests/verified_secret.rs"]
mod tests;
