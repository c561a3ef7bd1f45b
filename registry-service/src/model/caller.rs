//! Who may operate Accord, and which internal services may call it: operators and workloads, each
//! known by a bearer token that is shown once.

use accord::{
    clock::UnixMillis,
    rpc::auth::{Caller, Role, WorkloadKind},
    store::{Creation, audit::Origin},
    text::{
        id::{OperatorId, WorkloadId},
        opaque::{OpaqueToken, TokenKind},
        page::{Page, PageRequest},
    },
};

use crate::{error::Error, store::Store};

/// A person or script that operates Accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The operator's id.
    pub operator_id: OperatorId,
    /// The name, unique among live operators.
    pub name: String,
    /// What it may do; at least one role, all different.
    pub roles: Vec<Role>,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
}

/// An internal service that calls Accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The workload's id.
    pub workload_id: WorkloadId,
    /// The name, unique among live workloads.
    pub name: String,
    /// What it is.
    pub kind: WorkloadKind,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
}

/// What an admin gives to add an operator.
#[derive(Clone, Debug)]
pub struct NewOperator {
    /// The name.
    pub name: String,
    /// The roles; at least one, all different.
    pub roles: Vec<Role>,
}

/// What an admin gives to add a workload.
#[derive(Clone, Debug)]
pub struct NewWorkload {
    /// The name.
    pub name: String,
    /// What it is.
    pub kind: WorkloadKind,
}

/// An operator or a workload, with all that is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerRecord {
    /// An operator.
    Operator(Operator),
    /// A workload.
    Workload(Workload),
}

impl CallerRecord {
    /// As permissions know it.
    pub fn caller(self) -> Caller {
        match self {
            Self::Operator(operator) => Caller::Operator {
                id: operator.operator_id,
                roles: operator.roles,
            },
            Self::Workload(workload) => Caller::Workload {
                id: workload.workload_id,
                kind: workload.kind,
            },
        }
    }
}

/// Adds an operator; the token is shown here and nowhere else.
///
/// # Errors
/// [`Error::AlreadyExists`] for a live operator of that name, [`Error::RequestIdReused`].
pub async fn create_operator(
    store: &Store,
    creation: &Creation,
    new: NewOperator,
) -> Result<(Operator, OpaqueToken), Error> {
    store.create_operator(creation, new).await
}

/// Lists operators, oldest first, the revoked ones included.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_operators(store: &Store, page: &PageRequest) -> Result<Page<Operator>, Error> {
    store.list_operators(page).await
}

/// Ends an operator's token for good. Repeated, no change. Nobody is spared, not the caller either:
/// the command line can always add another admin.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn revoke_operator(store: &Store, origin: &Origin, id: &OperatorId) -> Result<Operator, Error> {
    store.revoke_operator(origin, id).await
}

/// Adds a workload; the token is shown here and nowhere else.
///
/// # Errors
/// [`Error::AlreadyExists`] for a live workload of that name, [`Error::RequestIdReused`].
pub async fn create_workload(
    store: &Store,
    creation: &Creation,
    new: NewWorkload,
) -> Result<(Workload, OpaqueToken), Error> {
    store.create_workload(creation, new).await
}

/// Lists workloads, oldest first, the revoked ones included.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_workloads(store: &Store, page: &PageRequest) -> Result<Page<Workload>, Error> {
    store.list_workloads(page).await
}

/// Ends a workload's token for good. Repeated, no change.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn revoke_workload(store: &Store, origin: &Origin, id: &WorkloadId) -> Result<Workload, Error> {
    store.revoke_workload(origin, id).await
}

/// Revokes the live operators and workloads of these names, such as those of an earlier start.
///
/// # Errors
/// [`Error::Store`].
pub async fn revoke_by_name(store: &Store, origin: &Origin, names: &[&str]) -> Result<(), Error> {
    for operator in store.find_live_operators(names).await? {
        store.revoke_operator(origin, &operator.operator_id).await?;
    }
    for workload in store.find_live_workloads(names).await? {
        store.revoke_workload(origin, &workload.workload_id).await?;
    }
    Ok(())
}

/// Whose bearer token this is; `None` for a revoked one, an unknown one, and a token that is no
/// bearer token of an operator or workload.
///
/// # Errors
/// [`Error::Store`].
pub async fn find_by_token(store: &Store, token: &OpaqueToken) -> Result<Option<CallerRecord>, Error> {
    let digest = token.digest();
    match token.kind() {
        TokenKind::Operator => Ok(store
            .find_operator_by_token(&digest)
            .await?
            .map(CallerRecord::Operator)),
        TokenKind::Workload => Ok(store
            .find_workload_by_token(&digest)
            .await?
            .map(CallerRecord::Workload)),
        TokenKind::AuthorizationCode | TokenKind::Claim | TokenKind::Enrolment | TokenKind::AdminSession => {
            Ok(None)
        }
    }
}
