//! Third-party clients: registered from approved integration requests.

use accord::{
    clock::UnixMillis,
    store::{Creation, audit::Origin},
    text::{
        id::{ClientId, IntegrationRequestId, ScopeName, TenantId},
        page::{Page, PageRequest},
    },
};

use crate::{
    error::Error,
    model::{
        client_secret::LiveSecret,
        delivery::{Handover, Method},
        integration_request::{References, RequestedScope},
    },
    store::Store,
};

/// Whether a client can obtain tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The usual state.
    Active,
    /// Obtains nothing.
    Suspended,
}

impl State {
    /// The state's name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Suspended]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The Client ID.
    pub client_id: ClientId,
    /// The request it was registered from.
    pub integration_request_id: IntegrationRequestId,
    /// Name for people.
    pub display_name: String,
    /// The partner behind it.
    pub partner_name: String,
    /// What it is for: the request's goals.
    pub purpose: String,
    /// The tenants it may ask for consent.
    pub tenant_ids: Vec<TenantId>,
    /// The scopes it may ask for, with the partner's reasons.
    pub scopes: Vec<RequestedScope>,
    /// Where browsers may be sent back to.
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
}

/// What token-service needs of a client: scopes that are disabled in the catalogue are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientProfile {
    /// The Client ID.
    pub client_id: ClientId,
    /// Name for people.
    pub display_name: String,
    /// The partner behind it.
    pub partner_name: String,
    /// What it is for.
    pub purpose: String,
    /// Whether it can obtain tokens.
    pub state: State,
    /// The tenants it may ask for consent.
    pub tenant_ids: Vec<TenantId>,
    /// Its enabled scopes.
    pub scopes: Vec<ProfileScope>,
    /// Where browsers may be sent back to.
    pub redirect_uris: Vec<String>,
    /// Grows with every change that a consent page would show.
    pub version: i64,
    /// The feed position at which its access tokens last ended.
    pub tokens_ended_seq: i64,
    /// The feed position at which its refresh tokens last ended.
    pub families_ended_seq: i64,
    /// Its public keys, a JSON Web Key Set; empty if none.
    pub json_web_key_set: String,
    /// The secrets that authenticate it.
    pub live_secrets: Vec<LiveSecret>,
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
}

/// What an operator gives to register a client; the rest comes from the approved request.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// The approved request.
    pub integration_request_id: IntegrationRequestId,
    /// How to hand the credentials over.
    pub delivery: Method,
}

/// What an operator changes; `None` leaves a field as it is. Every list is free of duplicates.
#[derive(Clone, Debug, Default)]
pub struct ClientUpdate {
    /// The version that the change is made from; `None` takes any.
    pub etag: Option<i64>,
    /// Name for people.
    pub display_name: Option<String>,
    /// Where browsers may be sent back to.
    pub redirect_uris: Option<Vec<String>>,
    /// The scopes it may ask for.
    pub scopes: Option<Vec<RequestedScope>>,
    /// The tenants it may ask for consent.
    pub tenant_ids: Option<Vec<TenantId>>,
    /// What the new values refer to.
    pub references: References,
}

impl ClientUpdate {
    /// Whether it takes a tenant or a scope from the client as it is.
    pub fn narrows(&self, client: &Client) -> bool {
        let takes_tenant = self
            .tenant_ids
            .as_ref()
            .is_some_and(|left| client.tenant_ids.iter().any(|id| !left.contains(id)));
        let takes_scope = self.scopes.as_ref().is_some_and(|left| {
            let stays = |scope: &RequestedScope| left.iter().any(|other| other.name == scope.name);
            !client.scopes.iter().all(stays)
        });
        takes_tenant || takes_scope
    }
}

/// Which clients are listed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those that may ask this tenant.
    pub tenant_id: Option<TenantId>,
    /// Those in this state.
    pub state: Option<State>,
}

/// Registers the client of an approved request and makes its first credentials.
///
/// # Errors
/// [`Error::NotFound`] and [`Error::WrongState`] (the request), [`Error::RequestIdReused`].
pub async fn register(
    store: &Store,
    creation: &Creation,
    new: NewClient,
) -> Result<(Client, Handover), Error> {
    store.register_client(creation, new).await
}

/// Reads a client.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(store: &Store, client_id: &ClientId) -> Result<Client, Error> {
    store
        .find_client(client_id)
        .await?
        .ok_or(Error::NotFound("client"))
}

/// Reads what token-service needs of a client.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn profile(store: &Store, client_id: &ClientId) -> Result<ClientProfile, Error> {
    let client = get(store, client_id).await?;
    let names = client.scopes.iter().map(|scope| scope.name.clone()).collect();
    let catalogue = store.enabled_scopes(names).await?;
    let scopes = client.scopes.into_iter().filter_map(|scope| {
        let description = catalogue.get(&scope.name)?.clone();
        Some(ProfileScope {
            name: scope.name,
            description,
            reason: scope.reason,
        })
    });
    Ok(ClientProfile {
        scopes: scopes.collect(),
        client_id: client.client_id,
        display_name: client.display_name,
        partner_name: client.partner_name,
        purpose: client.purpose,
        state: client.state,
        tenant_ids: client.tenant_ids,
        redirect_uris: client.redirect_uris,
        version: client.version,
        tokens_ended_seq: client.tokens_ended_seq,
        families_ended_seq: client.families_ended_seq,
        json_web_key_set: client.json_web_key_set,
        live_secrets: store.live_secrets(client_id).await?,
    })
}

/// Lists clients, newest first.
///
/// # Errors
/// [`Error::Store`].
pub async fn list(store: &Store, filter: &Filter, page: &PageRequest) -> Result<Page<Client>, Error> {
    store.list_clients(filter, page).await
}

/// Changes a client. Grants that stand are not widened by it.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Invalid`] for tenants and scopes that are unknown.
pub async fn update(
    store: &Store,
    origin: &Origin,
    client_id: &ClientId,
    update: ClientUpdate,
) -> Result<Client, Error> {
    store.update_client(origin, client_id, update).await
}

/// Ends the client's access tokens and pauses its refresh tokens. Repeated, no change.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn suspend(store: &Store, origin: &Origin, client_id: &ClientId) -> Result<Client, Error> {
    store.set_client_state(origin, client_id, State::Suspended).await
}

/// Lets refresh tokens go on; what ended stays ended. Repeated, no change.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn reinstate(store: &Store, origin: &Origin, client_id: &ClientId) -> Result<Client, Error> {
    store.set_client_state(origin, client_id, State::Active).await
}
