//! Users in the database.

use accord::{
    clock::UnixMillis,
    store::{
        Creation,
        audit::{Event, Origin},
        idempotency::Outcome,
    },
    text::{
        id::{TenantId, UserId},
        opaque::OpaqueToken,
        page::{Page, PageRequest},
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, sea_query::Expr,
};

use super::{
    Store, change, commit, corrupt, enrolment,
    entity::user::{ActiveModel, Column, Entity, Model},
    exists, tenant,
};
use crate::{
    error::Error,
    model::{
        account_name::{AccountName, RULES_VERSION},
        argon2_hash::Argon2Hash,
        change_kind,
        user::{NewUser, State, User, Which},
    },
};

impl Store {
    /// Adds a user, active; for a Tenant Admin also an enrolment.
    ///
    /// # Errors
    /// [`Error::NotFound`] (tenant), [`Error::AlreadyExists`], [`Error::RequestIdReused`].
    pub async fn create_user(
        &self,
        creation: &Creation,
        new: NewUser,
    ) -> Result<(User, Option<OpaqueToken>), Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let user_id = UserId::parse(&resource_id).map_err(|_| corrupt("idempotency"))?;
                let user = find(&tx, &new.tenant_id, &user_id)
                    .await?
                    .ok_or(corrupt("idempotency"))?;
                let token = new.tenant_admin.then(|| enrolment::token(&secrets));
                return Ok((user, token));
            }
            Outcome::New(reservation) => reservation,
        };
        if tenant::find(&tx, &new.tenant_id).await?.is_none() {
            return Err(Error::NotFound("tenant"));
        }
        // Under an older key the same name has another hash, which no unique index compares.
        if self
            .find_by_name(&tx, &new.tenant_id, &new.account_name)
            .await?
            .is_some()
        {
            return Err(Error::AlreadyExists("user"));
        }
        let now = self.now();
        let user_id = UserId::generate(&*self.clock, &*self.random);
        let name = new.account_name.hash(&self.keyring, &new.tenant_id)?;
        let row = ActiveModel {
            tenant_id: Set(new.tenant_id.to_string()),
            user_id: Set(user_id.to_string()),
            name_hash: Set(name.hash.to_vec()),
            name_key_version: Set(name.key_version),
            name_rules_version: Set(RULES_VERSION),
            label: Set(new.label),
            tenant_admin: Set(new.tenant_admin),
            state: Set(State::Active.as_ref().to_owned()),
            password_hash: Set(None),
            pepper_version: Set(None),
            tokens_ended_seq: Set(0),
            sessions_ended_seq: Set(0),
            created_at: Set(now.as_millis()),
            updated_at: Set(now.as_millis()),
        };
        let row = row.insert(&tx).await.map_err(exists("user"))?;
        let token = new.tenant_admin.then(|| enrolment::token(&reservation.secrets));
        if let Some(token) = &token {
            enrolment::insert(&tx, &new.tenant_id, &user_id, token, now).await?;
        }
        reservation.complete(&tx, user_id.as_str()).await?;
        let event = Event::new("user.register")
            .tenant(&new.tenant_id)
            .subject(user_id.as_str())
            .detail("tenant_admin", new.tenant_admin.to_string());
        self.publish(
            &tx,
            &creation.origin,
            event,
            change(change_kind::USER, &user_id, Some(&new.tenant_id)),
        )
        .await?;
        commit(tx).await?;
        Ok((user(row)?, token))
    }

    /// Reads a tenant's user.
    pub async fn find_user(&self, tenant_id: &TenantId, which: &Which) -> Result<Option<User>, Error> {
        match which {
            Which::Id(user_id) => find(self.db.read(), tenant_id, user_id).await,
            Which::AccountName(name) => self.find_user_by_name(tenant_id, name).await,
        }
    }

    /// Reads a tenant's user by account name, under whichever key the name was hashed.
    pub async fn find_user_by_name(
        &self,
        tenant_id: &TenantId,
        name: &AccountName,
    ) -> Result<Option<User>, Error> {
        self.find_by_name(self.db.read(), tenant_id, name).await
    }

    async fn find_by_name(
        &self,
        conn: &impl ConnectionTrait,
        tenant_id: &TenantId,
        name: &AccountName,
    ) -> Result<Option<User>, Error> {
        let hashes = name.hashes(&self.keyring, tenant_id).into_iter().map(Vec::from);
        let row = Entity::find()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::NameHash.is_in(hashes))
            .one(conn)
            .await?;
        row.map(user).transpose()
    }

    /// Lists a tenant's users, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] (tenant).
    pub async fn list_users(
        &self,
        tenant_id: &TenantId,
        state: Option<State>,
        page: &PageRequest,
    ) -> Result<Page<User>, Error> {
        if self.find_tenant(tenant_id).await?.is_none() {
            return Err(Error::NotFound("tenant"));
        }
        let mut query = Entity::find()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .order_by_asc(Column::UserId)
            .limit(page.fetch());
        if let Some(state) = state {
            query = query.filter(Column::State.eq(state.as_ref()));
        }
        if let Some(after) = page.after() {
            query = query.filter(Column::UserId.gt(after));
        }
        let rows = query.all(self.db.read()).await?;
        let users = rows.into_iter().map(user).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(users, |user| user.user_id.to_string()))
    }

    /// Deactivates or reactivates; no change, and no event, when the user is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_user_state(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        user_id: &UserId,
        to: State,
    ) -> Result<User, Error> {
        let tx = self.db.write().await?;
        let moved = Entity::update_many()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::UserId.eq(user_id.as_str()))
            .filter(Column::State.ne(to.as_ref()))
            .col_expr(Column::State, Expr::value(to.as_ref()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .exec(&tx)
            .await?;
        if moved.rows_affected == 1 {
            let (action, kind) = match to {
                State::Deactivated => ("user.deactivate", change_kind::USER_TOKENS_ENDED),
                State::Active => ("user.reactivate", change_kind::USER),
            };
            if to == State::Deactivated {
                enrolment::end_all(&tx, tenant_id, user_id, self.now()).await?;
            }
            let event = Event::new(action).tenant(tenant_id).subject(user_id.as_str());
            let change = change(kind, user_id, Some(tenant_id));
            let seq = self.publish(&tx, origin, event, change).await?;
            if to == State::Deactivated {
                Entity::update_many()
                    .filter(Column::TenantId.eq(tenant_id.as_str()))
                    .filter(Column::UserId.eq(user_id.as_str()))
                    .col_expr(Column::TokensEndedSeq, Expr::value(seq))
                    .col_expr(Column::SessionsEndedSeq, Expr::value(seq))
                    .exec(&tx)
                    .await?;
            }
        }
        let user = find(&tx, tenant_id, user_id)
            .await?
            .ok_or(Error::NotFound("user"))?;
        commit(tx).await?;
        Ok(user)
    }

    /// Removes the password and makes a new enrolment; sessions and earlier enrolments end.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::RequestIdReused`].
    pub async fn reset_user_password(
        &self,
        creation: &Creation,
        tenant_id: &TenantId,
        user_id: &UserId,
    ) -> Result<(User, OpaqueToken), Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let current = find(&tx, tenant_id, user_id)
            .await?
            .ok_or(Error::NotFound("user"))?;
        let reservation = match outcome {
            Outcome::Replay { secrets, .. } => return Ok((current, enrolment::token(&secrets))),
            Outcome::New(reservation) => reservation,
        };
        let refused = |state| Error::WrongState {
            resource: "user",
            state,
        };
        if !current.tenant_admin {
            return Err(refused("NOT_A_TENANT_ADMIN"));
        }
        let now = self.now();
        let reset = Entity::update_many()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::UserId.eq(user_id.as_str()))
            .filter(Column::State.eq(State::Active.as_ref()))
            .col_expr(Column::PasswordHash, Expr::value(None::<String>))
            .col_expr(Column::PepperVersion, Expr::value(None::<i32>))
            .col_expr(Column::UpdatedAt, Expr::value(now.as_millis()))
            .exec(&tx)
            .await?;
        if reset.rows_affected == 0 {
            return Err(refused("DEACTIVATED"));
        }
        let token = enrolment::token(&reservation.secrets);
        enrolment::end_all(&tx, tenant_id, user_id, now).await?;
        enrolment::insert(&tx, tenant_id, user_id, &token, now).await?;
        reservation.complete(&tx, user_id.as_str()).await?;
        let event = Event::new("user.reset_password")
            .tenant(tenant_id)
            .subject(user_id.as_str());
        let seq = self
            .publish(
                &tx,
                &creation.origin,
                event,
                change(change_kind::USER, user_id, Some(tenant_id)),
            )
            .await?;
        Entity::update_many()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::UserId.eq(user_id.as_str()))
            .col_expr(Column::SessionsEndedSeq, Expr::value(seq))
            .exec(&tx)
            .await?;
        let user = find(&tx, tenant_id, user_id)
            .await?
            .ok_or(Error::NotFound("user"))?;
        commit(tx).await?;
        Ok((user, token))
    }
}

pub(super) async fn find(
    conn: &impl ConnectionTrait,
    tenant_id: &TenantId,
    user_id: &UserId,
) -> Result<Option<User>, Error> {
    let row = Entity::find_by_id((tenant_id.to_string(), user_id.to_string()))
        .one(conn)
        .await?;
    row.map(user).transpose()
}

fn user(row: Model) -> Result<User, Error> {
    let unreadable = || corrupt("users");
    let password = match (row.password_hash, row.pepper_version) {
        (Some(phc), Some(pepper_version)) => Some(Argon2Hash { phc, pepper_version }),
        (None, None) => None,
        _ => return Err(unreadable()),
    };
    Ok(User {
        user_id: UserId::parse(&row.user_id).map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        label: row.label,
        tenant_admin: row.tenant_admin,
        state: row.state.parse().map_err(|_| unreadable())?,
        password,
        tokens_ended_seq: row.tokens_ended_seq,
        sessions_ended_seq: row.sessions_ended_seq,
        created_at: UnixMillis::from_millis(row.created_at),
        updated_at: UnixMillis::from_millis(row.updated_at),
    })
}

#[cfg(test)]
#[path = "tests/user.rs"]
mod tests;
