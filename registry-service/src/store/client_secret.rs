//! Client Secrets in the database: hashes and dates.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, Keyed, StoreError,
        audit::{Event, Origin, action},
        idempotency::CreationOutcome,
        rows::{self, Authentic, ProtectedRows},
    },
    text::{
        id::{ClientId, SecretId},
        page::{Page, PageRequest},
    },
};
use sea_orm::{Order::Desc, QueryOrder, entity::prelude::*, sea_query::ExprTrait};

use super::{
    Store,
    client::{self, changed, tokens_ended},
    commit, corrupt, credentials,
    entity::{
        client as client_row,
        client_secret::{Column, Entity},
        delivery as link,
    },
    replaced,
};
use crate::{
    error::{Error, Result},
    model::{
        argon2_hash::Argon2Hash,
        client_secret::{ClientSecret, NewSecret, Reason, Revocation, SecretUse, USE_RESOLUTION},
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
    ) -> Result<(ClientSecret, Handover)> {
        let client_id = new.client_id.clone();
        let end = new.expires_at.map(|end| end.to_timestamp().to_string());
        let event = Event::new(action::CLIENT_SECRET_CREATE)
            .client(&client_id)
            .detail("delivery", new.delivery.as_ref())
            .detail_if("expire_time", end);
        let (tx, outcome, secret) = self.begin_secret(creation, new).await?;
        let reservation = match outcome {
            CreationOutcome::Repeated { resource_id, secrets } => {
                let (issued, handover) = self.reissue(&tx, &resource_id, &secrets).await?;
                let secret = find(&tx, &issued.client_id, &issued.secret_id).await?;
                let answer = (secret.ok_or(corrupt("idempotency"))?, handover);
                let subject = issued.secret_id.as_str();
                return self.commit_repeated(tx, creation, subject, answer).await;
            }
            CreationOutcome::New(reservation) => reservation,
        };
        let (issued, handover) = self.issue(&tx, &creation.origin, secret, reservation).await?;
        let event = event.subject(issued.secret_id.as_str());
        let change = changed(&client_id);
        self.publish(&tx, &creation.origin, event, change).await?;
        let secret = find(&tx, &client_id, &issued.secret_id).await?;
        commit(tx, (secret.ok_or(corrupt("client_secrets"))?, handover)).await
    }

    /// Reads one secret of a client.
    pub async fn find_client_secret(
        &self,
        client_id: &ClientId,
        secret_id: &SecretId,
    ) -> Result<Option<ClientSecret>> {
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
    ) -> Result<Page<ClientSecret>> {
        if client::find(self.db.read(), client_id).await?.is_none() {
            return Err(Error::NotFound("client"));
        }
        let query = Entity::look_up().equal(Column::ClientId, client_id.as_str());
        self.page(query, Column::SecretId, Desc, page, client_secret)
            .await
    }

    /// Revokes a secret. If it is compromised, ends the client's access and refresh tokens too. For a secret that has ended, only a
    /// worse reason changes something.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::SecretInUse`]; [`StoreError::Altered`], after the revocation was recorded and published.
    pub async fn revoke_client_secret(
        &self,
        origin: &Origin,
        revocation: &Revocation,
    ) -> Result<ClientSecret> {
        let (client_id, secret_id) = (&revocation.client_id, &revocation.secret_id);
        let reason = revocation.reason;
        let tx = self.db.write().await?;
        let event = Event::new(action::CLIENT_SECRET_REVOKE)
            .client(client_id)
            .subject(secret_id.as_str())
            .detail("reason", reason.as_ref())
            .detail("force", revocation.force.to_string());
        let change = match reason {
            Reason::Compromised => tokens_ended(client_id),
            _ => changed(client_id),
        };
        // The secret ends also if only the client's row was altered.
        let client = match rows::lock_to_end::<client_row::Entity>(&tx, &[client_id.as_str()]).await {
            Err(StoreError::Altered(table)) => Err(table),
            client => Ok(client?.ok_or(Error::NotFound("client"))?),
        };
        // Locks the link before the secret, as the transactions that open or end links do.
        let links = link::Entity::look_up()
            .equal(link::Column::ClientId, client_id.as_str())
            .equal(link::Column::SecretId, secret_id.as_str())
            .order_by_asc(link::Column::DeliveryId)
            .lock_authentic(&tx)
            .await?;
        let row = match rows::lock_to_end::<Entity>(&tx, &[secret_id.as_str()]).await {
            Err(StoreError::Altered(table)) => {
                return Err(self.end_altered(tx, origin, event, change, table).await);
            }
            row => row?.filter(|row| row.client_id == client_id.as_str()),
        };
        let mut row = row.ok_or(Error::NotFound("client_secret"))?;
        let secret = client_secret(row.stored())?;
        let now = self.now();
        if !revocation.changes(&secret, now)? {
            // Ends no tokens: those from after the first call stay valid.
            self.publish_again(&tx, changed(client_id)).await?;
            return commit(tx, secret).await;
        }
        let before = secret.revoked.map(|(_, reason)| reason);
        let before = before.as_ref().map(Reason::as_ref);
        let event = replaced(event, "revocation_reason", &before, &Some(reason.as_ref()))?;
        credentials::end(&mut row, reason, now);
        row.save(&tx).await?;
        // An open link would hand over a secret that authenticates nothing; so would one that may be opened again.
        for mut link in links {
            if credentials::is_unopened(&link) {
                credentials::end_link(&mut link, now);
            }
            link.nonce = None;
            link.save(&tx).await?;
        }
        let mut client = match client {
            Ok(client) => client,
            Err(table) => return Err(self.end_altered(tx, origin, event, change, table).await),
        };
        let seq = self.publish(&tx, origin, event, change).await?;
        if reason == Reason::Compromised {
            client.tokens_ended_seq = seq;
            client.families_ended_seq = seq;
            client.save(&tx).await?;
        }
        commit(tx, client_secret(row.stored())?).await
    }

    /// Moves the times of last use forward, at most to now. Leaves out uses that are less than [`USE_RESOLUTION`]
    /// after the last one.
    pub async fn write_secret_uses(&self, mut uses: Vec<SecretUse>) -> Result<()> {
        let now = self.now();
        // In one order, so that replicas don't wait for each other in a circle.
        uses.sort_unstable_by(|a, b| a.secret_id.cmp(&b.secret_id));
        // On SQLite even an update of no row takes the write lock.
        let tx = self.db.write().await?;
        for used in uses {
            let used_at = used.used_at.min(now);
            let before = used_at.minus(USE_RESOLUTION).as_millis();
            Entity::update_many()
                .filter(Column::SecretId.eq(used.secret_id.as_str()))
                .filter(Column::ClientId.eq(used.client_id.as_str()))
                .filter(Column::LastUsedAt.is_null().or(Column::LastUsedAt.lte(before)))
                .col_expr(Column::LastUsedAt, Expr::value(used_at.as_millis()))
                .exec(&tx)
                .await?;
        }
        commit(tx, ()).await
    }
}

async fn find(conn: &impl Keyed, client_id: &ClientId, secret_id: &SecretId) -> Result<Option<ClientSecret>> {
    let row = Entity::look_up_by_id(secret_id.as_str()).read_one(conn).await?;
    let row = row.filter(|row| row.client_id == client_id.as_str());
    row.map(client_secret).transpose()
}

fn client_secret(row: Authentic<Entity>) -> Result<ClientSecret> {
    let row = row.into_row();
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
