//! The callers of a development environment. Their tokens are made anew at every start, since
//! nothing keeps the old ones' plaintext.

use accord::{
    rpc::auth::{Role, WorkloadKind},
    store::audit::{Actor, ActorKind, Origin},
    text::opaque::OpaqueToken,
};
use registry_service::{model::caller, store::Store};

const NAMES: [&str; 3] = [
    "accord dev",
    "accord dev token-service",
    "accord dev internal service",
];

/// The tokens of a development environment.
#[derive(Debug)]
pub struct Callers {
    /// An operator with every role.
    pub operator: OpaqueToken,
    /// token-service itself.
    pub token_service: OpaqueToken,
    /// An internal service, such as the one that serves the Tenant Admin's pages.
    pub internal_service: OpaqueToken,
}

/// Revokes the callers of an earlier start and makes new ones.
///
/// # Errors
/// What the store says.
pub async fn renew(store: &Store) -> anyhow::Result<Callers> {
    let origin = Origin {
        actor: Actor {
            kind: ActorKind::System,
            id: "command-line".to_owned(),
        },
        request_id: String::new(),
    };
    caller::revoke_by_name(store, &origin, &NAMES).await?;
    let operator = caller::NewOperator {
        name: NAMES[0].to_owned(),
        roles: Role::ALL.to_vec(),
    };
    let workload = |index: usize, kind| caller::NewWorkload {
        name: NAMES[index].to_owned(),
        kind,
    };
    let creation = |method| accord::store::Creation {
        origin: origin.clone(),
        method,
        request_id: None,
        content: Default::default(),
    };
    Ok(Callers {
        operator: caller::create_operator(store, &creation("CreateOperator"), operator)
            .await?
            .1,
        token_service: caller::create_workload(
            store,
            &creation("CreateWorkload"),
            workload(1, WorkloadKind::TokenService),
        )
        .await?
        .1,
        internal_service: caller::create_workload(
            store,
            &creation("CreateWorkload"),
            workload(2, WorkloadKind::InternalService),
        )
        .await?
        .1,
    })
}
