//! One-time links in the database. Of a claim token only its SHA-256 is stored; the secret derives from the token and
//! a nonce, and is stored nowhere.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, StoreError,
        audit::{Actor, ActorKind, Event, Origin},
        change,
        idempotency::Outcome,
    },
    text::{
        id::{ClientId, SecretId},
        opaque::OpaqueToken,
    },
};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, sea_query::Expr};

use super::{
    Store,
    client::{changed, lock_client},
    commit, corrupt,
    credentials::{SecretRef, activate, bundle, end, linked_secret},
    entity::delivery::{Column, Entity, Model},
};
use crate::{
    error::Error,
    model::{
        client_secret::Reason,
        delivery::{Bundle, Link, Method},
        purpose,
    },
};

impl Store {
    /// Makes a new secret and a link to it. Earlier links that were not opened end.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooMany`], [`Error::RequestIdReused`].
    pub async fn create_delivery(&self, creation: &Creation, client_id: &ClientId) -> Result<Link, Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let made = SecretRef::read(&resource_id)?;
                let delivery_id = made.delivery_id.ok_or(corrupt("idempotency"))?;
                return self.find_link(&tx, &delivery_id, &secrets).await;
            }
            Outcome::New(reservation) => reservation,
        };
        // Of racing calls each sees the link that the one before it made.
        lock_client(&tx, client_id).await?;
        let earlier = Entity::find()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .filter(Column::ClaimedAt.is_null())
            .filter(Column::EndedAt.is_null())
            .order_by_asc(Column::DeliveryId)
            .all(&tx)
            .await?;
        for row in earlier {
            self.end_unopened(&tx, &creation.origin, &row).await?;
        }
        let made = self
            .make_secret(&tx, client_id, None, Method::Link, &reservation.secrets)
            .await?;
        let delivery_id = made.delivery_id.as_ref().ok_or(corrupt("deliveries"))?;
        let link = self.find_link(&tx, delivery_id, &reservation.secrets).await?;
        reservation.complete(&tx, &made.to_string()).await?;
        let event = Event::new("delivery.create")
            .client(client_id)
            .subject(delivery_id.as_str())
            .detail("secret_id", made.secret_id.as_str());
        self.publish(&tx, &creation.origin, event, changed(client_id))
            .await?;
        commit(tx).await?;
        Ok(link)
    }

    /// Opens a link. One conditional update decides who comes first; a later opening of a real link is
    /// recorded, and that stays although the call fails.
    ///
    /// # Errors
    /// [`Error::LinkOpened`], [`Error::LinkInvalid`].
    pub async fn claim_delivery(&self, origin: &Origin, claim_token: &OpaqueToken) -> Result<Bundle, Error> {
        let tx = self.db.write().await?;
        let now = self.now().as_millis();
        let claimed = Entity::update_many()
            .filter(Column::ClaimHash.eq(claim_token.digest().to_vec()))
            .filter(Column::ClaimedAt.is_null())
            .filter(Column::EndedAt.is_null())
            .filter(Column::ExpiresAt.gt(now))
            .col_expr(Column::ClaimedAt, Expr::value(now))
            .exec(&tx)
            .await?;
        let row = Entity::find()
            .filter(Column::ClaimHash.eq(claim_token.digest().to_vec()))
            .one(&tx)
            .await?
            .ok_or(Error::LinkInvalid)?;
        let (client_id, secret_id) = ids(&row)?;
        let event = Event::new("delivery.claim")
            .client(&client_id)
            .subject(row.delivery_id.as_str())
            .detail("secret_id", secret_id.as_str());
        if claimed.rows_affected == 0 {
            let (why, refusal) = match row.claimed_at.map(UnixMillis::from_millis) {
                Some(claimed_at) => ("opened before", Error::LinkOpened { claimed_at }),
                None => ("ended", Error::LinkInvalid),
            };
            self.audit(&tx, origin, event.detail("refused", why).refused())
                .await?;
            commit(tx).await?;
            return Err(refusal);
        }
        let nonce = row.nonce.as_deref().ok_or(corrupt("deliveries"))?;
        let key = self.keyring.require(purpose::DELIVERY, row.key_version)?;
        let bytes = linked_secret(key, nonce, claim_token);
        let secret = self.rebuild(&tx, &client_id, &secret_id, &bytes).await?;
        forget_nonce(&tx, &row.delivery_id).await?;
        activate(&tx, &secret_id).await?;
        let bundle = bundle(&tx, &client_id, secret).await?;
        self.publish(&tx, origin, event, changed(&client_id)).await?;
        commit(tx).await?;
        Ok(bundle)
    }

    /// Ends links that were not opened in time, and their secrets. How many there were.
    pub async fn expire_deliveries(&self) -> Result<usize, Error> {
        let tx = self.db.write().await?;
        let now = self.now();
        let expired = Entity::find()
            .filter(Column::ClaimedAt.is_null())
            .filter(Column::EndedAt.is_null())
            .filter(Column::ExpiresAt.lte(now.as_millis()))
            .order_by_asc(Column::DeliveryId)
            .all(&tx)
            .await?;
        let origin = Origin {
            actor: Actor {
                kind: ActorKind::System,
                id: "registry-service".to_owned(),
            },
            request_id: String::new(),
        };
        let mut changes = Vec::with_capacity(expired.len());
        for row in &expired {
            self.end_unopened(&tx, &origin, row).await?;
            changes.push(changed(&ids(row)?.0));
        }
        change::publish(&tx, &changes, now).await?;
        commit(tx).await?;
        Ok(expired.len())
    }

    /// Ends a link that was not opened, and its secret; no change, and no event, if it has been opened
    /// since it was read.
    async fn end_unopened(
        &self,
        tx: &DatabaseTransaction,
        origin: &Origin,
        row: &Model,
    ) -> Result<(), Error> {
        let now = self.now();
        let ended = Entity::update_many()
            .filter(Column::DeliveryId.eq(row.delivery_id.as_str()))
            .filter(Column::ClaimedAt.is_null())
            .filter(Column::EndedAt.is_null())
            .col_expr(Column::EndedAt, Expr::value(now.as_millis()))
            .exec(tx)
            .await?;
        if ended.rows_affected == 0 {
            return Ok(());
        }
        let (client_id, secret_id) = ids(row)?;
        forget_nonce(tx, &row.delivery_id).await?;
        end(tx, &secret_id, Reason::Unclaimed, now).await?;
        let event = Event::new("delivery.end")
            .client(&client_id)
            .subject(row.delivery_id.as_str())
            .detail("secret_id", secret_id.as_str());
        Ok(self.audit(tx, origin, event).await?)
    }
}

async fn forget_nonce(tx: &DatabaseTransaction, delivery_id: &str) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::DeliveryId.eq(delivery_id))
        .col_expr(Column::Nonce, Expr::value(None::<Vec<u8>>))
        .exec(tx)
        .await?;
    Ok(())
}

fn ids(row: &Model) -> Result<(ClientId, SecretId), Error> {
    let unreadable = |_| corrupt("deliveries");
    Ok((
        ClientId::parse(&row.client_id).map_err(unreadable)?,
        SecretId::parse(&row.secret_id).map_err(unreadable)?,
    ))
}

#[cfg(test)]
#[path = "tests/delivery.rs"]
mod tests;
