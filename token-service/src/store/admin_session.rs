//! Admin sessions in the database, by the SHA-256 of their tokens.

use accord::{
    clock::UnixMillis,
    position::{Epoch, Position},
    store::{
        Transaction,
        audit::{Event, Origin, action},
        rows::{self, Checked, Locked, Lookup, ProtectedRows},
    },
    text::{
        id::{SetupId, TenantId, UserId},
        opaque::{OpaqueToken, TokenKind},
    },
};

use super::{
    Store, corrupt,
    entity::admin_session::{Entity, Model},
};
use crate::{
    error::{Error, Result},
    model::admin_session::{AdminSession, EndReason, NewSession, session_id},
};

impl Store {
    /// Opens a session for the workload of `origin`. Returns its token, which is not stored, and when it was opened.
    pub async fn open_admin_session(
        &self,
        origin: &Origin,
        new: NewSession,
    ) -> Result<(OpaqueToken, UnixMillis)> {
        let token = OpaqueToken::generate(TokenKind::AdminSession, &*self.random);
        let tx = self.db.write().await?;
        let now = self.now();
        let event = Event::new(action::ADMIN_SESSION_OPEN)
            .tenant(&new.tenant_id)
            .subject(new.user_id.as_str())
            .detail("session", session_id(&token.digest()))
            .detail_if("setup_id", new.setup_id.as_ref().map(SetupId::as_str));
        let row = Model {
            session_hash: token.digest().to_vec(),
            tenant_id: new.tenant_id.into(),
            user_id: new.user_id.into(),
            workload_id: origin.actor.id.clone(),
            setup_id: new.setup_id.map(String::from),
            registry_epoch: new.position.epoch.into(),
            registry_seq: new.position.seq,
            signed_in_at: now.as_millis(),
            last_used_at: now.as_millis(),
            ended_at: None,
            mac: Vec::new(),
        };
        rows::insert::<Entity>(&tx, row).await?;
        self.audit(&tx, origin, event).await;
        tx.commit().await?;
        Ok((token, now))
    }

    /// Reads a session, open or not.
    pub async fn find_admin_session(&self, digest: &[u8; 32]) -> Result<Option<AdminSession>> {
        let row = by_digest(digest).read_one(self.db.read()).await?;
        row.as_ref().map(session).transpose()
    }

    /// Records that a session is used now. Returns false if it is no longer open.
    pub async fn touch_admin_session(&self, digest: &[u8; 32]) -> Result<bool> {
        let tx = self.db.write().await?;
        let touched = touch(&tx, digest, self.now()).await?;
        tx.commit().await?;
        Ok(touched)
    }

    /// Ends a session of the workload of `origin`. Changes nothing for a session of another workload, or one that was
    /// ended before.
    pub async fn end_admin_session(
        &self,
        origin: &Origin,
        digest: &[u8; 32],
        reason: EndReason,
    ) -> Result<()> {
        // Rejects a guessed token without a write transaction: the pages take one from anybody.
        if self.find_admin_session(digest).await?.is_none() {
            return Ok(());
        }
        let tx = self.db.write().await?;
        let row = by_digest(digest).lock_one(&tx).await?;
        let is_theirs = |row: &Locked<Entity>| row.workload_id == origin.actor.id && row.ended_at.is_none();
        let Some(mut row) = row.filter(is_theirs) else {
            return Ok(());
        };
        row.ended_at = Some(self.now().as_millis());
        row.save(&tx).await?;
        let session = session(&row)?;
        let event = Event::new(action::ADMIN_SESSION_END)
            .tenant(&session.tenant_id)
            .subject(session.user_id.as_str())
            .detail("session", session_id(&session.digest))
            .detail("reason", reason.as_ref());
        self.audit(&tx, origin, event).await;
        Ok(tx.commit().await?)
    }
}

/// Requires that a session is still open. Its row stays locked until the commit, so that it stays open.
pub(super) async fn require_open(tx: &Transaction, session: &AdminSession, now: UnixMillis) -> Result<()> {
    let is_open = touch(tx, &session.digest, now).await?;
    is_open.then_some(()).ok_or(Error::AdminSessionInvalid)
}

/// Records that a session is used. Returns whether it is open.
async fn touch(tx: &Transaction, digest: &[u8; 32], now: UnixMillis) -> Result<bool> {
    let Some(mut row) = by_digest(digest).lock_one(tx).await? else {
        return Ok(false);
    };
    if !session(&row)?.is_open(&row.workload_id, now) {
        return Ok(false);
    }
    row.last_used_at = now.as_millis();
    row.save(tx).await?;
    Ok(true)
}

fn by_digest(digest: &[u8; 32]) -> Lookup<Entity> {
    Entity::look_up_by_id(digest.to_vec())
}

fn session(row: &impl Checked<Entity>) -> Result<AdminSession> {
    let unreadable = || corrupt("admin_sessions");
    let setup_id = row.setup_id.as_deref().map(SetupId::parse).transpose();
    Ok(AdminSession {
        digest: row.session_hash.as_slice().try_into().map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        user_id: UserId::parse(&row.user_id).map_err(|_| unreadable())?,
        workload: row.workload_id.clone(),
        setup_id: setup_id.map_err(|_| unreadable())?,
        position: Position {
            epoch: Epoch::parse(&row.registry_epoch).map_err(|_| unreadable())?,
            seq: row.registry_seq,
        },
        signed_in_at: UnixMillis::from_millis(row.signed_in_at),
        last_used_at: UnixMillis::from_millis(row.last_used_at),
        ended_at: row.ended_at.map(UnixMillis::from_millis),
    })
}
