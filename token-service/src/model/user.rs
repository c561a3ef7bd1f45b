//! A tenant's user as the registry describes it.

use accord::text::id::UserId;

/// A tenant's user.
#[derive(Clone, Debug)]
pub struct User {
    /// The id.
    pub user_id: UserId,
    /// A display name that identifies nobody.
    pub label: String,
    /// Whether the user may grant consent.
    pub tenant_admin: bool,
    /// Whether the user is active.
    pub active: bool,
    /// Access tokens of a lower position that run as the user have ended.
    pub tokens_ended_seq: i64,
    /// Admin sessions of a lower position have ended.
    pub sessions_ended_seq: i64,
}
