//! The scope catalogue in the database.

use accord::{
    clock::UnixMillis,
    store::{
        Creation,
        audit::{Event, Origin, action},
        idempotency::CreationOutcome,
        rows::{self, Authentic, ProtectedRows},
    },
    text::{
        id::ScopeName,
        page::{Page, PageRequest},
    },
};
use sea_orm::Order::Asc;

use super::{
    Store, change, commit, corrupt,
    entity::scope::{Column, Entity, Model},
    exists, replaced,
};
use crate::{
    error::{Error, Result},
    model::{
        change_kind,
        scope::{NewScope, Scope, ScopeUpdate},
    },
};

impl Store {
    /// Adds an enabled scope.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::RequestIdReused`].
    pub async fn create_scope(&self, creation: &Creation, new: NewScope) -> Result<Scope> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let name = &new.name;
        let CreationOutcome::New(reservation) = outcome else {
            let row = Entity::look_up_by_id(name.as_str()).read_one(&tx).await?;
            return scope(row.ok_or(corrupt("idempotency"))?);
        };
        let now = self.now().as_millis();
        let row = Model {
            name: name.to_string(),
            description: new.description,
            enabled: true,
            created_at: now,
            updated_at: now,
            etag: 1,
            mac: Vec::new(),
        };
        let row = rows::insert::<Entity>(&tx, row).await.map_err(exists("scope"))?;
        reservation.complete(&tx, name.as_str()).await?;
        let event = Event::new(action::SCOPE_CREATE)
            .subject(name.as_str())
            .detail("description", row.description.as_str());
        let change = change(change_kind::SCOPE, name, None);
        self.publish(&tx, &creation.origin, event, change).await?;
        commit(tx, scope(row)?).await
    }

    /// Lists the catalogue by name.
    pub async fn list_scopes(&self, page: &PageRequest) -> Result<Page<Scope>> {
        self.page(Entity::look_up(), Column::Name, Asc, page, scope).await
    }

    /// Changes the fields given. Changes and records nothing if they have these values already.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`].
    pub async fn update_scope(
        &self,
        origin: &Origin,
        name: &ScopeName,
        update: ScopeUpdate,
    ) -> Result<Scope> {
        let tx = self.db.write().await?;
        // Locks before it reads, so that the event holds the value that this update replaces.
        let row = Entity::look_up_by_id(name.as_str()).lock_one(&tx).await?;
        let mut row = row.ok_or(Error::NotFound("scope"))?;
        if update.etag.is_some_and(|etag| etag != row.etag) {
            return Err(Error::EtagMismatch("scope"));
        }
        let description = update.description.filter(|new| *new != row.description);
        let enabled = update.enabled.filter(|new| *new != row.enabled);
        if description.is_none() && enabled.is_none() {
            return scope(row.stored());
        }
        let event = Event::new(action::SCOPE_UPDATE).subject(name.as_str());
        let event = replaced(event, "description", &row.description, &description)?;
        let event = replaced(event, "enabled", &row.enabled, &enabled)?;
        if let Some(description) = description {
            row.description = description;
        }
        if let Some(enabled) = enabled {
            row.enabled = enabled;
        }
        row.set_next_version(self.now());
        row.save(&tx).await?;
        let change = change(change_kind::SCOPE, name, None);
        self.publish(&tx, origin, event, change).await?;
        commit(tx, scope(row.stored())?).await
    }
}

fn scope(row: Authentic<Entity>) -> Result<Scope> {
    let row = row.into_row();
    Ok(Scope {
        name: ScopeName::parse(&row.name).map_err(|_| corrupt("scopes"))?,
        description: row.description,
        enabled: row.enabled,
        created_at: UnixMillis::from_millis(row.created_at),
        updated_at: UnixMillis::from_millis(row.updated_at),
        etag: row.etag,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use accord::{store::change, testing::databases};

    use super::*;
    use crate::store::testing::{audited, creation, origin, repeatable, store};

    fn new(name: &str) -> NewScope {
        NewScope {
            name: ScopeName::parse(name).unwrap(),
            description: "reads contacts".into(),
        }
    }

    #[tokio::test]
    async fn a_name_is_unique_and_a_repeated_call_returns_the_same_scope() {
        for database in databases() {
            let (store, _) = store(&database.url).await;
            let call = repeatable("CreateScope", b"contacts.read");
            let first = store.create_scope(&call, new("contacts.read")).await.unwrap();
            assert!(first.enabled);
            assert_eq!(
                store.create_scope(&call, new("contacts.read")).await.unwrap(),
                first
            );
            let again = store
                .create_scope(&creation("CreateScope"), new("contacts.read"))
                .await;
            assert!(
                matches!(again, Err(Error::AlreadyExists("scope"))),
                "{database:?}"
            );
            assert_eq!(audited(&store).await, ["scope.create"], "{database:?}");
        }
    }

    #[tokio::test]
    async fn an_update_changes_the_given_fields_and_is_in_the_feed() {
        for database in databases() {
            let (store, clock) = store(&database.url).await;
            let created = store
                .create_scope(&creation("CreateScope"), new("contacts.read"))
                .await
                .unwrap();
            clock.advance(std::time::Duration::from_secs(1));
            let update = ScopeUpdate {
                enabled: Some(false),
                ..ScopeUpdate::default()
            };
            let changed = store
                .update_scope(&origin(), &created.name, update.clone())
                .await
                .unwrap();
            let expected = Scope {
                enabled: false,
                updated_at: store.now(),
                etag: 2,
                ..created.clone()
            };
            assert_eq!(changed, expected, "{database:?}");
            // An update without effect changes nothing, and is in no feed.
            let again = store.update_scope(&origin(), &created.name, update.clone()).await;
            assert_eq!(again.unwrap(), expected, "{database:?}");
            let unknown = ScopeName::parse("contacts.write").unwrap();
            let missing = store.update_scope(&origin(), &unknown, update).await;
            assert!(matches!(missing, Err(Error::NotFound("scope"))));
            let changes = change::list_after(store.db.read(), 0, 10).await.unwrap();
            let ids: Vec<_> = changes.iter().map(|c| (c.kind.as_str(), c.id.as_str())).collect();
            assert_eq!(
                ids,
                [("scope", "contacts.read"), ("scope", "contacts.read")],
                "{database:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_catalogue_is_listed_by_name_page_by_page() {
        for database in databases() {
            let (store, _) = store(&database.url).await;
            for name in ["c", "a", "d", "b", "e"] {
                store
                    .create_scope(&creation("CreateScope"), new(name))
                    .await
                    .unwrap();
            }
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let page = PageRequest::test(2, &token);
                let page = store.list_scopes(&page).await.unwrap();
                let scopes;
                (scopes, token) = page.into_parts();
                seen.extend(scopes.into_iter().map(|scope| scope.name.to_string()));
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(seen, ["a", "b", "c", "d", "e"], "{database:?}");
        }
    }
}
