//! Looks for objects in the schema that no migration creates: a trigger or a rule can leave out what is written, and an operator or a
//! view can change what a condition means. Reads the catalogues of the databases, which no entity describes.

use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};

use crate::store::StoreError;

const SQLITE: &str = "SELECT type || ' ' || name AS object FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY object";

/// The schema is the only one of the session's search path. What belongs to an extension was made by who administers the server.
const POSTGRES: &str = "WITH own AS (SELECT oid FROM pg_namespace WHERE nspname = current_schema()),
    tables AS (SELECT c.oid, c.relname, c.relkind FROM pg_class c JOIN own ON own.oid = c.relnamespace),
    found AS (
        SELECT 'pg_trigger'::regclass AS catalogue, t.oid, 'trigger ' || t.tgname || ' of ' || tables.relname AS object
            FROM pg_trigger t JOIN tables ON tables.oid = t.tgrelid WHERE NOT t.tgisinternal
        UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, 'rule ' || r.rulename || ' of ' || tables.relname
            FROM pg_rewrite r JOIN tables ON tables.oid = r.ev_class WHERE r.rulename <> '_RETURN'
        UNION ALL SELECT 'pg_policy'::regclass, p.oid, 'policy ' || p.polname || ' of ' || tables.relname
            FROM pg_policy p JOIN tables ON tables.oid = p.polrelid
        UNION ALL SELECT 'pg_class'::regclass, tables.oid, 'view ' || tables.relname
            FROM tables WHERE tables.relkind IN ('v', 'm', 'f')
        UNION ALL SELECT 'pg_operator'::regclass, o.oid, 'operator ' || o.oprname
            FROM pg_operator o JOIN own ON own.oid = o.oprnamespace
        UNION ALL SELECT 'pg_proc'::regclass, p.oid, 'function ' || p.proname
            FROM pg_proc p JOIN own ON own.oid = p.pronamespace)
    SELECT object FROM found WHERE NOT EXISTS (SELECT 1 FROM pg_depend d
        WHERE d.classid = found.catalogue AND d.objid = found.oid AND d.deptype = 'e') ORDER BY object";

/// Returns the triggers, rules, policies, views, operators and functions of the schema. There are none in order.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub async fn foreign_objects(conn: &impl ConnectionTrait) -> Result<Vec<String>, StoreError> {
    let backend = conn.get_database_backend();
    let sql = match backend {
        DatabaseBackend::Postgres => POSTGRES,
        _ => SQLITE,
    };
    let rows = conn.query_all_raw(Statement::from_string(backend, sql)).await?;
    rows.iter().map(|row| Ok(row.try_get("", "object")?)).collect()
}
