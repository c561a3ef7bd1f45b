//! Authentication of callers, and their permission to call a method.
//!
//! Each service has one [`Permissions`] table by method. A method that is not in the table can't be reached. Callers are
//! operators and workloads with a bearer token or a client certificate. Credentials in a message (client credentials, admin
//! sessions) are checked elsewhere.

use std::sync::Arc;

use tonic::{Code, Request, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

pub use self::{
    authorizer::{Authorizer, CallerDirectory},
    connection_caller::ConnectionCaller,
    permissions::{Access, Permissions},
};
pub use crate::text::caller::{Caller, Credential, Role, WorkloadKind};
use crate::{
    registry::v1::{OperatorRole, WorkloadKind as MessageKind},
    rpc::{
        codec::{self, Checked},
        context,
        status::{ErrorReason, Problem},
    },
    store::{
        Creation,
        audit::{Actor, ActorKind, Origin},
    },
    text::opaque::{OpaqueToken, TokenKind},
};

mod authorizer;
mod connection_caller;
mod permissions;

crate::message_enum! { Role = OperatorRole { Registrar, Approver, Security, Auditor, Admin } }
crate::message_enum! { WorkloadKind = MessageKind { Gateway, TokenService, InternalService } }

/// The most bytes of a certificate's names in a message or an audit event.
const MAX_LISTED_NAMES: usize = 300;

/// The caller of a method, in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An operator or workload, with the names of the client certificate that authenticated it; `None` for a token.
    Caller(Caller, Option<Arc<[String]>>),
    /// A caller without a credential of its own. The message may hold one.
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
            Principal::Caller(caller, _) => caller.id(),
            Principal::Anonymous => "",
        }
    }

    /// Rejects everybody but operators with this role, where a part of a method needs it. `what` names the part.
    ///
    /// # Errors
    /// PERMISSION_DENIED, or UNAUTHENTICATED without a caller.
    pub fn require(&self, role: Role, what: &str) -> Result<(), Status> {
        match self {
            Principal::Caller(Caller::Operator { roles, .. }, _) if roles.contains(&role) => Ok(()),
            Principal::Caller(caller, _) => {
                let message = format!("{what} takes an operator with the role {}", role.as_ref());
                Err(permission_denied(caller, message))
            }
            Principal::Anonymous => Err(unauthenticated()),
        }
    }

    /// Returns the origin of this call's audit events.
    pub fn origin(&self) -> Origin {
        let kind = match self {
            Principal::Caller(Caller::Operator { .. }, _) => ActorKind::Operator,
            Principal::Caller(Caller::Workload { .. }, _) => ActorKind::Workload,
            Principal::Anonymous => ActorKind::Anonymous,
        };
        let certificate = match self {
            Principal::Caller(_, Some(names)) => Some(list(names)),
            _ => None,
        };
        Origin {
            certificate,
            session: None,
            actor: Actor {
                kind,
                id: self.id().to_owned(),
            },
            address: context::address(),
            request_id: context::request_id(),
        }
    }
}

/// Returns what makes a creating call repeatable: who calls `method`, its request id, and its content.
pub fn creation<T: Checked + Clone>(
    request: &Request<T>,
    method: &'static str,
    request_id: Option<Uuid>,
) -> Creation {
    Creation {
        origin: Principal::of(request).origin(),
        method,
        request_id,
        content: Zeroizing::new(codec::content(request.get_ref())),
    }
}

/// UNAUTHENTICATED: no valid credential where one is required.
pub fn unauthenticated() -> Status {
    rejected("a valid bearer token or client certificate is required")
}

/// UNAUTHENTICATED: a client certificate with names of two callers.
pub fn ambiguous_certificate() -> Problem {
    let message = "the client certificate has names of more than one workload or operator";
    Problem::new(Code::Unauthenticated, ErrorReason::AmbiguousCertificate, message)
}

fn rejected(message: impl Into<String>) -> Status {
    Problem::new(Code::Unauthenticated, ErrorReason::Unauthenticated, message).into()
}

/// Why a caller has no permission for a method.
const NOT_ALLOWED: &str = "this caller may not call this method";

/// Names the caller in the log: the line about the call knows only callers that were admitted.
fn permission_denied(caller: &Caller, message: impl Into<String>) -> Status {
    tracing::info!(caller = caller.id(), "the caller has no permission");
    Problem::new(Code::PermissionDenied, ErrorReason::PermissionDenied, message).into()
}

/// Notes a caller whose rejected calls are audit events. `names` are those of the caller's certificate.
pub fn note_caller(caller: &Caller, names: Option<&[String]>) {
    let kind = match caller {
        Caller::Operator { .. } => ActorKind::Operator,
        Caller::Workload { .. } => ActorKind::Workload,
    };
    let id = caller.id().to_owned();
    context::note_caller(Actor { kind, id }, names.map(list));
}

/// Notes that somebody has brought a credential which names nobody.
fn note_stranger(names: Option<&[String]>) {
    let (kind, id) = (ActorKind::Anonymous, String::new());
    context::note_caller(Actor { kind, id }, names.map(list));
}

/// Lists the names of a certificate, as many as are worth reading.
fn list(names: &[String]) -> String {
    let mut list = names.join(" ");
    list.truncate(list.floor_char_boundary(MAX_LISTED_NAMES));
    list
}

/// Parses the token of an operator or a workload.
pub fn caller_token(text: &str) -> Option<OpaqueToken> {
    OpaqueToken::parse(TokenKind::Operator, text)
        .or_else(|_| OpaqueToken::parse(TokenKind::Workload, text))
        .ok()
}

#[cfg(test)]
#[path = "../tests/auth.rs"]
mod tests;
