//! The facts in memory, and what each change removes.
//!
//! The invariant: after a reader has read a follower's position, it finds no fact that a change up to that position
//! affects. Three rules guarantee it.
//!
//! 1. A fact is inserted only if it was read at the position that its follower has applied, or later. Check and
//!    insertion happen under `applying`.
//! 2. Changes are applied under `applying`. They mark what they affect as stale before the new position is published.
//! 3. A reader loads the position first and the fact second, and checks that the fact is current.
//!
//! An [`Entry`] joins facts of both sources. It counts while each of its facts is current.

use std::{collections::HashSet, sync::Arc};

use accord::{
    rpc::auth::Caller,
    text::id::{ClientId, GrantId, TenantId, UserId},
};
use arc_swap::ArcSwapOption;

use super::{
    cached::{Cached, FactCache, LookUpCounters, OVERHEAD},
    lock::Lock,
    verified_secrets::KnownClient,
};
use crate::model::{
    change::Change,
    client::{Client, ClientScope},
    grant::Grant,
    revocation::RevocationKind,
    signing_key::Keys,
    tenant::Tenant,
    user::User,
};

/// The most bytes of all clients, and of all grants.
const MAX_LARGE_BYTES: usize = 64 * 1024 * 1024;
/// The most changed clients in memory. The stored secrets of further ones stay, which costs a row each.
const MAX_CHANGED_CLIENTS: usize = 16 * 1024;
/// The most bytes of all entries.
const MAX_ENTRY_BYTES: usize = 32 * 1024 * 1024;
/// The most bytes of all tenants, of all users, and of all callers.
const MAX_SMALL_BYTES: usize = 16 * 1024 * 1024;

/// The facts that issuing a token to a client at a tenant needs: one look-up for four facts.
#[derive(Debug)]
pub struct Entry {
    /// The client, with its verified secrets.
    pub client: Arc<Cached<KnownClient>>,
    /// The tenant.
    pub tenant: Arc<Cached<Tenant>>,
    /// The designated user of the grant.
    pub user: Arc<Cached<User>>,
    /// The grant of the tenant to the client whose stored state is active.
    pub grant: Arc<Cached<Grant>>,
}

impl Entry {
    /// Returns whether each of its facts is current.
    pub(super) fn facts_are_current(&self) -> bool {
        self.client.is_current()
            && self.tenant.is_current()
            && self.user.is_current()
            && self.grant.is_current()
    }
}

/// The facts in memory.
pub(super) struct Facts {
    /// Held while changes are applied, and while a fact is inserted.
    pub(super) applying: Lock<()>,
    pub(super) entries: FactCache<(ClientId, TenantId), Entry>,
    pub(super) clients: FactCache<ClientId, KnownClient>,
    pub(super) tenants: FactCache<TenantId, Tenant>,
    pub(super) users: FactCache<(TenantId, UserId), User>,
    /// By the digest of their credential. `None` for a certificate that names no caller.
    pub(super) callers: FactCache<[u8; 32], Option<Caller>>,
    /// Grants whose stored state is active. Others, and the absence of one, are read each time.
    pub(super) grants: FactCache<GrantId, Grant>,
    pub(super) keys: ArcSwapOption<Keys>,
    pub(super) key_reads: LookUpCounters,
    /// Clients that changed since their stored secrets were last compared with them.
    changed_clients: Lock<HashSet<ClientId>>,
}

impl Facts {
    pub(super) fn new() -> Self {
        Self {
            applying: Lock::default(),
            entries: FactCache::new("entries", MAX_ENTRY_BYTES, |_| 2 * OVERHEAD),
            clients: FactCache::new("clients", MAX_LARGE_BYTES, |client| client_size(client)),
            tenants: FactCache::new("tenants", MAX_SMALL_BYTES, tenant_size),
            users: FactCache::new("users", MAX_SMALL_BYTES, |user| OVERHEAD + user.label.len()),
            callers: FactCache::new("callers", MAX_SMALL_BYTES, |_| OVERHEAD),
            grants: FactCache::new("grants", MAX_LARGE_BYTES, grant_size),
            keys: ArcSwapOption::empty(),
            key_reads: LookUpCounters::new("signing_keys"),
            changed_clients: Lock::default(),
        }
    }

    /// Adds the secrets that were verified before to a client that was read.
    pub(super) fn with_secrets(&self, client: Client) -> KnownClient {
        let before = self.clients.get(&client.client_id);
        KnownClient::new(client, before.as_deref().map(|before| &**before))
    }

    /// Removes what a change affects.
    pub(super) fn apply(&self, change: &Change) {
        match change {
            // Its verified secrets stay, because the next read says which of them are live.
            Change::Client(id) => {
                self.clients.expire(id);
                self.note_changed_client(id);
            }
            Change::Tenant(id) => self.tenants.remove(id),
            Change::User(tenant_id, id) => self.users.remove(&(tenant_id.clone(), id.clone())),
            // It is unknown which clients have the scope. Their secrets stay: otherwise one new scope would cause an
            // argon2 run for every client at once.
            Change::Scope => self.clients.expire_all(),
            // A certificate that names one caller may name two after the change.
            Change::Caller(_) => self.callers.remove_where(|_| true),
            Change::Grant(id) => self.grants.remove(id),
            Change::SigningKeys => self.keys.store(None),
            Change::Revocation(revocation) => match revocation.kind {
                // A superseded grant has no change of its own.
                RevocationKind::Grant => {
                    if let Ok(id) = GrantId::parse(&revocation.id) {
                        self.grants.remove(&id);
                    }
                }
                RevocationKind::Kid => self.keys.store(None),
                _ => {}
            },
            // Newer versions write these, and they may affect anything.
            Change::UnknownRevocation | Change::Unknown => self.clear(),
        }
    }

    pub(super) fn note_changed_client(&self, client_id: &ClientId) {
        let mut changed = self.changed_clients.lock();
        if changed.len() < MAX_CHANGED_CLIENTS {
            changed.insert(client_id.clone());
        }
    }

    pub(super) fn take_changed_clients(&self) -> HashSet<ClientId> {
        std::mem::take(&mut *self.changed_clients.lock())
    }

    /// Has the registry's facts read again that are old.
    pub(super) fn expire_old_of_registry(&self) {
        self.clients.expire_old();
        self.tenants.expire_old();
        self.users.expire_old();
        self.callers.expire_old();
    }

    pub(super) fn clear(&self) {
        self.clients.remove_where(|_| true);
        self.tenants.remove_where(|_| true);
        self.users.remove_where(|_| true);
        self.callers.remove_where(|_| true);
        self.grants.remove_where(|_| true);
        self.entries.remove_where(|_| true);
        self.keys.store(None);
    }
}

/// Returns the approximate size of a client in bytes.
fn client_size(client: &Client) -> usize {
    let scope_size = |scope: &ClientScope| scope.description.len() + scope.reason.len() + 128;
    let scopes: usize = client.scopes.iter().map(scope_size).sum();
    let uris: usize = client.redirect_uris.iter().map(|uri| uri.len() + 32).sum();
    let texts = client.display.size() + client.json_web_key_set.len();
    2 * OVERHEAD + scopes + uris + client.tenants.len() * 64 + texts
}

/// Returns the approximate size of a tenant in bytes.
fn tenant_size(tenant: &Tenant) -> usize {
    OVERHEAD + tenant.display_name.len() + tenant.issuer.len() + tenant.cloud_api_url.len()
}

/// Returns the approximate size of a grant in bytes.
fn grant_size(grant: &Grant) -> usize {
    let scopes: usize = grant.scopes.iter().map(|scope| scope.as_str().len()).sum();
    3 * OVERHEAD + scopes + grant.scopes.len() * 24 + grant.display.size()
}
