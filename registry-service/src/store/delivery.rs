//! One-time links in the database. Stores only the SHA-256 of a claim token. The secret derives from the token and a
//! nonce, and is not stored.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, Transaction,
        audit::{Event, Origin},
        change,
        idempotency::Outcome,
    },
    text::{
        id::{ClientId, SecretId},
        opaque::OpaqueToken,
    },
};
use sea_orm::{QueryOrder, entity::prelude::*};

use super::{
    Store,
    client::{changed, lock_client},
    commit, corrupt,
    credentials::{end, ending, linked_secret, unopened},
    entity::{
        client_secret,
        delivery::{Column, Entity, Model},
    },
};
use crate::{
    error::{Error, Result},
    model::{
        client_secret::{NewSecret, Reason},
        delivery::{Bundle, Handover, Link, Method},
        purpose,
    },
};

impl Store {
    /// Makes a new secret and a link to it. Ends earlier links that were not opened.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooMany`], [`Error::RequestIdReused`].
    pub async fn create_delivery(&self, creation: &Creation, client_id: &ClientId) -> Result<Link> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                return link(self.reissue(&tx, &resource_id, &secrets).await?.1);
            }
            Outcome::New(reservation) => reservation,
        };
        // Each of two racing calls sees the link that the other one made.
        lock_client(&tx, client_id).await?;
        let earlier = Entity::find()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .filter(unopened())
            .order_by_asc(Column::DeliveryId)
            .all(&tx)
            .await?;
        for row in earlier {
            self.end_unopened(&tx, &creation.origin, &row).await?;
        }
        let new = NewSecret {
            client_id: client_id.clone(),
            expires_at: None,
            delivery: Method::Link,
        };
        let (issued, handover) = self.issue(&tx, &new, reservation).await?;
        let link = link(handover)?;
        let event = Event::new("delivery.create")
            .client(client_id)
            .subject(link.delivery_id.as_str())
            .detail("secret_id", issued.secret_id.as_str());
        let change = changed(client_id);
        self.publish(&tx, &creation.origin, event, change).await?;
        commit(tx, link).await
    }

    /// Opens a link. One conditional update decides between racing calls. Records each attempt to open a link again,
    /// and commits that although the call fails.
    ///
    /// # Errors
    /// [`Error::LinkOpened`], [`Error::LinkInvalid`].
    pub async fn claim_delivery(&self, origin: &Origin, claim_token: &OpaqueToken) -> Result<Bundle> {
        let tx = self.db.write().await?;
        let now = self.now().as_millis();
        let is_link = Column::ClaimHash.eq(claim_token.digest().to_vec());
        let claimed = Entity::update_many()
            .filter(is_link.clone())
            .filter(unopened())
            .filter(Column::ExpiresAt.gt(now))
            .col_expr(Column::ClaimedAt, Expr::value(now))
            .exec(&tx)
            .await?;
        let row = Entity::find().filter(is_link.clone()).one(&tx).await?;
        let row = row.ok_or(Error::LinkInvalid)?;
        let (client_id, secret_id) = ids(&row)?;
        let event = Event::new("delivery.claim")
            .client(&client_id)
            .subject(row.delivery_id.as_str())
            .detail("secret_id", secret_id.as_str());
        if claimed.rows_affected == 0 {
            let (why, rejection) = match row.claimed_at.map(UnixMillis::from_millis) {
                Some(claimed_at) => ("opened before", Error::LinkOpened { claimed_at }),
                None => ("ended", Error::LinkInvalid),
            };
            let event = event.detail("refused", why).refused();
            self.audit(&tx, origin, event).await?;
            commit(tx, ()).await?;
            return Err(rejection);
        }
        let nonce = row.nonce.as_deref().ok_or(corrupt("deliveries"))?;
        let key = self.keyring.require(purpose::DELIVERY, row.key_version)?;
        let bits = linked_secret(key, nonce, claim_token);
        Entity::update_many()
            .filter(is_link)
            .col_expr(Column::Nonce, Expr::value(None::<Vec<u8>>))
            .exec(&tx)
            .await?;
        client_secret::Entity::update_many()
            .filter(client_secret::Column::SecretId.eq(secret_id.as_str()))
            .col_expr(client_secret::Column::AwaitingClaim, Expr::value(false))
            .exec(&tx)
            .await?;
        let bundle = self.bundle(&tx, &client_id, &secret_id, &bits).await?;
        self.publish(&tx, origin, event, changed(&client_id)).await?;
        commit(tx, bundle).await
    }

    /// Ends links that were not opened in time, and their secrets. Returns how many there were.
    pub async fn expire_deliveries(&self) -> Result<usize> {
        let tx = self.db.write().await?;
        let now = self.now();
        let expired = Entity::find()
            .filter(unopened())
            .filter(Column::ExpiresAt.lte(now.as_millis()))
            .order_by_asc(Column::DeliveryId)
            .all(&tx)
            .await?;
        let origin = Origin::system("registry-service");
        let mut changes = Vec::with_capacity(expired.len());
        for row in &expired {
            self.end_unopened(&tx, &origin, row).await?;
            changes.push(changed(&ids(row)?.0));
        }
        change::publish(&tx, &changes, now).await?;
        commit(tx, expired.len()).await
    }

    /// Ends a link that was not opened, and its secret. Changes and records nothing if it was opened after it was
    /// read.
    async fn end_unopened(&self, tx: &Transaction, origin: &Origin, row: &Model) -> Result<()> {
        let now = self.now();
        let ended = ending(now).filter(Column::DeliveryId.eq(row.delivery_id.as_str()));
        if ended.exec(tx).await?.rows_affected == 0 {
            return Ok(());
        }
        let (client_id, secret_id) = ids(row)?;
        end(tx, &secret_id, Reason::Unclaimed, now).await?;
        let event = Event::new("delivery.end")
            .client(&client_id)
            .subject(row.delivery_id.as_str())
            .detail("secret_id", secret_id.as_str());
        self.audit(tx, origin, event).await
    }
}

fn link(handover: Handover) -> Result<Link> {
    match handover {
        Handover::Link(link) => Ok(link),
        Handover::Bundle(_) => Err(corrupt("deliveries")),
    }
}

fn ids(row: &Model) -> Result<(ClientId, SecretId)> {
    let unreadable = |_| corrupt("deliveries");
    Ok((
        ClientId::parse(&row.client_id).map_err(unreadable)?,
        SecretId::parse(&row.secret_id).map_err(unreadable)?,
    ))
}

#[cfg(test)]
#[path = "tests/delivery.rs"]
mod tests;
