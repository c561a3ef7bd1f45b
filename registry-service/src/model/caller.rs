//! Operators and workloads: who may call Accord, each known by a bearer token that is shown once.

use accord::{
    clock::UnixMillis,
    text::{
        caller::{Caller, Role, WorkloadKind},
        opaque::TokenKind,
    },
};
use strum::{EnumString, IntoStaticStr};

/// Which of the two a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum CallerType {
    /// A person or script that operates Accord.
    Operator,
    /// An internal service.
    Workload,
}

impl CallerType {
    /// The kind of the bearer token.
    pub fn token_kind(self) -> TokenKind {
        match self {
            Self::Operator => TokenKind::Operator,
            Self::Workload => TokenKind::Workload,
        }
    }
}

/// What a caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// An operator's roles: at least one, all different.
    Roles(Vec<Role>),
    /// A workload's kind.
    Kind(WorkloadKind),
}

impl Authority {
    /// Who holds such an authority.
    pub fn caller_type(&self) -> CallerType {
        match self {
            Self::Roles(_) => CallerType::Operator,
            Self::Kind(_) => CallerType::Workload,
        }
    }

    /// The authority in the database and in the audit record: names, separated by commas.
    pub fn name(&self) -> String {
        match self {
            Self::Roles(roles) => {
                let names: Vec<_> = roles.iter().map(AsRef::as_ref).collect();
                names.join(",")
            }
            Self::Kind(kind) => kind.as_ref().to_owned(),
        }
    }

    /// The authority of this name.
    pub fn from_name(caller_type: CallerType, name: &str) -> Option<Self> {
        match caller_type {
            CallerType::Operator => {
                let roles: Result<Vec<_>, _> = name.split(',').map(str::parse).collect();
                roles.ok().map(Self::Roles)
            }
            CallerType::Workload => name.parse().ok().map(Self::Kind),
        }
    }
}

/// What an admin gives to add a caller.
#[derive(Clone, Debug)]
pub struct NewCaller {
    /// The name, unique among live callers of the type.
    pub name: String,
    /// What it may do.
    pub authority: Authority,
}

/// An operator or a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRecord {
    /// Its id and what it may do.
    pub caller: Caller,
    /// Its name.
    pub name: String,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
}
