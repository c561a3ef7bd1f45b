//! Integration requests between messages and the noun.

use std::collections::HashSet;

use accord::{
    registry::v1 as pb,
    text::{
        id::{IntegrationRequestId, ScopeName, TenantId},
        page::{Page, PageRequest},
        validation::{Violations, list_field},
    },
};
use uuid::Uuid;

use crate::model::integration_request::{
    IntegrationRequest, Malformed, NewIntegrationRequest, Presentation, References, RequestedScope, State,
};

/// The most tenants, and the most scopes, of a request or client.
pub const MAX_REFERENCES: usize = 100;
/// The most redirect URIs of a request or client.
pub const MAX_REDIRECT_URIS: usize = 20;

const DIFFERENT: &str = "must be different from those before it";

/// Reads a `SubmitIntegrationRequestRequest`.
///
/// # Errors
/// All violations, and what the message refers to, for a check that these exist.
pub fn submit(
    request: pb::SubmitIntegrationRequestRequest,
) -> Result<(NewIntegrationRequest, Option<Uuid>), Malformed> {
    let mut v = Violations::default();
    let mut references = References::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let partner_name = v.text("partner_name", &request.partner_name, 1..=200);
    let display_name = v.text("display_name", &request.display_name, 0..=200);
    let contact_email = v.email("contact_email", &request.contact_email);
    let goals = v.multiline("goals", &request.goals, 1..=4000);
    let tenant_ids = tenant_ids(&mut v, &mut references, &request.tenant_ids);
    let scopes = scopes(&mut v, &mut references, &request.scopes);
    let redirect_uris = redirect_uris(&mut v, "redirect_uris", &request.redirect_uris);
    let notes = v.multiline("notes", &request.notes, 0..=4000);
    match (
        request_id,
        partner_name,
        display_name,
        contact_email,
        goals,
        notes,
    ) {
        (
            Some(request_id),
            Some(partner_name),
            Some(display_name),
            Some(contact_email),
            Some(goals),
            Some(notes),
        ) if v.is_empty() => {
            let new = NewIntegrationRequest {
                presentation: Presentation {
                    display_name: if display_name.is_empty() {
                        partner_name.clone()
                    } else {
                        display_name
                    },
                    partner_name,
                    goals,
                },
                contact_email,
                tenant_ids,
                scopes,
                redirect_uris,
                notes,
            };
            Ok((new, request_id))
        }
        _ => Err(Malformed {
            violations: v,
            references,
        }),
    }
}

/// Reads a list of 1 to 100 different tenant ids, at `<prefix>tenant_ids`. What can be read is added
/// to `references`.
pub fn tenant_ids(v: &mut Violations, references: &mut References, ids: &[String]) -> Vec<TenantId> {
    let field = format!("{}tenant_ids", references.prefix);
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (index, text) in counted(v, &field, ids, MAX_REFERENCES) {
        let field = list_field(&field, index);
        let Some(id) = v.check(&field, TenantId::parse(text)) else {
            continue;
        };
        if seen.insert(id.clone()) {
            references.tenants.push((index, id.clone()));
            read.push(id);
        } else {
            v.add(field, DIFFERENT);
        }
    }
    read
}

/// Reads a list of 1 to 100 different scopes with reasons, at `<prefix>scopes`. What can be read is
/// added to `references`.
pub fn scopes(
    v: &mut Violations,
    references: &mut References,
    scopes: &[pb::RequestedScope],
) -> Vec<RequestedScope> {
    let field = format!("{}scopes", references.prefix);
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (index, scope) in counted(v, &field, scopes, MAX_REFERENCES) {
        let field = list_field(&field, index);
        let name_field = format!("{field}.name");
        let name = v.check(&name_field, ScopeName::parse(&scope.name));
        let reason = v.multiline(&format!("{field}.reason"), &scope.reason, 1..=1000);
        let Some(name) = name else { continue };
        if !seen.insert(name.clone()) {
            v.add(name_field, DIFFERENT);
            continue;
        }
        references.scopes.push((index, name.clone()));
        if let Some(reason) = reason {
            read.push(RequestedScope { name, reason });
        }
    }
    read
}

/// Reads a list of 1 to 20 different redirect URIs.
pub fn redirect_uris(v: &mut Violations, field: &str, uris: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (index, text) in counted(v, field, uris, MAX_REDIRECT_URIS) {
        let field = list_field(field, index);
        let Some(uri) = v.redirect_uri(&field, text) else {
            continue;
        };
        if seen.insert(uri.clone()) {
            read.push(uri);
        } else {
            v.add(field, DIFFERENT);
        }
    }
    read
}

/// The elements of a list that must have 1 to `most` of them, with their indexes. What is beyond is
/// not looked at.
fn counted<'a, T>(
    v: &mut Violations,
    field: &str,
    list: &'a [T],
    most: usize,
) -> impl Iterator<Item = (usize, &'a T)> + use<'a, T> {
    if list.is_empty() || list.len() > most {
        v.add(field, format!("must have 1 to {most} elements"));
    }
    list.iter().take(most).enumerate()
}

/// Reads a request's id, where it is all that a message holds.
///
/// # Errors
/// The violation.
pub fn integration_request_id(id: &str) -> Result<IntegrationRequestId, Violations> {
    let mut v = Violations::default();
    v.check("integration_request_id", IntegrationRequestId::parse(id))
        .ok_or(v)
}

/// Reads a `RejectIntegrationRequestRequest`.
///
/// # Errors
/// All violations.
pub fn reject(
    request: &pb::RejectIntegrationRequestRequest,
) -> Result<(IntegrationRequestId, String), Violations> {
    let mut v = Violations::default();
    let id = v.check(
        "integration_request_id",
        IntegrationRequestId::parse(&request.integration_request_id),
    );
    let reason = v.multiline("reason", &request.reason, 1..=1000);
    match (id, reason) {
        (Some(id), Some(reason)) => Ok((id, reason)),
        _ => Err(v),
    }
}

/// Reads a `ListIntegrationRequestsRequest`.
///
/// # Errors
/// All violations.
pub fn list(
    request: &pb::ListIntegrationRequestsRequest,
) -> Result<(Option<State>, PageRequest), Violations> {
    let mut v = Violations::default();
    let state = match pb::IntegrationRequestState::try_from(request.state) {
        Ok(pb::IntegrationRequestState::Unspecified) => Some(None),
        Ok(pb::IntegrationRequestState::Submitted) => Some(Some(State::Submitted)),
        Ok(pb::IntegrationRequestState::Approved) => Some(Some(State::Approved)),
        Ok(pb::IntegrationRequestState::Rejected) => Some(Some(State::Rejected)),
        Ok(pb::IntegrationRequestState::Registered) => Some(Some(State::Registered)),
        Err(_) => {
            v.add("state", "must be a known state");
            None
        }
    };
    let filter = request.state.to_string();
    let page = PageRequest::parse(
        &mut v,
        "integration_requests",
        &[&filter],
        request.page_size,
        &request.page_token,
    );
    match (state, page) {
        (Some(state), Some(page)) => Ok((state, page)),
        _ => Err(v),
    }
}

/// Writes a request.
pub fn message(request: IntegrationRequest) -> pb::IntegrationRequest {
    let content = request.content;
    pb::IntegrationRequest {
        integration_request_id: request.integration_request_id.into(),
        partner_name: content.presentation.partner_name,
        display_name: content.presentation.display_name,
        contact_email: content.contact_email,
        goals: content.presentation.goals,
        tenant_ids: content.tenant_ids.into_iter().map(String::from).collect(),
        scopes: content.scopes.into_iter().map(scope_message).collect(),
        redirect_uris: content.redirect_uris,
        notes: content.notes,
        state: state(request.state).into(),
        rejection_reason: request.rejection_reason,
        client_id: request.client_id.map(String::from).unwrap_or_default(),
        create_time: Some(request.created_at.to_timestamp()),
        update_time: Some(request.updated_at.to_timestamp()),
    }
}

/// Writes a scope with its reason.
pub fn scope_message(scope: RequestedScope) -> pb::RequestedScope {
    pb::RequestedScope {
        name: scope.name.into(),
        reason: scope.reason,
    }
}

/// Writes a page of requests.
pub fn list_response(requests: Page<IntegrationRequest>) -> pb::ListIntegrationRequestsResponse {
    let page = requests.map(message);
    pb::ListIntegrationRequestsResponse {
        integration_requests: page.items,
        next_page_token: page.next_page_token,
    }
}

fn state(state: State) -> pb::IntegrationRequestState {
    match state {
        State::Submitted => pb::IntegrationRequestState::Submitted,
        State::Approved => pb::IntegrationRequestState::Approved,
        State::Rejected => pb::IntegrationRequestState::Rejected,
        State::Registered => pb::IntegrationRequestState::Registered,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(v: &Violations) -> Vec<&str> {
        v.iter().map(|violation| violation.field.as_str()).collect()
    }

    #[test]
    fn every_violation_is_found_at_once_and_what_can_be_read_is_referred_to() {
        let scope = |name: &str, reason: &str| pb::RequestedScope {
            name: name.into(),
            reason: reason.into(),
        };
        let malformed = submit(pb::SubmitIntegrationRequestRequest {
            request_id: "1".into(),
            partner_name: " ".into(),
            display_name: "n".repeat(201),
            contact_email: "nobody".into(),
            goals: String::new(),
            tenant_ids: vec!["acme".into(), "Acme".into(), "acme".into()],
            scopes: vec![scope("a.read", ""), scope("a b", "why"), scope("a.read", "again")],
            redirect_uris: vec![
                "https://app.example/cb".into(),
                "http://app.example/cb".into(),
                "https://app.example/cb".into(),
            ],
            notes: "\0".into(),
            ..Default::default()
        })
        .unwrap_err();
        assert_eq!(
            fields(&malformed.violations),
            [
                "request_id",
                "partner_name",
                "display_name",
                "contact_email",
                "goals",
                "tenant_ids[1]",
                "tenant_ids[2]",
                "scopes[0].reason",
                "scopes[1].name",
                "scopes[2].name",
                "redirect_uris[1]",
                "redirect_uris[2]",
                "notes",
            ]
        );
        let tenants = [(0, TenantId::parse("acme").unwrap())];
        let scopes = [(0, ScopeName::parse("a.read").unwrap())];
        assert_eq!(malformed.references.tenants, tenants);
        assert_eq!(malformed.references.scopes, scopes);
    }

    #[test]
    fn lists_have_at_least_one_element_and_a_limit() {
        let malformed = submit(pb::SubmitIntegrationRequestRequest {
            partner_name: "P".into(),
            contact_email: "dev@partner.example".into(),
            goals: "g".into(),
            tenant_ids: (0..101).map(|n| format!("tenant-{n}")).collect(),
            ..Default::default()
        })
        .unwrap_err();
        assert_eq!(
            fields(&malformed.violations),
            ["tenant_ids", "scopes", "redirect_uris"]
        );
        assert_eq!(malformed.references.tenants.len(), MAX_REFERENCES);
    }
}
