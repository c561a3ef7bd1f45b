//! Client Secrets in the database: hashes and dates.

use accord::{
    clock::UnixMillis,
    store::{
        Creation,
        audit::{Event, Origin},
        idempotency::Outcome,
    },
    text::{
        id::{ClientId, SecretId},
        page::{Page, PageRequest},
    },
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::Expr,
};

use super::{
    Store,
    client::{self, changed, lock_client, tokens_ended},
    commit, corrupt,
    credentials::{SecretRef, end, end_link_to, lock_link_to},
    entity::{
        client as client_entity,
        client_secret::{Column, Entity, Model},
    },
};
use crate::{
    error::Error,
    model::{
        argon2_hash::Argon2Hash,
        client_secret::{
            ClientSecret, Effect, NewSecret, Reason, Revocation, SecretUse, USE_RESOLUTION, revocation_effect,
        },
        delivery::Handover,
    },
};

impl Store {
    /// Adds a secret to a client.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooMany`], [`Error::RequestIdReused`].
    pub async fn create_client_secret(
        &self,
        creation: &Creation,
        new: NewSecret,
    ) -> Result<(ClientSecret, Handover), Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let made = SecretRef::read(&resource_id)?;
                let secret = find(&tx, &made.client_id, &made.secret_id).await?;
                let handover = self.handover(&tx, new.delivery, &made, &secrets).await?;
                return Ok((secret.ok_or(corrupt("idempotency"))?, handover));
            }
            Outcome::New(reservation) => reservation,
        };
        let made = self
            .make_secret(
                &tx,
                &new.client_id,
                new.expires_at,
                new.delivery,
                &reservation.secrets,
            )
            .await?;
        let handover = self
            .handover(&tx, new.delivery, &made, &reservation.secrets)
            .await?;
        reservation.complete(&tx, &made.to_string()).await?;
        let event = Event::new("client_secret.create")
            .client(&new.client_id)
            .subject(made.secret_id.as_str());
        self.publish(&tx, &creation.origin, event, changed(&new.client_id))
            .await?;
        let secret = find(&tx, &new.client_id, &made.secret_id).await?;
        commit(tx).await?;
        Ok((secret.ok_or(corrupt("client_secrets"))?, handover))
    }

    /// Reads one secret of a client.
    pub async fn find_client_secret(
        &self,
        client_id: &ClientId,
        secret_id: &SecretId,
    ) -> Result<Option<ClientSecret>, Error> {
        find(self.db.read(), client_id, secret_id).await
    }

    /// Lists a client's secrets, newest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] (client).
    pub async fn list_client_secrets(
        &self,
        client_id: &ClientId,
        page: &PageRequest,
    ) -> Result<Page<ClientSecret>, Error> {
        if client::find(self.db.read(), client_id).await?.is_none() {
            return Err(Error::NotFound("client"));
        }
        let mut query = Entity::find()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .order_by_desc(Column::SecretId)
            .limit(page.fetch());
        if let Some(after) = page.after() {
            query = query.filter(Column::SecretId.lt(after));
        }
        let rows = query.all(self.db.read()).await?;
        let secrets = rows
            .into_iter()
            .map(client_secret)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(secrets, |secret| secret.secret_id.to_string()))
    }

    /// Ends a secret; for a compromised one, the client's access and refresh tokens too.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::SecretInUse`].
    pub async fn revoke_client_secret(
        &self,
        origin: &Origin,
        revocation: &Revocation,
    ) -> Result<ClientSecret, Error> {
        let (client_id, secret_id, reason) =
            (&revocation.client_id, &revocation.secret_id, revocation.reason);
        let tx = self.db.write().await?;
        lock_client(&tx, client_id).await?;
        lock_link_to(&tx, client_id, secret_id).await?;
        let row = Entity::find_by_id(secret_id.as_str())
            .filter(Column::ClientId.eq(client_id.as_str()))
            .lock_exclusive()
            .one(&tx)
            .await?;
        let secret = client_secret(row.ok_or(Error::NotFound("client_secret"))?)?;
        let now = self.now();
        if revocation_effect(&secret, reason, revocation.force, now)? == Effect::None {
            return Ok(secret);
        }
        end(&tx, secret_id, reason, now).await?;
        // A link to it would hand over what authenticates nobody.
        end_link_to(&tx, client_id, secret_id, now).await?;
        let event = Event::new("client_secret.revoke")
            .client(client_id)
            .subject(secret_id.as_str())
            .detail("reason", reason.as_ref())
            .detail("force", revocation.force.to_string());
        let is_compromised = reason == Reason::Compromised;
        let change = if is_compromised { tokens_ended } else { changed };
        let seq = self.publish(&tx, origin, event, change(client_id)).await?;
        if is_compromised {
            client_entity::Entity::update_many()
                .filter(client_entity::Column::ClientId.eq(client_id.as_str()))
                .col_expr(client_entity::Column::TokensEndedSeq, Expr::value(seq))
                .col_expr(client_entity::Column::FamiliesEndedSeq, Expr::value(seq))
                .exec(&tx)
                .await?;
        }
        let secret = find(&tx, client_id, secret_id).await?;
        commit(tx).await?;
        secret.ok_or(corrupt("client_secrets"))
    }

    /// Moves the dates of last use forward, to now at most; uses close together are one.
    pub async fn record_secret_uses(&self, uses: Vec<SecretUse>) -> Result<(), Error> {
        let now = self.now();
        // By the one writer: on SQLite even an update of no row takes the lock.
        let tx = self.db.write().await?;
        for used in uses {
            let used_at = used.used_at.min(now);
            Entity::update_many()
                .filter(Column::SecretId.eq(used.secret_id.as_str()))
                .filter(Column::ClientId.eq(used.client_id.as_str()))
                .filter(
                    Condition::any()
                        .add(Column::LastUsedAt.is_null())
                        .add(Column::LastUsedAt.lte(used_at.minus(USE_RESOLUTION).as_millis())),
                )
                .col_expr(Column::LastUsedAt, Expr::value(used_at.as_millis()))
                .exec(&tx)
                .await?;
        }
        Ok(commit(tx).await?)
    }
}

async fn find(
    conn: &impl ConnectionTrait,
    client_id: &ClientId,
    secret_id: &SecretId,
) -> Result<Option<ClientSecret>, Error> {
    let row = Entity::find_by_id(secret_id.as_str())
        .filter(Column::ClientId.eq(client_id.as_str()))
        .one(conn)
        .await?;
    row.map(client_secret).transpose()
}

fn client_secret(row: Model) -> Result<ClientSecret, Error> {
    let unreadable = || corrupt("client_secrets");
    let revoked = match (row.revoked_at, row.revocation_reason) {
        (None, None) => None,
        (Some(at), Some(reason)) => {
            let reason = reason.parse().map_err(|_| unreadable())?;
            Some((UnixMillis::from_millis(at), reason))
        }
        _ => return Err(unreadable()),
    };
    Ok(ClientSecret {
        secret_id: SecretId::parse(&row.secret_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        hashed: Argon2Hash {
            phc: row.secret_hash,
            pepper_version: row.pepper_version,
        },
        awaiting_claim: row.awaiting_claim,
        created_at: UnixMillis::from_millis(row.created_at),
        expires_at: row.expires_at.map(UnixMillis::from_millis),
        last_used_at: row.last_used_at.map(UnixMillis::from_millis),
        revoked,
    })
}

#[cfg(test)]
#[path = "tests/client_secret.rs"]
mod tests;
