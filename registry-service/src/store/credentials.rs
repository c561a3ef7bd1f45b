//! Credentials and how they are handed over: what registration, new secrets and one-time links share.
//!
//! A new secret is hashed inside the transaction that creates it, since it derives from what that transaction
//! reserves. These are rare calls of operators.
//!
//! Transactions lock rows in one order, so that they never wait for each other in a circle: the client, its links by
//! their ids, each link before its secret, and last the change counter.

use std::fmt;

use accord::{
    clock::UnixMillis,
    keys::DataKey,
    store::{StoreError, idempotency::Derivation},
    text::{
        id::{ClientId, DeliveryId, SecretId},
        opaque::{self, OpaqueToken, TokenKind},
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction,
    EntityTrait, PaginatorTrait, QueryFilter, QuerySelect, sea_query::Expr,
};
use zeroize::Zeroizing;

use super::{
    Store,
    client::{self, lock_client},
    corrupt,
    entity::{
        client_secret::{ActiveModel, Column, Entity},
        delivery as link,
    },
    tenant,
};
use crate::{
    error::Error,
    hashing::secret_tag,
    model::{
        client_secret::{MAX_LIVE, Reason},
        delivery::{Bundle, Endpoint, Handover, LINK_LIFE, Link, Method},
        purpose,
    },
};

const NONCE_BYTES: usize = 32;

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
            .await?;
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
            .hash(
                client_id.as_str(),
                Zeroizing::new(secret.expose().as_bytes().to_vec()),
            )
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
        row.insert(tx).await?;
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
            .await?
            .ok_or(corrupt("client_secrets"))?;
        let tag_key = secret_tag::require(&self.keyring, row.tag_key_version)?;
        Ok(opaque::ClientSecret::compose(
            &tag_key,
            client_id,
            secret_id.clone(),
            bits,
        ))
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
        let row = link::ActiveModel {
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
        row.insert(tx).await?;
        Ok((bytes, delivery_id))
    }

    /// The link of a delivery, with its claim token made again.
    pub(super) async fn find_link(
        &self,
        conn: &impl ConnectionTrait,
        delivery_id: &DeliveryId,
        secrets: &Derivation,
    ) -> Result<Link, Error> {
        let row = link::Entity::find_by_id(delivery_id.as_str())
            .one(conn)
            .await?
            .ok_or(corrupt("deliveries"))?;
        Ok(Link {
            delivery_id: delivery_id.clone(),
            claim_token: claim_token(secrets),
            expires_at: UnixMillis::from_millis(row.expires_at),
        })
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
        .col_expr(Column::RevocationReason, Expr::value(reason.as_ref()));
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
        let tenant = tenant::find(conn, &tenant_id)
            .await?
            .ok_or(corrupt("client_tenants"))?;
        endpoints.push(Endpoint {
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

/// The claim token of a creating call.
fn claim_token(secrets: &Derivation) -> OpaqueToken {
    OpaqueToken::from_secret(TokenKind::Claim, &secrets.secret("claim"))
}

pub(super) fn linked_secret(key: &DataKey, nonce: &[u8], claim_token: &OpaqueToken) -> Zeroizing<[u8; 32]> {
    key.derive(nonce, &[claim_token.expose().as_bytes()])
}

/// Locks the link to a secret, if there is one, until the transaction ends: before the secret, as those
/// do who open or end the link.
pub(super) async fn lock_link_to(
    tx: &DatabaseTransaction,
    client_id: &ClientId,
    secret_id: &SecretId,
) -> Result<(), StoreError> {
    let row = link::Entity::find()
        .filter(link::Column::ClientId.eq(client_id.as_str()))
        .filter(link::Column::SecretId.eq(secret_id.as_str()))
        .lock_exclusive();
    row.one(tx).await?;
    Ok(())
}

/// Ends the link to a secret that is revoked, unless it was opened.
pub(super) async fn end_link_to(
    tx: &DatabaseTransaction,
    client_id: &ClientId,
    secret_id: &SecretId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    link::Entity::update_many()
        .filter(link::Column::ClientId.eq(client_id.as_str()))
        .filter(link::Column::SecretId.eq(secret_id.as_str()))
        .filter(link::Column::ClaimedAt.is_null())
        .filter(link::Column::EndedAt.is_null())
        .col_expr(link::Column::EndedAt, Expr::value(now.as_millis()))
        .col_expr(link::Column::Nonce, Expr::value(None::<Vec<u8>>))
        .exec(tx)
        .await?;
    Ok(())
}
