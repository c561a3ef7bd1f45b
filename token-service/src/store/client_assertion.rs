//! Assertions that clients proved themselves by: each counts once.

use accord::{clock::UnixMillis, id::ClientId, store::StoreError};
use sea_orm::{ActiveValue::Set, EntityTrait, sea_query::OnConflict};

use super::{
    Store, commit,
    entity::client_assertion::{ActiveModel, Column, Entity},
};
use crate::error::Error;

impl Store {
    /// Uses up a client's assertion, known by the hash of its `jti`; false if it was used before. It is
    /// remembered until it ends.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn spend_assertion(
        &self,
        client_id: &ClientId,
        jti_hash: &[u8; 32],
        ends_at: UnixMillis,
    ) -> Result<bool, Error> {
        let row = ActiveModel {
            client_id: Set(client_id.to_string()),
            jti_hash: Set(jti_hash.to_vec()),
            expires_at: Set(ends_at.as_millis()),
        };
        let once = OnConflict::columns([Column::ClientId, Column::JtiHash])
            .do_nothing()
            .to_owned();
        let tx = self.db.write().await?;
        let inserted = Entity::insert(row)
            .on_conflict(once)
            .exec_without_returning(&tx)
            .await
            .map_err(StoreError::from)?;
        commit(tx).await?;
        Ok(inserted == 1)
    }
}
