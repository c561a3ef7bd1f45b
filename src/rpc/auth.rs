//! Authentication of callers, and their permission to call a method.
//!
//! Each service has one [`Permissions`] table by method. A method that is not in the table can't be reached. Callers are
//! operators and workloads with a bearer token or a client certificate. Credentials in a message (client credentials, admin sessions) are checked
//! elsewhere.

use std::{collections::HashMap, fmt, sync::Arc};

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Status};

pub use crate::text::caller::{Caller, Credential, Role, WorkloadKind};
use crate::{
    clock::SharedClock,
    registry::v1::{OperatorRole, WorkloadKind as MessageKind},
    rpc::{
        context,
        status::{ErrorReason, Problem},
        tls::peer::PeerCertificate,
    },
    store::audit::{Actor, ActorKind, Origin},
    text::{
        caller::MAX_CERTIFICATE_NAMES,
        opaque::{OpaqueToken, TokenKind},
    },
    verify::bearer,
};

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

    /// Rejects everybody but operators with this role, where a part of a method needs it.
    ///
    /// # Errors
    /// PERMISSION_DENIED, or UNAUTHENTICATED without a caller.
    pub fn require(&self, role: Role) -> Result<(), Status> {
        match self {
            Principal::Caller(Caller::Operator { roles, .. }, _) if roles.contains(&role) => Ok(()),
            Principal::Caller(caller, _) => Err(permission_denied(caller)),
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

/// Who may call a method.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Anyone: the message holds a credential, or the answer is public.
    Anyone,
    /// Operators with one of these roles, and workloads of one of these kinds.
    Callers(&'static [Role], &'static [WorkloadKind]),
    /// The same, and anyone else: then the message holds a credential. So the credential of another caller, such as a gateway,
    /// counts for nothing; one of nobody is rejected.
    CallersOrClients(&'static [Role], &'static [WorkloadKind]),
}

impl Access {
    fn admits(self, caller: &Caller) -> bool {
        match self {
            Access::Anyone => true,
            Access::Callers(roles, kinds) | Access::CallersOrClients(roles, kinds) => match caller {
                Caller::Operator { roles: held, .. } => held.iter().any(|role| roles.contains(role)),
                Caller::Workload { kind, .. } => kinds.contains(kind),
            },
        }
    }
}

/// A service's permissions by method path (`/package.Service/Method`).
#[derive(Clone, Debug)]
pub struct Permissions {
    rows: HashMap<&'static str, Access>,
    /// The methods that end with their caller although their names do not say that they only read.
    end_with_caller: &'static [&'static str],
}

impl Permissions {
    /// Creates the table from its rows.
    pub fn new(rows: &[(&'static str, Access)]) -> Self {
        Self {
            rows: rows.iter().copied().collect(),
            end_with_caller: &[],
        }
    }

    /// The same, with methods that end when their caller disconnects or stops waiting, because they complete by themselves what
    /// must be completed.
    #[must_use]
    pub fn ending_with_caller(self, end_with_caller: &'static [&'static str]) -> Self {
        Self {
            end_with_caller,
            ..self
        }
    }

    /// Returns whether a call of the method at `path` goes on although its caller disconnects: whether it does more than to read.
    pub fn outlives_caller(&self, path: &str) -> bool {
        const READ: [&str; 10] = [
            "Get",
            "List",
            "Find",
            "Resolve",
            "Verify",
            "Trace",
            "Introspect",
            // Health and reflection.
            "Check",
            "Watch",
            "ServerReflectionInfo",
        ];
        let method = path.rsplit('/').next().unwrap_or_default();
        !READ.iter().any(|verb| method.starts_with(verb)) && !self.end_with_caller.contains(&path)
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
            .rows
            .get_key_value(path)
            .map(|(method, access)| (*method, *access));
        row.or_else(|| Some((*OPEN.iter().find(|open| **open == path)?, Access::Anyone)))
    }
}

/// Finds callers by their credentials.
#[tonic::async_trait]
pub trait CallerDirectory: Send + Sync + fmt::Debug {
    /// Returns the caller with this credential; `None` if it is unknown, or its caller is revoked.
    ///
    /// # Errors
    /// [`ambiguous_certificate`] for names of two callers, UNAVAILABLE if the source does not answer, INTERNAL otherwise.
    async fn find_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status>;

    /// Returns the caller who had this credential until it was revoked, if the directory knows, for the audit record.
    ///
    /// # Errors
    /// As those of [`Self::find_caller`].
    async fn find_revoked(&self, _credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        Ok(None)
    }
}

/// The caller that the certificate of a call's connection names, as the authorizer has found it. It is in the call's
/// extensions.
#[derive(Clone, Debug)]
pub struct ConnectionCaller {
    /// The names of the certificate.
    names: Arc<[String]>,
    found: FoundCaller,
}

/// What the look-up of a certificate's names has found.
#[derive(Clone, Debug)]
enum FoundCaller {
    /// Nothing: the certificate has expired.
    Expired,
    /// Nothing: a certificate of a caller has fewer names.
    TooManyNames,
    /// What the directory answers.
    Answer(Result<Option<Caller>, Status>),
}

impl ConnectionCaller {
    /// Returns whether the certificate has expired since the connection began.
    pub(crate) fn has_expired(&self) -> bool {
        matches!(self.found, FoundCaller::Expired)
    }

    /// Returns whether it is a gateway. Only on a gateway's connection do headers about the gateway's clients count.
    ///
    /// # Errors
    /// Those of [`CallerDirectory::find_caller`], and DEADLINE_EXCEEDED.
    pub fn is_gateway(&self) -> Result<bool, Status> {
        let FoundCaller::Answer(found) = &self.found else {
            return Ok(false);
        };
        let caller = found.as_ref().map_err(Status::clone)?;
        let kind = WorkloadKind::Gateway;
        Ok(matches!(caller, Some(Caller::Workload { kind: found, .. }) if *found == kind))
    }
}

/// Authorizes every call, before any other code sees it.
#[derive(Clone, Debug)]
pub struct Authorizer {
    permissions: Arc<Permissions>,
    directory: Arc<dyn CallerDirectory>,
    clock: SharedClock,
}

impl Authorizer {
    /// Creates an authorizer. `clock` decides whether a client certificate has expired.
    pub fn new(permissions: Permissions, directory: Arc<dyn CallerDirectory>, clock: SharedClock) -> Self {
        let permissions = Arc::new(permissions);
        Self {
            permissions,
            directory,
            clock,
        }
    }

    /// Returns the clock.
    pub(crate) fn clock(&self) -> SharedClock {
        self.clock.clone()
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

    /// As [`Permissions::outlives_caller`].
    pub(super) fn outlives_caller(&self, path: &str) -> bool {
        self.permissions.outlives_caller(path)
    }

    /// Authenticates the caller of the method at `path`, and checks its permission. A bearer token decides if there is
    /// one; otherwise the certificate of the connection does.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a path that is not served, UNAUTHENTICATED without a valid credential where one is required,
    /// PERMISSION_DENIED for a caller without permission.
    pub async fn authorize(
        &self,
        path: &str,
        headers: &HeaderMap,
        connection: Option<&ConnectionCaller>,
    ) -> Result<Principal, Status> {
        let access = self.permissions.access(path).ok_or_else(|| {
            let message = "there is no such method";
            Problem::new(Code::Unimplemented, ErrorReason::NotAvailable, message)
        })?;
        let has_token = headers.contains_key(http::header::AUTHORIZATION);
        let principal = match (access, connection) {
            (Access::Anyone, _) => Ok(Principal::Anonymous),
            (Access::CallersOrClients(..), None) if !has_token => Ok(Principal::Anonymous),
            (_, Some(connection)) if !has_token => self.admit_certificate(access, connection).await,
            _ => {
                let token = bearer::token(headers).map_err(|_| {
                    if has_token {
                        note_stranger(None);
                    }
                    unauthenticated()
                })?;
                match (self.find_by_token(token).await?, access) {
                    (caller, _) if access.admits(&caller) => Ok(Principal::Caller(caller, None)),
                    // As with a certificate: the call is the client's, whose gateway has a credential of its own.
                    (_, Access::CallersOrClients(..)) => Ok(Principal::Anonymous),
                    (caller, _) => Err(denied(&caller)),
                }
            }
        }?;
        if let Principal::Caller(caller @ Caller::Operator { .. }, names) = &principal {
            note_caller(caller, names.as_deref());
        }
        Ok(principal)
    }

    /// Authenticates the caller with this token, which came in another way than over gRPC, and checks its permission to
    /// call the method at `path`.
    ///
    /// # Errors
    /// Those of [`Self::authorize`].
    pub async fn authorize_token(&self, path: &str, token: &str) -> Result<Caller, Status> {
        let access = self.permissions.access(path).ok_or_else(unauthenticated)?;
        let caller = self.find_by_token(token).await?;
        match access.admits(&caller) {
            true => Ok(caller),
            false => Err(denied(&caller)),
        }
    }

    /// Looks up the caller that the certificate of a call's connection names, at most until `deadline`. Everything that asks
    /// whose connection it is shares this one look-up.
    pub(crate) async fn identify(
        &self,
        certificate: &PeerCertificate,
        deadline: Instant,
    ) -> ConnectionCaller {
        let names = certificate.names.clone();
        // A connection may outlive its certificate. The certificate is valid throughout its last second.
        let found = if self.clock.now().as_secs() > certificate.not_after.as_secs() {
            FoundCaller::Expired
        } else if names.len() > MAX_CERTIFICATE_NAMES {
            FoundCaller::TooManyNames
        } else {
            let find = self.directory.find_caller(Credential::Certificate(&names));
            let found = timeout_at(deadline, find).await;
            FoundCaller::Answer(found.unwrap_or_else(|_| Err(Problem::deadline_exceeded().into())))
        };
        ConnectionCaller { names, found }
    }

    /// Finds the caller with this token.
    async fn find_by_token(&self, token: &str) -> Result<Caller, Status> {
        let Some(token) = caller_token(token) else {
            note_stranger(None);
            return Err(unauthenticated());
        };
        let credential = Credential::Token(&token);
        match self.directory.find_caller(credential).await? {
            Some(caller) => Ok(caller),
            None => {
                self.note_unknown(credential, None).await?;
                Err(unauthenticated())
            }
        }
    }

    /// Notes the caller whose credential this was until it was revoked, or a stranger.
    async fn note_unknown(&self, credential: Credential<'_>, names: Option<&[String]>) -> Result<(), Status> {
        match self.directory.find_revoked(credential).await? {
            Some(caller) => note_caller(&caller, names),
            None => note_stranger(names),
        }
        Ok(())
    }

    async fn admit_certificate(
        &self,
        access: Access,
        connection: &ConnectionCaller,
    ) -> Result<Principal, Status> {
        let names = &connection.names;
        let caller = match &connection.found {
            FoundCaller::Answer(Ok(caller)) => Ok(caller),
            FoundCaller::Answer(Err(status)) => Err(status.clone()),
            FoundCaller::Expired => Err(rejected("the client certificate has expired")),
            FoundCaller::TooManyNames => Err(rejected(format!(
                "the client certificate has more than {MAX_CERTIFICATE_NAMES} names"
            ))),
        };
        let caller = caller.inspect_err(|_| note_stranger(Some(names)))?;
        match (caller, access) {
            (Some(caller), _) if access.admits(caller) => {
                Ok(Principal::Caller(caller.clone(), Some(names.clone())))
            }
            (_, Access::CallersOrClients(..)) => Ok(Principal::Anonymous),
            (Some(caller), _) => {
                note_caller(caller, Some(names));
                Err(permission_denied(caller))
            }
            (None, _) => {
                let credential = Credential::Certificate(names);
                self.note_unknown(credential, Some(names)).await?;
                let names = list(names);
                let message = format!("the certificate's names [{names}] belong to no workload or operator");
                Err(rejected(message))
            }
        }
    }
}

/// Notes a caller by token without permission, and returns the error.
fn denied(caller: &Caller) -> Status {
    note_caller(caller, None);
    permission_denied(caller)
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

/// Names the caller in the log: the line about the call knows only callers that were admitted.
fn permission_denied(caller: &Caller) -> Status {
    tracing::info!(caller = caller.id(), "the caller has no permission");
    let message = "this caller may not call this method";
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
fn caller_token(text: &str) -> Option<OpaqueToken> {
    OpaqueToken::parse(TokenKind::Operator, text)
        .or_else(|_| OpaqueToken::parse(TokenKind::Workload, text))
        .ok()
}

#[cfg(test)]
#[path = "tests/auth.rs"]
mod tests;
