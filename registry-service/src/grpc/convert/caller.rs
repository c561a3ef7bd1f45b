//! Operators and workloads between messages and the noun.

use std::collections::HashSet;

use accord::{
    registry::v1 as pb,
    rpc::auth::{Role, WorkloadKind},
    text::{
        id::{OperatorId, WorkloadId},
        opaque::OpaqueToken,
        page::{Page, PageRequest},
        validation::{Violations, list_field},
    },
};
use uuid::Uuid;

use super::page;
use crate::model::caller::{NewOperator, NewWorkload, Operator, Workload};

/// Reads a `CreateOperatorRequest`.
///
/// # Errors
/// All violations.
pub fn create_operator(
    request: &pb::CreateOperatorRequest,
) -> Result<(NewOperator, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let name = v.text("name", &request.name, 1..=100);
    let roles = roles(&mut v, &request.roles);
    match (request_id, name) {
        (Some(request_id), Some(name)) if v.is_empty() => Ok((NewOperator { name, roles }, request_id)),
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
pub fn create_workload(
    request: &pb::CreateWorkloadRequest,
) -> Result<(NewWorkload, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let name = v.text("name", &request.name, 1..=100);
    let kind = pb::WorkloadKind::try_from(request.kind).ok().and_then(read_kind);
    if kind.is_none() {
        v.add("kind", "must be a known kind");
    }
    match (request_id, name, kind) {
        (Some(request_id), Some(name), Some(kind)) => Ok((NewWorkload { name, kind }, request_id)),
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
    page(&mut v, "operators", &[], (request.page_size, &request.page_token)).ok_or(v)
}

/// Reads a `ListWorkloadsRequest`.
///
/// # Errors
/// All violations.
pub fn list_workloads(request: &pb::ListWorkloadsRequest) -> Result<PageRequest, Violations> {
    let mut v = Violations::default();
    page(&mut v, "workloads", &[], (request.page_size, &request.page_token)).ok_or(v)
}

/// Writes an operator.
pub fn operator(operator: Operator) -> pb::Operator {
    pb::Operator {
        operator_id: operator.operator_id.into(),
        name: operator.name,
        roles: operator.roles.into_iter().map(|held| role(held).into()).collect(),
        create_time: Some(operator.created_at.to_timestamp()),
        revoke_time: operator.revoked_at.map(|at| at.to_timestamp()),
    }
}

/// Writes a workload.
pub fn workload(workload: Workload) -> pb::Workload {
    pb::Workload {
        workload_id: workload.workload_id.into(),
        name: workload.name,
        kind: kind(workload.kind).into(),
        create_time: Some(workload.created_at.to_timestamp()),
        revoke_time: workload.revoked_at.map(|at| at.to_timestamp()),
    }
}

/// Writes a new operator with its token.
pub fn created_operator((created, token): (Operator, OpaqueToken)) -> pb::CreateOperatorResponse {
    pb::CreateOperatorResponse {
        operator: Some(operator(created)),
        operator_token: token.expose().to_owned(),
    }
}

/// Writes a new workload with its token.
pub fn created_workload((created, token): (Workload, OpaqueToken)) -> pb::CreateWorkloadResponse {
    pb::CreateWorkloadResponse {
        workload: Some(workload(created)),
        workload_token: token.expose().to_owned(),
    }
}

/// Writes a page of operators.
pub fn operators_response(operators: Page<Operator>) -> pb::ListOperatorsResponse {
    let page = operators.map(operator);
    pb::ListOperatorsResponse {
        operators: page.items,
        next_page_token: page.next_page_token,
    }
}

/// Writes a page of workloads.
pub fn workloads_response(workloads: Page<Workload>) -> pb::ListWorkloadsResponse {
    let page = workloads.map(workload);
    pb::ListWorkloadsResponse {
        workloads: page.items,
        next_page_token: page.next_page_token,
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
