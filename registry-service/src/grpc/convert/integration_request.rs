//! Integration requests, and the fields that clients share with them.

use std::{collections::HashSet, ops::RangeInclusive};

use accord::{
    clock::UnixMillis,
    registry::v1 as pb,
    text::{
        id::{ClientId, IntegrationRequestId, ScopeName, TenantId, join_scopes},
        page::PageRequest,
        validation::{REPEATED, Violations, list_field},
    },
};
use uuid::Uuid;

use super::{
    Result, reason,
    security::{requested_security_profile, security, with_security},
};
use crate::model::{
    client_keys::ClientKeys,
    integration_request::{
        Amends, Decision, DisplayInfo, IntegrationRequest, MAX_REDIRECT_URIS, MAX_REFERENCES,
        MAX_SCOPE_CHARACTERS, NewIntegrationRequest, References, RequestedScope, RequestedSecurityProfile,
        State,
    },
};

accord::message_enum! { State = pb::IntegrationRequestState { Submitted, Approved, Rejected, Registered } }

/// Reads a `SubmitIntegrationRequestRequest`. A request that names a client needs nothing but what it adds; the etag in it
/// is not known yet, nor whether what it asks for fits the client.
///
/// # Errors
/// All violations, with the tenants and scopes that the message names.
pub fn submit(
    request: &pb::SubmitIntegrationRequestRequest,
    now: UnixMillis,
) -> Result<(NewIntegrationRequest, Option<Uuid>), (Violations, References)> {
    let mut v = Violations::default();
    let mut references = References::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let is_amendment = !request.client_id.is_empty();
    let amended = v.optional("client_id", &request.client_id, ClientId::parse);
    let least = usize::from(!is_amendment);
    let partner_name = v.text("partner_name", &request.partner_name, least..=200);
    let display_name = v.text("display_name", &request.display_name, 0..=200);
    let contact_email = match request.contact_email.as_str() {
        "" if is_amendment => Some(String::new()),
        email => v.email("contact_email", email),
    };
    let goals = v.multiline("goals", &request.goals, least..=4000);
    let tenant_ids = tenant_ids(&mut v, &mut references, &request.tenant_ids, least);
    let scopes = scopes(&mut v, &mut references, &request.scopes, least, 1..=1000);
    let redirect_uris = redirect_uris(&mut v, "redirect_uris", &request.redirect_uris, least);
    let notes = v.multiline("notes", &request.notes, 0..=4000);
    let keys = v.merge(ClientKeys::parse(&request.json_web_key_set));
    let security = security(&mut v, request);
    let profile = requested_security_profile(&mut v, request, is_amendment, now);
    if let (false, Some(security), Some(keys)) = (is_amendment, &security, &keys) {
        let follows_fapi = matches!(profile, Some(RequestedSecurityProfile::Fapi2 { .. }));
        security
            .authentication
            .check(&mut v, keys, &redirect_uris, follows_fapi);
    }
    // Consent pages show the partner's name unless the request gives another.
    let display_name = display_name.filter(|name| !name.is_empty() || is_amendment);
    v.finish(|| {
        let new = NewIntegrationRequest {
            presentation: DisplayInfo {
                display_name: display_name.or_else(|| partner_name.clone())?,
                partner_name: partner_name?,
                goals: goals?,
            },
            contact_email: contact_email?,
            tenant_ids,
            scopes,
            redirect_uris,
            notes: notes?,
            json_web_key_set: keys?.as_str().to_owned(),
            security: security?,
            security_profile: profile?,
            amends: amended?.map(|client_id| Amends { client_id, etag: 0 }),
        };
        Some((new, request_id?))
    })
    .map_err(|violations| (violations, references))
}

/// Reads a list of at least `least` and at most 100 different tenant ids, at `<prefix>tenant_ids`. Adds them to
/// `references`.
pub fn tenant_ids(
    v: &mut Violations,
    references: &mut References,
    ids: &[String],
    least: usize,
) -> Vec<TenantId> {
    let field = format!("{}tenant_ids", references.prefix);
    let read = |v: &mut Violations, field: &str, id: &String| v.check(field, TenantId::parse(id));
    references.tenants = v.distinct(&field, ids, least..=MAX_REFERENCES, read);
    references.tenants.iter().map(|(_, id)| id.clone()).collect()
}

/// Reads a list of at least `least` and at most 100 different scopes with reasons, at `<prefix>scopes`. Adds their names to
/// `references`.
pub fn scopes(
    v: &mut Violations,
    references: &mut References,
    scopes: &[pb::RequestedScope],
    least: usize,
    reason: RangeInclusive<usize>,
) -> Vec<RequestedScope> {
    let field = format!("{}scopes", references.prefix);
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (index, scope) in v.bounded_list(&field, scopes, least..=MAX_REFERENCES) {
        let field = list_field(&field, index);
        let name_field = format!("{field}.name");
        let name = v.check(&name_field, ScopeName::parse(&scope.name));
        let reason = v.multiline(&format!("{field}.reason"), &scope.reason, reason.clone());
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

/// Reads a list of at least `least` and at most 20 different redirect URIs.
pub fn redirect_uris(v: &mut Violations, field: &str, uris: &[String], least: usize) -> Vec<String> {
    let read = |v: &mut Violations, field: &str, uri: &String| v.redirect_uri(field, uri);
    let uris = v.distinct(field, uris, least..=MAX_REDIRECT_URIS, read);
    uris.into_iter().map(|(_, uri)| uri).collect()
}

/// Reads a `RejectIntegrationRequestRequest`.
pub fn reject(request: &pb::RejectIntegrationRequestRequest) -> Result<(IntegrationRequestId, Decision)> {
    let mut v = Violations::default();
    let id = IntegrationRequestId::parse(&request.integration_request_id);
    let id = v.check("integration_request_id", id);
    let reason = reason(&mut v, &request.reason);
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
    let (security_profile, from) = match content.security_profile {
        RequestedSecurityProfile::Unspecified => (pb::SecurityProfile::Unspecified, None),
        RequestedSecurityProfile::Fapi2 { from } => (pb::SecurityProfile::Fapi20, from),
        RequestedSecurityProfile::None => (pb::SecurityProfile::None, None),
    };
    with_security!(
        content.security,
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
            json_web_key_set: content.json_web_key_set,
            client_etag: content
                .amends
                .map(|amends| amends.etag.to_string())
                .unwrap_or_default(),
            security_profile: security_profile.into(),
            profile_start_time: from.map(UnixMillis::to_timestamp),
        }
    )
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

    const NOW: UnixMillis = UnixMillis::from_millis(1_000_000_000_000);

    fn submit(
        request: &pb::SubmitIntegrationRequestRequest,
    ) -> Result<(NewIntegrationRequest, Option<Uuid>), (Violations, References)> {
        super::submit(request, NOW)
    }

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
            super::scopes(&mut v, &mut references, &scopes.collect::<Vec<_>>(), 1, 1..=1000);
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

    #[test]
    fn an_amendment_needs_nothing_but_the_client() {
        let client_id = "cli_01arz3ndektsv4rrffq69g5fav";
        let amendment = |display_name: &str| pb::SubmitIntegrationRequestRequest {
            client_id: client_id.into(),
            display_name: display_name.into(),
            ..Default::default()
        };
        for name in ["", "New name"] {
            let (new, _) = submit(&amendment(name)).unwrap();
            assert_eq!(new.presentation.display_name, name);
            assert_eq!(new.amends.unwrap().client_id.as_str(), client_id);
            assert!(new.tenant_ids.is_empty() && new.scopes.is_empty() && new.redirect_uris.is_empty());
        }
        let bad = pb::SubmitIntegrationRequestRequest {
            client_id: "cli_1".into(),
            contact_email: "nobody".into(),
            redirect_uris: vec!["http://app.example/cb".into()],
            json_web_key_set: "no keys".into(),
            ..Default::default()
        };
        let (violations, _) = submit(&bad).unwrap_err();
        let expected = [
            "client_id",
            "contact_email",
            "redirect_uris[0]",
            "json_web_key_set",
        ];
        assert_eq!(fields(&violations), expected);
    }
}
