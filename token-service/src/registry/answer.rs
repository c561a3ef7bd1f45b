//! Converts the registry's answers and failures.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    log_limit::LogLimit,
    registry::v1 as pb,
    rpc::{
        auth::Role,
        status::{ErrorReason, reason_of},
    },
    text::{
        id::{ClientId, EventId, MalformedId, OperatorId, ScopeName, SecretId, TenantId, UserId},
        network::AllowedNetworks,
        opaque::SecretTagKey,
    },
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;
use zeroize::Zeroizing;

use super::Operator;
use crate::{
    error::{Error, Result},
    model::{
        change::Change,
        client::{
            CertificateSubject, Client, ClientOrigin, ClientScope, DisplayInfo, LiveSecret, RequestOrigin,
        },
        revocation::{Revocation, RevocationKind},
        tenant::{Tenant, operator_action::OperatorAction},
        user::User,
    },
};

/// The codes of a registry, or of a way to it, that fails.
const NO_ANSWER: [Code; 7] = [
    Code::Unavailable,
    Code::DeadlineExceeded,
    Code::Cancelled,
    Code::ResourceExhausted,
    Code::Unknown,
    Code::Internal,
    // Another server or an older version is at the registry's URL.
    Code::Unimplemented,
];

/// How often the log repeats how calls fail.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Returns the client that an error names; empty if it names none.
pub(super) fn client_of(status: &Status) -> String {
    let info = status.get_details_error_info();
    let client_id = info.and_then(|info| info.metadata.get("client_id").cloned());
    client_id.unwrap_or_default()
}

/// Converts the status of a failed call to the registry.
pub(super) fn failure(status: Status) -> Error {
    match (status.code(), reason_of(&status)) {
        (_, Some(ErrorReason::InvalidClient)) => Error::InvalidClient("the registry rejects the secret"),
        (_, Some(ErrorReason::AmbiguousCertificate)) => Error::AmbiguousCertificate,
        (_, Some(ErrorReason::SignInFailed)) => Error::SignInFailed,
        (_, Some(ErrorReason::ResourceExhausted)) => Error::Busy,
        (code @ (Code::Unauthenticated | Code::PermissionDenied), _) => {
            if let Some(unlogged) = may_log(code) {
                tracing::error!(
                    ?code,
                    unlogged,
                    "the registry rejects this service's own credential"
                );
            }
            Error::RegistryRejectsCredential
        }
        (code, _) if NO_ANSWER.contains(&code) => {
            if let Some(unlogged) = may_log(code) {
                tracing::warn!(?code, unlogged, "the registry does not answer");
            }
            Error::RegistryUnavailable
        }
        (code, _) => Error::RegistryAnswer(format!("{code:?}")),
    }
}

/// Returns `Some` if a failure with this code may be logged now, with the number of those before that were not.
fn may_log(code: Code) -> Option<u64> {
    static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);
    LIMIT.check(code.description())
}

/// Returns the message of a response; `None` if the registry has no such resource.
pub(super) fn found<T>(answer: Result<Response<T>, Status>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failure(status)),
    }
}

pub(super) fn unexpected(what: &str) -> Error {
    Error::RegistryAnswer(format!("unreadable {what}"))
}

/// Converts an operator. Leaves out roles that this version does not know.
pub(super) fn operator(operator: pb::Operator) -> Result<Operator> {
    let roles = operator.roles().filter_map(|role| Role::try_from(role).ok());
    Ok(Operator {
        id: OperatorId::parse(&operator.operator_id).map_err(|_| unexpected("operator"))?,
        roles: roles.collect(),
        person: operator.person,
    })
}

/// Converts what an operator did.
pub(super) fn operator_action(action: pb::OperatorAction) -> Result<OperatorAction> {
    Ok(OperatorAction {
        event_id: EventId::parse(&action.event_id).map_err(|_| unexpected("event of an action"))?,
        action: action.action,
        operator_id: action.operator_id,
        reason: action.reason,
        subject: action.subject,
        client_id: action.client_id,
        is_refused: action.refused,
        changed_fields: action.changed_fields,
        is_single_person: action.single_person,
    })
}

/// Converts a change, and adds the revocation that comes with it, if any.
pub(super) fn changes(row: pb::Change) -> Result<impl Iterator<Item = Change>> {
    let tenant = |id: &str| TenantId::parse(id).map_err(|_| unexpected("tenant of a change"));
    let (change, revoked) = match row.kind() {
        pb::ChangeKind::Client => {
            let id = ClientId::parse(&row.id).map_err(|_| unexpected("client of a change"))?;
            (Change::Client(id), Some(RevocationKind::Client))
        }
        pb::ChangeKind::Tenant => (Change::Tenant(tenant(&row.id)?), Some(RevocationKind::Tenant)),
        pb::ChangeKind::User => {
            let id = UserId::parse(&row.id).map_err(|_| unexpected("user of a change"))?;
            let change = Change::User(tenant(&row.tenant_id)?, id);
            (change, Some(RevocationKind::User))
        }
        pb::ChangeKind::Scope => (Change::Scope, None),
        pb::ChangeKind::Caller => (Change::Caller(row.id.clone()), None),
        pb::ChangeKind::Unspecified => (Change::Unknown, None),
    };
    let revocation = revoked.filter(|_| row.ends_tokens).map(|kind| {
        Change::Revocation(Revocation {
            kind,
            id: row.id,
            seq: row.seq,
        })
    });
    Ok([Some(change), revocation].into_iter().flatten())
}

pub(super) fn client(profile: Option<pb::ClientProfile>) -> Result<Client> {
    let profile = profile.ok_or_else(|| unexpected("client"))?;
    let active = profile.state() == pb::ClientState::Active;
    let auth_method = match profile.token_endpoint_auth_method.as_str() {
        "" => None,
        method => Some(
            method
                .parse()
                .map_err(|_| unexpected("token_endpoint_auth_method"))?,
        ),
    };
    let certificate_subject = certificate_subject(&profile)?;
    let fapi_from = match profile.security_profile() {
        pb::SecurityProfile::Unspecified | pb::SecurityProfile::None => None,
        pb::SecurityProfile::Fapi20 => {
            let start = profile.profile_start_time.as_ref();
            let start = start.and_then(UnixMillis::from_timestamp);
            Some(start.ok_or_else(|| unexpected("profile_start_time"))?)
        }
    };
    let allowed_networks = AllowedNetworks::parse(&profile.allowed_networks);
    let tenants = profile.tenants.into_iter();
    let tenants = tenants.map(|tenant| Ok((TenantId::parse(&tenant.tenant_id)?, tenant.added_seq)));
    let tenants = tenants.collect::<Result<_, MalformedId>>();
    let scopes = profile.scopes.into_iter().map(scope);
    let live_secrets = profile.live_secrets.into_iter().map(live_secret);
    Ok(Client {
        client_id: ClientId::parse(&profile.client_id).map_err(|_| unexpected("client_id"))?,
        display: DisplayInfo {
            display_name: profile.display_name,
            partner_name: profile.partner_name,
            purpose: profile.purpose,
            bound_tokens: false,
            allowed_networks: profile.allowed_networks,
        },
        active,
        tenants: tenants.map_err(|_| unexpected("tenant_id"))?,
        scopes: scopes.collect::<Result<_, _>>()?,
        redirect_uris: profile.redirect_uris,
        version: profile.version,
        tokens_ended_seq: profile.tokens_ended_seq,
        families_ended_seq: profile.families_ended_seq,
        json_web_key_set: profile.json_web_key_set,
        live_secrets: live_secrets.collect::<Result<_, _>>()?,
        auth_method,
        jwks_uri: profile.jwks_uri,
        certificate_subject,
        dpop_jkts: profile.dpop_jkts,
        allowed_networks: allowed_networks.map_err(|_| unexpected("allowed_networks"))?,
        fapi_from,
    })
}

fn certificate_subject(profile: &pb::ClientProfile) -> Result<Option<CertificateSubject>> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let ip = text(&profile.tls_client_auth_san_ip).map(|ip| ip.parse().map(CertificateSubject::Ip));
    let subjects = [
        text(&profile.tls_client_auth_subject_dn).map(CertificateSubject::Dn),
        text(&profile.tls_client_auth_san_dns).map(CertificateSubject::Dns),
        text(&profile.tls_client_auth_san_uri).map(CertificateSubject::Uri),
        text(&profile.tls_client_auth_san_email).map(CertificateSubject::Email),
        ip.transpose().map_err(|_| unexpected("tls_client_auth_san_ip"))?,
    ];
    let mut subjects = subjects.into_iter().flatten();
    match (subjects.next(), subjects.next()) {
        (_, Some(_)) => Err(unexpected("subject of a certificate")),
        (subject, None) => Ok(subject),
    }
}

pub(super) fn origin(origin: Option<pb::ClientOrigin>) -> Result<ClientOrigin> {
    let origin = origin.ok_or_else(|| unexpected("origin"))?;
    Ok(ClientOrigin {
        registration: request_origin(origin.registration.ok_or_else(|| unexpected("registration"))?)?,
        amendments: origin
            .amendments
            .into_iter()
            .map(request_origin)
            .collect::<Result<_>>()?,
    })
}

fn request_origin(request: pb::RequestOrigin) -> Result<RequestOrigin> {
    let applied_at = request.apply_time.as_ref().and_then(UnixMillis::from_timestamp);
    Ok(RequestOrigin {
        integration_request_id: request.integration_request_id,
        submitted_by: request.submitted_by_operator_id,
        approved_by: request.approved_by_operator_id,
        applied_at: applied_at.ok_or_else(|| unexpected("apply_time"))?,
    })
}

fn scope(scope: pb::ProfileScope) -> Result<ClientScope> {
    Ok(ClientScope {
        name: ScopeName::parse(&scope.name).map_err(|_| unexpected("scope"))?,
        description: scope.description,
        reason: scope.reason,
        added_seq: scope.added_seq,
    })
}

fn live_secret(secret: pb::LiveSecret) -> Result<LiveSecret> {
    let time = |time| UnixMillis::from_timestamp(&time).ok_or_else(|| unexpected("expire_time of a secret"));
    let expires_at = secret.expire_time.map(time);
    Ok(LiveSecret {
        secret_id: SecretId::parse(&secret.secret_id).map_err(|_| unexpected("secret_id"))?,
        expires_at: expires_at.transpose()?,
    })
}

pub(super) fn tag_key(key: pb::SecretTagKey) -> Result<SecretTagKey> {
    let bytes = Zeroizing::new(key.key);
    let bytes = bytes.as_slice().try_into();
    let bytes = bytes.map_err(|_| unexpected("secret_tag_key"))?;
    Ok(SecretTagKey::new(key.version, bytes))
}

pub(super) fn tenant(profile: Option<pb::TenantProfile>) -> Result<Tenant> {
    let profile = profile.ok_or_else(|| unexpected("tenant"))?;
    Ok(Tenant {
        tenant_id: TenantId::parse(&profile.tenant_id).map_err(|_| unexpected("tenant_id"))?,
        active: profile.state() == pb::TenantState::Active,
        display_name: profile.display_name,
        issuer: profile.tenant_authority_url,
        cloud_api_url: profile.cloud_api_url,
        tokens_ended_seq: profile.tokens_ended_seq,
    })
}

pub(super) fn user(profile: Option<pb::UserProfile>) -> Result<User> {
    let profile = profile.ok_or_else(|| unexpected("user"))?;
    Ok(User {
        user_id: UserId::parse(&profile.user_id).map_err(|_| unexpected("user_id"))?,
        active: profile.state() == pb::UserState::Active,
        label: profile.label,
        tenant_admin: profile.tenant_admin,
        tokens_ended_seq: profile.tokens_ended_seq,
        sessions_ended_seq: profile.sessions_ended_seq,
    })
}
