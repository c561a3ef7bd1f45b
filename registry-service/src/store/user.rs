//! Users in the database.

use accord::{
    clock::UnixMillis,
    store::{
        Creation,
        audit::{Event, Origin},
        change::Change,
        idempotency::Outcome,
    },
    text::{
        account_name::{AccountName, RULES_VERSION},
        id::{TenantId, UserId},
        opaque::OpaqueToken,
        page::{Page, PageRequest},
    },
};
use sea_orm::{Order::Asc, QueryTrait, Set, UpdateMany, entity::prelude::*};

use super::{
    Store, change, commit, corrupt, enrolment,
    entity::user::{ActiveModel, Column, Entity, Model},
    exists, tenant, with_reason,
};
use crate::{
    error::{Error, Result},
    model::{
        account_name,
        argon2_hash::Argon2Hash,
        change_kind,
        user::{NewUser, Selector, State, User},
    },
};

impl Store {
    /// Adds an active user. For a Tenant Admin, adds an enrolment too and returns its token.
    ///
    /// # Errors
    /// [`Error::NotFound`] (tenant), [`Error::AlreadyExists`], [`Error::RequestIdReused`].
    pub async fn create_user(
        &self,
        creation: &Creation,
        new: NewUser,
    ) -> Result<(User, Option<OpaqueToken>)> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let tenant_id = &new.tenant_id;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let user_id = UserId::parse(&resource_id).map_err(|_| corrupt("idempotency"))?;
                let user = find(&tx, tenant_id, &user_id).await?;
                let user = user.ok_or(corrupt("idempotency"))?;
                if !new.tenant_admin {
                    return Ok((user, None));
                }
                let replay = (user, Some(enrolment::token(&secrets)));
                let subject = user_id.as_str();
                return self.commit_replay(tx, creation, subject, replay).await;
            }
            Outcome::New(reservation) => reservation,
        };
        // The unique index misses a name that was hashed under another version of the key: of two calls that register it
        // at the same time, the second one waits here.
        if tenant::lock(&tx, tenant_id).await?.is_none() {
            return Err(Error::NotFound("tenant"));
        }
        let taken = self.find_by_name(&tx, tenant_id, &new.account_name).await?;
        if taken.is_some() {
            return Err(Error::AlreadyExists("user"));
        }
        let now = self.now();
        let user_id = UserId::generate(&*self.clock, &*self.random);
        let keyring = self.keyring.get().await?;
        let (name_hash, name_key_version) = account_name::hash(&new.account_name, &keyring, tenant_id)?;
        let row = ActiveModel {
            tenant_id: Set(tenant_id.to_string()),
            user_id: Set(user_id.to_string()),
            name_hash: Set(name_hash.to_vec()),
            name_key_version: Set(name_key_version),
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
            self.insert_enrolment(&tx, &creation.origin, tenant_id, &user_id, token)
                .await?;
        }
        reservation.complete(&tx, user_id.as_str()).await?;
        let event = event("user.register", tenant_id, &user_id);
        let event = event.detail("tenant_admin", new.tenant_admin.to_string());
        let change = changed(tenant_id, &user_id);
        self.publish(&tx, &creation.origin, event, change).await?;
        commit(tx, (user(row)?, token)).await
    }

    /// Reads a tenant's user.
    pub async fn find_user(&self, tenant_id: &TenantId, selector: &Selector) -> Result<Option<User>> {
        match selector {
            Selector::Id(user_id) => find(self.db.read(), tenant_id, user_id).await,
            Selector::AccountName(name) => self.find_by_name(self.db.read(), tenant_id, name).await,
        }
    }

    /// Finds a user by the name's hash under each key that is still in use.
    async fn find_by_name(
        &self,
        conn: &impl ConnectionTrait,
        tenant_id: &TenantId,
        name: &AccountName,
    ) -> Result<Option<User>> {
        let keyring = self.keyring.get().await?;
        let hashes = account_name::hashes(name, &keyring, tenant_id);
        let hashes = hashes.into_iter().map(Vec::from);
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
    ) -> Result<Page<User>> {
        if self.find_tenant(tenant_id).await?.is_none() {
            return Err(Error::NotFound("tenant"));
        }
        let state = state.map(|state| Column::State.eq(state.as_ref()));
        let query = Entity::find().filter(Column::TenantId.eq(tenant_id.as_str()));
        let query = query.apply_if(state, QueryFilter::filter);
        self.page(query, Column::UserId, Asc, page, user).await
    }

    /// Deactivates or reactivates a user; `reason` may be empty. Changes and records nothing if the user is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_user_state(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        user_id: &UserId,
        to: State,
        reason: &str,
    ) -> Result<User> {
        let tx = self.db.write().await?;
        let now = self.now();
        let moved = update(tenant_id, user_id)
            .filter(Column::State.ne(to.as_ref()))
            .col_expr(Column::State, Expr::value(to.as_ref()))
            .col_expr(Column::UpdatedAt, Expr::value(now.as_millis()))
            .exec(&tx)
            .await?;
        if moved.rows_affected == 1 {
            let (action, kind) = match to {
                State::Deactivated => ("user.deactivate", change_kind::USER_TOKENS_ENDED),
                State::Active => ("user.reactivate", change_kind::USER),
            };
            if to == State::Deactivated {
                enrolment::end_all(&tx, tenant_id, user_id, now).await?;
            }
            let event = with_reason(event(action, tenant_id, user_id), reason);
            let change = change(kind, user_id, Some(tenant_id));
            let seq = self.publish(&tx, origin, event, change).await?;
            if to == State::Deactivated {
                update(tenant_id, user_id)
                    .col_expr(Column::TokensEndedSeq, Expr::value(seq))
                    .col_expr(Column::SessionsEndedSeq, Expr::value(seq))
                    .exec(&tx)
                    .await?;
            }
        }
        let user = find(&tx, tenant_id, user_id).await?;
        commit(tx, user.ok_or(Error::NotFound("user"))?).await
    }

    /// Removes the password, ends sessions and earlier enrolments, and makes a new enrolment. Returns its token.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::RequestIdReused`].
    pub async fn reset_user_password(
        &self,
        creation: &Creation,
        tenant_id: &TenantId,
        user_id: &UserId,
    ) -> Result<(User, OpaqueToken)> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let user = find(&tx, tenant_id, user_id).await?;
        let user = user.ok_or(Error::NotFound("user"))?;
        let reservation = match outcome {
            Outcome::Replay { secrets, .. } => {
                let replay = (user, enrolment::token(&secrets));
                let subject = user_id.as_str();
                return self.commit_replay(tx, creation, subject, replay).await;
            }
            Outcome::New(reservation) => reservation,
        };
        let rejected = |state: &str| Error::WrongState {
            resource: "user",
            state: state.to_owned(),
        };
        if !user.tenant_admin {
            return Err(rejected("NOT_A_TENANT_ADMIN"));
        }
        let now = self.now();
        let reset = update(tenant_id, user_id)
            .filter(Column::State.eq(State::Active.as_ref()))
            .col_expr(Column::PasswordHash, Expr::value(None::<String>))
            .col_expr(Column::PepperVersion, Expr::value(None::<i32>))
            .col_expr(Column::UpdatedAt, Expr::value(now.as_millis()))
            .exec(&tx)
            .await?;
        if reset.rows_affected == 0 {
            return Err(rejected("DEACTIVATED"));
        }
        let token = enrolment::token(&reservation.secrets);
        enrolment::end_all(&tx, tenant_id, user_id, now).await?;
        self.insert_enrolment(&tx, &creation.origin, tenant_id, user_id, &token)
            .await?;
        reservation.complete(&tx, user_id.as_str()).await?;
        let event = event("user.reset_password", tenant_id, user_id);
        let change = changed(tenant_id, user_id);
        let seq = self.publish(&tx, &creation.origin, event, change).await?;
        let sessions_ended = update(tenant_id, user_id).col_expr(Column::SessionsEndedSeq, Expr::value(seq));
        sessions_ended.exec(&tx).await?;
        let user = find(&tx, tenant_id, user_id).await?;
        commit(tx, (user.ok_or(corrupt("users"))?, token)).await
    }
}

async fn find(conn: &impl ConnectionTrait, tenant_id: &TenantId, user_id: &UserId) -> Result<Option<User>> {
    let key = (tenant_id.to_string(), user_id.to_string());
    let row = Entity::find_by_id(key).one(conn).await?;
    row.map(user).transpose()
}

/// Begins an update of a user.
fn update(tenant_id: &TenantId, user_id: &UserId) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::TenantId.eq(tenant_id.as_str()))
        .filter(Column::UserId.eq(user_id.as_str()))
}

fn event(action: &'static str, tenant_id: &TenantId, user_id: &UserId) -> Event {
    Event::new(action).tenant(tenant_id).subject(user_id.as_str())
}

fn changed(tenant_id: &TenantId, user_id: &UserId) -> Change {
    change(change_kind::USER, user_id, Some(tenant_id))
}

pub(super) fn user(row: Model) -> Result<User> {
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
pub(super) mod tests;
