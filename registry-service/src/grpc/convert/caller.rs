//! Operators and workloads between messages and the noun.

use std::collections::HashSet;

use accord::{
    registry::v1::{self as pb, authenticate_caller_response::Caller as Message},
    text::{
        caller::{Caller, Role, WorkloadKind},
        id::{OperatorId, WorkloadId},
        page::PageRequest,
        validation::{Violations, list_field},
    },
};
use uuid::Uuid;

use crate::model::caller::{Authority, CallerRecord, NewCaller};

/// Reads a `CreateOperatorRequest`.
///
/// # Errors
/// All violations.
pub fn create_operator(request: &pb::CreateOperatorRequest) -> Result<(NewCaller, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let name = v.text("name", &request.name, 1..=100);
    let roles = roles(&mut v, &request.roles);
    match (request_id, name) {
        (Some(request_id), Some(name)) if v.is_empty() => {
            let authority = Authority::Roles(roles);
            Ok((NewCaller { name, authority }, request_id))
        }
        _ => Err(v),
    }
}

fn roles(v: &mut Violations, numbers: &[i32]) -> Vec<Role> {
    if numbers.is_empty() {
        v.add("roles", "must have at least one role");
    }
    let mut seen = HashSet::new();
    let mut roles = Vec::new();
    // There are fewer roles than that: what is beyond is a repetition at best.
    for (index, number) in numbers.iter().take(100).enumerate() {
        match pb::OperatorRole::try_from(*number).ok().and_then(read_role) {
            Some(role) if seen.insert(role) => roles.push(role),
            Some(_) => v.add(
                list_field("roles", index),
                "must be different from those before it",
            ),
            None => v.add(list_field("roles", index), "must be a known role"),
        }
    }
    roles
}

/// Reads a `CreateWorkloadRequest`.
///
/// # Errors
/// All violations.
pub fn create_workload(request: &pb::CreateWorkloadRequest) -> Result<(NewCaller, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let name = v.text("name", &request.name, 1..=100);
    let kind = pb::WorkloadKind::try_from(request.kind).ok().and_then(read_kind);
    if kind.is_none() {
        v.add("kind", "must be a known kind");
    }
    match (request_id, name, kind) {
        (Some(request_id), Some(name), Some(kind)) => {
            let authority = Authority::Kind(kind);
            Ok((NewCaller { name, authority }, request_id))
        }
        _ => Err(v),
    }
}

/// Reads an operator's id, where it is all that a message holds.
///
/// # Errors
/// The violation.
pub fn operator_id(id: &str) -> Result<OperatorId, Violations> {
    let mut v = Violations::default();
    v.check("operator_id", OperatorId::parse(id)).ok_or(v)
}

/// Reads a workload's id, where it is all that a message holds.
///
/// # Errors
/// The violation.
pub fn workload_id(id: &str) -> Result<WorkloadId, Violations> {
    let mut v = Violations::default();
    v.check("workload_id", WorkloadId::parse(id)).ok_or(v)
}

/// Reads a `ListOperatorsRequest`.
///
/// # Errors
/// All violations.
pub fn list_operators(request: &pb::ListOperatorsRequest) -> Result<PageRequest, Violations> {
    let mut v = Violations::default();
    let page = PageRequest::parse(&mut v, "operators", &[], request.page_size, &request.page_token);
    v.finish(|| page)
}

/// Reads a `ListWorkloadsRequest`.
///
/// # Errors
/// All violations.
pub fn list_workloads(request: &pb::ListWorkloadsRequest) -> Result<PageRequest, Violations> {
    let mut v = Violations::default();
    let page = PageRequest::parse(&mut v, "workloads", &[], request.page_size, &request.page_token);
    v.finish(|| page)
}

/// Writes a caller.
pub fn message(record: CallerRecord) -> Message {
    let create_time = Some(record.created_at.to_timestamp());
    let revoke_time = record.revoked_at.map(|at| at.to_timestamp());
    match record.caller {
        Caller::Operator { id, roles } => Message::Operator(pb::Operator {
            operator_id: id.into(),
            name: record.name,
            roles: roles.into_iter().map(|held| role(held).into()).collect(),
            create_time,
            revoke_time,
        }),
        Caller::Workload { id, kind: is } => Message::Workload(pb::Workload {
            workload_id: id.into(),
            name: record.name,
            kind: kind(is).into(),
            create_time,
            revoke_time,
        }),
    }
}

/// Writes an operator; `None` for a workload.
pub fn operator(record: CallerRecord) -> Option<pb::Operator> {
    match message(record) {
        Message::Operator(operator) => Some(operator),
        Message::Workload(_) => None,
    }
}

/// Writes a workload; `None` for an operator.
pub fn workload(record: CallerRecord) -> Option<pb::Workload> {
    match message(record) {
        Message::Operator(_) => None,
        Message::Workload(workload) => Some(workload),
    }
}

/// Writes a role.
pub fn role(role: Role) -> pb::OperatorRole {
    match role {
        Role::Registrar => pb::OperatorRole::Registrar,
        Role::Approver => pb::OperatorRole::Approver,
        Role::Security => pb::OperatorRole::Security,
        Role::Auditor => pb::OperatorRole::Auditor,
        Role::Admin => pb::OperatorRole::Admin,
    }
}

/// Writes a workload's kind.
pub fn kind(kind: WorkloadKind) -> pb::WorkloadKind {
    match kind {
        WorkloadKind::Gateway => pb::WorkloadKind::Gateway,
        WorkloadKind::TokenService => pb::WorkloadKind::TokenService,
        WorkloadKind::InternalService => pb::WorkloadKind::InternalService,
    }
}

fn read_role(number: pb::OperatorRole) -> Option<Role> {
    Role::ALL.into_iter().find(|known| role(*known) == number)
}

fn read_kind(number: pb::WorkloadKind) -> Option<WorkloadKind> {
    WorkloadKind::ALL.into_iter().find(|known| kind(*known) == number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn roles_are_known_and_different_and_there_is_one() {
        let refused = |roles: &[i32]| {
            let request = pb::CreateOperatorRequest {
                name: "Ada".into(),
                roles: roles.to_vec(),
                ..Default::default()
            };
            let violations = create_operator(&request).err().unwrap_or_default();
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
}
