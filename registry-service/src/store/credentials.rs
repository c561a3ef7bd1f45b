//! Creates Client Secrets and hands them over, for registration, additional secrets and one-time links.
//!
//! A new secret is hashed before the transaction that creates it: PostgreSQL ends a transaction that does nothing for two
//! seconds, and an argon2 run may wait longer for its turn. A repeated call costs a run too. Only operators cause them, and
//! rarely.
//!
//! All transactions lock rows in one order, so that they never deadlock: the client, its links by their ids, each link
//! before its secret, and last the change counter.

use accord::{
    clock::UnixMillis,
    keys::DataKey,
    store::{
        Creation, Keyed, Transaction,
        audit::Origin,
        idempotency::{self, CreationOutcome, Derivation, Reservation},
        rows::{self, Locked, ProtectedRows},
    },
    text::{
        id::{ClientId, DeliveryId, SecretId},
        opaque::{self, OpaqueToken, TokenKind},
        validation::Violations,
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
        client_secret::{self, Entity, Model},
        delivery as link,
    },
    tenant,
};
use crate::{
    error::{Error, Result},
    hashing::secret_tag,
    model::{
        argon2_hash::Argon2Hash,
        client::Client,
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

/// A secret that was hashed before the transaction that creates it.
pub(super) struct HashedSecret {
    new: NewSecret,
    secret_id: SecretId,
    hashed: Argon2Hash,
    tag_key_version: i32,
    /// For [`Method::Link`].
    link: Option<LinkKey>,
}

/// What the secret of a link derives from, beside the claim token.
struct LinkKey {
    nonce: Vec<u8>,
    key_version: i32,
}

impl Store {
    /// Hashes a new secret, and then begins the transaction of the call that creates it.
    pub(super) async fn begin_secret(
        &self,
        creation: &Creation,
        new: NewSecret,
    ) -> Result<(Transaction, CreationOutcome, HashedSecret)> {
        // Not only before the transaction: a call that can't create anything costs no argon2 run.
        let keyring = self.keyring.complete().await?;
        let secrets = idempotency::prepare(&keyring, &*self.random, creation)?;
        let hashed = Box::pin(self.hash_secret(new, &secrets)).await?;
        let (tx, outcome) = self.begin_prepared(creation, secrets).await?;
        Ok((tx, outcome, hashed))
    }

    async fn hash_secret(&self, new: NewSecret, secrets: &Derivation) -> Result<HashedSecret> {
        let secret_id = SecretId::generate(&*self.clock, &*self.random);
        let (bits, link) = match new.delivery {
            Method::Inline => (inline_secret(secrets), None),
            Method::Link => {
                let mut nonce = vec![0; NONCE_BYTES];
                self.random.fill(&mut nonce);
                let keyring = self.keyring.get().await?;
                let key = keyring.current(purpose::DELIVERY)?;
                let bits = linked_secret(key, &nonce, &claim_token(secrets));
                let key_version = key.version();
                (bits, Some(LinkKey { nonce, key_version }))
            }
        };
        let tag_key = self.secret_tag_key().await?;
        let secret = opaque::ClientSecret::compose(&tag_key, &new.client_id, secret_id.clone(), &bits);
        let text = Zeroizing::new(secret.expose().as_bytes().to_vec());
        let hashed = self.hasher.hash(new.client_id.as_str(), text).await?;
        Ok(HashedSecret {
            new,
            secret_id,
            hashed,
            tag_key_version: tag_key.version(),
            link,
        })
    }

    /// Creates a secret, and a link to it for [`Method::Link`]. Completes the reservation.
    pub(super) async fn issue(
        &self,
        tx: &Transaction,
        origin: &Origin,
        secret: HashedSecret,
        reservation: Reservation,
    ) -> Result<(Issued, Handover)> {
        let issued = self
            .insert_secret(tx, origin, secret, &reservation.secrets)
            .await?;
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

    async fn insert_secret(
        &self,
        tx: &Transaction,
        origin: &Origin,
        secret: HashedSecret,
        secrets: &Derivation,
    ) -> Result<Issued> {
        let HashedSecret {
            new,
            secret_id,
            hashed,
            tag_key_version,
            link,
        } = secret;
        let (client_id, now) = (&new.client_id, self.now());
        let client = client::client(lock_client(tx, client_id).await?.stored())?;
        require_secrets(&client)?;
        // An altered secret authenticates nobody, and must not keep the client from getting another one. The client's row is
        // locked, so that nobody adds a secret; their own locks would come before those of their links.
        let live = unended_secrets(client_id, now).read_authentic(tx).await?;
        if live.len() as u64 >= MAX_LIVE {
            return Err(Error::TooMany {
                what: "secrets of this client that have not ended",
                limit: MAX_LIVE,
            });
        }
        let delivery_id = match link {
            None => None,
            Some(link) => {
                let creator = acting(tx, origin).await?.person;
                let ids = (client_id, &secret_id);
                let claim_token = claim_token(secrets);
                let ends = now.plus(LINK_LIFETIME);
                let ends = new.expires_at.map_or(ends, |secret_ends| ends.min(secret_ends));
                Some(
                    self.insert_link(tx, ids, &creator, (link, ends), &claim_token)
                        .await?,
                )
            }
        };
        let row = Model {
            secret_id: secret_id.to_string(),
            client_id: client_id.to_string(),
            secret_hash: hashed.phc,
            pepper_version: hashed.pepper_version,
            tag_key_version,
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
            client_id: new.client_id,
            secret_id,
            delivery_id,
        })
    }

    /// Creates a delivery, whose link ends no later than its secret. Returns its id.
    async fn insert_link(
        &self,
        tx: &Transaction,
        (client_id, secret_id): (&ClientId, &SecretId),
        creator: &str,
        (link, expires_at): (LinkKey, UnixMillis),
        claim_token: &OpaqueToken,
    ) -> Result<DeliveryId> {
        let now = self.now();
        let delivery_id = DeliveryId::generate(&*self.clock, &*self.random);
        let row = link::Model {
            delivery_id: delivery_id.to_string(),
            client_id: client_id.to_string(),
            secret_id: secret_id.to_string(),
            claim_hash: claim_token.digest().to_vec(),
            nonce: Some(link.nonce),
            key_version: link.key_version,
            created_at: now.as_millis(),
            expires_at: expires_at.as_millis(),
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
        Ok(delivery_id)
    }

    /// Returns an issued secret with the credentials around it, or the link to them.
    async fn handover(&self, conn: &impl Keyed, issued: &Issued, secrets: &Derivation) -> Result<Handover> {
        let Some(delivery_id) = &issued.delivery_id else {
            let bits = inline_secret(secrets);
            let client = client::find(conn, &issued.client_id).await?;
            let client = client.ok_or(corrupt("client_secrets"))?;
            let bundle = self.bundle(conn, &client, &issued.secret_id, &bits);
            return Ok(Handover::Bundle(bundle.await?));
        };
        let row = link::Entity::look_up_by_id(delivery_id.as_str())
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
        client: &Client,
        secret_id: &SecretId,
        bits: &[u8; 32],
    ) -> Result<Bundle> {
        let row = Entity::look_up_by_id(secret_id.as_str()).read_one(conn).await?;
        let row = row.ok_or(corrupt("client_secrets"))?;
        let version = row.tag_key_version;
        let tag_key = secret_tag::require(&self.keyring.loaded(), version)?;
        let secret = opaque::ClientSecret::compose(&tag_key, &client.client_id, secret_id.clone(), bits);
        bundle(conn, client, Some(secret)).await
    }
}

/// Returns what a partner needs: the Client ID, the secret if there is one, and each tenant's Cloud API URL.
pub(super) async fn bundle(
    conn: &impl Keyed,
    client: &Client,
    client_secret: Option<opaque::ClientSecret>,
) -> Result<Bundle> {
    let mut endpoints = Vec::new();
    for tenant_id in &client.tenant_ids {
        let tenant = tenant::find(conn, tenant_id).await?;
        let cloud_api_url = tenant.ok_or(corrupt("client_tenants"))?.cloud_api_url;
        endpoints.push((tenant_id.clone(), cloud_api_url));
    }
    Ok(Bundle {
        client_id: client.client_id.clone(),
        client_secret,
        endpoints,
    })
}

/// Checks that a client authenticates by secrets, so that nobody gets a secret that is useless, or soon will be.
fn require_secrets(client: &Client) -> Result<()> {
    let authentication = &client.security.authentication;
    match authentication.method.filter(|_| !authentication.takes_secrets()) {
        None => Ok(()),
        Some(method) => {
            let method = method.as_ref();
            let rule = format!("must be a client with secrets: this one authenticates by {method}");
            Err(Violations::of("client_id", rule).into())
        }
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

/// Ends all secrets of a client, whose row is locked, and the links to them. Returns how many secrets it ended.
pub(super) async fn end_all(tx: &Transaction, client_id: &ClientId, now: UnixMillis) -> Result<usize> {
    let links = link::Entity::look_up().equal(link::Column::ClientId, client_id.as_str());
    let links = links
        .order_by_asc(link::Column::DeliveryId)
        .lock_authentic(tx)
        .await?;
    for mut row in links {
        if is_unopened(&row) {
            end_link(&mut row, now);
        }
        row.nonce = None;
        row.save(tx).await?;
    }
    let secrets = unended_secrets(client_id, now).order_by_asc(client_secret::Column::SecretId);
    let secrets = secrets.lock_authentic(tx).await?;
    let ended = secrets.len();
    for mut row in secrets {
        end(&mut row, Reason::Rotated, now);
        row.save(tx).await?;
    }
    Ok(ended)
}

/// Reads a secret's row, and locks it until the transaction ends.
pub(super) async fn lock(tx: &Transaction, secret_id: &SecretId) -> Result<Option<Locked<Entity>>> {
    Ok(Entity::look_up_by_id(secret_id.as_str()).lock_one(tx).await?)
}

/// Marks a secret as revoked. One that has ended keeps the time of its end, and gets the worse reason.
pub(super) fn end(row: &mut Model, reason: Reason, now: UnixMillis) {
    row.revoked_at.get_or_insert(now.as_millis());
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
