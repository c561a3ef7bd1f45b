//! Integration requests, and the fields that clients share with them.

use std::collections::HashSet;

use accord::{
    registry::v1 as pb,
    text::{
        id::{IntegrationRequestId, ScopeName, TenantId, join_scopes},
        page::PageRequest,
        validation::{REPEATED, Violations, list_field},
    },
};
use uuid::Uuid;

use super::Result;
use crate::model::integration_request::{
    Decision, IntegrationRequest, NewIntegrationRequest, Presentation, References, RequestedScope, State,
};

/// The most tenants, and the most scopes, of a request or client.
pub const MAX_REFERENCES: usize = 100;
/// The most characters of all scope names of a request or client, with a space between them. It bounds access tokens:
/// with the longest base URLs a token and its header stay below 8 KiB.
const MAX_SCOPE_CHARACTERS: usize = 3072;
/// The most redirect URIs of a request or client.
pub const MAX_REDIRECT_URIS: usize = 20;

accord::message_enum! { State = pb::IntegrationRequestState { Submitted, Approved, Rejected, Registered } }

/// Reads a `SubmitIntegrationRequestRequest`.
///
/// # Errors
/// All violations, with the tenants and scopes that the message names.
pub fn submit(
    request: &pb::SubmitIntegrationRequestRequest,
) -> Result<(NewIntegrationRequest, Option<Uuid>), (Violations, References)> {
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
    // Consent pages show the partner's name unless the request gives another.
    let display_name = display_name.filter(|name| !name.is_empty());
    v.finish(|| {
        let new = NewIntegrationRequest {
            presentation: Presentation {
                display_name: display_name.or_else(|| partner_name.clone())?,
                partner_name: partner_name?,
                goals: goals?,
            },
            contact_email: contact_email?,
            tenant_ids,
            scopes,
            redirect_uris,
            notes: notes?,
        };
        Some((new, request_id?))
    })
    .map_err(|violations| (violations, references))
}

/// Reads a list of 1 to 100 different tenant ids, at `<prefix>tenant_ids`. Adds them to `references`.
pub fn tenant_ids(v: &mut Violations, references: &mut References, ids: &[String]) -> Vec<TenantId> {
    let field = format!("{}tenant_ids", references.prefix);
    let read = |v: &mut Violations, field: &str, id: &String| v.check(field, TenantId::parse(id));
    references.tenants = v.distinct(&field, ids, 1..=MAX_REFERENCES, read);
    references.tenants.iter().map(|(_, id)| id.clone()).collect()
}

/// Reads a list of 1 to 100 different scopes with reasons, at `<prefix>scopes`. Adds their names to `references`.
pub fn scopes(
    v: &mut Violations,
    references: &mut References,
    scopes: &[pb::RequestedScope],
) -> Vec<RequestedScope> {
    let field = format!("{}scopes", references.prefix);
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (index, scope) in v.bounded_list(&field, scopes, 1..=MAX_REFERENCES) {
        let field = list_field(&field, index);
        let name_field = format!("{field}.name");
        let name = v.check(&name_field, ScopeName::parse(&scope.name));
        let reason = v.multiline(&format!("{field}.reason"), &scope.reason, 1..=1000);
        let Some(name) = name else { continue };
        if !seen.insert(name.clone()) {
            v.add(name_field, REPEATED);
            continue;
        }
        references.scopes.push((index, name.clone()));
        read.extend(reason.map(|reason| RequestedScope { name, reason }));
    }
    if join_scopes(references.scopes.iter().map(|(_, name)| name)).len() > MAX_SCOPE_CHARACTERS {
        v.add(
            field,
            format!("must have at most {MAX_SCOPE_CHARACTERS} characters in all names together"),
        );
    }
    read
}

/// Reads a list of 1 to 20 different redirect URIs.
pub fn redirect_uris(v: &mut Violations, field: &str, uris: &[String]) -> Vec<String> {
    let read = |v: &mut Violations, field: &str, uri: &String| v.redirect_uri(field, uri);
    let uris = v.distinct(field, uris, 1..=MAX_REDIRECT_URIS, read);
    uris.into_iter().map(|(_, uri)| uri).collect()
}

/// Reads a `RejectIntegrationRequestRequest`.
pub fn reject(request: &pb::RejectIntegrationRequestRequest) -> Result<(IntegrationRequestId, Decision)> {
    let mut v = Violations::default();
    let id = IntegrationRequestId::parse(&request.integration_request_id);
    let id = v.check("integration_request_id", id);
    let reason = v.multiline("reason", &request.reason, 1..=1000);
    v.finish(|| Some((id?, Decision::Reject(reason?))))
}

/// Reads a `ListIntegrationRequestsRequest`.
pub fn list(request: &pb::ListIntegrationRequestsRequest) -> Result<(Option<State>, PageRequest)> {
    let mut v = Violations::default();
    let state = v.filter::<pb::IntegrationRequestState, _>("state", request.state);
    let filters = [&*request.state.to_string()];
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "integration_requests", &filters, size, token);
    v.finish(|| Some((state?, page?)))
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
        state: pb::IntegrationRequestState::from(request.state).into(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(v: &Violations) -> Vec<&str> {
        v.iter().map(|violation| violation.field.as_str()).collect()
    }

    #[test]
    fn the_names_of_all_scopes_together_are_bounded() {
        let read = |count: usize, last: usize| {
            let name = |n: usize| format!("{n:0>width$}", width = if n + 1 == count { last } else { 99 });
            let scopes = (0..count).map(|n| pb::RequestedScope {
                name: name(n),
                reason: "why".into(),
            });
            let (mut v, mut references) = (Violations::default(), References::default());
            super::scopes(&mut v, &mut references, &scopes.collect::<Vec<_>>());
            fields(&v).join(" ")
        };
        // 30 names of 99 characters, each with a space behind it, and one more.
        assert_eq!(read(31, 72), "");
        assert_eq!(read(31, 73), "scopes");
    }

    #[test]
    fn all_violations_are_reported_at_once_with_the_references_that_can_be_read() {
        let scope = |name: &str, reason: &str| pb::RequestedScope {
            name: name.into(),
            reason: reason.into(),
        };
        let (violations, references) = submit(&pb::SubmitIntegrationRequestRequest {
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
            fields(&violations),
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
        assert_eq!(references.tenants, tenants);
        assert_eq!(references.scopes, scopes);
    }

    #[test]
    fn lists_have_at_least_one_element_and_a_limit() {
        let (violations, references) = submit(&pb::SubmitIntegrationRequestRequest {
            partner_name: "P".into(),
            contact_email: "dev@partner.example".into(),
            goals: "g".into(),
            tenant_ids: (0..101).map(|n| format!("tenant-{n}")).collect(),
            ..Default::default()
        })
        .unwrap_err();
        assert_eq!(fields(&violations), ["tenant_ids", "scopes", "redirect_uris"]);
        assert_eq!(references.tenants.len(), MAX_REFERENCES);
    }
}
