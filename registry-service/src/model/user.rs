//! Tenants' users: Tenant Admins, and those that API transactions can run as. Enrolment and sign-in of
//! Tenant Admins.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    store::{
        Creation,
        audit::{Event, Origin},
    },
    text::{
        id::{TenantId, UserId},
        opaque::OpaqueToken,
        page::{Page, PageRequest},
    },
};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    hashing::{Hashed, Line},
    model::{account_name::AccountName, tenant},
    store::Store,
};

/// How long an enrolment link works.
pub const ENROLMENT_LIFE: Duration = Duration::from_secs(72 * 3600);
/// The shortest password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 15;
/// The longest password, in characters.
pub const MAX_PASSWORD_CHARS: usize = 1024;

/// Whether a user counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The usual state.
    Active,
    /// Can neither sign in nor be run as.
    Deactivated,
}

impl State {
    /// The state's name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deactivated => "deactivated",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Deactivated]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// A tenant's user. The account name is not here: nobody can read it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub user_id: UserId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// Display name that identifies nobody.
    pub label: String,
    /// Whether the user may grant consent for the tenant.
    pub tenant_admin: bool,
    /// Whether the user counts.
    pub state: State,
    /// The password's hash; none before enrolment and after a reset.
    pub password: Option<Hashed>,
    /// The feed position of the last deactivation; 0 if there was none.
    pub tokens_ended_seq: i64,
    /// The feed position of the last deactivation or password reset; 0 if there was none.
    pub sessions_ended_seq: i64,
    /// When the user was added.
    pub created_at: UnixMillis,
    /// When the user last changed.
    pub updated_at: UnixMillis,
}

/// What an operator gives to add a user.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The account name in the cloud product.
    pub account_name: AccountName,
    /// Display name that identifies nobody.
    pub label: String,
    /// Whether the user may grant consent for the tenant.
    pub tenant_admin: bool,
}

/// Which user of a tenant is meant.
#[derive(Clone, Debug)]
pub enum Which {
    /// By id.
    Id(UserId),
    /// By account name.
    AccountName(AccountName),
}

/// A password as it was chosen or typed. All of it counts.
pub struct Password(Zeroizing<String>);

/// A text that is too short or too long for a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 15 to 1024 characters")]
pub struct NotAPassword;

impl Password {
    /// Reads a password.
    ///
    /// # Errors
    /// [`NotAPassword`].
    pub fn parse(text: Zeroizing<String>) -> Result<Self, NotAPassword> {
        // A character has at most four bytes: this bounds the work on oversize input.
        let fits = text.len() <= MAX_PASSWORD_CHARS * 4
            && (MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&text.chars().count());
        if fits { Ok(Self(text)) } else { Err(NotAPassword) }
    }

    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.as_bytes().to_vec())
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password([redacted])")
    }
}

/// The page that takes an enrolment token. `public_base_url` has no trailing slash.
pub fn enrolment_link(public_base_url: &str, tenant_id: &TenantId, token: &OpaqueToken) -> String {
    format!("{public_base_url}/{tenant_id}/enrol/{}", token.expose())
}

/// Adds a user; for a Tenant Admin also a one-time enrolment token.
///
/// # Errors
/// [`Error::NotFound`] (tenant), [`Error::AlreadyExists`], [`Error::RequestIdReused`].
pub async fn register(
    store: &Store,
    creation: &Creation,
    new: NewUser,
) -> Result<(User, Option<OpaqueToken>), Error> {
    store.create_user(creation, new).await
}

/// Reads a user.
///
/// # Errors
/// [`Error::NotFound`], also for another tenant's user.
pub async fn find(store: &Store, tenant_id: &TenantId, which: &Which) -> Result<User, Error> {
    let found = match which {
        Which::Id(user_id) => store.find_user(tenant_id, user_id).await?,
        Which::AccountName(name) => store.find_user_by_name(tenant_id, name).await?,
    };
    found.ok_or(Error::NotFound("user"))
}

/// Lists a tenant's users, oldest first, those in `state` or all.
///
/// # Errors
/// [`Error::NotFound`] (tenant).
pub async fn list(
    store: &Store,
    tenant_id: &TenantId,
    state: Option<State>,
    page: &PageRequest,
) -> Result<Page<User>, Error> {
    tenant::get(store, tenant_id).await?;
    store.list_users(tenant_id, state, page).await
}

/// Ends the user's admin sessions, and the access tokens that run as the user. Repeated, no change.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn deactivate(
    store: &Store,
    origin: &Origin,
    tenant_id: &TenantId,
    user_id: &UserId,
) -> Result<User, Error> {
    store
        .set_user_state(origin, tenant_id, user_id, State::Deactivated)
        .await
}

/// Makes the user count again; what ended stays ended. Repeated, no change.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn reactivate(
    store: &Store,
    origin: &Origin,
    tenant_id: &TenantId,
    user_id: &UserId,
) -> Result<User, Error> {
    store
        .set_user_state(origin, tenant_id, user_id, State::Active)
        .await
}

/// Removes a Tenant Admin's password, ends sessions and earlier links, and gives a new link's token.
///
/// # Errors
/// [`Error::NotFound`], [`Error::WrongState`] for a user who is deactivated or no Tenant Admin.
pub async fn reset_password(
    store: &Store,
    creation: &Creation,
    tenant_id: &TenantId,
    user_id: &UserId,
) -> Result<(User, OpaqueToken), Error> {
    store.reset_user_password(creation, tenant_id, user_id).await
}

/// Sets the password that a Tenant Admin has chosen; the enrolment token works once.
///
/// # Errors
/// [`Error::LinkInvalid`] for a token that was used, has expired, or never was; [`Error::Busy`].
pub async fn complete_enrolment(
    store: &Store,
    origin: &Origin,
    token: &OpaqueToken,
    password: Password,
) -> Result<TenantId, Error> {
    // A stranger's guess costs no hash; a real link is decided by the update that uses it up.
    if !store.enrolment_is_open(token).await? {
        return Err(Error::LinkInvalid);
    }
    // Others may have come with the same link meanwhile: all but the first cost no hash either.
    let turn = store.hasher.turn(Line::Passwords).await?;
    if !store.enrolment_is_open(token).await? {
        return Err(Error::LinkInvalid);
    }
    let hashed = turn.hash(password.bytes()).await?;
    store.use_enrolment(origin, token, hashed).await
}

/// Checks a Tenant Admin's account name and password: one argon2 run, whatever the answer.
///
/// # Errors
/// [`Error::SignInFailed`] for each reason.
pub async fn authenticate_admin(
    store: &Store,
    origin: &Origin,
    tenant_id: &TenantId,
    account_name: Option<AccountName>,
    password: Zeroizing<String>,
) -> Result<User, Error> {
    let known = match &account_name {
        Some(name) => store.find_user_by_name(tenant_id, name).await?,
        None => None,
    };
    let tenant = store.find_tenant(tenant_id).await?;
    let tenant_is_active = tenant
        .as_ref()
        .is_some_and(|tenant| tenant.state == tenant::State::Active);
    let admin = known.clone().filter(|user| {
        tenant_is_active && user.tenant_admin && user.state == State::Active && user.password.is_some()
    });
    let stored = admin.as_ref().and_then(|user| user.password.as_ref());
    // What can't be a password is not hashed as it is, so that its length costs nothing.
    let typed = Password::parse(password)
        .map(|password| password.bytes())
        .unwrap_or_default();
    let matches = store.hasher.verify(Line::Passwords, typed, stored).await?;

    let mut event = Event::new("user.sign_in");
    if tenant.is_some() {
        event = event.tenant(tenant_id);
    }
    if let Some(user) = &known {
        event = event.subject(user.user_id.as_str());
    }
    match admin {
        Some(admin) if matches => {
            store.record(origin, event).await?;
            Ok(admin)
        }
        _ => {
            store.record(origin, event.refused()).await?;
            Err(Error::SignInFailed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_counted_in_characters() {
        let parse = |text: &str| Password::parse(Zeroizing::new(text.to_owned())).is_ok();
        assert!(parse(&"ä".repeat(15)) && parse(&"ä".repeat(1024)) && parse("spaces and \0 count too"));
        assert!(!parse(&"ä".repeat(14)) && !parse(&"ä".repeat(1025)) && !parse(""));
    }
}
