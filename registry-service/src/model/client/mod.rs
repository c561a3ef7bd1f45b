//! Third-party clients: registered from approved integration requests.

use std::collections::BTreeMap;

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, IntegrationRequestId, ScopeName, SecretId, TenantId},
        network::AllowedNetworks,
        validation::{Violations, list_field},
    },
};
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, EnumString};

use self::security::{Authentication, Security, narrows_keys};
use super::integration_request::{DisplayInfo, RequestedScope};

pub mod security;

/// Whether a client can obtain tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// The usual state.
    Active,
    /// Obtains no tokens.
    Suspended,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The Client ID.
    pub client_id: ClientId,
    /// The request that it was registered from.
    pub integration_request_id: IntegrationRequestId,
    /// What consent pages show.
    pub presentation: DisplayInfo,
    /// The tenants that it may ask for consent.
    pub tenant_ids: Vec<TenantId>,
    /// The scopes that it may ask for, with the partner's reasons.
    pub scopes: Vec<RequestedScope>,
    /// Since when it has its tenants and scopes.
    pub added: Added,
    /// The URIs that browsers may be redirected to.
    pub redirect_uris: Vec<String>,
    /// Whether it can obtain tokens.
    pub state: State,
    /// The feed position of the last change that a consent page would show.
    pub version: i64,
    /// The feed position at which its access tokens last ended; 0 if never.
    pub tokens_ended_seq: i64,
    /// The feed position at which its refresh tokens last ended; 0 if never.
    pub families_ended_seq: i64,
    /// When it was registered.
    pub created_at: UnixMillis,
    /// When it last changed.
    pub updated_at: UnixMillis,
    /// Grows with every change of a returned field.
    pub etag: i64,
    /// Its public keys, as [`ClientKeys`](crate::model::client_keys::ClientKeys) writes them; empty if none.
    pub json_web_key_set: String,
    /// How it authenticates, and what limits it.
    pub security: Security,
    /// From when on it follows the FAPI 2.0 Security Profile; `None`: not at all.
    pub fapi_from: Option<UnixMillis>,
}

impl Client {
    /// Returns whether the client's secrets authenticate it at this time: it has no other method, or has one for a profile
    /// that begins later.
    pub fn accepts_secrets(&self, now: UnixMillis) -> bool {
        accept_secrets(&self.security.authentication, self.fapi_from, now)
    }
}

fn accept_secrets(authentication: &Authentication, fapi_from: Option<UnixMillis>, now: UnixMillis) -> bool {
    authentication.takes_secrets() || fapi_from.is_some_and(|from| now < from)
}

/// The feed positions at which a client got its tenants and scopes. One that was removed and added again is new, so that
/// no consent from before covers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// By tenant.
    pub tenants: BTreeMap<TenantId, i64>,
    /// By scope.
    pub scopes: BTreeMap<ScopeName, i64>,
}

impl Added {
    /// Returns the positions after a change of the client at `seq`.
    pub fn after(client: &Client, seq: i64) -> Self {
        let Self { tenants, scopes } = &client.added;
        let tenant_ids = client.tenant_ids.iter();
        let names = client.scopes.iter().map(|scope| &scope.name);
        Self {
            tenants: tenant_ids
                .map(|id| (id.clone(), since(tenants, id, seq)))
                .collect(),
            scopes: names
                .map(|name| (name.clone(), since(scopes, name, seq)))
                .collect(),
        }
    }
}

/// Returns the position of a key, or `seq` for a new one.
pub fn since<K: Ord>(positions: &BTreeMap<K, i64>, key: &K, seq: i64) -> i64 {
    positions.get(key).copied().unwrap_or(seq)
}

/// What token-service needs of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientProfile {
    /// The client.
    pub client: Client,
    /// Its scopes that are enabled in the catalogue.
    pub scopes: Vec<ProfileScope>,
    /// The secrets that authenticate it, and when they expire.
    pub live_secrets: Vec<(SecretId, Option<UnixMillis>)>,
}

/// An enabled scope of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileScope {
    /// The name.
    pub name: ScopeName,
    /// What it allows.
    pub description: String,
    /// What the partner needs it for.
    pub reason: String,
    /// The feed position at which the client got it.
    pub added_seq: i64,
}

/// A change of a client: an operator narrows it, or applies an amendment. `None` leaves a field as it is. No list holds
/// duplicates.
#[derive(Clone, Debug, Default)]
pub struct ClientUpdate {
    /// The version that the update starts from; `None` for any.
    pub etag: Option<i64>,
    /// The name for people.
    pub display_name: Option<String>,
    /// The URIs that browsers may be redirected to.
    pub redirect_uris: Option<Vec<String>>,
    /// The scopes that it may ask for.
    pub scopes: Option<Vec<RequestedScope>>,
    /// The tenants that it may ask for consent.
    pub tenant_ids: Option<Vec<TenantId>>,
    /// Its public keys, as [`ClientKeys`](crate::model::client_keys::ClientKeys) writes them.
    pub json_web_key_set: Option<String>,
    /// How it authenticates.
    pub authentication: Option<Authentication>,
    /// The keys that proofs may be signed by.
    pub dpop_jkts: Option<Vec<String>>,
    /// The networks that tokens may be requested from.
    pub allowed_networks: Option<AllowedNetworks>,
    /// From when on it follows the FAPI 2.0 Security Profile.
    pub fapi_from: Option<Option<UnixMillis>>,
}

impl ClientUpdate {
    /// Keeps the reasons that the client has where the update gives none.
    pub fn with_reasons_of(mut self, client: &Client) -> Self {
        for scope in self.scopes.iter_mut().flatten() {
            let old = client.scopes.iter().find(|old| old.name == scope.name);
            if let Some(old) = old.filter(|_| scope.reason.is_empty()) {
                scope.reason.clone_from(&old.reason);
            }
        }
        self
    }

    /// Checks that it adds and rewords nothing, as an operator's own change must: what consent pages show, and what a
    /// client may do, was approved. `prefix` is the beginning of the fields' paths.
    ///
    /// # Errors
    /// A violation for each element of a list that the client does not have.
    pub fn require_narrowing(&self, client: &Client, prefix: &str) -> Result<(), Violations> {
        let mut v = Violations::default();
        let mut require = |is_old: bool, list: &str, index: usize, field: &str, what: &str| {
            if !is_old {
                let path = format!("{}{field}", list_field(&format!("{prefix}{list}"), index));
                v.add(
                    path,
                    format!("must be {what} of the client: AmendClient adds others"),
                );
            }
        };
        for (index, id) in self.tenant_ids.iter().flatten().enumerate() {
            require(
                client.tenant_ids.contains(id),
                "tenant_ids",
                index,
                "",
                "a tenant",
            );
        }
        for (index, scope) in self.scopes.iter().flatten().enumerate() {
            match client.scopes.iter().find(|old| old.name == scope.name) {
                Some(old) => {
                    let is_old = old.reason == scope.reason;
                    require(is_old, "scopes", index, ".reason", "the scope's reason");
                }
                None => require(false, "scopes", index, ".name", "a scope"),
            }
        }
        for (index, uri) in self.redirect_uris.iter().flatten().enumerate() {
            let is_old = client.redirect_uris.contains(uri);
            require(is_old, "redirect_uris", index, "", "a redirect URI");
        }
        let old = &client.security;
        let is_narrow = |new: &Vec<String>| narrows_keys(new, &old.dpop_jkts);
        if !self.dpop_jkts.as_ref().is_none_or(is_narrow) {
            v.add(
                format!("{prefix}dpop_jkts"),
                "must hold keys of the client, at least one: AmendClient adds others, the first included",
            );
        }
        let is_narrow = |new: &AllowedNetworks| new.are_within(&old.allowed_networks);
        if !self.allowed_networks.as_ref().is_none_or(is_narrow) {
            v.add(
                format!("{prefix}allowed_networks"),
                "must lie within the networks of the client: AmendClient adds others",
            );
        }
        v.finish(|| Some(()))
    }

    /// Leaves out what the client is like already; the order of a list does not count. Returns `None` if nothing is left.
    pub fn effective(mut self, client: &Client) -> Option<Self> {
        fn drop_equal<T: PartialEq>(new: &mut Option<T>, old: &T) {
            new.take_if(|new| *new == *old);
        }
        fn drop_same<T: Ord>(new: &mut Option<Vec<T>>, old: &[T]) {
            new.take_if(|new| sorted(new) == sorted(old));
        }
        fn sorted<T: Ord>(list: &[T]) -> Vec<&T> {
            let mut list: Vec<_> = list.iter().collect();
            list.sort_unstable();
            list
        }
        let old = &client.security;
        drop_equal(&mut self.display_name, &client.presentation.display_name);
        drop_same(&mut self.redirect_uris, &client.redirect_uris);
        drop_same(&mut self.scopes, &client.scopes);
        drop_same(&mut self.tenant_ids, &client.tenant_ids);
        drop_equal(&mut self.json_web_key_set, &client.json_web_key_set);
        drop_equal(&mut self.authentication, &old.authentication);
        drop_same(&mut self.dpop_jkts, &old.dpop_jkts);
        drop_equal(&mut self.allowed_networks, &old.allowed_networks);
        drop_equal(&mut self.fapi_from, &client.fapi_from);
        (self.is_shown() || self.concerns_keys()).then_some(self)
    }

    /// Returns whether it changes what consent pages show, or which of them there are.
    pub fn is_shown(&self) -> bool {
        self.display_name.is_some()
            || self.redirect_uris.is_some()
            || self.scopes.is_some()
            || self.tenant_ids.is_some()
            || self.allowed_networks.is_some()
            || self.fapi_from.is_some()
    }

    /// Returns whether secrets authenticate the client after it, at this time.
    pub fn accepts_secrets(&self, client: &Client, now: UnixMillis) -> bool {
        let old = &client.security.authentication;
        let fapi_from = self.fapi_from.unwrap_or(client.fapi_from);
        accept_secrets(self.authentication.as_ref().unwrap_or(old), fapi_from, now)
    }

    /// Returns whether it changes how the client authenticates, or its keys.
    pub fn concerns_keys(&self) -> bool {
        self.json_web_key_set.is_some() || self.authentication.is_some() || self.dpop_jkts.is_some()
    }

    /// Returns whether it removes a tenant, a scope or a key of proofs from the client.
    pub fn narrows(&self, client: &Client) -> bool {
        let removes_tenant = self
            .tenant_ids
            .as_ref()
            .is_some_and(|left| client.tenant_ids.iter().any(|id| !left.contains(id)));
        let removes_scope = self.scopes.as_ref().is_some_and(|left| {
            let stays = |scope: &RequestedScope| left.iter().any(|other| other.name == scope.name);
            !client.scopes.iter().all(stays)
        });
        let old = &client.security.dpop_jkts;
        let removes_key = self
            .dpop_jkts
            .as_ref()
            .is_some_and(|left| old.is_empty() || old.iter().any(|jkt| !left.contains(jkt)));
        removes_tenant || removes_scope || removes_key
    }
}
