//! Amendments: integration requests that add to a client. They are approved like the first request, and applied once.

use accord::{
    clock::UnixMillis,
    text::{id::join_scopes, validation::Violations},
};

use super::{MAX_REDIRECT_URIS, MAX_REFERENCES, MAX_SCOPE_CHARACTERS, NewIntegrationRequest};
use crate::model::{
    client::{Client, ClientUpdate},
    client_keys::ClientKeys,
};

/// Returns what an amendment changes of a client: what the client has, with what the amendment adds. A scope that the client
/// has gets the amendment's reason. The method to authenticate and the profile are replaced.
///
/// # Errors
/// Violations of an amendment that adds nothing, too much, another partner's name, or what does not fit the client.
pub fn amended(
    client: &Client,
    amendment: &NewIntegrationRequest,
    now: UnixMillis,
) -> Result<ClientUpdate, Violations> {
    let mut v = Violations::default();
    let texts = &amendment.presentation;
    if !["", &client.presentation.partner_name].contains(&texts.partner_name.as_str()) {
        v.add("partner_name", "must be empty or the client's, which stays");
    }
    let name = &texts.display_name;
    let display_name = (!name.is_empty() && *name != client.presentation.display_name).then(|| name.clone());
    let tenant_ids = union(&client.tenant_ids, &amendment.tenant_ids);
    let redirect_uris = union(&client.redirect_uris, &amendment.redirect_uris);
    let mut scopes = client.scopes.clone();
    for scope in &amendment.scopes {
        match scopes.iter_mut().find(|old| old.name == scope.name) {
            Some(old) => old.reason.clone_from(&scope.reason),
            None => scopes.push(scope.clone()),
        }
    }
    let scopes = (scopes != client.scopes).then_some(scopes);
    let (new_keys, keys) = amended_keys(&mut v, client, amendment);
    let security = v.merge(client.security.amended(&amendment.security, &new_keys));
    let fapi_from = amendment.security_profile.applied(client.fapi_from, now);
    let fapi_from = v.check("profile_start_time", fapi_from);
    if let (Some(security), Some(keys), Some(fapi_from)) = (&security, &keys, fapi_from) {
        let uris = redirect_uris.as_ref().unwrap_or(&client.redirect_uris);
        let follows_fapi = fapi_from.is_some();
        security.authentication.check(&mut v, keys, uris, follows_fapi);
    }
    let (security, keys) = (security.unwrap_or_default(), keys.unwrap_or_default());
    let old = &client.security;
    let update = ClientUpdate {
        etag: None,
        display_name,
        redirect_uris,
        scopes,
        tenant_ids,
        json_web_key_set: changed(keys.as_str().to_owned(), &client.json_web_key_set),
        authentication: changed(security.authentication, &old.authentication),
        dpop_jkts: changed(security.dpop_jkts, &old.dpop_jkts),
        allowed_networks: changed(security.allowed_networks, &old.allowed_networks),
        fapi_from: fapi_from.and_then(|from| changed(from, &client.fapi_from)),
    };
    check_limits(&mut v, &update);
    if v.is_empty() && !update.is_shown() && !update.concerns_keys() {
        v.add(
            "client_id",
            "must name a client that the request changes something of",
        );
    }
    v.finish(|| Some(update))
}

/// Returns the keys that an amendment brings, and those that the client then has: none if the amendment names a URL instead.
fn amended_keys(
    v: &mut Violations,
    client: &Client,
    amendment: &NewIntegrationRequest,
) -> (ClientKeys, Option<ClientKeys>) {
    let new_keys = v.merge(ClientKeys::parse(&amendment.json_web_key_set));
    let new_keys = new_keys.unwrap_or_default();
    let has_url = amendment.security.authentication.jwks_uri.is_some();
    let keys = match new_keys.as_str() {
        "" if has_url => Ok(ClientKeys::default()),
        "" => ClientKeys::parse(&client.json_web_key_set),
        _ => new_keys.joined(&client.json_web_key_set),
    };
    let keys = v.merge(keys);
    (new_keys, keys)
}

/// Checks that an amendment leaves the client no more than a request may ask for.
fn check_limits(v: &mut Violations, update: &ClientUpdate) {
    let tenants = update.tenant_ids.as_ref().map_or(0, Vec::len);
    let scopes = update.scopes.as_ref().map_or(0, Vec::len);
    let redirect_uris = update.redirect_uris.as_ref().map_or(0, Vec::len);
    for (field, length, limit) in [
        ("tenant_ids", tenants, MAX_REFERENCES),
        ("scopes", scopes, MAX_REFERENCES),
        ("redirect_uris", redirect_uris, MAX_REDIRECT_URIS),
    ] {
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
}

/// Returns a value that differs from the old one.
fn changed<T: PartialEq>(new: T, old: &T) -> Option<T> {
    (new != *old).then_some(new)
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
