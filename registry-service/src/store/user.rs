//! Users in the database.

use accord::{
    clock::UnixMillis,
    keys::Keyring,
    store::{
        Creation, Keyed, StoreError,
        audit::{Action, Event, Origin, action},
        change::Change,
        idempotency::CreationOutcome,
        rows::{self, Authentic, ProtectedRows},
    },
    text::{
        account_name::{AccountName, RULES_VERSION},
        id::{TenantId, UserId},
        opaque::OpaqueToken,
        page::{Page, PageRequest},
    },
};
use sea_orm::{Order::Asc, QueryTrait};

use super::{
    Store, change, commit, corrupt, enrolment,
    entity::user::{Column, Entity, Model},
    exists, replaced, tenant, with_reason,
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
            CreationOutcome::Repeated { resource_id, secrets } => {
                let user_id = UserId::parse(&resource_id).map_err(|_| corrupt("idempotency"))?;
                let user = find(&tx, tenant_id, &user_id).await?;
                let user = user.ok_or(corrupt("idempotency"))?;
                if !new.tenant_admin {
                    return Ok((user, None));
                }
                let answer = (user, Some(enrolment::token(&secrets)));
                let subject = user_id.as_str();
                return self.commit_repeated(tx, creation, subject, answer).await;
            }
            CreationOutcome::New(reservation) => reservation,
        };
        // The unique index misses a name that was hashed under another version of the key: of two calls that register it
        // at the same time, the second one waits here.
        if tenant::lock(&tx, tenant_id).await?.is_none() {
            return Err(Error::NotFound("tenant"));
        }
        let keyring = self.keyring.loaded();
        let taken = find_by_name(&tx, &keyring, tenant_id, &new.account_name).await?;
        if taken.is_some() {
            return Err(Error::AlreadyExists("user"));
        }
        let now = self.now();
        let user_id = UserId::generate(&*self.clock, &*self.random);
        let (name_hash, name_key_version) = account_name::hash(&new.account_name, &keyring, tenant_id)?;
        let row = Model {
            tenant_id: tenant_id.to_string(),
            user_id: user_id.to_string(),
            name_hash: name_hash.to_vec(),
            name_key_version,
            name_rules_version: RULES_VERSION,
            label: new.label,
            tenant_admin: new.tenant_admin,
            state: State::Active.as_ref().to_owned(),
            password_hash: None,
            pepper_version: None,
            tokens_ended_seq: 0,
            sessions_ended_seq: 0,
            created_at: now.as_millis(),
            updated_at: now.as_millis(),
            mac: Vec::new(),
        };
        let row = rows::insert::<Entity>(&tx, row).await.map_err(exists("user"))?;
        let token = new.tenant_admin.then(|| enrolment::token(&reservation.secrets));
        if let Some(token) = &token {
            self.insert_enrolment(&tx, &creation.origin, tenant_id, &user_id, token)
                .await?;
        }
        reservation.complete(&tx, user_id.as_str()).await?;
        let event = event(action::USER_REGISTER, tenant_id, &user_id);
        let event = event
            .detail("label", row.label.as_str())
            .detail("tenant_admin", new.tenant_admin.to_string());
        let change = changed(tenant_id, &user_id);
        self.publish(&tx, &creation.origin, event, change).await?;
        commit(tx, (user(row)?, token)).await
    }

    /// Reads a tenant's user.
    pub async fn find_user(&self, tenant_id: &TenantId, selector: &Selector) -> Result<Option<User>> {
        match selector {
            Selector::Id(user_id) => find(self.db.read(), tenant_id, user_id).await,
            Selector::AccountName(name) => {
                let keyring = self.keyring.complete().await?;
                find_by_name(self.db.read(), &keyring, tenant_id, name).await
            }
        }
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
        let query = Entity::look_up().equal(Column::TenantId, tenant_id.as_str());
        let query = query.apply_if(state, |query, state| query.equal(Column::State, state.as_ref()));
        self.page(query, Column::UserId, Asc, page, user).await
    }

    /// Deactivates or reactivates a user; `reason` may be empty. Changes and records nothing if the user is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`StoreError::Altered`], after the deactivation was recorded and published.
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
        let (action, kind) = match to {
            State::Deactivated => (action::USER_DEACTIVATE, change_kind::USER_TOKENS_ENDED),
            State::Active => (action::USER_REACTIVATE, change_kind::USER),
        };
        let event = with_reason(event(action, tenant_id, user_id), reason);
        let change = change(kind, user_id, Some(tenant_id));
        let key = [tenant_id.as_str(), user_id.as_str()];
        let mut row = match rows::lock_to_end::<Entity>(&tx, &key).await {
            Err(StoreError::Altered(table)) if to == State::Deactivated => {
                enrolment::end_all(&tx, tenant_id, user_id, now).await?;
                return Err(self.end_altered(tx, origin, event, change, table).await);
            }
            row => row?.ok_or(Error::NotFound("user"))?,
        };
        if row.state != to.as_ref() {
            let event = replaced(event, "state", &row.state, &Some(to.as_ref()))?;
            row.state = to.as_ref().to_owned();
            row.updated_at = now.as_millis();
            if to == State::Deactivated {
                enrolment::end_all(&tx, tenant_id, user_id, now).await?;
            }
            let seq = self.publish(&tx, origin, event, change).await?;
            if to == State::Deactivated {
                row.tokens_ended_seq = seq;
                row.sessions_ended_seq = seq;
            }
            row.save(&tx).await?;
        } else if to == State::Deactivated {
            self.publish_again(&tx, change).await?;
        }
        commit(tx, user(row.stored())?).await
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
        let key = (tenant_id.to_string(), user_id.to_string());
        let row = Entity::look_up_by_id(key).lock_one(&tx).await?;
        let mut row = row.ok_or(Error::NotFound("user"))?;
        let reservation = match outcome {
            CreationOutcome::Repeated { secrets, .. } => {
                let answer = (user(row.stored())?, enrolment::token(&secrets));
                let subject = user_id.as_str();
                return self.commit_repeated(tx, creation, subject, answer).await;
            }
            CreationOutcome::New(reservation) => reservation,
        };
        let rejected = |state: &str| Error::WrongState {
            resource: "user",
            state: state.to_owned(),
        };
        if !row.tenant_admin {
            return Err(rejected("NOT_A_TENANT_ADMIN"));
        }
        if row.state != State::Active.as_ref() {
            return Err(rejected("DEACTIVATED"));
        }
        let now = self.now();
        let had = if row.password_hash.is_some() {
            "set"
        } else {
            "none"
        };
        row.password_hash = None;
        row.pepper_version = None;
        row.updated_at = now.as_millis();
        let token = enrolment::token(&reservation.secrets);
        enrolment::end_all(&tx, tenant_id, user_id, now).await?;
        self.insert_enrolment(&tx, &creation.origin, tenant_id, user_id, &token)
            .await?;
        reservation.complete(&tx, user_id.as_str()).await?;
        let event = event(action::USER_RESET_PASSWORD, tenant_id, user_id);
        let event = replaced(event, "password", &had, &Some("none"))?;
        let change = changed(tenant_id, user_id);
        let seq = self.publish(&tx, &creation.origin, event, change).await?;
        row.sessions_ended_seq = seq;
        row.save(&tx).await?;
        commit(tx, (user(row.stored())?, token)).await
    }
}

async fn find(conn: &impl Keyed, tenant_id: &TenantId, user_id: &UserId) -> Result<Option<User>> {
    let key = (tenant_id.to_string(), user_id.to_string());
    let row = Entity::look_up_by_id(key).read_one(conn).await?;
    row.map(user).transpose()
}

/// Finds a user by the name's hash under each key that is still in use.
async fn find_by_name(
    conn: &impl Keyed,
    keyring: &Keyring,
    tenant_id: &TenantId,
    name: &AccountName,
) -> Result<Option<User>> {
    let hashes = account_name::hashes(name, keyring, tenant_id);
    let row = Entity::look_up()
        .equal(Column::TenantId, tenant_id.as_str())
        .one_of(Column::NameHash, hashes.into_iter().map(Vec::from))
        .read_one(conn)
        .await?;
    row.map(user).transpose()
}

fn event(action: Action, tenant_id: &TenantId, user_id: &UserId) -> Event {
    Event::new(action).tenant(tenant_id).subject(user_id.as_str())
}

fn changed(tenant_id: &TenantId, user_id: &UserId) -> Change {
    change(change_kind::USER, user_id, Some(tenant_id))
}

pub(super) fn user(row: Authentic<Entity>) -> Result<User> {
    let row = row.into_row();
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
