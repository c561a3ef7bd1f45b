//! Operators and workloads.

use accord::{
    clock::UnixMillis,
    registry::v1::{self as pb, authenticate_caller_response::Caller as Message},
    text::{
        caller::{Caller, CertificateName, Role, WorkloadKind},
        person::is_named,
        validation::Violations,
    },
};
use uuid::Uuid;

use super::Result;
use crate::model::caller::{Authority, CallerRecord, NewCaller};

/// Reads a `CreateOperatorRequest`, which names a person where one is required.
pub fn create_operator(
    request: &pb::CreateOperatorRequest,
    needs_person: bool,
) -> Result<(NewCaller, Option<Uuid>)> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let name = v.text("name", &request.name, 1..=100);
    let read_role = |v: &mut Violations, field: &str, number: &i32| {
        let role = pb::OperatorRole::try_from(*number).ok().map(Role::try_from);
        let known = || format!("must be one of {}", role_names());
        v.check(field, role.and_then(Result::ok).ok_or_else(known))
    };
    if request.roles.is_empty() {
        v.add("roles", format!("must have at least one of {}", role_names()));
    }
    let roles = v.distinct("roles", &request.roles, 0..=Role::ALL.len(), read_role);
    let authority = Authority::Roles(roles.into_iter().map(|(_, role)| role).collect());
    let certificate_name = &request.certificate_name;
    let certificate_name = v.optional("certificate_name", certificate_name, CertificateName::parse);
    let person = v.text("person", &request.person, 0..=100);
    if person.as_deref().is_some_and(|person| !is_named(person)) {
        v.add("person", "must be no operator's id");
    }
    if needs_person && person.as_deref() == Some("") {
        v.add("person", "must name who is behind the operator");
    }
    v.finish(|| {
        Some((
            NewCaller {
                name: name?,
                authority,
                certificate_name: certificate_name?,
                person: person.filter(|person| !person.is_empty()),
            },
            request_id?,
        ))
    })
}

/// Reads a `CreateWorkloadRequest`.
pub fn create_workload(request: &pb::CreateWorkloadRequest) -> Result<(NewCaller, Option<Uuid>)> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let name = v.text("name", &request.name, 1..=100);
    let kind = pb::WorkloadKind::try_from(request.kind).ok();
    let kind = kind.and_then(|kind| WorkloadKind::try_from(kind).ok());
    let kinds = WorkloadKind::ALL.map(|kind| pb::WorkloadKind::from(kind).as_str_name());
    let kind = v.check(
        "kind",
        kind.ok_or_else(|| format!("must be one of {}", kinds.join(", "))),
    );
    let certificate_name = &request.certificate_name;
    let certificate_name = v.optional("certificate_name", certificate_name, CertificateName::parse);
    v.finish(|| {
        let authority = Authority::Kind(kind?);
        Some((
            NewCaller {
                name: name?,
                authority,
                certificate_name: certificate_name?,
                person: None,
            },
            request_id?,
        ))
    })
}

fn role_names() -> String {
    Role::ALL
        .map(|role| pb::OperatorRole::from(role).as_str_name())
        .join(", ")
}

/// Writes a caller.
pub fn message(record: CallerRecord) -> Option<Message> {
    match record.caller {
        Caller::Operator { .. } => operator(record).map(Message::Operator),
        Caller::Workload { .. } => workload(record).map(Message::Workload),
    }
}

/// Writes an operator. Returns `None` for a workload.
pub fn operator(record: CallerRecord) -> Option<pb::Operator> {
    let Caller::Operator { id, roles } = record.caller else {
        return None;
    };
    let roles = roles.into_iter().map(|role| pb::OperatorRole::from(role).into());
    Some(pb::Operator {
        operator_id: id.into(),
        name: record.name,
        certificate_name: record.certificate_name.unwrap_or_default(),
        person: record.person,
        roles: roles.collect(),
        create_time: Some(record.created_at.to_timestamp()),
        revoke_time: record.revoked_at.map(UnixMillis::to_timestamp),
    })
}

/// Writes a workload. Returns `None` for an operator.
pub fn workload(record: CallerRecord) -> Option<pb::Workload> {
    let Caller::Workload { id, kind } = record.caller else {
        return None;
    };
    Some(pb::Workload {
        workload_id: id.into(),
        name: record.name,
        certificate_name: record.certificate_name.unwrap_or_default(),
        kind: pb::WorkloadKind::from(kind).into(),
        create_time: Some(record.created_at.to_timestamp()),
        revoke_time: record.revoked_at.map(UnixMillis::to_timestamp),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_operator_has_at_least_one_role_and_no_role_twice() {
        let refused = |roles: &[i32]| {
            let request = pb::CreateOperatorRequest {
                name: "Ada".into(),
                roles: roles.to_vec(),
                ..Default::default()
            };
            let violations = create_operator(&request, false).err().unwrap_or_default();
            violations
                .into_vec()
                .into_iter()
                .map(|v| v.field)
                .collect::<Vec<_>>()
        };
        assert_eq!(refused(&[]), ["roles"]);
        assert_eq!(refused(&[1, 0, 1, 99]), ["roles[1]", "roles[2]", "roles[3]"]);
        assert!(refused(&[1, 2, 3, 4, 5]).is_empty());
    }

    #[test]
    fn what_is_missing_is_reported_together_with_what_there_is() {
        let missing = create_operator(&pb::CreateOperatorRequest::default(), true).unwrap_err();
        let missing = missing.into_vec();
        let fields: Vec<_> = missing.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["name", "roles", "person"]);
        assert!(
            missing[1]
                .description
                .contains("OPERATOR_ROLE_REGISTRAR, OPERATOR_ROLE_")
        );
        let missing = create_workload(&pb::CreateWorkloadRequest::default()).unwrap_err();
        let kinds = &missing.into_vec()[1].description;
        assert!(kinds.contains("WORKLOAD_KIND_GATEWAY, WORKLOAD_KIND_"), "{kinds}");
    }
}
