//! The callers of a development environment. Every start creates new tokens, because no plaintext is stored.

use accord::{
    rpc::auth::{Role, WorkloadKind},
    store::audit::{Actor, ActorKind, Origin},
    text::opaque::OpaqueToken,
};
use anyhow::Context;
use registry_service::{
    model::caller::{Authority, NewCaller},
    store::Store,
};

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

/// Revokes the callers of an earlier start and creates new ones.
pub async fn renew(store: &Store) -> anyhow::Result<Callers> {
    let origin = Origin {
        certificate: None,
        session: None,
        address: None,
        actor: Actor {
            kind: ActorKind::System,
            id: "command-line".to_owned(),
        },
        request_id: String::new(),
    };
    store.revoke_callers_named(&origin, &NAMES).await?;
    let create = async |index: usize, method, authority| {
        let creation = accord::store::Creation {
            origin: origin.clone(),
            method,
            request_id: None,
            content: Default::default(),
        };
        let new = NewCaller {
            name: NAMES[index].to_owned(),
            authority,
            certificate_name: None,
            person: None,
        };
        let (_, token) = store.create_caller(&creation, new).await?;
        token.context("a caller without a certificate name has a token")
    };
    Ok(Callers {
        operator: create(0, "CreateOperator", Authority::Roles(Role::ALL.to_vec())).await?,
        token_service: create(1, "CreateWorkload", Authority::Kind(WorkloadKind::TokenService)).await?,
        internal_service: create(
            2,
            "CreateWorkload",
            Authority::Kind(WorkloadKind::InternalService),
        )
        .await?,
    })
}
