//! One-time enrolment links in the database. Stores only the SHA-256 of a token.

use accord::{
    clock::UnixMillis,
    store::{
        Transaction,
        audit::{Event, Origin, action},
        idempotency::Derivation,
        rows::{self, Authentic, ProtectedRows},
    },
    text::{
        id::{TenantId, UserId},
        opaque::{OpaqueToken, TokenKind},
        release_code::ReleaseCode,
    },
};
use sea_orm::{Condition, QueryOrder, entity::prelude::*};

use super::{
    Store,
    caller::acting,
    change, commit, corrupt,
    entity::{
        enrolment::{Column, Entity, Model},
        user,
    },
    tenant,
};
use crate::{
    error::{Error, Result},
    model::{
        argon2_hash::Argon2Hash,
        change_kind,
        link::{CodeProblem, MAX_WRONG_CODES},
        user::{ENROLMENT_LIFETIME, Enrolment, State},
    },
};

/// A Tenant Admin who chooses a password, and the names that it must not be made of.
#[derive(Clone, derive_more::Debug)]
pub struct EnrollingUser {
    /// The user's id, which owns the hash.
    pub user_id: String,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The tenant's display name.
    pub tenant_name: String,
    /// The hash of the account name.
    #[debug(skip)]
    pub name_hash: Vec<u8>,
    /// The version of its key.
    pub name_key_version: i32,
}

impl Store {
    /// Finds an enrolment, open or not.
    pub async fn find_enrolment(&self, token: &OpaqueToken) -> Result<Option<Enrolment>> {
        let row = Entity::look_up_by_id(token.digest().to_vec());
        let row = row.read_one(self.db.read()).await?;
        row.map(|row| self.enrolment(row)).transpose()
    }

    /// Finds the Tenant Admin that an enrolment is for.
    pub async fn find_enrolling_user(&self, enrolment: &Enrolment) -> Result<EnrollingUser> {
        let key = (enrolment.tenant_id.to_string(), enrolment.user_id.to_string());
        let user = user::Entity::look_up_by_id(key).read_one(self.db.read()).await?;
        let user = user.ok_or(corrupt("enrolments"))?.into_row();
        let tenant = tenant::find(self.db.read(), &enrolment.tenant_id).await?;
        Ok(EnrollingUser {
            user_id: user.user_id,
            tenant_id: enrolment.tenant_id.clone(),
            tenant_name: tenant.ok_or(corrupt("users"))?.display_name,
            name_hash: user.name_hash,
            name_key_version: user.name_key_version,
        })
    }

    /// Uses an enrolment and sets the password. Of racing calls, one does.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`].
    pub async fn use_enrolment(
        &self,
        origin: &Origin,
        token: &OpaqueToken,
        used_by: Option<[u8; 32]>,
        hashed: Argon2Hash,
    ) -> Result<TenantId> {
        let tx = self.db.write().await?;
        let now = self.now().as_millis();
        let by_token = || Entity::look_up_by_id(token.digest().to_vec());
        let row = by_token().read_one(&tx).await?.ok_or(Error::LinkInvalid)?;
        // Locks the user's row first, as a reset and a deactivation do: in the other order the transactions
        // would wait for each other.
        let key = (row.tenant_id.clone(), row.user_id.clone());
        let user = user::Entity::look_up_by_id(key).lock_one(&tx).await?;
        let mut user = user.ok_or(corrupt("enrolments"))?;
        let mut row = by_token().lock_one(&tx).await?.ok_or(Error::LinkInvalid)?;
        if user.state != State::Active.as_ref() || !is_unused(&row) || row.expires_at <= now {
            return Err(Error::LinkInvalid);
        }
        user.password_hash = Some(hashed.phc);
        user.pepper_version = Some(hashed.pepper_version);
        user.updated_at = now;
        user.save(&tx).await?;
        row.used_at = Some(now);
        row.used_by = used_by.map(Vec::from);
        row.save(&tx).await?;
        let tenant_id = TenantId::parse(&row.tenant_id).map_err(|_| corrupt("enrolments"))?;
        let event = Event::new(action::USER_ENROL)
            .tenant(&tenant_id)
            .subject(&row.user_id);
        let change = change(change_kind::USER, &row.user_id, Some(&tenant_id));
        self.publish(&tx, origin, event, change).await?;
        commit(tx, tenant_id).await
    }

    /// Checks the release code of a call that uses an enrolment. Records a rejected call, counts a wrong code, and ends the
    /// enrolment with the last one. Compares under a lock, so that calls at the same time have no more guesses.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`]: whoever has no right code learns nothing about the link.
    pub async fn check_enrolment_code(
        &self,
        origin: &Origin,
        token: &OpaqueToken,
        code: Option<&ReleaseCode>,
    ) -> Result<()> {
        self.keyring.get().await?;
        let tx = self.db.write().await?;
        let now = self.now();
        let row = Entity::look_up_by_id(token.digest().to_vec())
            .lock_one(&tx)
            .await?;
        let mut row = row.ok_or(Error::LinkInvalid)?;
        let release = self.release(&*row);
        let is_ended = row.used_at.is_none() && row.ended_at.is_some();
        let checked = self.check_code(&release, &token.digest(), code)?;
        let problem = match checked {
            Err(problem) => problem,
            // The link is of no use any more. Nobody learns whether a guess is right.
            Ok(()) if is_ended => CodeProblem::Wrong,
            Ok(()) => {
                tx.rollback().await?;
                return Ok(());
            }
        };
        if problem == CodeProblem::Wrong && is_unused(&row) && row.expires_at > now.as_millis() {
            row.wrong_codes += 1;
            if row.wrong_codes >= MAX_WRONG_CODES {
                row.ended_at = Some(now.as_millis());
            }
            row.save(&tx).await?;
        }
        let why = match row.used_at {
            Some(_) => "used before",
            None if is_ended => "ended",
            None => problem.into(),
        };
        let tenant_id = TenantId::parse(&row.tenant_id).map_err(|_| corrupt("enrolments"))?;
        let event = Event::new(action::USER_ENROL)
            .tenant(&tenant_id)
            .subject(row.user_id.as_str())
            .detail("why", why)
            .refused();
        self.audit(&tx, origin, event).await?;
        commit(tx, ()).await?;
        Err(Error::LinkInvalid)
    }

    fn enrolment(&self, row: Authentic<Entity>) -> Result<Enrolment> {
        let row = row.into_row();
        let needs_code = self.release(&row).is_needed;
        let unreadable = |_| corrupt("enrolments");
        Ok(Enrolment {
            tenant_id: TenantId::parse(&row.tenant_id).map_err(unreadable)?,
            user_id: UserId::parse(&row.user_id).map_err(unreadable)?,
            expires_at: UnixMillis::from_millis(row.expires_at),
            used_at: row.used_at.map(UnixMillis::from_millis),
            used_by: row.used_by,
            ended: row.ended_at.is_some(),
            needs_code,
        })
    }

    /// Adds an enrolment.
    pub(super) async fn insert_enrolment(
        &self,
        tx: &Transaction,
        origin: &Origin,
        tenant_id: &TenantId,
        user_id: &UserId,
        token: &OpaqueToken,
    ) -> Result<()> {
        let now = self.now();
        let row = Model {
            token_hash: token.digest().to_vec(),
            tenant_id: tenant_id.to_string(),
            user_id: user_id.to_string(),
            created_at: now.as_millis(),
            expires_at: now.plus(ENROLMENT_LIFETIME).as_millis(),
            used_at: None,
            used_by: None,
            ended_at: None,
            creator: acting(tx, origin).await?.person,
            needs_release: self.second_operator,
            releaser: None,
            release_mac: None,
            release_key_version: None,
            wrong_codes: 0,
            mac: Vec::new(),
        };
        rows::insert::<Entity>(tx, row).await?;
        Ok(())
    }
}

/// Returns the enrolment token of a creating call.
pub(super) fn token(secrets: &Derivation) -> OpaqueToken {
    OpaqueToken::from_secret(TokenKind::Enrolment, &secrets.secret("enrolment"))
}

/// Ends the enrolments of a user that were not used.
pub(super) async fn end_all(
    tx: &Transaction,
    tenant_id: &TenantId,
    user_id: &UserId,
    now: UnixMillis,
) -> Result<()> {
    let open = Entity::look_up()
        .equal(Column::TenantId, tenant_id.as_str())
        .equal(Column::UserId, user_id.as_str())
        .filter(unused(), is_unused);
    for mut row in open.order_by_asc(Column::TokenHash).lock_authentic(tx).await? {
        row.ended_at = Some(now.as_millis());
        row.save(tx).await?;
    }
    Ok(())
}

pub(super) fn is_unused(row: &Model) -> bool {
    row.used_at.is_none() && row.ended_at.is_none()
}

/// The condition for an enrolment that was neither used nor ended. It may have expired.
pub(super) fn unused() -> Condition {
    Condition::all()
        .add(Column::UsedAt.is_null())
        .add(Column::EndedAt.is_null())
}

#[cfg(test)]
#[path = "tests/enrolment.rs"]
mod tests;
