//! Authenticates the caller of each call, and checks its permission.

use std::{fmt, sync::Arc};

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::{
    Access, Caller, ConnectionCaller, Credential, NOT_ALLOWED, Permissions, Principal, caller_token,
    connection_caller::{EXPIRED, LookUpResult},
    list, note_caller, note_stranger, permission_denied, rejected, unauthenticated,
};
use crate::{
    clock::SharedClock,
    rpc::{
        status::{ErrorReason, Problem},
        tls::peer::CallerCertificate,
    },
    text::caller::MAX_CERTIFICATE_NAMES,
    verify::bearer,
};

/// Finds callers by their credentials.
#[tonic::async_trait]
pub trait CallerDirectory: Send + Sync + fmt::Debug {
    /// Returns the caller with this credential; `None` if it is unknown, or its caller is revoked.
    ///
    /// # Errors
    /// [`super::ambiguous_certificate`] for names of two callers, UNAVAILABLE if the source does not answer, INTERNAL otherwise.
    async fn find_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status>;

    /// Returns the caller who had this credential until it was revoked, if the directory knows, for the audit record.
    ///
    /// # Errors
    /// As those of [`Self::find_caller`].
    async fn find_revoked(&self, _credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        Ok(None)
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

    /// Returns who may call which method.
    pub(in crate::rpc) fn permissions(&self) -> &Permissions {
        &self.permissions
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
                Ok(Principal::Caller(self.admit_token(access, token).await?, None))
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
        self.admit_token(access, token).await
    }

    /// Looks up the caller that the certificate of a call's connection names, at most until `deadline`. Everything that asks
    /// whose connection it is shares this one look-up.
    pub(crate) async fn identify(
        &self,
        certificate: &CallerCertificate,
        deadline: Instant,
    ) -> ConnectionCaller {
        let names = certificate.names.clone();
        // A connection may outlive its certificate. The certificate is valid throughout its last second.
        let found = if self.clock.now().as_secs() > certificate.not_after.as_secs() {
            LookUpResult::Expired
        } else if names.len() > MAX_CERTIFICATE_NAMES {
            LookUpResult::TooManyNames
        } else {
            let find = self.directory.find_caller(Credential::Certificate(&names));
            let found = timeout_at(deadline, find).await;
            LookUpResult::Answer(found.unwrap_or_else(|_| Err(Problem::deadline_exceeded().into())))
        };
        ConnectionCaller { names, found }
    }

    async fn admit_token(&self, access: Access, token: &str) -> Result<Caller, Status> {
        let Some(token) = caller_token(token) else {
            note_stranger(None);
            return Err(unauthenticated());
        };
        let credential = Credential::Token(&token);
        match self.directory.find_caller(credential).await? {
            Some(caller) if access.admits(&caller) => Ok(caller),
            Some(caller) => {
                note_caller(&caller, None);
                Err(permission_denied(&caller, NOT_ALLOWED))
            }
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
            LookUpResult::Answer(Ok(caller)) => Ok(caller),
            LookUpResult::Answer(Err(status)) => Err(status.clone()),
            LookUpResult::Expired => Err(rejected(EXPIRED)),
            LookUpResult::TooManyNames => Err(rejected(format!(
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
                Err(permission_denied(caller, NOT_ALLOWED))
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
