//! Client Secrets in the database: hashes, dates, and how each was handed over.
//!
//! A new secret is hashed inside the transaction that makes it, since it derives from what that
//! transaction reserves. These are rare calls of operators; checks of secrets hold no transaction.
//!
//! Transactions lock rows in one order, so that none wait for each other in a ring: the client, its
//! links by their ids, each link before its secret, and last the change counter.

use std::fmt;

use accord::{
    clock::UnixMillis,
    store::{
        Creation, StoreError,
        audit::{Event, Origin},
        idempotency::{Derivation, Outcome},
    },
    text::{
        id::{ClientId, DeliveryId, SecretId},
        opaque,
        page::{Page, PageRequest},
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction,
    EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};
use zeroize::Zeroizing;

use super::{
    Store,
    client::{self, changed, tokens_ended},
    commit, corrupt,
    delivery::{end_link_to, lock_link_to},
    entity::{
        client as client_entity,
        client_secret::{ActiveModel, Column, Entity, Model},
    },
};
use crate::{
    error::Error,
    hashing::{Hashed, secret_tag},
    model::{
        client_secret::{
            ClientSecret, Effect, LiveSecret, MAX_LIVE, NewSecret, Reason, Revocation, SecretUse,
            USE_RESOLUTION, revocation_effect,
        },
        delivery::{Bundle, Handover, Method},
    },
};

/// Which secret of which client was made, by which link: what a repeated call must find again.
pub(super) struct SecretRef {
    pub(super) client_id: ClientId,
    pub(super) secret_id: SecretId,
    pub(super) delivery_id: Option<DeliveryId>,
}

impl SecretRef {
    /// Reads what `Display` wrote.
    pub(super) fn read(text: &str) -> Result<Self, Error> {
        let unreadable = || corrupt("idempotency");
        let mut parts = text.split('|');
        let (Some(client_id), Some(secret_id), Some(delivery_id)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(unreadable());
        };
        Ok(Self {
            client_id: ClientId::parse(client_id).map_err(|_| unreadable())?,
            secret_id: SecretId::parse(secret_id).map_err(|_| unreadable())?,
            delivery_id: match delivery_id {
                "" => None,
                id => Some(DeliveryId::parse(id).map_err(|_| unreadable())?),
            },
        })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delivery_id = self.delivery_id.as_ref().map_or("", DeliveryId::as_str);
        write!(f, "{}|{}|{delivery_id}", self.client_id, self.secret_id)
    }
}

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
        self.audit(&tx, &creation.origin, event).await?;
        self.bump(&tx, &[changed(&new.client_id)]).await?;
        let secret = find(&tx, &new.client_id, &made.secret_id).await?;
        commit(tx).await?;
        Ok((secret.ok_or(corrupt("client_secrets"))?, handover))
    }

    /// Makes a secret and, for a link, the delivery that hands it over.
    pub(super) async fn make_secret(
        &self,
        tx: &DatabaseTransaction,
        client_id: &ClientId,
        expires_at: Option<UnixMillis>,
        method: Method,
        secrets: &Derivation,
    ) -> Result<SecretRef, Error> {
        let now = self.now();
        lock_client(tx, client_id).await?;
        let live = Entity::find()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .filter(Column::RevokedAt.is_null())
            .filter(
                Condition::any()
                    .add(Column::ExpiresAt.is_null())
                    .add(Column::ExpiresAt.gt(now.as_millis())),
            )
            .count(tx)
            .await
            .map_err(StoreError::from)?;
        if live >= MAX_LIVE {
            return Err(Error::TooMany {
                what: "live secrets of this client",
                limit: MAX_LIVE,
            });
        }
        let secret_id = SecretId::generate(&*self.clock, &*self.random);
        let (bytes, delivery_id) = match method {
            Method::Inline => (inline_secret(secrets), None),
            Method::Link => {
                let (bytes, id) = self.make_delivery(tx, client_id, &secret_id, secrets).await?;
                (bytes, Some(id))
            }
        };
        let tag_key = self.secret_tag_key()?;
        let secret = opaque::ClientSecret::compose(&tag_key, client_id, secret_id.clone(), &bytes);
        let hashed = self
            .hasher
            .hash(Zeroizing::new(secret.expose().as_bytes().to_vec()))
            .await?;
        let row = ActiveModel {
            secret_id: Set(secret_id.to_string()),
            client_id: Set(client_id.to_string()),
            secret_hash: Set(hashed.phc),
            pepper_version: Set(hashed.pepper_version),
            tag_key_version: Set(tag_key.version()),
            awaiting_claim: Set(delivery_id.is_some()),
            created_at: Set(now.as_millis()),
            expires_at: Set(expires_at.map(UnixMillis::as_millis)),
            last_used_at: Set(None),
            revoked_at: Set(None),
            revocation_reason: Set(None),
        };
        row.insert(tx).await.map_err(StoreError::from)?;
        Ok(SecretRef {
            client_id: client_id.clone(),
            secret_id,
            delivery_id,
        })
    }

    /// What a creating call answers, made again from what was derived.
    pub(super) async fn handover(
        &self,
        conn: &impl ConnectionTrait,
        method: Method,
        made: &SecretRef,
        secrets: &Derivation,
    ) -> Result<Handover, Error> {
        match (method, &made.delivery_id) {
            (Method::Link, Some(delivery_id)) => {
                Ok(Handover::Link(self.find_link(conn, delivery_id, secrets).await?))
            }
            _ => {
                let bits = inline_secret(secrets);
                let secret = self
                    .rebuild(conn, &made.client_id, &made.secret_id, &bits)
                    .await?;
                Ok(Handover::Bundle(bundle(conn, &made.client_id, secret).await?))
            }
        }
    }

    /// Writes a stored secret anew, with the tag that it was issued with.
    pub(super) async fn rebuild(
        &self,
        conn: &impl ConnectionTrait,
        client_id: &ClientId,
        secret_id: &SecretId,
        bits: &[u8; 32],
    ) -> Result<opaque::ClientSecret, Error> {
        let row = Entity::find_by_id(secret_id.as_str())
            .one(conn)
            .await
            .map_err(StoreError::from)?
            .ok_or(corrupt("client_secrets"))?;
        let tag_key = secret_tag::require(&self.keyring, row.tag_key_version)?;
        Ok(opaque::ClientSecret::compose(
            &tag_key,
            client_id,
            secret_id.clone(),
            bits,
        ))
    }

    /// The secrets that authenticate a client now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn live_secrets(&self, client_id: &ClientId) -> Result<Vec<LiveSecret>, Error> {
        let now = self.now();
        let rows = Entity::find()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .filter(Column::RevokedAt.is_null())
            .filter(Column::AwaitingClaim.eq(false))
            .order_by_asc(Column::SecretId)
            .all(self.db.read())
            .await
            .map_err(StoreError::from)?;
        let mut live = Vec::with_capacity(rows.len());
        for row in rows {
            let secret = client_secret(row)?;
            if secret.is_live_at(now) {
                live.push(LiveSecret {
                    secret_id: secret.secret_id,
                    expires_at: secret.expires_at,
                });
            }
        }
        Ok(live)
    }

    /// Reads one secret of a client.
    ///
    /// # Errors
    /// [`Error::Store`].
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
    /// [`Error::Store`].
    pub async fn list_client_secrets(
        &self,
        client_id: &ClientId,
        page: &PageRequest,
    ) -> Result<Page<ClientSecret>, Error> {
        let mut query = Entity::find()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .order_by_desc(Column::SecretId)
            .limit(page.fetch());
        if let Some(after) = page.after() {
            query = query.filter(Column::SecretId.lt(after));
        }
        let rows = query.all(self.db.read()).await.map_err(StoreError::from)?;
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
            .await
            .map_err(StoreError::from)?;
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
            .detail("reason", reason.name())
            .detail("force", revocation.force.to_string());
        self.audit(&tx, origin, event).await?;
        if reason == Reason::Compromised {
            let seq = self.bump(&tx, &[tokens_ended(client_id)]).await?;
            client_entity::Entity::update_many()
                .filter(client_entity::Column::ClientId.eq(client_id.as_str()))
                .col_expr(client_entity::Column::TokensEndedSeq, Expr::value(seq))
                .col_expr(client_entity::Column::FamiliesEndedSeq, Expr::value(seq))
                .exec(&tx)
                .await
                .map_err(StoreError::from)?;
        } else {
            self.bump(&tx, &[changed(client_id)]).await?;
        }
        let secret = find(&tx, client_id, secret_id).await?;
        commit(tx).await?;
        secret.ok_or(corrupt("client_secrets"))
    }

    /// Moves the dates of last use forward, to now at most; uses close together are one.
    ///
    /// # Errors
    /// [`Error::Store`].
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
                .await
                .map_err(StoreError::from)?;
        }
        Ok(commit(tx).await?)
    }
}

/// Locks a client's row until the transaction ends, so that calls that count, replace or revoke its
/// secrets come one after the other.
pub(super) async fn lock_client(tx: &DatabaseTransaction, client_id: &ClientId) -> Result<(), Error> {
    let client = client_entity::Entity::find_by_id(client_id.as_str()).lock_exclusive();
    match client.one(tx).await.map_err(StoreError::from)? {
        Some(_) => Ok(()),
        None => Err(Error::NotFound("client")),
    }
}

/// Marks a secret as revoked.
pub(super) async fn end(
    tx: &DatabaseTransaction,
    secret_id: &SecretId,
    reason: Reason,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut ending = Entity::update_many()
        .filter(Column::SecretId.eq(secret_id.as_str()))
        .col_expr(Column::RevokedAt, Expr::value(now.as_millis()))
        .col_expr(Column::RevocationReason, Expr::value(reason.name()));
    if reason == Reason::Unclaimed {
        // What an operator revoked before its link ended keeps the operator's reason.
        ending = ending.filter(Column::RevokedAt.is_null());
    }
    ending.exec(tx).await?;
    Ok(())
}

/// Lets a secret whose link was opened authenticate its client.
pub(super) async fn activate(tx: &DatabaseTransaction, secret_id: &SecretId) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::SecretId.eq(secret_id.as_str()))
        .col_expr(Column::AwaitingClaim, Expr::value(false))
        .exec(tx)
        .await?;
    Ok(())
}

/// A secret with all that the partner needs beside it.
pub(super) async fn bundle(
    conn: &impl ConnectionTrait,
    client_id: &ClientId,
    client_secret: opaque::ClientSecret,
) -> Result<Bundle, Error> {
    let client = client::find(conn, client_id)
        .await?
        .ok_or(corrupt("client_secrets"))?;
    let mut endpoints = Vec::with_capacity(client.tenant_ids.len());
    for tenant_id in client.tenant_ids {
        let tenant = super::tenant::find(conn, &tenant_id)
            .await?
            .ok_or(corrupt("client_tenants"))?;
        endpoints.push(crate::model::delivery::Endpoint {
            tenant_id,
            cloud_api_url: tenant.cloud_api_url,
        });
    }
    Ok(Bundle {
        client_id: client.client_id,
        client_secret,
        endpoints,
    })
}

fn inline_secret(secrets: &Derivation) -> Zeroizing<[u8; 32]> {
    secrets.secret("client-secret")
}

async fn find(
    conn: &impl ConnectionTrait,
    client_id: &ClientId,
    secret_id: &SecretId,
) -> Result<Option<ClientSecret>, Error> {
    let row = Entity::find_by_id(secret_id.as_str())
        .filter(Column::ClientId.eq(client_id.as_str()))
        .one(conn)
        .await
        .map_err(StoreError::from)?;
    row.map(client_secret).transpose()
}

fn client_secret(row: Model) -> Result<ClientSecret, Error> {
    let unreadable = || corrupt("client_secrets");
    let revoked = match (row.revoked_at, row.revocation_reason) {
        (None, None) => None,
        (Some(at), Some(reason)) => {
            let reason = Reason::from_name(&reason).ok_or_else(unreadable)?;
            Some((UnixMillis::from_millis(at), reason))
        }
        _ => return Err(unreadable()),
    };
    Ok(ClientSecret {
        secret_id: SecretId::parse(&row.secret_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        hashed: Hashed {
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
