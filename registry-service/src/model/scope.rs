//! The catalogue of data scopes that integrations can ask for.

use accord::{
    clock::UnixMillis,
    store::{Creation, audit::Origin},
    text::{
        id::ScopeName,
        page::{Page, PageRequest},
    },
};

use crate::{error::Error, store::Store};

/// A kind of access to a tenant's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The name.
    pub name: ScopeName,
    /// What it allows, in words for a Tenant Admin.
    pub description: String,
    /// Whether it can be asked for and put in tokens.
    pub enabled: bool,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it last changed.
    pub updated_at: UnixMillis,
    /// Grows with every change of a returned field.
    pub etag: i64,
}

/// What an operator gives to add a scope.
#[derive(Clone, Debug)]
pub struct NewScope {
    /// The name.
    pub name: ScopeName,
    /// What it allows.
    pub description: String,
}

/// What an operator changes; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct ScopeUpdate {
    /// The version that the change is made from; `None` takes any.
    pub etag: Option<i64>,
    /// What it allows.
    pub description: Option<String>,
    /// Whether it can be asked for and put in tokens.
    pub enabled: Option<bool>,
}

/// Adds a scope, enabled.
///
/// # Errors
/// [`Error::AlreadyExists`], [`Error::RequestIdReused`].
pub async fn create(store: &Store, creation: &Creation, new: NewScope) -> Result<Scope, Error> {
    store.create_scope(creation, new).await
}

/// Lists the catalogue by name.
///
/// # Errors
/// [`Error::Store`].
pub async fn list(store: &Store, page: &PageRequest) -> Result<Page<Scope>, Error> {
    store.list_scopes(page).await
}

/// Changes a scope.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn update(
    store: &Store,
    origin: &Origin,
    name: &ScopeName,
    update: ScopeUpdate,
) -> Result<Scope, Error> {
    store.update_scope(origin, name, update).await
}
