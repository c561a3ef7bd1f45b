//! Scopes between messages and the noun.

use accord::{
    registry::v1 as pb,
    text::{
        id::ScopeName,
        page::{Page, PageRequest},
        validation::Violations,
    },
};
use uuid::Uuid;

use super::{etag, mask};
use crate::model::scope::{NewScope, Scope, ScopeUpdate};

/// Reads a `CreateScopeRequest`.
///
/// # Errors
/// All violations.
pub fn create(request: pb::CreateScopeRequest) -> Result<(NewScope, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let name = v.check("name", ScopeName::parse(&request.name));
    let description = v.multiline("description", &request.description, 1..=1000);
    let request_id = v.request_id("request_id", &request.request_id);
    match (name, description, request_id) {
        (Some(name), Some(description), Some(request_id)) => Ok((NewScope { name, description }, request_id)),
        _ => Err(v),
    }
}

/// Reads a `ListScopesRequest`.
///
/// # Errors
/// All violations.
pub fn list(request: &pb::ListScopesRequest) -> Result<PageRequest, Violations> {
    let mut v = Violations::default();
    let page = PageRequest::parse(&mut v, "scopes", &[], request.page_size, &request.page_token);
    v.finish(|| page)
}

/// Reads an `UpdateScopeRequest`.
///
/// # Errors
/// All violations.
pub fn update(request: pb::UpdateScopeRequest) -> Result<(ScopeName, ScopeUpdate), Violations> {
    let mut v = Violations::default();
    let scope = request.scope.unwrap_or_default();
    let name = v.check("scope.name", ScopeName::parse(&scope.name));
    let mut update = ScopeUpdate {
        etag: etag(&scope.etag),
        ..ScopeUpdate::default()
    };
    for path in mask(&mut v, request.update_mask, &["description", "enabled"]) {
        match path.as_str() {
            "description" => {
                update.description = v.multiline("scope.description", &scope.description, 1..=1000)
            }
            "enabled" => update.enabled = Some(scope.enabled),
            _ => {}
        }
    }
    match name {
        Some(name) if v.is_empty() => Ok((name, update)),
        _ => Err(v),
    }
}

/// Writes a scope.
pub fn message(scope: Scope) -> pb::Scope {
    pb::Scope {
        name: scope.name.into(),
        description: scope.description,
        enabled: scope.enabled,
        create_time: Some(scope.created_at.to_timestamp()),
        update_time: Some(scope.updated_at.to_timestamp()),
        etag: scope.etag.to_string(),
    }
}

/// Writes a page of scopes.
pub fn list_response(scopes: Page<Scope>) -> pb::ListScopesResponse {
    let page = scopes.map(message);
    pb::ListScopesResponse {
        scopes: page.items,
        next_page_token: page.next_page_token,
    }
}
