//! Scopes.

use accord::{
    registry::v1 as pb,
    text::{id::ScopeName, validation::Violations},
};
use uuid::Uuid;

use super::{Result, UpdateMask, etag};
use crate::model::scope::{NewScope, Scope, ScopeUpdate, new_name};

/// Reads a `CreateScopeRequest`.
pub fn create(request: &pb::CreateScopeRequest) -> Result<(NewScope, Option<Uuid>)> {
    let mut v = Violations::default();
    let name = v.check("name", new_name(&request.name));
    let description = v.multiline("description", &request.description, 1..=1000);
    let request_id = v.request_id("request_id", &request.request_id);
    v.finish(|| {
        let new = NewScope {
            name: name?,
            description: description?,
        };
        Some((new, request_id?))
    })
}

/// Reads an `UpdateScopeRequest`.
pub fn update(request: pb::UpdateScopeRequest) -> Result<(ScopeName, ScopeUpdate)> {
    let mut v = Violations::default();
    let scope = request.scope.unwrap_or_default();
    let name = v.check("scope.name", ScopeName::parse(&scope.name));
    let mask = UpdateMask::parse(&mut v, request.update_mask, &["description", "enabled"]);
    let update = ScopeUpdate {
        etag: etag(&scope.etag),
        description: mask.read("description", || {
            v.multiline("scope.description", &scope.description, 1..=1000)
        }),
        enabled: mask.read("enabled", || Some(scope.enabled)),
    };
    v.finish(|| Some((name?, update)))
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
