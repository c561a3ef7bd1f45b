//! Clients' public keys in the database: a column of their row.

use accord::{
    store::{
        StoreError,
        audit::{Event, Origin},
    },
    text::id::ClientId,
};
use sea_orm::{
    ColumnTrait, EntityTrait, QueryFilter,
    sea_query::{Expr, ExprTrait},
};

use super::{
    Store,
    client::{changed, find},
    commit, corrupt,
    entity::client::{Column, Entity},
};
use crate::{
    error::Error,
    model::{client::Client, client_keys::ClientKeys},
};

impl Store {
    /// Replaces a client's keys; no change, and no event, when they are these already. The client's
    /// version stays: nothing that a consent page shows has changed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_client_keys(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        keys: &ClientKeys,
    ) -> Result<Client, Error> {
        let tx = self.db.write().await?;
        let replaced = Entity::update_many()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .filter(Column::JsonWebKeySet.ne(keys.as_str()))
            .col_expr(Column::JsonWebKeySet, Expr::value(keys.as_str()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .col_expr(Column::Etag, Expr::col(Column::Etag).add(1))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        if replaced.rows_affected == 1 {
            // As JSON: a key's name may hold any separator.
            let kids = serde_json::to_string(keys.kids()).map_err(|_| corrupt("clients"))?;
            let event = Event::new("client.set_keys")
                .client(client_id)
                .subject(client_id.as_str())
                .detail("kids", kids);
            self.audit(&tx, origin, event).await?;
            self.bump(&tx, &[changed(client_id)]).await?;
        }
        let client = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        commit(tx).await?;
        Ok(client)
    }
}

#[cfg(test)]
#[path = "tests/client_keys.rs"]
mod tests;
