//! The client of the registry, and the only code that calls it: `DirectoryService`, and for one-time [`links`] the two
//! methods that whoever holds a link may call.
//!
//! Every answer carries the position of the registry's change feed at which it was read. What happens to tokens while the
//! registry does not answer is decided in [`cache`](crate::cache): its lease ends after 700 ms, and calls are UNAVAILABLE.

use std::{collections::HashSet, sync::Arc};

use accord::{
    position::Position,
    registry::v1::{
        self as pb, authenticate_caller_response::Caller as Answer,
        directory_service_client::DirectoryServiceClient,
        provisioning_service_client::ProvisioningServiceClient, user_service_client::UserServiceClient,
    },
    rpc::{
        auth::{Caller, Credential, Role, WorkloadKind},
        channel::HopChannel,
        status::{ErrorReason, reason_of},
    },
    text::{
        id::{ClientId, EventId, OperatorId, TenantId, UserId, WorkloadId},
        opaque::{OpaqueToken, SecretTagKey},
    },
};
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    error::{Error, Result},
    model::{
        change::Changes,
        client::{Client, ClientOrigin, SecretUse},
        signing_key::Algorithm,
        tenant::{Tenant, operator_action::OperatorAction},
        user::User,
        watermark::AsOf,
    },
};

mod answer;
pub mod epochs;
pub mod links;

use answer::{
    changes, client, client_of, failure, found, operator, operator_action, origin, tag_key, tenant,
    unexpected, user,
};
use epochs::Epochs;

/// Names a user. No `Debug`: it must not show an account name.
pub enum UserRef<'a> {
    /// By id.
    Id(&'a UserId),
    /// By account name.
    AccountName(&'a str),
    /// By the token of an enrolment link, used or not.
    Enrolment(&'a OpaqueToken),
}

/// A client of the registry. Clones share its channel, the tag keys and the epochs.
#[derive(Clone, Debug)]
pub struct Registry {
    directory: DirectoryServiceClient<HopChannel>,
    provisioning: ProvisioningServiceClient<HopChannel>,
    users: UserServiceClient<HopChannel>,
    /// The keys of Client Secrets' tags, from the last answer of `ListChanges`.
    tag_keys: Arc<ArcSwap<Vec<SecretTagKey>>>,
    /// The host of the Tenant Authority URLs, from the same answer.
    authority_host: Arc<ArcSwapOption<String>>,
    epochs: Arc<Epochs>,
}

/// An operator, as the registry knows them.
#[derive(Debug)]
pub struct Operator {
    /// The operator's id.
    pub id: OperatorId,
    /// Its roles.
    pub roles: Vec<Role>,
    /// The person behind it.
    pub person: String,
}

/// Names clients, tenants and users.
#[derive(Debug, Default)]
pub struct ProfileKeys {
    /// The clients.
    pub clients: HashSet<ClientId>,
    /// The tenants.
    pub tenants: HashSet<TenantId>,
    /// The users, each of a tenant.
    pub users: HashSet<(TenantId, UserId)>,
}

impl ProfileKeys {
    /// Returns whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.tenants.is_empty() && self.users.is_empty()
    }
}

/// Clients, tenants and users in any order.
#[derive(Debug)]
pub struct Profiles {
    /// The clients.
    pub clients: Vec<Client>,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The users, each of a tenant.
    pub users: Vec<(TenantId, User)>,
}

impl Registry {
    /// Creates a client of the registry that a channel leads to.
    pub fn new(channel: HopChannel) -> Self {
        Self {
            directory: DirectoryServiceClient::new(channel.clone()),
            provisioning: ProvisioningServiceClient::new(channel.clone()),
            users: UserServiceClient::new(channel),
            tag_keys: Arc::default(),
            authority_host: Arc::default(),
            epochs: Arc::default(),
        }
    }

    fn as_of<T>(&self, value: T, at: Option<pb::FeedPosition>, sent_at: Instant) -> Result<AsOf<T>> {
        let position = self.epochs.admit(at)?;
        Ok(AsOf {
            value,
            position,
            sent_at,
        })
    }

    /// Checks a Client Secret.
    ///
    /// # Errors
    /// [`Error::InvalidClient`], [`Error::RegistryUnavailable`].
    pub async fn authenticate_client(
        &self,
        client_id: &ClientId,
        client_secret: &str,
    ) -> Result<AsOf<Client>> {
        let request = pb::AuthenticateClientRequest {
            client_id: client_id.to_string(),
            client_secret: client_secret.to_owned(),
        };
        let sent_at = Instant::now();
        let answer = self.directory.clone().authenticate_client(request).await;
        let answer = answer.map_err(failure)?.into_inner();
        self.as_of(client(answer.client)?, answer.position, sent_at)
    }

    /// Checks a Tenant Admin's account name and password.
    ///
    /// # Errors
    /// [`Error::SignInFailed`], [`Error::RegistryUnavailable`].
    pub async fn authenticate_tenant_admin(
        &self,
        tenant_id: &TenantId,
        account_name: &str,
        password: &str,
    ) -> Result<AsOf<User>> {
        let request = pb::AuthenticateTenantAdminRequest {
            tenant_id: tenant_id.to_string(),
            account_name: account_name.to_owned(),
            password: password.to_owned(),
        };
        let sent_at = Instant::now();
        let answer = self.directory.clone().authenticate_tenant_admin(request).await;
        let answer = answer.map_err(failure)?.into_inner();
        self.as_of(user(answer.user)?, answer.position, sent_at)
    }

    /// Reads the changes after a position, and stores the tag keys. Without a position, returns no changes: only the
    /// newest position, and the one before the first recent revocation.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`].
    pub async fn changes_after(&self, after: Option<&Position>) -> Result<Changes> {
        let request = pb::ListChangesRequest {
            after: after.map(|position| pb::FeedPosition {
                epoch: position.epoch.to_string(),
                seq: position.seq,
            }),
            page_size: 0,
        };
        let answer = self.directory.clone().list_changes(request).await;
        let answer = answer.map_err(failure)?.into_inner();
        let position = self.epochs.admit(answer.position)?;
        let tag_keys = answer.secret_tag_keys.into_iter().map(tag_key);
        self.tag_keys.store(Arc::new(tag_keys.collect::<Result<_, _>>()?));
        if !answer.authority_host.is_empty() {
            self.authority_host.store(Some(Arc::new(answer.authority_host)));
        }
        let mut all = Vec::with_capacity(answer.changes.len());
        for change in answer.changes {
            all.extend(changes(change)?);
        }
        Ok(Changes {
            changes: all,
            position,
            recent_seq: answer.recent_seq,
            reset: answer.reset,
            more: answer.more,
        })
    }

    /// Returns the host of the Tenant Authority URLs. `None` until the registry has answered [`Self::changes_after`] once.
    pub fn authority_host(&self) -> Option<Arc<String>> {
        self.authority_host.load_full()
    }

    /// Returns the keys of Client Secrets' tags; empty before the first [`Self::changes_after`].
    pub fn tag_keys(&self) -> Guard<Arc<Vec<SecretTagKey>>> {
        self.tag_keys.load()
    }

    /// Reports uses of secrets that this service verified without calling the registry.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`].
    pub async fn report_secret_use(&self, uses: &[SecretUse]) -> Result<()> {
        let uses = uses.iter().map(|used| pb::SecretUse {
            client_id: used.client_id.to_string(),
            secret_id: used.secret_id.to_string(),
            use_time: Some(used.used_at.to_timestamp()),
        });
        let request = pb::ReportSecretUseRequest { uses: uses.collect() };
        let answer = self.directory.clone().report_secret_use(request).await;
        answer.map(drop).map_err(failure)
    }

    /// Tells by which algorithms access tokens are signed, or are about to be.
    ///
    /// # Errors
    /// [`Error::ProfileForbidsRs256`], [`Error::RegistryUnavailable`].
    pub async fn report_signing_algorithms(&self, algorithms: &[Algorithm]) -> Result<()> {
        let algorithms = algorithms.iter().map(|algorithm| algorithm.as_ref().to_owned());
        let request = pb::ReportSigningAlgorithmsRequest {
            algorithms: algorithms.collect(),
        };
        let answer = self.directory.clone().report_signing_algorithms(request).await;
        answer.map(drop).map_err(|status| match status.code() {
            Code::FailedPrecondition => Error::ProfileForbidsRs256(client_of(&status)),
            _ => failure(status),
        })
    }

    /// Reads which requests a client was registered from and amended by; `None` for a client that does not exist.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`], [`Error::RegistryAnswer`].
    pub async fn client_origin(&self, client_id: &ClientId) -> Result<Option<ClientOrigin>> {
        let request = pb::GetClientProfileRequest {
            client_id: client_id.to_string(),
            with_origin: true,
        };
        let answer = found(self.directory.clone().get_client_profile(request).await)?;
        answer.map(|answer| origin(answer.origin)).transpose()
    }

    /// Reads a client.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`].
    pub async fn find_client(&self, client_id: &ClientId) -> Result<Option<AsOf<Client>>> {
        let request = pb::GetClientProfileRequest {
            client_id: client_id.to_string(),
            with_origin: false,
        };
        let sent_at = Instant::now();
        let Some(answer) = found(self.directory.clone().get_client_profile(request).await)? else {
            return Ok(None);
        };
        self.as_of(client(answer.client)?, answer.position, sent_at)
            .map(Some)
    }

    /// Reads a tenant.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`].
    pub async fn find_tenant(&self, tenant_id: &TenantId) -> Result<Option<AsOf<Tenant>>> {
        let request = pb::GetTenantProfileRequest {
            tenant_id: tenant_id.to_string(),
        };
        let sent_at = Instant::now();
        let Some(answer) = found(self.directory.clone().get_tenant_profile(request).await)? else {
            return Ok(None);
        };
        self.as_of(tenant(answer.tenant)?, answer.position, sent_at)
            .map(Some)
    }

    /// Reads a tenant's user; `None` also for a malformed account name.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`].
    pub async fn find_user(&self, tenant_id: &TenantId, which: UserRef<'_>) -> Result<Option<AsOf<User>>> {
        use pb::resolve_user_request::User as Which;
        let which = match which {
            UserRef::Id(id) => Which::UserId(id.to_string()),
            UserRef::AccountName(name) => Which::AccountName(name.to_owned()),
            UserRef::Enrolment(token) => Which::EnrolmentToken(token.expose().to_owned()),
        };
        let request = pb::ResolveUserRequest {
            tenant_id: tenant_id.to_string(),
            user: Some(which),
        };
        let sent_at = Instant::now();
        let answer = match self.directory.clone().resolve_user(request).await {
            Err(status) if status.code() == Code::InvalidArgument => return Ok(None),
            answer => found(answer)?,
        };
        answer
            .map(|answer| self.as_of(user(answer.user)?, answer.position, sent_at))
            .transpose()
    }

    /// Reads several clients, tenants and users. Leaves out those that don't exist.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`], [`Error::RegistryAnswer`].
    pub async fn profiles(&self, keys: &ProfileKeys) -> Result<AsOf<Profiles>> {
        let users = keys.users.iter().map(|(tenant_id, user_id)| pb::UserKey {
            tenant_id: tenant_id.to_string(),
            user_id: user_id.to_string(),
        });
        let request = pb::GetProfilesRequest {
            client_ids: keys.clients.iter().map(ClientId::to_string).collect(),
            tenant_ids: keys.tenants.iter().map(TenantId::to_string).collect(),
            users: users.collect(),
        };
        let sent_at = Instant::now();
        let answer = self.directory.clone().get_profiles(request).await;
        let answer = answer.map_err(failure)?.into_inner();
        let clients = answer.clients.into_iter().map(|profile| client(Some(profile)));
        let tenants = answer.tenants.into_iter().map(|profile| tenant(Some(profile)));
        let users = answer.users.into_iter().map(|profile| {
            let tenant_id = TenantId::parse(&profile.tenant_id).map_err(|_| unexpected("tenant_id"))?;
            Ok((tenant_id, user(Some(profile))?))
        });
        let profiles = Profiles {
            clients: clients.collect::<Result<_>>()?,
            tenants: tenants.collect::<Result<_>>()?,
            users: users.collect::<Result<_>>()?,
        };
        self.as_of(profiles, answer.position, sent_at)
    }

    /// Reads what operators did to a tenant, newest first: at most `limit` actions, before the event `before` if it is given.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`].
    pub async fn operator_actions(
        &self,
        tenant_id: &TenantId,
        before: Option<&EventId>,
        limit: u64,
    ) -> Result<Vec<OperatorAction>> {
        let request = pb::ListOperatorActionsRequest {
            tenant_id: tenant_id.to_string(),
            before_event_id: before.map(ToString::to_string).unwrap_or_default(),
            page_size: i32::try_from(limit).unwrap_or(i32::MAX),
        };
        let answer = self.directory.clone().list_operator_actions(request).await;
        let answer = answer.map_err(failure)?.into_inner();
        answer.operator_actions.into_iter().map(operator_action).collect()
    }

    /// Returns the operator with this token, and the person behind it; `None` if it is unknown or revoked.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`].
    pub async fn operator(&self, token: &OpaqueToken) -> Result<Option<Operator>> {
        let answer = self.authenticate_caller(Credential::Token(token)).await?;
        match answer.and_then(|answer| answer.caller) {
            Some(Answer::Operator(found)) => operator(found).map(Some),
            _ => Ok(None),
        }
    }

    /// Asks for the caller with this credential; `None` if it is unknown or revoked.
    async fn authenticate_caller(
        &self,
        credential: Credential<'_>,
    ) -> Result<Option<pb::AuthenticateCallerResponse>> {
        let mut request = pb::AuthenticateCallerRequest::default();
        match credential {
            Credential::Token(token) => token.expose().clone_into(&mut request.token),
            Credential::Certificate(names) => request.certificate_names = names.to_vec(),
        }
        match self.directory.clone().authenticate_caller(request).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if reason_of(&status) == Some(ErrorReason::InvalidCaller) => Ok(None),
            Err(status) => Err(failure(status)),
        }
    }

    /// Returns the caller with this credential; `None` if it is unknown, or its caller is revoked.
    ///
    /// # Errors
    /// [`Error::AmbiguousCertificate`], [`Error::RegistryUnavailable`].
    pub async fn caller(&self, credential: Credential<'_>) -> Result<Option<AsOf<Caller>>> {
        let sent_at = Instant::now();
        let Some(answer) = self.authenticate_caller(credential).await? else {
            return Ok(None);
        };
        let malformed = || unexpected("caller");
        let caller = match answer.caller.ok_or_else(malformed)? {
            Answer::Operator(found) => {
                let Operator { id, roles, .. } = operator(found)?;
                Caller::Operator { id, roles }
            }
            Answer::Workload(workload) => Caller::Workload {
                id: WorkloadId::parse(&workload.workload_id).map_err(|_| malformed())?,
                kind: WorkloadKind::try_from(workload.kind()).map_err(|()| malformed())?,
            },
        };
        self.as_of(caller, answer.position, sent_at).map(Some)
    }
}
