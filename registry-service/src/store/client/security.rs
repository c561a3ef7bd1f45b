//! The keys of clients, and how events tell of keys, methods, networks and profiles, and of requests for them.

use std::collections::BTreeMap;

use accord::{
    clock::UnixMillis,
    store::audit::{Event, Origin, action},
    text::{id::ClientId, validation::Violations},
};

use super::{
    super::{Store, commit, json, replaced},
    client, event, lock_client,
};
use crate::{
    error::{Error, Result},
    model::{
        client::{Client, ClientUpdate},
        client_keys::ClientKeys,
        integration_request::NewIntegrationRequest,
    },
};

impl Store {
    /// Leaves a client only these of its keys. Changes and records nothing if it has no others. Keeps the client's
    /// `version`, because no consent page shows keys.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for a key that the client does not have, and without a key that it needs.
    pub async fn set_client_keys(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        keys: &ClientKeys,
    ) -> Result<Client> {
        let tx = self.db.write().await?;
        let row = lock_client(&tx, client_id).await?;
        if row.json_web_key_set == keys.as_str() {
            return client(row.stored());
        }
        if !keys.are_within(&row.json_web_key_set) {
            let rule = "may hold only keys that the client has: AmendClient adds others";
            return Err(Error::Invalid(Violations::of("json_web_key_set", rule)));
        }
        let before = client(row.stored())?;
        let mut rules = Violations::default();
        let authentication = &before.security.authentication;
        authentication.check_keys(&mut rules, keys, before.fapi_from.is_some());
        if !rules.is_empty() {
            let rule = "must keep keys that the client's token_endpoint_auth_method and profile need: AmendClient replaces them";
            return Err(Error::Invalid(Violations::of("json_web_key_set", rule)));
        }
        // As JSON, because a `kid` may contain any separator.
        let event = event(action::CLIENT_SET_KEYS, client_id).detail("kids", json(&keys.kids())?.to_string());
        let update = ClientUpdate {
            json_web_key_set: Some(keys.as_str().to_owned()),
            ..ClientUpdate::default()
        };
        let client = self.change(&tx, origin, event, row, update).await?;
        commit(tx, client).await
    }
}

/// Adds to an event the old and new values of how a client authenticates and what limits it.
pub(super) fn replaced_security(event: Event, before: &Client, update: &ClientUpdate) -> Result<Event> {
    let old = &before.security;
    let replaces = update
        .authentication
        .as_ref()
        .filter(|new| **new != old.authentication);
    let method = replaces
        .map(|new| &new.method)
        .filter(|new| **new != old.authentication.method);
    let event = replaced(
        event,
        "token_endpoint_auth_method",
        &old.authentication.method,
        &method,
    )?;
    let subject = &old.authentication.certificate_subject;
    let new_subject = replaces
        .map(|new| &new.certificate_subject)
        .filter(|new| *new != subject);
    let event = replaced(event, "tls_client_auth", subject, &new_subject)?;
    let url = &old.authentication.jwks_uri;
    let new_url = replaces.map(|new| &new.jwks_uri).filter(|new| *new != url);
    let event = replaced(event, "jwks_uri", url, &new_url)?;
    let event = replaced(event, "dpop_jkts", &old.dpop_jkts, &update.dpop_jkts)?;
    let networks = &old.allowed_networks;
    let event = replaced(event, "allowed_networks", networks, &update.allowed_networks)?;
    let profile = |from: Option<UnixMillis>| from.map(|from| BTreeMap::from([("fapi_2_0_from", from)]));
    let new_profile = update.fapi_from.map(profile);
    replaced(
        event,
        "security_profile",
        &profile(before.fapi_from),
        &new_profile,
    )
}

/// Adds what a request asks for to its event: the record alone says what was submitted, and what was approved. It holds no address
/// of a person.
pub(in crate::store) fn with_content(event: Event, content: &NewIntegrationRequest) -> Result<Event> {
    let mut event = event.detail("json_web_key_set", content.json_web_key_set.as_str());
    let fields = [
        ("presentation", json(&content.presentation)?),
        ("tenant_ids", json(&content.tenant_ids)?),
        ("scopes", json(&content.scopes)?),
        ("redirect_uris", json(&content.redirect_uris)?),
        ("security", json(&content.security)?),
        ("security_profile", json(&content.security_profile)?),
    ];
    for (field, value) in fields {
        event = event.detail(field, value.to_string());
    }
    let etag = content.amends.as_ref().map(|amends| amends.etag.to_string());
    Ok(event.detail_if("client_etag", etag))
}

#[cfg(test)]
#[path = "../tests/client/security.rs"]
mod tests;
