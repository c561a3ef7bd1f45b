//! The scope catalogue in the database.

use accord::{
    clock::UnixMillis,
    store::{
        Creation,
        audit::{Event, Origin},
        idempotency::Outcome,
    },
    text::{
        id::ScopeName,
        page::{Page, PageRequest},
    },
};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};

use super::{
    Store, change, commit, corrupt,
    entity::scope::{ActiveModel, Column, Entity, Model},
    exists,
};
use crate::{
    error::Error,
    model::{
        change_kind,
        scope::{NewScope, Scope, ScopeUpdate},
    },
};

impl Store {
    /// Adds a scope, enabled.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::RequestIdReused`].
    pub async fn create_scope(&self, creation: &Creation, new: NewScope) -> Result<Scope, Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { .. } => return find(&tx, &new.name).await?.ok_or(corrupt("idempotency")),
            Outcome::New(reservation) => reservation,
        };
        let now = self.now().as_millis();
        let row = ActiveModel {
            name: Set(new.name.to_string()),
            description: Set(new.description),
            enabled: Set(true),
            created_at: Set(now),
            updated_at: Set(now),
            etag: Set(1),
        };
        let row = row.insert(&tx).await.map_err(exists("scope"))?;
        reservation.complete(&tx, new.name.as_str()).await?;
        let event = Event::new("scope.create").subject(new.name.as_str());
        self.publish(
            &tx,
            &creation.origin,
            event,
            change(change_kind::SCOPE, &new.name, None),
        )
        .await?;
        commit(tx).await?;
        scope(row)
    }

    /// Lists the catalogue by name.
    pub async fn list_scopes(&self, page: &PageRequest) -> Result<Page<Scope>, Error> {
        let mut query = Entity::find().order_by_asc(Column::Name).limit(page.fetch());
        if let Some(after) = page.after() {
            query = query.filter(Column::Name.gt(after));
        }
        let rows = query.all(self.db.read()).await?;
        let scopes = rows.into_iter().map(scope).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(scopes, |scope| scope.name.to_string()))
    }

    /// Changes the fields given.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`].
    pub async fn update_scope(
        &self,
        origin: &Origin,
        name: &ScopeName,
        update: ScopeUpdate,
    ) -> Result<Scope, Error> {
        let tx = self.db.write().await?;
        let mut event = Event::new("scope.update").subject(name.as_str());
        let mut fields = Vec::new();
        let mut query = Entity::update_many()
            .filter(Column::Name.eq(name.as_str()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .col_expr(Column::Etag, Expr::col(Column::Etag).add(1));
        if let Some(description) = update.description {
            query = query.col_expr(Column::Description, Expr::value(description));
            fields.push("description");
        }
        if let Some(enabled) = update.enabled {
            query = query.col_expr(Column::Enabled, Expr::value(enabled));
            fields.push("enabled");
            event = event.detail("enabled", enabled.to_string());
        }
        if let Some(etag) = update.etag {
            query = query.filter(Column::Etag.eq(etag));
        }
        let updated = query.exec(&tx).await?;
        if updated.rows_affected == 0 {
            find(&tx, name).await?.ok_or(Error::NotFound("scope"))?;
            return Err(Error::EtagMismatch("scope"));
        }
        let event = event.detail("fields", fields.join(","));
        let change = change(change_kind::SCOPE, name, None);
        self.publish(&tx, origin, event, change).await?;
        let scope = find(&tx, name).await?.ok_or(Error::NotFound("scope"))?;
        commit(tx).await?;
        Ok(scope)
    }
}

async fn find(conn: &impl ConnectionTrait, name: &ScopeName) -> Result<Option<Scope>, Error> {
    let row = Entity::find_by_id(name.as_str()).one(conn).await?;
    row.map(scope).transpose()
}

fn scope(row: Model) -> Result<Scope, Error> {
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
    async fn a_name_is_taken_once_and_a_repeated_call_answers_the_same() {
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
    async fn only_the_fields_given_change_and_the_feed_tells_it() {
        for database in databases() {
            let (store, clock) = store(&database.url).await;
            let made = store
                .create_scope(&creation("CreateScope"), new("contacts.read"))
                .await
                .unwrap();
            clock.advance(std::time::Duration::from_secs(1));
            let update = ScopeUpdate {
                enabled: Some(false),
                ..ScopeUpdate::default()
            };
            let changed = store
                .update_scope(&origin(), &made.name, update.clone())
                .await
                .unwrap();
            let expected = Scope {
                enabled: false,
                updated_at: store.now(),
                etag: 2,
                ..made
            };
            assert_eq!(changed, expected, "{database:?}");
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
                let page = PageRequest::parse(&mut Default::default(), "scopes", &[], 2, &token).unwrap();
                let page = store.list_scopes(&page).await.unwrap();
                seen.extend(page.items.into_iter().map(|scope| scope.name.to_string()));
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(seen, ["a", "b", "c", "d", "e"], "{database:?}");
        }
    }
}
