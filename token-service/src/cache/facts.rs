//! Everything that is kept in memory, and what each change removes.
//!
//! The invariant: after a reader has read a follower's position, it finds no fact that a change up to that position
//! affects. Three rules give it.
//!
//! 1. A fact is inserted only if it was read at the position that its follower has applied, or later. Check and
//!    insertion happen under `applying`.
//! 2. Changes are applied under `applying`, and mark what they affect as stale before the new position is published.
//! 3. A reader loads the position first and the fact second, and checks that the fact is current.
//!
//! An [`Entry`] joins facts of both sources. It has no rule of its own: it counts while each of its facts is current.

use std::{collections::HashSet, sync::Arc};

use accord::{
    rpc::auth::Caller,
    text::id::{ClientId, GrantId, ScopeName, TenantId, UserId},
};
use arc_swap::ArcSwapOption;

use super::{
    cached::{Cached, FactCache, OVERHEAD},
    lock::Lock,
    verified_secrets::KnownClient,
};
use crate::model::{
    change::Change, client::Client, grant::Grant, revocation::RevocationKind, signing_key::Keys,
    tenant::Tenant, user::User,
};

/// The most that clients, and grants, may take, each.
const MAX_LARGE_BYTES: usize = 64 * 1024 * 1024;
/// The most changed clients that are noted. Stored secrets of more stay, which costs a row each.
const MAX_CHANGED_CLIENTS: usize = 16 * 1024;
/// The most that entries may take.
const MAX_ENTRY_BYTES: usize = 32 * 1024 * 1024;
/// The most that tenants, users and callers may take, each.
const MAX_SMALL_BYTES: usize = 16 * 1024 * 1024;

/// All that issuing a token reads about a client at a tenant: one look-up for four facts.
#[derive(Debug)]
pub struct Entry {
    /// The client, with the secrets that are known to be right.
    pub client: Arc<Cached<KnownClient>>,
    /// The tenant.
    pub tenant: Arc<Cached<Tenant>>,
    /// The designated user of the grant.
    pub user: Arc<Cached<User>>,
    /// The one grant of the tenant to the client whose stored state is active.
    pub grant: Arc<Cached<Grant>>,
}

impl Entry {
    /// Whether each of its facts is current.
    pub(super) fn facts_are_current(&self) -> bool {
        self.client.is_current()
            && self.tenant.is_current()
            && self.user.is_current()
            && self.grant.is_current()
    }
}

/// What is in memory.
pub(super) struct Facts {
    /// Whether anything is answered from memory.
    pub(super) enabled: bool,
    /// Held while changes are applied, and while a fact is inserted.
    pub(super) applying: Lock<()>,
    pub(super) entries: FactCache<(ClientId, TenantId), Entry>,
    pub(super) clients: FactCache<ClientId, KnownClient>,
    pub(super) tenants: FactCache<TenantId, Tenant>,
    pub(super) users: FactCache<(TenantId, UserId), User>,
    /// By the SHA-256 of their token.
    pub(super) callers: FactCache<[u8; 32], Caller>,
    /// Grants whose stored state is active. That there is none, or a pending one, is read each time.
    pub(super) grants: FactCache<GrantId, Grant>,
    pub(super) keys: ArcSwapOption<Keys>,
    /// Clients that changed since their stored secrets were looked at.
    changed_clients: Lock<HashSet<ClientId>>,
}

impl Facts {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            applying: Lock::default(),
            entries: FactCache::new(MAX_ENTRY_BYTES),
            clients: FactCache::new(MAX_LARGE_BYTES),
            tenants: FactCache::new(MAX_SMALL_BYTES),
            users: FactCache::new(MAX_SMALL_BYTES),
            callers: FactCache::new(MAX_SMALL_BYTES),
            grants: FactCache::new(MAX_LARGE_BYTES),
            keys: ArcSwapOption::empty(),
            changed_clients: Lock::default(),
        }
    }

    /// Removes what a change affects.
    pub(super) fn apply(&self, change: &Change) {
        match change {
            // Its verified secrets stay: which of them are live is part of what is read anew.
            Change::Client(id) => {
                self.clients.expire(id);
                self.note_changed_client(id);
            }
            Change::Tenant(id) => self.tenants.remove(id),
            Change::User(tenant_id, id) => self.users.remove(&(tenant_id.clone(), id.clone())),
            // Which clients have the scope is not known here. Their secrets stay: otherwise one new scope would
            // send every client to argon2 at once.
            Change::Scope => self.clients.expire_all(),
            Change::Caller(id) => self.callers.remove_where(|caller| caller.id() == id),
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
            // Newer versions write these: anything may be affected.
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

/// What a client takes in memory, roughly.
pub(super) fn client_bytes(client: &Client) -> usize {
    let scopes = client.scopes.iter();
    let scopes: usize = scopes
        .map(|scope| scope.description.len() + scope.reason.len() + 128)
        .sum();
    let uris: usize = client.redirect_uris.iter().map(|uri| uri.len() + 32).sum();
    let texts = client.profile.size() + client.json_web_key_set.len();
    2 * OVERHEAD + scopes + uris + client.tenant_ids.len() * 64 + texts
}

/// What a tenant takes in memory, roughly.
pub(super) fn tenant_bytes(tenant: &Tenant) -> usize {
    OVERHEAD + tenant.display_name.len() + tenant.issuer.len() + tenant.cloud_api_url.len()
}

/// What a grant takes in memory, roughly.
pub(super) fn grant_bytes(grant: &Grant) -> usize {
    let scopes: usize = grant.scopes.iter().map(ScopeName::as_str).map(str::len).sum();
    3 * OVERHEAD + scopes + grant.scopes.len() * 24 + grant.profile.size()
}
