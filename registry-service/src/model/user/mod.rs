//! A tenant's users: Tenant Admins, and users that API transactions can run as.

pub mod password;

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    text::{
        account_name::AccountName,
        id::{TenantId, UserId},
        opaque::OpaqueToken,
        release_code::ReleaseCode,
    },
};
use strum::{AsRefStr, EnumString};
use uuid::Uuid;

use self::password::Password;
use super::argon2_hash::Argon2Hash;

/// How long an enrolment link can be used.
pub const ENROLMENT_LIFETIME: Duration = Duration::from_secs(72 * 3600);

/// Whether a user can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// The usual state.
    Active,
    /// Can neither sign in nor be designated for API transactions.
    Deactivated,
}

/// A tenant's user, without the account name: only a hash of it is stored.
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
    /// Whether the user can act.
    pub state: State,
    /// The password's hash. `None` before the enrolment and after a reset.
    pub password: Option<Argon2Hash>,
    /// The feed position of the last deactivation; 0 if there was none.
    pub tokens_ended_seq: i64,
    /// The feed position of the last deactivation or password reset; 0 if there was none.
    pub sessions_ended_seq: i64,
    /// When the user was registered.
    pub created_at: UnixMillis,
    /// When the user last changed.
    pub updated_at: UnixMillis,
}

/// What an operator specifies to register a user.
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

/// A one-time enrolment link, as it is stored.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The Tenant Admin that it is for.
    pub user_id: UserId,
    /// When it expires.
    pub expires_at: UnixMillis,
    /// When a password was chosen with it.
    pub used_at: Option<UnixMillis>,
    /// The MAC of the request id of the call that used it ([`super::link::use_mac`]).
    pub used_by: Option<Vec<u8>>,
    /// Whether it was ended before it was used or expired.
    pub ended: bool,
    /// Whether it needs a release code.
    pub needs_code: bool,
}

impl Enrolment {
    /// Returns whether a password can be chosen with it.
    pub fn is_open(&self, now: UnixMillis) -> bool {
        self.used_at.is_none() && !self.ended && now < self.expires_at
    }
}

/// A call that uses an enrolment.
#[derive(Debug)]
pub struct Completion {
    /// The token of the link.
    pub token: OpaqueToken,
    /// The code of the link's release.
    pub release_code: Option<ReleaseCode>,
    /// The password that the user chose.
    pub password: Password,
    /// The caller's `request_id`.
    pub request_id: Option<Uuid>,
}

/// Selects a user of a tenant.
#[derive(Clone, Debug)]
pub enum Selector {
    /// By id.
    Id(UserId),
    /// By account name.
    AccountName(AccountName),
}

/// Returns the URL of the page where a Tenant Admin uses an enrolment token. `public_base_url` has no trailing slash.
pub fn enrolment_link(public_base_url: &str, tenant_id: &TenantId, token: &OpaqueToken) -> String {
    format!("{public_base_url}/{tenant_id}/enrol/{}", token.expose())
}
