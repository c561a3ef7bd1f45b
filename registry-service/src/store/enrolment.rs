//! One-time enrolment links in the database. Stores only the SHA-256 of a token.

use accord::{
    clock::UnixMillis,
    store::{
        Transaction,
        audit::{Event, Origin},
        idempotency::Derivation,
    },
    text::{
        id::{TenantId, UserId},
        opaque::{OpaqueToken, TokenKind},
        release_code::ReleaseCode,
    },
};
use sea_orm::{Condition, Set, UpdateMany, entity::prelude::*, sea_query::ExprTrait};

use super::{
    Store,
    caller::acting,
    change, commit, corrupt,
    entity::{
        enrolment::{ActiveModel, Column, Entity, Model},
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

/// A Tenant Admin who chooses a password, and the names that it must not rest on.
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
        let row = Entity::find_by_id(token.digest().to_vec());
        let row = row.one(self.db.read()).await?;
        row.map(|row| self.enrolment(row)).transpose()
    }

    /// Finds the Tenant Admin that an enrolment is for.
    pub async fn find_enrolling_user(&self, enrolment: &Enrolment) -> Result<EnrollingUser> {
        let key = (enrolment.tenant_id.to_string(), enrolment.user_id.to_string());
        let user = user::Entity::find_by_id(key).one(self.db.read()).await?;
        let user = user.ok_or(corrupt("enrolments"))?;
        let tenant = tenant::find(self.db.read(), &enrolment.tenant_id).await?;
        Ok(EnrollingUser {
            user_id: user.user_id,
            tenant_id: enrolment.tenant_id.clone(),
            tenant_name: tenant.ok_or(corrupt("users"))?.display_name,
            name_hash: user.name_hash,
            name_key_version: user.name_key_version,
        })
    }

    /// Uses an enrolment and sets the password. One conditional update decides between racing calls.
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
        let row = Entity::find_by_id(token.digest().to_vec()).one(&tx).await?;
        let row = row.ok_or(Error::LinkInvalid)?;
        // Locks the user's row first, as a reset and a deactivation do: in the other order the transactions
        // would wait for each other. If the enrolment turns out to be used, this is rolled back.
        let enrolled = user::Entity::update_many()
            .filter(user::Column::TenantId.eq(row.tenant_id.as_str()))
            .filter(user::Column::UserId.eq(row.user_id.as_str()))
            .filter(user::Column::State.eq(State::Active.as_ref()))
            .col_expr(user::Column::PasswordHash, Expr::value(hashed.phc))
            .col_expr(user::Column::PepperVersion, Expr::value(hashed.pepper_version))
            .col_expr(user::Column::UpdatedAt, Expr::value(now))
            .exec(&tx)
            .await?;
        let used = Entity::update_many()
            .filter(Column::TokenHash.eq(token.digest().to_vec()))
            .filter(unused())
            .filter(Column::ExpiresAt.gt(now))
            .col_expr(Column::UsedAt, Expr::value(now))
            .col_expr(Column::UsedBy, Expr::value(used_by.map(Vec::from)))
            .exec(&tx)
            .await?;
        if enrolled.rows_affected == 0 || used.rows_affected == 0 {
            return Err(Error::LinkInvalid);
        }
        let tenant_id = TenantId::parse(&row.tenant_id).map_err(|_| corrupt("enrolments"))?;
        let event = Event::new("user.enrol").tenant(&tenant_id).subject(&row.user_id);
        let change = change(change_kind::USER, &row.user_id, Some(&tenant_id));
        self.publish(&tx, origin, event, change).await?;
        commit(tx, tenant_id).await
    }

    /// Checks the release code of a call that uses an enrolment. Records a rejected call, counts a wrong code by one
    /// conditional update, and ends the enrolment with the last one.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`]: whoever has no right code learns nothing about the link.
    pub async fn check_enrolment_code(
        &self,
        origin: &Origin,
        token: &OpaqueToken,
        enrolment: &Enrolment,
        code: Option<&ReleaseCode>,
    ) -> Result<()> {
        let checked = self.check_code(&enrolment.release, &token.digest(), code).await?;
        let Err(problem) = checked else { return Ok(()) };
        let tx = self.db.write().await?;
        let now = self.now();
        let has_token = Column::TokenHash.eq(token.digest().to_vec());
        if problem == CodeProblem::Wrong {
            Entity::update_many()
                .filter(has_token.clone())
                .filter(unused())
                .filter(Column::ExpiresAt.gt(now.as_millis()))
                .col_expr(Column::WrongCodes, Expr::col(Column::WrongCodes).add(1))
                .exec(&tx)
                .await?;
            let had_too_many = Column::WrongCodes.gte(MAX_WRONG_CODES);
            let ended = ending(now).filter(has_token.clone()).filter(had_too_many);
            ended.exec(&tx).await?;
        }
        let row = Entity::find().filter(has_token).one(&tx).await?;
        let refused = match row.and_then(|row| row.used_at) {
            Some(_) => "used before",
            None => problem.into(),
        };
        let event = Event::new("user.enrol")
            .tenant(&enrolment.tenant_id)
            .subject(enrolment.user_id.as_str())
            .detail("refused", refused)
            .refused();
        self.audit(&tx, origin, event).await?;
        commit(tx, ()).await?;
        Err(Error::LinkInvalid)
    }

    fn enrolment(&self, row: Model) -> Result<Enrolment> {
        let unreadable = |_| corrupt("enrolments");
        Ok(Enrolment {
            tenant_id: TenantId::parse(&row.tenant_id).map_err(unreadable)?,
            user_id: UserId::parse(&row.user_id).map_err(unreadable)?,
            expires_at: UnixMillis::from_millis(row.expires_at),
            used_at: row.used_at.map(UnixMillis::from_millis),
            used_by: row.used_by,
            ended: row.ended_at.is_some(),
            release: self.release(row.needs_release, row.release_mac, row.release_key_version),
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
        let row = ActiveModel {
            token_hash: Set(token.digest().to_vec()),
            tenant_id: Set(tenant_id.to_string()),
            user_id: Set(user_id.to_string()),
            created_at: Set(now.as_millis()),
            expires_at: Set(now.plus(ENROLMENT_LIFETIME).as_millis()),
            used_at: Set(None),
            used_by: Set(None),
            ended_at: Set(None),
            creator: Set(acting(tx, origin).await?.person),
            needs_release: Set(self.second_operator),
            release_mac: Set(None),
            release_key_version: Set(None),
            wrong_codes: Set(0),
        };
        row.insert(tx).await?;
        Ok(())
    }
}

/// Returns the enrolment token of a creating call.
pub(super) fn token(secrets: &Derivation) -> OpaqueToken {
    OpaqueToken::from_secret(TokenKind::Enrolment, &secrets.secret("enrolment"))
}

/// Ends the enrolments of a user that were not used.
pub(super) async fn end_all(
    conn: &impl ConnectionTrait,
    tenant_id: &TenantId,
    user_id: &UserId,
    now: UnixMillis,
) -> Result<()> {
    let of_user = ending(now)
        .filter(Column::TenantId.eq(tenant_id.as_str()))
        .filter(Column::UserId.eq(user_id.as_str()));
    of_user.exec(conn).await?;
    Ok(())
}

/// Begins an update that ends enrolments that were not used.
pub(super) fn ending(now: UnixMillis) -> UpdateMany<Entity> {
    let ended = Entity::update_many().col_expr(Column::EndedAt, Expr::value(now.as_millis()));
    ended.filter(unused())
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
