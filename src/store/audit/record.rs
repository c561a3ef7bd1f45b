//! The encoded form of an event, [`pb::AuditRecord`]: what is stored, hashed and proven.

use std::{collections::BTreeMap, net::IpAddr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;
use ulid::Ulid;
use uuid::Uuid;

use super::{Actor, ActorKind, CallerAddress, GrantType, LogPosition, Outcome, Record, Renewal, action};
use crate::{
    audit::v1::{
        self as pb,
        audit_record::{Address, Call},
    },
    clock::UnixMillis,
    store::StoreError,
    text::id::{ClientId, EventId, FamilyId, GrantId, TenantId, UserId},
};

crate::message_enum!(Outcome = pb::AuditOutcome { Success, Refused });
crate::message_enum! {
    ActorKind = pb::AuditActorKind { Operator, Workload, Client, TenantAdmin, Anonymous, System }
}
crate::message_enum!(
    GrantType = pb::GrantType {
        AuthorizationCode,
        RefreshToken,
        ClientCredentials
    }
);

const UNREADABLE: StoreError = StoreError::Corrupt("audit event");

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The event's id.
    pub event_id: EventId,
    /// The place in the record, if it is sealed and the search knows it.
    pub position: Option<LogPosition>,
    /// The time by the clock of the replica that recorded the event.
    pub occurred_at: UnixMillis,
    /// The action. A newer version may record actions that this one doesn't know.
    pub action: String,
    /// The outcome.
    pub outcome: Outcome,
    /// Who acted.
    pub actor: Actor,
    /// The tenant concerned.
    pub tenant_id: Option<TenantId>,
    /// The client concerned.
    pub client_id: Option<ClientId>,
    /// The id of what was acted on.
    pub subject: Option<String>,
    /// The address of the caller.
    pub address: Option<CallerAddress>,
    /// The transport's request id.
    pub request_id: String,
    /// Further facts.
    pub detail: BTreeMap<String, String>,
}

/// The use of a grant: a token that was issued under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The grant.
    pub grant_id: GrantId,
    /// When the token was issued.
    pub issued_at: UnixMillis,
    /// The scopes of the token, separated by spaces.
    pub scope: String,
    /// The address that the token was requested from.
    pub address: Option<CallerAddress>,
}

/// The part of [`pb::AuditRecord`] that says which event it is, and which renewal. Sealer and verification read each event: the
/// rest is skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct IdPart {
    #[prost(bytes = "vec", tag = "1")]
    event_id: Vec<u8>,
    #[prost(message, optional, tag = "16")]
    renewal: Option<pb::Renewal>,
}

/// The part of [`pb::AuditRecord`] that says which grant was used, and how.
#[derive(Clone, PartialEq, prost::Message)]
struct UsePart {
    #[prost(bytes = "vec", tag = "1")]
    event_id: Vec<u8>,
    #[prost(string, tag = "5")]
    tenant_id: String,
    #[prost(message, optional, tag = "9")]
    issued_token: Option<IssuedPart>,
    #[prost(oneof = "Address", tags = "13, 14")]
    address: Option<Address>,
}

/// The part of [`pb::IssuedToken`] that a use needs.
#[derive(Clone, PartialEq, prost::Message)]
struct IssuedPart {
    #[prost(bytes = "vec", tag = "1")]
    grant_id: Vec<u8>,
    #[prost(string, tag = "5")]
    scope: String,
}

/// Encodes an event. The same event has the same bytes.
pub(in crate::store) fn encode(record: &Record) -> Vec<u8> {
    let Record {
        event_id,
        origin,
        event,
        rows,
    } = record;
    let is_client = |client_id: &ClientId| {
        origin.actor.kind == ActorKind::Client && origin.actor.id == client_id.as_str()
    };
    let is_actor = event.client_id.as_ref().is_some_and(is_client);
    let message = pb::AuditRecord {
        event_id: event_id.to_bytes().to_vec(),
        outcome: pb::AuditOutcome::from(event.outcome).into(),
        actor_kind: pb::AuditActorKind::from(origin.actor.kind).into(),
        actor_id: if is_actor {
            String::new()
        } else {
            origin.actor.id.clone()
        },
        tenant_id: event.tenant_id.clone().map(String::from).unwrap_or_default(),
        client_id: event
            .client_id
            .as_ref()
            .map_or(Vec::new(), |id| id.to_bytes().to_vec()),
        call: call(&origin.request_id),
        address: origin.address.map(address),
        issued_token: event.issued_token.as_ref().map(|token| pb::IssuedToken {
            grant_id: token.grant_id.to_bytes().to_vec(),
            user_id: token.user_id.to_bytes().to_vec(),
            grant_type: pb::GrantType::from(token.grant_type).into(),
            key_thumbprint: token.key_thumbprint.to_vec(),
            scope: token.scope.clone(),
        }),
        action: match event.issued_token {
            Some(_) => String::new(),
            None => event.action.as_str().to_owned(),
        },
        subject: event.subject.clone().unwrap_or_default(),
        detail: event
            .detail
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
        rows: rows
            .iter()
            .map(|version| pb::RowVersion {
                row: version.row.clone(),
                digest: version.digest.to_vec(),
                before: version.before.map_or(Vec::new(), Vec::from),
            })
            .collect(),
        renewal: event.renewal.as_ref().map(|renewal| pb::Renewal {
            family_id: renewal.family_id.to_bytes().to_vec(),
            generation: renewal.generation,
        }),
    };
    message.encode_to_vec()
}

/// Decodes an event.
///
/// # Errors
/// [`StoreError::Corrupt`] for bytes that are no event.
pub(in crate::store) fn decode(bytes: &[u8]) -> Result<EventRow, StoreError> {
    let record = pb::AuditRecord::decode(bytes).map_err(|_| UNREADABLE)?;
    let ulid = ulid(&record.event_id)?;
    let client_id = match record.client_id.as_slice() {
        [] => None,
        bytes => Some(ClientId::from_bytes(bytes).ok_or(UNREADABLE)?),
    };
    let tenant_id = match record.tenant_id.as_str() {
        "" => None,
        text => Some(TenantId::parse(text).map_err(|_| UNREADABLE)?),
    };
    let kind = ActorKind::try_from(record.actor_kind()).map_err(|()| UNREADABLE)?;
    let id = match (&client_id, kind) {
        (Some(client_id), ActorKind::Client) if record.actor_id.is_empty() => client_id.to_string(),
        _ => record.actor_id.clone(),
    };
    let event_id = EventId::of(ulid);
    let mut row = EventRow {
        position: None,
        occurred_at: UnixMillis::from_millis(i64::try_from(ulid.timestamp_ms()).unwrap_or(i64::MAX)),
        outcome: Outcome::try_from(record.outcome()).map_err(|()| UNREADABLE)?,
        actor: Actor { kind, id },
        tenant_id,
        client_id,
        action: record.action,
        address: record.address.as_ref().map(caller_address).transpose()?,
        subject: Some(record.subject).filter(|subject| !subject.is_empty()),
        request_id: match record.call {
            Some(Call::RequestUuid(bytes)) => {
                let uuid = Uuid::from_slice(&bytes).map_err(|_| UNREADABLE)?;
                uuid.to_string()
            }
            Some(Call::RequestId(text)) => text,
            None => String::new(),
        },
        detail: record.detail,
        event_id,
    };
    if let Some(token) = record.issued_token {
        describe(&mut row, &token)?;
    }
    Ok(row)
}

/// Returns the id of an event, and the renewal that it records. Cheaper than [`decode`].
///
/// # Errors
/// [`StoreError::Corrupt`] for bytes that are no event.
pub(in crate::store) fn id_and_renewal(bytes: &[u8]) -> Result<(Ulid, Option<Renewal>), StoreError> {
    let part = IdPart::decode(bytes).map_err(|_| UNREADABLE)?;
    let renewal = part.renewal.and_then(|renewal| {
        Some(Renewal {
            family_id: FamilyId::from_bytes(&renewal.family_id)?,
            generation: renewal.generation,
        })
    });
    Ok((ulid(&part.event_id)?, renewal))
}

fn ulid(bytes: &[u8]) -> Result<Ulid, StoreError> {
    Ok(Ulid::from_bytes(bytes.try_into().map_err(|_| UNREADABLE)?))
}

/// Returns the use of a grant that an event records; `None` for an event of anything but an issued token. Cheaper than
/// [`decode`].
///
/// # Errors
/// [`StoreError::Corrupt`] for bytes that are no event.
pub(in crate::store) fn token_use(bytes: &[u8]) -> Result<Option<TokenUse>, StoreError> {
    let record = UsePart::decode(bytes).map_err(|_| UNREADABLE)?;
    let Some(token) = record.issued_token else {
        return Ok(None);
    };
    let ulid = ulid(&record.event_id)?;
    Ok(Some(TokenUse {
        tenant_id: TenantId::parse(&record.tenant_id).map_err(|_| UNREADABLE)?,
        grant_id: GrantId::from_bytes(&token.grant_id).ok_or(UNREADABLE)?,
        issued_at: UnixMillis::from_millis(i64::try_from(ulid.timestamp_ms()).unwrap_or(i64::MAX)),
        scope: token.scope,
        address: record.address.as_ref().map(caller_address).transpose()?,
    }))
}

/// Adds what the event of an issued token says about the token.
fn describe(row: &mut EventRow, token: &pb::IssuedToken) -> Result<(), StoreError> {
    let grant_id = GrantId::from_bytes(&token.grant_id).ok_or(UNREADABLE)?;
    let user_id = UserId::from_bytes(&token.user_id).ok_or(UNREADABLE)?;
    let grant_type = GrantType::try_from(token.grant_type()).map_err(|()| UNREADABLE)?;
    row.action = action::TOKEN_ISSUE.as_str().to_owned();
    row.subject = Some(grant_id.into());
    row.detail.extend(
        [
            ("grant_type", grant_type.as_ref().to_owned()),
            ("jti", row.event_id.to_string()),
            ("kid", URL_SAFE_NO_PAD.encode(&token.key_thumbprint)),
            ("scope", token.scope.clone()),
            ("sub", user_id.into()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Ok(())
}

fn address(address: CallerAddress) -> Address {
    let bytes = match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    match address {
        CallerAddress::Forwarded(_) => Address::ForwardedAddress(bytes),
        CallerAddress::Peer(_) => Address::PeerAddress(bytes),
    }
}

fn caller_address(address: &Address) -> Result<CallerAddress, StoreError> {
    let ip = |bytes: &[u8]| {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| v6()).map_err(|_| UNREADABLE)
    };
    Ok(match address {
        Address::ForwardedAddress(bytes) => CallerAddress::Forwarded(ip(bytes)?),
        Address::PeerAddress(bytes) => CallerAddress::Peer(ip(bytes)?),
    })
}

/// Returns the shortest form of a request id that can be read back.
fn call(request_id: &str) -> Option<Call> {
    let uuid = Uuid::try_parse(request_id).ok();
    match uuid.filter(|uuid| uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == request_id) {
        Some(uuid) => Some(Call::RequestUuid(uuid.as_bytes().to_vec())),
        None if request_id.is_empty() => None,
        None => Some(Call::RequestId(request_id.to_owned())),
    }
}

#[cfg(test)]
#[path = "../tests/audit/record.rs"]
mod tests;
