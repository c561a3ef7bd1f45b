//! Who calls, and whether that caller may call this method.
//!
//! Permission is per method, in one [`Permissions`] table per service; a method that is not in the
//! table can't be reached. Callers are operators and workloads, known by bearer tokens. What a
//! message itself proves (client credentials, admin sessions) is not decided here.

use std::{collections::HashMap, fmt, sync::Arc};

use http::HeaderMap;
use tonic::{Code, Request, Status};

pub use crate::text::caller::{Caller, Role, WorkloadKind};
use crate::{
    registry::v1::{OperatorRole, WorkloadKind as MessageKind},
    rpc::{
        context,
        status::{ErrorReason, Problem},
    },
    store::audit::{Actor, ActorKind, Origin},
    text::opaque::{OpaqueToken, TokenKind},
};

crate::message_enum! { Role = OperatorRole { Registrar, Approver, Security, Auditor, Admin } }
crate::message_enum! { WorkloadKind = MessageKind { Gateway, TokenService, InternalService } }

/// Who a call comes from, as found in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An operator or workload.
    Caller(Caller),
    /// Nobody known; the message may carry a proof of its own.
    Anonymous,
}

impl Principal {
    /// The principal that [`crate::rpc::middleware`] put into the request; anonymous if there is none.
    pub fn of<T>(request: &Request<T>) -> Self {
        request
            .extensions()
            .get::<Principal>()
            .cloned()
            .unwrap_or(Principal::Anonymous)
    }

    /// The id by which audit rows and idempotency know the principal; empty for anonymous.
    pub fn id(&self) -> &str {
        match self {
            Principal::Caller(caller) => caller.id(),
            Principal::Anonymous => "",
        }
    }

    /// Where an audit event of this call comes from.
    pub fn origin(&self) -> Origin {
        let kind = match self {
            Principal::Caller(Caller::Operator { .. }) => ActorKind::Operator,
            Principal::Caller(Caller::Workload { .. }) => ActorKind::Workload,
            Principal::Anonymous => ActorKind::Anonymous,
        };
        Origin {
            actor: Actor {
                kind,
                id: self.id().to_owned(),
            },
            request_id: context::request_id(),
        }
    }
}

/// Who may call a method.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Anyone: the message carries its own proof, or the answer is public.
    Anyone,
    /// Operators with one of these roles, and workloads of one of these kinds.
    Callers(&'static [Role], &'static [WorkloadKind]),
    /// The same, or anyone who brings no bearer token and proves itself in the message.
    CallersOrProof(&'static [Role], &'static [WorkloadKind]),
}

impl Access {
    fn admits(self, caller: &Caller) -> bool {
        match self {
            Access::Anyone => true,
            Access::Callers(roles, kinds) | Access::CallersOrProof(roles, kinds) => match caller {
                Caller::Operator { roles: held, .. } => held.iter().any(|role| roles.contains(role)),
                Caller::Workload { kind, .. } => kinds.contains(kind),
            },
        }
    }
}

/// One service's table: method path (`/package.Service/Method`) to who may call it.
#[derive(Clone, Debug)]
pub struct Permissions(HashMap<&'static str, Access>);

impl Permissions {
    /// Takes the rows of a table.
    pub fn new(rows: &[(&'static str, Access)]) -> Self {
        Self(rows.iter().copied().collect())
    }

    /// Who may call the method at `path`; `None` for a path that is not served.
    pub fn access(&self, path: &str) -> Option<Access> {
        // Health and reflection tell nothing that a stranger may not know.
        const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];
        if OPEN.iter().any(|prefix| path.starts_with(prefix)) {
            return Some(Access::Anyone);
        }
        self.0.get(path).copied()
    }

    /// The table's paths.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }
}

/// Looks bearer tokens up.
#[tonic::async_trait]
pub trait CallerDirectory: Send + Sync + fmt::Debug {
    /// The caller whose token this is; `None` for an unknown or revoked one.
    ///
    /// # Errors
    /// UNAVAILABLE when the source does not answer, INTERNAL otherwise.
    async fn find_caller(&self, token: &OpaqueToken) -> Result<Option<Caller>, Status>;
}

/// Decides on every call, before any other code sees it.
#[derive(Clone, Debug)]
pub struct Authorizer {
    permissions: Arc<Permissions>,
    directory: Arc<dyn CallerDirectory>,
}

impl Authorizer {
    /// Joins a table and a directory.
    pub fn new(permissions: Permissions, directory: Arc<dyn CallerDirectory>) -> Self {
        Self {
            permissions: Arc::new(permissions),
            directory,
        }
    }

    /// Finds out who calls the method at `path`, and that this caller may.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a path that is not served, UNAUTHENTICATED without a valid credential where
    /// one is needed, PERMISSION_DENIED for a caller who may not.
    pub async fn authorize(&self, path: &str, headers: &HeaderMap) -> Result<Principal, Status> {
        let Some(access) = self.permissions.access(path) else {
            return Err(Problem::new(
                Code::Unimplemented,
                ErrorReason::NotAvailable,
                "there is no such method",
            )
            .into());
        };
        match access {
            Access::Anyone => return Ok(Principal::Anonymous),
            Access::CallersOrProof(..) if !headers.contains_key(http::header::AUTHORIZATION) => {
                return Ok(Principal::Anonymous);
            }
            _ => {}
        }
        let token = bearer(headers).ok_or_else(unauthenticated)?;
        let caller = self
            .directory
            .find_caller(&token)
            .await?
            .ok_or_else(unauthenticated)?;
        if access.admits(&caller) {
            Ok(Principal::Caller(caller))
        } else {
            Err(Problem::new(
                Code::PermissionDenied,
                ErrorReason::PermissionDenied,
                "this caller may not call this method",
            )
            .into())
        }
    }
}

/// UNAUTHENTICATED: no credential where one is needed, or not a valid one.
pub fn unauthenticated() -> Status {
    Problem::new(
        Code::Unauthenticated,
        ErrorReason::Unauthenticated,
        "a valid bearer token is needed",
    )
    .into()
}

/// The operator's or workload's token of the `authorization` header (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<OpaqueToken> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    OpaqueToken::parse(TokenKind::Operator, token)
        .or_else(|_| OpaqueToken::parse(TokenKind::Workload, token))
        .ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::{
        clock::{ManualClock, UnixMillis},
        random::SeededRandom,
        text::id::WorkloadId,
    };

    #[derive(Debug)]
    struct One(String, Caller);

    #[tonic::async_trait]
    impl CallerDirectory for One {
        async fn find_caller(&self, token: &OpaqueToken) -> Result<Option<Caller>, Status> {
            Ok((token.expose() == self.0).then(|| self.1.clone()))
        }
    }

    fn setup(kind: WorkloadKind) -> (Authorizer, String) {
        let random = SeededRandom::new(1);
        let clock = ManualClock::new(UnixMillis::from_millis(1_800_000_000_000));
        let token = OpaqueToken::generate(TokenKind::Workload, &random);
        let caller = Caller::Workload {
            id: WorkloadId::generate(&clock, &random),
            kind,
        };
        let permissions = Permissions::new(&[
            ("/a.A/Open", Access::Anyone),
            (
                "/a.A/Inner",
                Access::Callers(&[Role::Admin], &[WorkloadKind::InternalService]),
            ),
            (
                "/a.A/Either",
                Access::CallersOrProof(&[], &[WorkloadKind::InternalService]),
            ),
        ]);
        let directory = Arc::new(One(token.expose().to_owned(), caller));
        (Authorizer::new(permissions, directory), token.expose().to_owned())
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value.parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn a_path_outside_the_table_is_not_served() {
        let (authorizer, token) = setup(WorkloadKind::InternalService);
        let status = authorizer
            .authorize("/a.A/Other", &headers(&format!("Bearer {token}")))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }

    #[tokio::test]
    async fn only_the_named_kinds_are_admitted() {
        for kind in WorkloadKind::ALL {
            let (authorizer, token) = setup(kind);
            let result = authorizer
                .authorize("/a.A/Inner", &headers(&format!("bearer {token}")))
                .await;
            assert_eq!(result.is_ok(), kind == WorkloadKind::InternalService, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_bad_bearer_is_refused_even_where_a_proof_in_the_message_would_do() {
        let (authorizer, token) = setup(WorkloadKind::InternalService);
        let anonymous = authorizer.authorize("/a.A/Either", &HeaderMap::new()).await;
        assert_eq!(anonymous.unwrap(), Principal::Anonymous);
        for bad in [
            "Bearer x",
            "Basic abc",
            &token,
            &format!("Bearer {token}x"),
            "Bearer",
        ] {
            let status = authorizer
                .authorize("/a.A/Either", &headers(bad))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{bad}");
        }
        let mut twice = headers(&format!("Bearer {token}"));
        twice.append("authorization", format!("Bearer {token}").parse().unwrap());
        assert!(authorizer.authorize("/a.A/Either", &twice).await.is_err());
    }
}
