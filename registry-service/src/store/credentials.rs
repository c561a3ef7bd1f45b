//! Creates Client Secrets and hands them over, for registration, additional secrets and one-time links.
//!
//! A new secret is hashed inside the transaction that creates it, because it derives from the reservation that this
//! transaction makes. Only operators cause such argon2 runs, and rarely.
//!
//! All transactions lock rows in one order, so that they never deadlock: the client, its links by their ids, each link
//! before its secret, and last the change counter.

use accord::{
    clock::UnixMillis,
    keys::DataKey,
    store::{
        Keyed, Transaction,
        audit::Origin,
        idempotency::{Derivation, Reservation},
        rows::{self, Locked, ProtectedRows},
    },
    text::{
        id::{ClientId, DeliveryId, SecretId},
        opaque::{self, OpaqueToken, TokenKind},
    },
};
use sea_orm::{Condition, QueryOrder, entity::prelude::*};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Store,
    caller::acting,
    client::{self, lock_client, unended_secrets},
    corrupt,
    entity::{
        client_secret::{Entity, Model},
        delivery as link,
    },
    tenant,
};
use crate::{
    error::{Error, Result},
    hashing::secret_tag,
    model::{
        client_secret::{MAX_LIVE, NewSecret, Reason},
        delivery::{Bundle, Handover, LINK_LIFETIME, Link, Method},
        purpose,
    },
};

const NONCE_BYTES: usize = 32;

/// The secret that a creating call made, and its delivery if there is one. Stored, so that a repeated call finds them.
#[derive(Deserialize, Serialize)]
pub(super) struct Issued {
    pub(super) client_id: ClientId,
    pub(super) secret_id: SecretId,
    pub(super) delivery_id: Option<DeliveryId>,
}

impl Store {
    /// Creates a secret, and a link to it for [`Method::Link`]. Completes the reservation.
    pub(super) async fn issue(
        &self,
        tx: &Transaction,
        origin: &Origin,
        new: &NewSecret,
        reservation: Reservation,
    ) -> Result<(Issued, Handover)> {
        let issued = self.make_secret(tx, origin, new, &reservation.secrets).await?;
        let handover = self.handover(tx, &issued, &reservation.secrets).await?;
        let resource_id = serde_json::to_string(&issued).map_err(|_| corrupt("idempotency"))?;
        reservation.complete(tx, &resource_id).await?;
        Ok((issued, handover))
    }

    /// Returns what [`Self::issue`] returned to the first call.
    pub(super) async fn reissue(
        &self,
        conn: &impl Keyed,
        resource_id: &str,
        secrets: &Derivation,
    ) -> Result<(Issued, Handover)> {
        let issued = serde_json::from_str(resource_id).map_err(|_| corrupt("idempotency"))?;
        let handover = self.handover(conn, &issued, secrets).await?;
        Ok((issued, handover))
    }

    async fn make_secret(
        &self,
        tx: &Transaction,
        origin: &Origin,
        new: &NewSecret,
        secrets: &Derivation,
    ) -> Result<Issued> {
        let (client_id, now) = (&new.client_id, self.now());
        lock_client(tx, client_id).await?;
        let live = unended_secrets(client_id, now).count(tx).await?;
        if live >= MAX_LIVE {
            return Err(Error::TooMany {
                what: "secrets of this client that have not ended",
                limit: MAX_LIVE,
            });
        }
        let secret_id = SecretId::generate(&*self.clock, &*self.random);
        let (bits, delivery_id) = match new.delivery {
            Method::Inline => (inline_secret(secrets), None),
            Method::Link => {
                let creator = acting(tx, origin).await?.person;
                let link = self.make_link(tx, client_id, &secret_id, &creator, secrets);
                let (bits, id) = link.await?;
                (bits, Some(id))
            }
        };
        let tag_key = self.secret_tag_key().await?;
        let secret = opaque::ClientSecret::compose(&tag_key, client_id, secret_id.clone(), &bits);
        let text = Zeroizing::new(secret.expose().as_bytes().to_vec());
        let hashed = self.hasher.hash(client_id.as_str(), text).await?;
        let row = Model {
            secret_id: secret_id.to_string(),
            client_id: client_id.to_string(),
            secret_hash: hashed.phc,
            pepper_version: hashed.pepper_version,
            tag_key_version: tag_key.version(),
            awaiting_claim: delivery_id.is_some(),
            created_at: now.as_millis(),
            expires_at: new.expires_at.map(UnixMillis::as_millis),
            last_used_at: None,
            revoked_at: None,
            revocation_reason: None,
            mac: Vec::new(),
        };
        rows::insert::<Entity>(tx, row).await?;
        Ok(Issued {
            client_id: client_id.clone(),
            secret_id,
            delivery_id,
        })
    }

    /// Creates a delivery. Returns the bits of the secret that it hands over, and its id.
    async fn make_link(
        &self,
        tx: &Transaction,
        client_id: &ClientId,
        secret_id: &SecretId,
        creator: &str,
        secrets: &Derivation,
    ) -> Result<(Zeroizing<[u8; 32]>, DeliveryId)> {
        let now = self.now();
        let delivery_id = DeliveryId::generate(&*self.clock, &*self.random);
        let claim_token = claim_token(secrets);
        let mut nonce = vec![0; NONCE_BYTES];
        self.random.fill(&mut nonce);
        let keyring = self.keyring.get().await?;
        let key = keyring.current(purpose::DELIVERY)?;
        let bits = linked_secret(key, &nonce, &claim_token);
        let row = link::Model {
            delivery_id: delivery_id.to_string(),
            client_id: client_id.to_string(),
            secret_id: secret_id.to_string(),
            claim_hash: claim_token.digest().to_vec(),
            nonce: Some(nonce),
            key_version: key.version(),
            created_at: now.as_millis(),
            expires_at: now.plus(LINK_LIFETIME).as_millis(),
            claimed_at: None,
            claimed_by: None,
            ended_at: None,
            creator: creator.to_owned(),
            needs_release: self.second_operator,
            releaser: None,
            release_mac: None,
            release_key_version: None,
            wrong_codes: 0,
            mac: Vec::new(),
        };
        rows::insert::<link::Entity>(tx, row).await?;
        Ok((bits, delivery_id))
    }

    /// Returns an issued secret with the credentials around it, or the link to them.
    async fn handover(&self, conn: &impl Keyed, issued: &Issued, secrets: &Derivation) -> Result<Handover> {
        let Some(delivery_id) = &issued.delivery_id else {
            let bits = inline_secret(secrets);
            let bundle = self.bundle(conn, &issued.client_id, &issued.secret_id, &bits);
            return Ok(Handover::Bundle(bundle.await?));
        };
        let row = link::Entity::find_by_id(delivery_id.as_str())
            .read_one(conn)
            .await?;
        let row = row.ok_or(corrupt("deliveries"))?;
        Ok(Handover::Link(Link {
            delivery_id: delivery_id.clone(),
            claim_token: claim_token(secrets),
            expires_at: UnixMillis::from_millis(row.expires_at),
        }))
    }

    /// Composes a secret with the tag that it was issued with. Adds the Client ID and each tenant's Cloud API URL.
    pub(super) async fn bundle(
        &self,
        conn: &impl Keyed,
        client_id: &ClientId,
        secret_id: &SecretId,
        bits: &[u8; 32],
    ) -> Result<Bundle> {
        let row = Entity::find_by_id(secret_id.as_str()).read_one(conn).await?;
        let row = row.ok_or(corrupt("client_secrets"))?;
        let version = row.tag_key_version;
        let keyring = self.keyring.with_version(purpose::SECRET_TAG, version).await?;
        let tag_key = secret_tag::require(&keyring, version)?;
        let client = client::find(conn, client_id).await?;
        let mut endpoints = Vec::new();
        for tenant_id in client.ok_or(corrupt("client_secrets"))?.tenant_ids {
            let tenant = tenant::find(conn, &tenant_id).await?;
            let cloud_api_url = tenant.ok_or(corrupt("client_tenants"))?.cloud_api_url;
            endpoints.push((tenant_id, cloud_api_url));
        }
        Ok(Bundle {
            client_id: client_id.clone(),
            client_secret: opaque::ClientSecret::compose(&tag_key, client_id, secret_id.clone(), bits),
            endpoints,
        })
    }
}

/// Marks the secret of a link that ended as revoked.
pub(super) async fn end_unclaimed(tx: &Transaction, secret_id: &SecretId, now: UnixMillis) -> Result<()> {
    let row = lock(tx, secret_id).await?;
    // If an operator revoked the secret before its link ended, the operator's reason stays.
    if let Some(mut row) = row.filter(|row| row.revoked_at.is_none()) {
        end(&mut row, Reason::Unclaimed, now);
        row.save(tx).await?;
    }
    Ok(())
}

/// Reads a secret's row, and locks it until the transaction ends.
pub(super) async fn lock(tx: &Transaction, secret_id: &SecretId) -> Result<Option<Locked<Entity>>> {
    Ok(Entity::find_by_id(secret_id.as_str()).lock_one(tx).await?)
}

/// Marks a secret as revoked.
pub(super) fn end(row: &mut Model, reason: Reason, now: UnixMillis) {
    row.revoked_at = Some(now.as_millis());
    row.revocation_reason = Some(reason.as_ref().to_owned());
}

/// Derives the secret that the response itself hands over.
fn inline_secret(secrets: &Derivation) -> Zeroizing<[u8; 32]> {
    secrets.secret("client-secret")
}

/// Returns the claim token of a creating call.
fn claim_token(secrets: &Derivation) -> OpaqueToken {
    OpaqueToken::from_secret(TokenKind::Claim, &secrets.secret("claim"))
}

/// Derives the secret that a link hands over. `nonce` is the link's.
pub(super) fn linked_secret(key: &DataKey, nonce: &[u8], claim_token: &OpaqueToken) -> Zeroizing<[u8; 32]> {
    key.derive(nonce, &[claim_token.expose().as_bytes()])
}

/// Ends all links that were not opened.
pub(super) async fn end_open(tx: &Transaction, now: UnixMillis) -> Result<()> {
    let open = link::Entity::find().filter(unopened());
    for mut row in open
        .order_by_asc(link::Column::DeliveryId)
        .lock_authentic(tx)
        .await?
    {
        end_link(&mut row, now);
        row.save(tx).await?;
    }
    Ok(())
}

/// Marks a link as ended, and deletes its nonce.
pub(super) fn end_link(row: &mut link::Model, now: UnixMillis) {
    row.ended_at = Some(now.as_millis());
    row.nonce = None;
}

/// Returns whether a link was neither opened nor ended. It may have expired.
pub(super) fn is_unopened(row: &link::Model) -> bool {
    row.claimed_at.is_none() && row.ended_at.is_none()
}

/// The condition for a link that was neither opened nor ended. It may have expired.
pub(super) fn unopened() -> Condition {
    Condition::all()
        .add(link::Column::ClaimedAt.is_null())
        .add(link::Column::EndedAt.is_null())
}
