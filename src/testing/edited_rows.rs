//! Edits of rows, as somebody makes them who can write the database and holds no key.

use sea_orm::{DbBackend, IntoActiveModel, Iterable, PrimaryKeyToColumn, entity::prelude::*};

use crate::store::{
    Database, StoreError,
    rows::{Protected, ProtectedRows, version},
};

/// Edits each column of one row, one after the other, and returns those whose edit was not noticed, as `<table>.<column>`. Leaves
/// the table as it was.
pub async fn unnoticed_edits<E: Protected>(db: &Database) -> Vec<String>
where
    E::ActiveModel: Send,
{
    let original = E::find().one(db.read()).await.unwrap();
    let original = original.unwrap_or_else(|| panic!("{:?} has no row", E::default()));
    let mut unnoticed = Vec::new();
    for column in E::Column::iter() {
        let mut edited = original.clone();
        edited.try_set(column, another(original.get(column))).unwrap();
        replace::<E>(db, &original, &edited).await;
        let read = E::look_up().read_all(db.read()).await;
        if !matches!(read, Err(StoreError::Altered(_))) {
            unnoticed.push(format!("{}.{}", E::default().table_name(), column.as_str()));
        }
        replace::<E>(db, &edited, &original).await;
    }
    E::look_up().read_all(db.read()).await.unwrap();
    unnoticed
}

/// Replaces a row by another one, MAC and all.
pub async fn replace<E: Protected>(db: &Database, old: &E::Model, new: &E::Model)
where
    E::ActiveModel: Send,
{
    remove::<E>(db, old).await;
    let new = new.clone().into_active_model().reset_all();
    E::insert(new).exec_without_returning(db.read()).await.unwrap();
}

/// Removes a row.
pub async fn remove<E: Protected>(db: &Database, row: &E::Model) {
    let mut delete = E::delete_many();
    for key in E::PrimaryKey::iter() {
        let column = key.into_column();
        delete = delete.filter(column.eq(row.get(column)));
    }
    assert_eq!(delete.exec(db.read()).await.unwrap().rows_affected, 1);
}

/// Returns the version of a row, as the newest event has left it.
pub async fn version_of<E: Protected>(db: &Database, row: &E::Model) -> version::Model {
    let name = version::name::<E>(row).unwrap();
    let found = version::Entity::find_by_id(name).one(db.read()).await.unwrap();
    found.unwrap()
}

/// Puts back a row together with its version.
pub async fn put_back<E: Protected>(
    db: &Database,
    new: &E::Model,
    (old, version): (&E::Model, &version::Model),
) where
    E::ActiveModel: Send,
{
    let newest = version_of::<E>(db, new).await;
    replace::<E>(db, new, old).await;
    replace::<version::Entity>(db, &newest, version).await;
}

fn another(value: Value) -> Value {
    match value {
        Value::Bool(value) => Value::Bool(Some(!value.unwrap_or(false))),
        Value::Int(value) => Value::Int(Some(value.unwrap_or(0) + 1)),
        Value::BigInt(value) => Value::BigInt(Some(value.unwrap_or(0) + 1)),
        Value::String(value) => Value::String(Some(value.unwrap_or_default() + "x")),
        Value::Bytes(value) => Value::Bytes(Some([value.unwrap_or_default(), vec![1]].concat())),
        Value::Json(value) => Value::Json(Some(Box::new(serde_json::json!([value])))),
        other => panic!("a column of another type: {other:?}"),
    }
}

/// Lets the database leave out each row that is inserted into a table, without an error.
pub async fn drop_inserts(db: &Database, table: &str) {
    let statement = match db.backend() {
        DbBackend::Postgres => format!("CREATE RULE dropped AS ON INSERT TO {table} DO INSTEAD NOTHING"),
        _ => format!("CREATE TRIGGER dropped BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END"),
    };
    db.read().execute_unprepared(&statement).await.unwrap();
}
