//! What a revocation ends.

/// What a revocation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationKind {
    /// One access token.
    Jti,
    /// A refresh family's access tokens.
    Family,
    /// A grant's access tokens.
    Grant,
    /// Every token signed with a key.
    Kid,
    /// A client's access tokens; told by the registry, as those below, and never in this database.
    Client,
    /// A tenant's access tokens.
    Tenant,
    /// The access tokens that run as a user.
    User,
}

impl RevocationKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Jti,
        Self::Family,
        Self::Grant,
        Self::Kid,
        Self::Client,
        Self::Tenant,
        Self::User,
    ];

    /// The kind's name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Family => "family",
            Self::Grant => "grant",
            Self::Kid => "kid",
            Self::Client => "client",
            Self::Tenant => "tenant",
            Self::User => "user",
        }
    }

    /// Splits the id of a revocation's change into kind and id.
    pub fn from_change(id: &str) -> Option<(Self, &str)> {
        let (name, id) = id.split_once(':')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name)?;
        Some((kind, id))
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
