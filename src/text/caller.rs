//! Callers of the services: operators with roles, and workloads of a kind.

use clap::ValueEnum;
use strum::{AsRefStr, EnumString};

use super::id::{OperatorId, WorkloadId};

/// A role of an operator: what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, AsRefStr, EnumString, ValueEnum)]
#[strum(serialize_all = "kebab-case")]
pub enum Role {
    /// Reads; writes requests, tenants, users, scopes, clients and deliveries.
    Registrar,
    /// Reads; approves and rejects requests.
    Approver,
    /// Reads; suspends, reinstates, deactivates, reactivates, revokes; rotates keys.
    Security,
    /// Reads, the audit record included.
    Auditor,
    /// Everything that operators may do.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::Registrar,
        Role::Approver,
        Role::Security,
        Role::Auditor,
        Role::Admin,
    ];
}

/// The kind of an internal service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, AsRefStr, EnumString, ValueEnum)]
#[strum(serialize_all = "kebab-case")]
pub enum WorkloadKind {
    /// Forwards the calls of partners; has no authority of its own.
    Gateway,
    /// Accord's own token-service.
    TokenService,
    /// A service of the cloud product, such as the Cloud API.
    InternalService,
}

impl WorkloadKind {
    /// Every kind.
    pub const ALL: [WorkloadKind; 3] = [
        WorkloadKind::Gateway,
        WorkloadKind::TokenService,
        WorkloadKind::InternalService,
    ];
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A person or script that operates Accord.
    Operator {
        /// The operator's id.
        id: OperatorId,
        /// The operator's roles.
        roles: Vec<Role>,
    },
    /// An internal service.
    Workload {
        /// The workload's id.
        id: WorkloadId,
        /// The workload's kind.
        kind: WorkloadKind,
    },
}

impl Caller {
    /// Returns the caller's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Operator { id, .. } => id.as_str(),
            Self::Workload { id, .. } => id.as_str(),
        }
    }
}
