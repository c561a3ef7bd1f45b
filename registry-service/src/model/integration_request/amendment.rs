//! Amendments: integration requests that add to a client. They are approved like the first request, and applied once.

use accord::text::{id::join_scopes, validation::Violations};

use super::{MAX_REDIRECT_URIS, MAX_REFERENCES, MAX_SCOPE_CHARACTERS, NewIntegrationRequest};
use crate::model::{
    client::{Client, ClientUpdate},
    client_keys::ClientKeys,
};

/// Returns what an amendment changes of a client: what the client has, with what the request adds. A scope that the client
/// has gets the request's reason.
///
/// # Errors
/// Violations of a request that adds nothing, too much, or another partner's name.
pub fn amended(client: &Client, request: &NewIntegrationRequest) -> Result<ClientUpdate, Violations> {
    let mut v = Violations::default();
    let texts = &request.presentation;
    if !["", &client.presentation.partner_name].contains(&texts.partner_name.as_str()) {
        v.add("partner_name", "must be empty or the client's, which stays");
    }
    let name = &texts.display_name;
    let display_name = (!name.is_empty() && *name != client.presentation.display_name).then(|| name.clone());
    let tenant_ids = union(&client.tenant_ids, &request.tenant_ids);
    let redirect_uris = union(&client.redirect_uris, &request.redirect_uris);
    let mut scopes = client.scopes.clone();
    for scope in &request.scopes {
        match scopes.iter_mut().find(|old| old.name == scope.name) {
            Some(old) => old.reason.clone_from(&scope.reason),
            None => scopes.push(scope.clone()),
        }
    }
    let scopes = (scopes != client.scopes).then_some(scopes);
    let keys = ClientKeys::parse(&request.json_web_key_set).and_then(|new| match new.as_str() {
        "" => Ok(None),
        _ => new.joined(&client.json_web_key_set).map(Some),
    });
    let keys = keys.map_err(|violations| v.extend(violations)).ok().flatten();
    let json_web_key_set = keys.map(|keys| keys.as_str().to_owned());
    let update = ClientUpdate {
        etag: None,
        display_name,
        redirect_uris,
        scopes,
        tenant_ids,
        json_web_key_set: json_web_key_set.filter(|keys| *keys != client.json_web_key_set),
    };
    let limits = [
        (
            "tenant_ids",
            update.tenant_ids.as_ref().map_or(0, Vec::len),
            MAX_REFERENCES,
        ),
        (
            "scopes",
            update.scopes.as_ref().map_or(0, Vec::len),
            MAX_REFERENCES,
        ),
        (
            "redirect_uris",
            update.redirect_uris.as_ref().map_or(0, Vec::len),
            MAX_REDIRECT_URIS,
        ),
    ];
    for (field, length, limit) in limits {
        if length > limit {
            v.add(
                field,
                format!("must leave the client at most {limit} elements in all"),
            );
        }
    }
    let names = update.scopes.iter().flatten().map(|scope| &scope.name);
    if join_scopes(names).len() > MAX_SCOPE_CHARACTERS {
        let limit =
            format!("must leave the client at most {MAX_SCOPE_CHARACTERS} characters in all names together");
        v.add("scopes", limit);
    }
    if v.is_empty() && !update.is_shown() && update.json_web_key_set.is_none() {
        v.add(
            "client_id",
            "must name a client that the request adds something to",
        );
    }
    v.finish(|| Some(update))
}

/// Returns a list with what is new in another one; `None` if nothing is.
fn union<T: Clone + PartialEq>(old: &[T], added: &[T]) -> Option<Vec<T>> {
    let new: Vec<_> = added
        .iter()
        .filter(|element| !old.contains(element))
        .cloned()
        .collect();
    (!new.is_empty()).then(|| [old, &new].concat())
}

#[cfg(test)]
#[path = "amendment_tests.rs"]
mod tests;
