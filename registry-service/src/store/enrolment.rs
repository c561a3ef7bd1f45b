//! One-time enrolment links in the database. Of a token only its SHA-256 is kept.

use accord::{
    clock::UnixMillis,
    store::{
        StoreError,
        audit::{Event, Origin},
        idempotency::Derivation,
    },
    text::{
        id::{TenantId, UserId},
        opaque::{OpaqueToken, TokenKind},
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter,
    sea_query::Expr,
};

use super::{
    Store, change, commit, corrupt,
    entity::{
        enrolment::{ActiveModel, Column, Entity},
        user,
    },
};
use crate::{
    error::Error,
    model::{
        argon2_hash::Argon2Hash,
        change_kind,
        user::{ENROLMENT_LIFE, State},
    },
};

impl Store {
    /// The Tenant Admin that this enrolment is for, while it is open.
    pub async fn find_enrolment(&self, token: &OpaqueToken) -> Result<Option<UserId>, Error> {
        let open = Entity::find_by_id(token.digest().to_vec())
            .filter(Column::UsedAt.is_null())
            .filter(Column::EndedAt.is_null())
            .filter(Column::ExpiresAt.gt(self.now().as_millis()))
            .one(self.db.read())
            .await?;
        let user_id = open.map(|row| UserId::parse(&row.user_id)).transpose();
        user_id.map_err(|_| corrupt("enrolments"))
    }

    /// Uses an enrolment up and sets the password. One conditional update decides who comes first.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`].
    pub async fn use_enrolment(
        &self,
        origin: &Origin,
        token: &OpaqueToken,
        hashed: Argon2Hash,
    ) -> Result<TenantId, Error> {
        let tx = self.db.write().await?;
        let now = self.now().as_millis();
        let row = Entity::find_by_id(token.digest().to_vec())
            .one(&tx)
            .await?
            .ok_or(Error::LinkInvalid)?;
        // The user's row first, as a reset and a deactivation do: in the other order they would
        // wait for each other. Without the update below it is rolled back.
        let enrolled = user::Entity::update_many()
            .filter(user::Column::TenantId.eq(row.tenant_id.as_str()))
            .filter(user::Column::UserId.eq(row.user_id.as_str()))
            .filter(user::Column::State.eq(State::Active.as_ref()))
            .col_expr(user::Column::PasswordHash, Expr::value(hashed.phc))
            .col_expr(user::Column::PepperVersion, Expr::value(hashed.pepper_version))
            .col_expr(user::Column::UpdatedAt, Expr::value(now))
            .exec(&tx)
            .await?;
        if enrolled.rows_affected == 0 {
            return Err(Error::LinkInvalid);
        }
        let used = Entity::update_many()
            .filter(Column::TokenHash.eq(token.digest().to_vec()))
            .filter(Column::UsedAt.is_null())
            .filter(Column::EndedAt.is_null())
            .filter(Column::ExpiresAt.gt(now))
            .col_expr(Column::UsedAt, Expr::value(now))
            .exec(&tx)
            .await?;
        if used.rows_affected == 0 {
            return Err(Error::LinkInvalid);
        }
        let tenant_id = TenantId::parse(&row.tenant_id).map_err(|_| corrupt("enrolments"))?;
        let user_id = UserId::parse(&row.user_id).map_err(|_| corrupt("enrolments"))?;
        let event = Event::new("user.enrol")
            .tenant(&tenant_id)
            .subject(user_id.as_str());
        let change = change(change_kind::USER, &user_id, Some(&tenant_id));
        self.publish(&tx, origin, event, change).await?;
        commit(tx).await?;
        Ok(tenant_id)
    }
}

/// The enrolment token of a creating call.
pub(super) fn token(secrets: &Derivation) -> OpaqueToken {
    OpaqueToken::from_secret(TokenKind::Enrolment, &secrets.secret("enrolment"))
}

/// Adds an enrolment.
pub(super) async fn insert(
    conn: &impl ConnectionTrait,
    tenant_id: &TenantId,
    user_id: &UserId,
    token: &OpaqueToken,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let row = ActiveModel {
        token_hash: Set(token.digest().to_vec()),
        tenant_id: Set(tenant_id.to_string()),
        user_id: Set(user_id.to_string()),
        created_at: Set(now.as_millis()),
        expires_at: Set(now.plus(ENROLMENT_LIFE).as_millis()),
        used_at: Set(None),
        ended_at: Set(None),
    };
    row.insert(conn).await?;
    Ok(())
}

/// Ends the user's enrolments that were not used.
pub(super) async fn end_all(
    conn: &impl ConnectionTrait,
    tenant_id: &TenantId,
    user_id: &UserId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::TenantId.eq(tenant_id.as_str()))
        .filter(Column::UserId.eq(user_id.as_str()))
        .filter(Column::UsedAt.is_null())
        .filter(Column::EndedAt.is_null())
        .col_expr(Column::EndedAt, Expr::value(now.as_millis()))
        .exec(conn)
        .await?;
    Ok(())
}
