//! One-time links in the database. Stores only the SHA-256 of a claim token. The secret derives from the token and a
//! nonce, and is not stored.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, Transaction,
        audit::{Action, Event, Origin, action},
        change,
        idempotency::CreationOutcome,
        rows::{CHANGED_AT_ONCE, Locked, ProtectedRows},
    },
    text::{
        id::{ClientId, SecretId},
        opaque::OpaqueToken,
        release_code::ReleaseCode,
    },
};
use sea_orm::{Condition, QueryOrder, QuerySelect, entity::prelude::*, sea_query::IntoCondition};
use uuid::Uuid;

use super::{
    Store,
    client::{self, changed, lock_client},
    commit, corrupt,
    credentials::{self, end_link, end_unclaimed, is_unopened, linked_secret, unopened},
    entity::delivery::{Column, Entity, Model},
};
use crate::{
    error::{Error, Result},
    model::{
        client_secret::NewSecret,
        delivery::{Bundle, Handover, Link, Method},
        link::{CodeProblem, MAX_WRONG_CODES, REPEAT_WINDOW, is_repeat, use_mac},
        purpose,
    },
};

impl Store {
    /// Creates a secret and a link to it. Ends the client's earlier links that were not opened, and their secrets.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooMany`], [`Error::RequestIdReused`].
    pub async fn create_delivery(&self, creation: &Creation, client_id: &ClientId) -> Result<Link> {
        let new = NewSecret {
            client_id: client_id.clone(),
            expires_at: None,
            delivery: Method::Link,
        };
        let (tx, outcome, secret) = self.begin_secret(creation, new).await?;
        let reservation = match outcome {
            CreationOutcome::Repeated { resource_id, secrets } => {
                let (issued, handover) = self.reissue(&tx, &resource_id, &secrets).await?;
                let subject = issued.secret_id.as_str();
                return self.commit_repeated(tx, creation, subject, link(handover)?).await;
            }
            CreationOutcome::New(reservation) => reservation,
        };
        // Serializes calls for one client, so that each sees the links that the calls before it created.
        lock_client(&tx, client_id).await?;
        let earlier = Entity::look_up()
            .equal(Column::ClientId, client_id.as_str())
            .filter(unopened(), is_unopened)
            .order_by_asc(Column::DeliveryId)
            .lock_authentic(&tx)
            .await?;
        for row in earlier {
            self.end_unopened(&tx, &creation.origin, row).await?;
        }
        let (issued, handover) = self.issue(&tx, &creation.origin, secret, reservation).await?;
        let link = link(handover)?;
        let event = Event::new(action::DELIVERY_CREATE)
            .client(client_id)
            .subject(link.delivery_id.as_str())
            .detail("secret_id", issued.secret_id.as_str());
        let change = changed(client_id);
        self.publish(&tx, &creation.origin, event, change).await?;
        commit(tx, link).await
    }

    /// Opens a link. Of racing calls, one does. Within a minute a call with the same request
    /// id gets the same secret, derived again. Records every attempt to open a known link; commits the event of a
    /// rejected attempt before the call fails.
    ///
    /// A link that needs a release opens only with its code, also the second time. Five wrong codes end it; whoever has
    /// a wrong one learns nothing about the link.
    ///
    /// # Errors
    /// [`Error::LinkOpened`], [`Error::LinkInvalid`].
    pub async fn claim_delivery(
        &self,
        origin: &Origin,
        claim_token: &OpaqueToken,
        request_id: Option<Uuid>,
        code: Option<&ReleaseCode>,
    ) -> Result<Bundle> {
        let claimed_by = request_id.map(|id| use_mac(claim_token, id));
        let by_token = || Entity::look_up().equal(Column::ClaimHash, claim_token.digest().to_vec());
        // Rejects a guessed token without a write transaction: anybody may send one, and SQLite has a single writer.
        if by_token().read_one(self.db.read()).await?.is_none() {
            return Err(Error::LinkInvalid);
        }
        self.keyring.get().await?;
        let tx = self.db.write().await?;
        let now = self.now().as_millis();
        let row = by_token().lock_one(&tx).await?;
        let row = row.ok_or(Error::LinkInvalid)?;
        let release = self.release(&*row);
        let link = row.delivery_id.as_bytes();
        if let Err(problem) = self.check_code(&release, link, code)? {
            return self.reject_code(tx, origin, row, problem).await;
        }
        let (client_id, secret_id) = ids(&row)?;
        // A client that entered the FAPI profile after the link was made takes no secret any more.
        let client = client::find(&tx, &client_id)
            .await?
            .ok_or(corrupt("deliveries"))?;
        let opens = is_unopened(&row) && row.expires_at > now && client.accepts_secrets(self.now());
        let claimed_at = row.claimed_at.map(UnixMillis::from_millis);
        // A revocation of the secret has deleted the nonce; without it the secret can't be derived again.
        let repeats =
            row.nonce.is_some() && is_repeat(claimed_at, row.claimed_by.as_deref(), claimed_by, self.now());
        if !opens && !repeats {
            let (why, rejection) = match claimed_at {
                Some(claimed_at) => ("opened before", Error::LinkOpened { claimed_at }),
                None => ("ended", Error::LinkInvalid),
            };
            let event = event(action::DELIVERY_CLAIM, &row)?.detail("why", why).refused();
            self.audit(&tx, origin, event).await?;
            commit(tx, ()).await?;
            return Err(rejection);
        }
        let nonce = row.nonce.as_deref().ok_or(corrupt("deliveries"))?;
        let keyring = self.keyring.loaded();
        let key = keyring.require(purpose::DELIVERY, row.key_version)?;
        let bits = linked_secret(key, nonce, claim_token);
        let bundle = self.bundle(&tx, &client, &secret_id, &bits).await?;
        if !opens {
            let event = event(action::DELIVERY_REPEAT, &row)?;
            self.audit(&tx, origin, event).await?;
            return commit(tx, bundle).await;
        }
        let event = event(action::DELIVERY_CLAIM, &row)?;
        mark_claimed(&tx, row, claimed_by, self.now()).await?;
        self.publish(&tx, origin, event, changed(&client_id)).await?;
        commit(tx, bundle).await
    }

    /// Rejects a call without the right release code. Records it, counts a wrong code, and ends the link and its secret with the
    /// last one.
    async fn reject_code(
        &self,
        tx: Transaction,
        origin: &Origin,
        mut row: Locked<Entity>,
        problem: CodeProblem,
    ) -> Result<Bundle> {
        let is_open = is_unopened(&row) && row.expires_at > self.now().as_millis();
        if problem == CodeProblem::Wrong && is_open {
            row.wrong_codes += 1;
            row.save(&tx).await?;
        }
        let (client_id, _) = ids(&row)?;
        let why = match row.claimed_at {
            Some(_) => "opened before",
            None => problem.into(),
        };
        let event = event(action::DELIVERY_CLAIM, &row)?.detail("why", why).refused();
        self.audit(&tx, origin, event).await?;
        if row.wrong_codes >= MAX_WRONG_CODES && self.end_unopened(&tx, origin, row).await? {
            change::publish(&tx, &[changed(&client_id)], self.now()).await?;
        }
        commit(tx, ()).await?;
        Err(Error::LinkInvalid)
    }

    /// Ends links that expired before they were opened, and their secrets. Returns how many. Also deletes the nonces of
    /// opened links whose [`REPEAT_WINDOW`] is over.
    pub async fn expire_deliveries(&self) -> Result<usize> {
        let now = self.now();
        let before = now.minus(REPEAT_WINDOW).as_millis();
        let is_over = || Column::ClaimedAt.lte(before);
        for batch in self
            .in_batches(Condition::all().add(is_over()).add(Column::Nonce.is_not_null()))
            .await?
        {
            let tx = self.db.write().await?;
            let opened = Entity::look_up()
                .one_of(Column::DeliveryId, batch)
                .filter(is_over(), move |row| {
                    row.claimed_at.is_some_and(|at| at <= before)
                })
                .not_null(Column::Nonce)
                .order_by_asc(Column::DeliveryId);
            for row in opened.lock_authentic(&tx).await? {
                forget_nonce(&tx, &row.delivery_id).await?;
            }
            tx.commit().await?;
        }
        let millis = now.as_millis();
        let is_due = || Column::ExpiresAt.lte(millis);
        let (origin, mut ended) = (Origin::system("registry-service"), 0);
        for batch in self.in_batches(unopened().add(is_due())).await? {
            let tx = self.db.write().await?;
            let mut changes = Vec::new();
            let expired = Entity::look_up()
                .one_of(Column::DeliveryId, batch)
                .filter(unopened(), is_unopened)
                .filter(is_due(), move |row| row.expires_at <= millis)
                .order_by_asc(Column::DeliveryId);
            for row in expired.lock_authentic(&tx).await? {
                let (client_id, _) = ids(&row)?;
                if self.end_unopened(&tx, &origin, row).await? {
                    changes.push(changed(&client_id));
                }
            }
            change::publish(&tx, &changes, now).await?;
            tx.commit().await?;
            ended += changes.len();
        }
        Ok(ended)
    }

    /// Returns the ids of the links that match, in batches of [`CHANGED_AT_ONCE`], so that no transaction holds up other writers for
    /// long.
    async fn in_batches(&self, condition: impl IntoCondition) -> Result<Vec<Vec<String>>> {
        let ids = Entity::find()
            .filter(condition)
            .select_only()
            .column(Column::DeliveryId);
        let ids = ids.order_by_asc(Column::DeliveryId).into_tuple();
        let ids: Vec<String> = ids.all(self.db.read()).await?;
        Ok(ids.chunks(CHANGED_AT_ONCE as usize).map(<[_]>::to_vec).collect())
    }

    /// Ends a link, and its secret. Returns whether it did: it does nothing if the link was opened or has ended.
    async fn end_unopened(&self, tx: &Transaction, origin: &Origin, mut row: Locked<Entity>) -> Result<bool> {
        if !is_unopened(&row) {
            return Ok(false);
        }
        let now = self.now();
        end_link(&mut row, now);
        row.save(tx).await?;
        end_unclaimed(tx, &ids(&row)?.1, now).await?;
        self.audit(tx, origin, event(action::DELIVERY_END, &row)?).await?;
        Ok(true)
    }
}

/// Begins an event of a link.
pub(super) fn event(action: Action, row: &Model) -> Result<Event> {
    let (client_id, secret_id) = ids(row)?;
    let event = Event::new(action)
        .client(&client_id)
        .subject(row.delivery_id.as_str());
    Ok(event.detail("secret_id", secret_id.as_str()))
}

/// Marks a link as opened by the call with this MAC, and its secret as handed over. Without a MAC no call can repeat this one.
async fn mark_claimed(
    tx: &Transaction,
    mut row: Locked<Entity>,
    claimed_by: Option<[u8; 32]>,
    now: UnixMillis,
) -> Result<()> {
    row.claimed_at = Some(now.as_millis());
    row.claimed_by = claimed_by.map(Vec::from);
    if claimed_by.is_none() {
        row.nonce = None;
    }
    row.save(tx).await?;
    let secret = credentials::lock(tx, &ids(&row)?.1).await?;
    let mut secret = secret.ok_or(corrupt("deliveries"))?;
    secret.awaiting_claim = false;
    Ok(secret.save(tx).await?)
}

/// Deletes the nonce of a link that was opened. Without the nonce nobody can derive the secret again. The MAC
/// does not cover it: with another one only a useless secret derives.
async fn forget_nonce(tx: &Transaction, delivery_id: &str) -> Result<()> {
    let forget = Entity::update_many()
        .filter(Column::DeliveryId.eq(delivery_id))
        .col_expr(Column::Nonce, Expr::value(None::<Vec<u8>>));
    forget.exec(tx).await?;
    Ok(())
}

fn link(handover: Handover) -> Result<Link> {
    match handover {
        Handover::Link(link) => Ok(link),
        Handover::Bundle(_) => Err(corrupt("deliveries")),
    }
}

pub(super) fn ids(row: &Model) -> Result<(ClientId, SecretId)> {
    let unreadable = |_| corrupt("deliveries");
    Ok((
        ClientId::parse(&row.client_id).map_err(unreadable)?,
        SecretId::parse(&row.secret_id).map_err(unreadable)?,
    ))
}

#[cfg(test)]
#[path = "tests/delivery.rs"]
mod tests;
