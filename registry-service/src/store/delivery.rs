//! One-time links in the database. Of a claim token only its SHA-256 is kept; the secret derives from
//! the token and a nonce, and is kept nowhere.

use accord::{
    clock::UnixMillis,
    keys::DataKey,
    store::{
        Creation, StoreError,
        audit::{Actor, ActorKind, Event, Origin},
        idempotency::{Derivation, Outcome},
    },
    text::{
        id::{ClientId, DeliveryId, SecretId},
        opaque::{OpaqueToken, TokenKind},
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait,
    QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};
use zeroize::Zeroizing;

use super::{
    Store,
    client::changed,
    client_secret::{SecretRef, activate, bundle, end, lock_client},
    commit, corrupt,
    entity::delivery::{ActiveModel, Column, Entity, Model},
};
use crate::model::purpose;
use crate::{
    error::Error,
    model::{
        client_secret::Reason,
        delivery::{Bundle, LINK_LIFE, Link, Method},
    },
};

const NONCE_BYTES: usize = 32;

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
            .await
            .map_err(StoreError::from)?;
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
        self.audit(&tx, &creation.origin, event).await?;
        self.bump(&tx, &[changed(client_id)]).await?;
        commit(tx).await?;
        Ok(link)
    }

    /// Adds a delivery for a secret that is being made; answers the secret's bytes.
    pub(super) async fn make_delivery(
        &self,
        tx: &DatabaseTransaction,
        client_id: &ClientId,
        secret_id: &SecretId,
        secrets: &Derivation,
    ) -> Result<(Zeroizing<[u8; 32]>, DeliveryId), Error> {
        let now = self.now();
        let delivery_id = DeliveryId::generate(&*self.clock, &*self.random);
        let claim_token = claim_token(secrets);
        let mut nonce = vec![0; NONCE_BYTES];
        self.random.fill(&mut nonce);
        let key = self.keyring.current(purpose::DELIVERY)?;
        let bytes = linked_secret(key, &nonce, &claim_token);
        let row = ActiveModel {
            delivery_id: Set(delivery_id.to_string()),
            client_id: Set(client_id.to_string()),
            secret_id: Set(secret_id.to_string()),
            claim_hash: Set(claim_token.digest().to_vec()),
            nonce: Set(Some(nonce)),
            key_version: Set(key.version()),
            created_at: Set(now.as_millis()),
            expires_at: Set(now.plus(LINK_LIFE).as_millis()),
            claimed_at: Set(None),
            ended_at: Set(None),
        };
        row.insert(tx).await.map_err(StoreError::from)?;
        Ok((bytes, delivery_id))
    }

    /// The link of a delivery, with its claim token made again.
    pub(super) async fn find_link(
        &self,
        conn: &impl ConnectionTrait,
        delivery_id: &DeliveryId,
        secrets: &Derivation,
    ) -> Result<Link, Error> {
        let row = Entity::find_by_id(delivery_id.as_str())
            .one(conn)
            .await
            .map_err(StoreError::from)?
            .ok_or(corrupt("deliveries"))?;
        Ok(Link {
            delivery_id: delivery_id.clone(),
            claim_token: claim_token(secrets),
            expires_at: UnixMillis::from_millis(row.expires_at),
        })
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
            .await
            .map_err(StoreError::from)?;
        let row = Entity::find()
            .filter(Column::ClaimHash.eq(claim_token.digest().to_vec()))
            .one(&tx)
            .await
            .map_err(StoreError::from)?
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
        self.audit(&tx, origin, event).await?;
        self.bump(&tx, &[changed(&client_id)]).await?;
        commit(tx).await?;
        Ok(bundle)
    }

    /// Ends links that were not opened in time, and their secrets. How many there were.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn expire_deliveries(&self) -> Result<usize, Error> {
        let tx = self.db.write().await?;
        let now = self.now();
        let expired = Entity::find()
            .filter(Column::ClaimedAt.is_null())
            .filter(Column::EndedAt.is_null())
            .filter(Column::ExpiresAt.lte(now.as_millis()))
            .order_by_asc(Column::DeliveryId)
            .all(&tx)
            .await
            .map_err(StoreError::from)?;
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
        self.bump(&tx, &changes).await?;
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
            .await
            .map_err(StoreError::from)?;
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

/// The claim token of a creating call.
fn claim_token(secrets: &Derivation) -> OpaqueToken {
    OpaqueToken::from_secret(TokenKind::Claim, &secrets.secret("claim"))
}

fn linked_secret(key: &DataKey, nonce: &[u8], claim_token: &OpaqueToken) -> Zeroizing<[u8; 32]> {
    key.derive(nonce, &[claim_token.expose().as_bytes()])
}

/// Locks the link to a secret, if there is one, until the transaction ends: before the secret, as those
/// do who open or end the link.
pub(super) async fn lock_link_to(
    tx: &DatabaseTransaction,
    client_id: &ClientId,
    secret_id: &SecretId,
) -> Result<(), StoreError> {
    let link = Entity::find()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .filter(Column::SecretId.eq(secret_id.as_str()))
        .lock_exclusive();
    link.one(tx).await?;
    Ok(())
}

/// Ends the link to a secret that is revoked, unless it was opened.
pub(super) async fn end_link_to(
    tx: &DatabaseTransaction,
    client_id: &ClientId,
    secret_id: &SecretId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .filter(Column::SecretId.eq(secret_id.as_str()))
        .filter(Column::ClaimedAt.is_null())
        .filter(Column::EndedAt.is_null())
        .col_expr(Column::EndedAt, Expr::value(now.as_millis()))
        .col_expr(Column::Nonce, Expr::value(None::<Vec<u8>>))
        .exec(tx)
        .await?;
    Ok(())
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
