//! Authentication of callers, and their permission to call a method.
//!
//! Each service has one [`Permissions`] table by method. A method that is not in the table can't be reached. Callers are
//! operators and workloads with bearer tokens. Credentials in a message (client credentials, admin sessions) are checked
//! elsewhere.

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
    verify::bearer,
};

crate::message_enum! { Role = OperatorRole { Registrar, Approver, Security, Auditor, Admin } }
crate::message_enum! { WorkloadKind = MessageKind { Gateway, TokenService, InternalService } }

/// The caller of a method, in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An operator or workload.
    Caller(Caller),
    /// A caller without a token. The message may hold a credential.
    Anonymous,
}

impl Principal {
    /// Returns the principal that [`crate::rpc::middleware`] put into the request; anonymous if there is none.
    pub fn of<T>(request: &Request<T>) -> Self {
        let principal = request.extensions().get().cloned();
        principal.unwrap_or(Principal::Anonymous)
    }

    /// Returns the principal's id; empty for anonymous.
    pub fn id(&self) -> &str {
        match self {
            Principal::Caller(caller) => caller.id(),
            Principal::Anonymous => "",
        }
    }

    /// Returns the origin of this call's audit events.
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
    /// Anyone: the message holds a credential, or the answer is public.
    Anyone,
    /// Operators with one of these roles, and workloads of one of these kinds.
    Callers(&'static [Role], &'static [WorkloadKind]),
    /// The same, and anyone without a bearer token: then the message holds a credential.
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

/// A service's permissions by method path (`/package.Service/Method`).
#[derive(Clone, Debug)]
pub struct Permissions(HashMap<&'static str, Access>);

impl Permissions {
    /// Creates the table from its rows.
    pub fn new(rows: &[(&'static str, Access)]) -> Self {
        Self(rows.iter().copied().collect())
    }

    /// Returns who may call the method at `path`; `None` for a path that is not served.
    pub fn access(&self, path: &str) -> Option<Access> {
        self.row(path).map(|(_, access)| access)
    }

    fn row(&self, path: &str) -> Option<(&'static str, Access)> {
        // Health and reflection are public.
        const OPEN: [&str; 4] = [
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ];
        let row = self
            .0
            .get_key_value(path)
            .map(|(method, access)| (*method, *access));
        row.or_else(|| Some((*OPEN.iter().find(|open| **open == path)?, Access::Anyone)))
    }
}

/// Finds callers by their bearer tokens.
#[tonic::async_trait]
pub trait CallerDirectory: Send + Sync + fmt::Debug {
    /// Returns the caller with this token; `None` for an unknown or revoked token.
    ///
    /// # Errors
    /// UNAVAILABLE if the source does not answer, INTERNAL otherwise.
    async fn find_caller(&self, token: &OpaqueToken) -> Result<Option<Caller>, Status>;
}

/// Authorizes every call, before any other code sees it.
#[derive(Clone, Debug)]
pub struct Authorizer {
    permissions: Arc<Permissions>,
    directory: Arc<dyn CallerDirectory>,
}

impl Authorizer {
    /// Creates an authorizer.
    pub fn new(permissions: Permissions, directory: Arc<dyn CallerDirectory>) -> Self {
        let permissions = Arc::new(permissions);
        Self {
            permissions,
            directory,
        }
    }

    /// The same permissions, with another directory.
    #[cfg(feature = "testing")]
    pub(crate) fn with_directory(self, directory: Arc<dyn CallerDirectory>) -> Self {
        Self { directory, ..self }
    }

    /// Returns the path of the method at `path`; `None` if there is none.
    pub fn method(&self, path: &str) -> Option<&'static str> {
        self.permissions.row(path).map(|(method, _)| method)
    }

    /// Authenticates the caller of the method at `path`, and checks its permission.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a path that is not served, UNAUTHENTICATED without a valid credential where one is required,
    /// PERMISSION_DENIED for a caller without permission.
    pub async fn authorize(&self, path: &str, headers: &HeaderMap) -> Result<Principal, Status> {
        let access = self.permissions.access(path).ok_or_else(|| {
            let message = "there is no such method";
            Problem::new(Code::Unimplemented, ErrorReason::NotAvailable, message)
        })?;
        let has_token = headers.contains_key(http::header::AUTHORIZATION);
        match access {
            Access::Anyone => return Ok(Principal::Anonymous),
            Access::CallersOrProof(..) if !has_token => return Ok(Principal::Anonymous),
            _ => {}
        }
        let token = bearer::token(headers).map_err(|_| unauthenticated())?;
        Ok(Principal::Caller(self.admit(access, token).await?))
    }

    /// Authenticates the caller with this token, which came in another way than over gRPC, and checks its permission to
    /// call the method at `path`.
    ///
    /// # Errors
    /// Those of [`Self::authorize`].
    pub async fn authorize_token(&self, path: &str, token: &str) -> Result<Caller, Status> {
        let access = self.permissions.access(path).ok_or_else(unauthenticated)?;
        self.admit(access, token).await
    }

    async fn admit(&self, access: Access, token: &str) -> Result<Caller, Status> {
        let token = caller_token(token).ok_or_else(unauthenticated)?;
        let caller = self.directory.find_caller(&token).await?;
        let caller = caller.ok_or_else(unauthenticated)?;
        if !access.admits(&caller) {
            let message = "this caller may not call this method";
            return Err(Problem::new(Code::PermissionDenied, ErrorReason::PermissionDenied, message).into());
        }
        Ok(caller)
    }
}

/// UNAUTHENTICATED: no valid credential where one is required.
pub fn unauthenticated() -> Status {
    let message = "a valid bearer token is required";
    Problem::new(Code::Unauthenticated, ErrorReason::Unauthenticated, message).into()
}

/// Parses the token of an operator or a workload.
fn caller_token(text: &str) -> Option<OpaqueToken> {
    OpaqueToken::parse(TokenKind::Operator, text)
        .or_else(|_| OpaqueToken::parse(TokenKind::Workload, text))
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
    struct OneCaller(String, Caller);

    #[tonic::async_trait]
    impl CallerDirectory for OneCaller {
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
        let directory = Arc::new(OneCaller(token.expose().to_owned(), caller));
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
    async fn only_the_listed_kinds_are_admitted() {
        for kind in WorkloadKind::ALL {
            let (authorizer, token) = setup(kind);
            let result = authorizer
                .authorize("/a.A/Inner", &headers(&format!("bearer {token}")))
                .await;
            assert_eq!(result.is_ok(), kind == WorkloadKind::InternalService, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn an_invalid_token_is_rejected_even_where_none_is_required() {
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
