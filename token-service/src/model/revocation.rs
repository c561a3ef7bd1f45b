//! Revocations: what ended before its time.

use strum::{AsRefStr, EnumCount, EnumString};

/// What a revocation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumCount, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum RevocationKind {
    /// One access token.
    Jti,
    /// A refresh family's access tokens.
    Family,
    /// A grant's access tokens.
    Grant,
    /// Every token signed with a key.
    Kid,
    /// A client's access tokens. This kind and those below come from the registry's feed alone.
    Client,
    /// A tenant's access tokens.
    Tenant,
    /// The access tokens that run as a user.
    User,
}

impl RevocationKind {
    /// Splits the id of a revocation's change into kind and id.
    pub fn from_change(id: &str) -> Option<(Self, &str)> {
        let (kind, id) = id.split_once(':')?;
        Some((kind.parse().ok()?, id))
    }
}

/// A revocation in a change feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What it ends.
    pub kind: RevocationKind,
    /// Which one.
    pub id: String,
    /// Its position in the feed.
    pub seq: i64,
}
