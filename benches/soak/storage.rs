//! What databases hold, and a clean-up of old rows.

use std::{fs, time::Duration};

use accord::{
    clock::{SystemClock, UnixMillis},
    keys::{MasterKeySource, MasterKeys},
    random::SystemRandom,
    store::{Database, audit, change, idempotency, keyring, log, rows},
};
use anyhow::Result;
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use token_service::{model::lifetimes::Lifetimes, store::Store};

use crate::{deployment::seed::token_store, protocol::Plan};

const DAY: Duration = Duration::from_secs(24 * 3600);

const SQLITE_TABLES: &str = "SELECT m.tbl_name AS name, SUM(s.pgsize) AS number FROM dbstat AS s \
    JOIN sqlite_schema AS m ON m.name = s.name \
    WHERE s.aggregate = TRUE AND m.tbl_name NOT GLOB 'sqlite_*' GROUP BY m.tbl_name ORDER BY name";
const POSTGRES_TABLES: &str = "SELECT relname::text AS name, pg_total_relation_size(oid)::bigint AS number \
    FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace \
    UNION ALL SELECT '(log)', SUM(size)::bigint FROM pg_ls_waldir() ORDER BY name";

/// Both databases of a deployment.
pub struct Storage {
    databases: [(&'static str, String, Database); 2],
    token_store: Store,
}

impl Storage {
    pub async fn open(plan: &Plan) -> Result<Self> {
        let registry = Database::connect(&plan.registry_url).await?;
        let masters = vec![MasterKeySource::File(plan.directory.join("registry.key"))];
        let masters = MasterKeys::open(masters).await?;
        let masters = masters.for_service("registry_service_migrations");
        let purposes = [audit::KEYRING_PURPOSE, rows::KEYRING_PURPOSE];
        keyring::open(&registry, &masters, &purposes, &SystemClock, &SystemRandom).await?;
        let (token, token_store) = token_store(plan).await?;
        let databases = [
            ("registry", plan.registry_url.clone(), registry),
            ("token", plan.token_url.clone(), token),
        ];
        Ok(Self {
            databases,
            token_store,
        })
    }

    /// Deletes what is older, by the functions that the services delete by. They keep rows for days: what they would do in
    /// a month happens in minutes.
    pub async fn keep_since(&self, since: UnixMillis) -> Result<()> {
        for (_, _, db) in &self.databases {
            idempotency::delete_expired(db, since.plus(DAY)).await?;
            change::delete_before(db, since).await?;
            audit::delete_before(db, &SystemClock, &SystemRandom, since).await?;
            log::delete_heads_before(db, since).await?;
        }
        // A bound on the end of a life is one on its beginning: that of a family, and that of the revocation of a grant, which
        // lasts as long as any token may. The revocation of one token ends earlier: nobody here brings it again.
        let revoked = since.plus(Lifetimes::MAX_ACCESS_TOKEN);
        let ended = since.plus(Lifetimes::default().family);
        Ok(self.token_store.delete_ended_rows(revoked, ended).await?)
    }

    /// Rows and bytes of all tables, with their indexes, and the bytes of the log of writes that are not in the tables yet.
    pub async fn sizes(&self) -> Result<Vec<(String, f64)>> {
        let mut sizes = Vec::new();
        for (service, url, db) in &self.databases {
            let tables = match db.backend() {
                DatabaseBackend::Postgres => POSTGRES_TABLES,
                _ => SQLITE_TABLES,
            };
            for (table, bytes) in numbers(db, tables).await? {
                if table != "(log)" {
                    let count = format!("SELECT 'rows' AS name, COUNT(*) AS number FROM {table}");
                    let rows = numbers(db, &count).await?;
                    sizes.extend(
                        rows.iter()
                            .map(|(unit, rows)| (format!("{service}.{table} {unit}"), *rows)),
                    );
                }
                sizes.push((format!("{service}.{table} bytes"), bytes));
            }
            if let Some(file) = url.strip_prefix("sqlite://") {
                let log = fs::metadata(format!("{file}-wal")).map_or(0, |file| file.len());
                sizes.push((format!("{service}.(log) bytes"), log as f64));
            }
        }
        Ok(sizes)
    }
}

async fn numbers(db: &Database, sql: &str) -> Result<Vec<(String, f64)>> {
    let rows = Statement::from_string(db.backend(), sql);
    let rows = db.read().query_all_raw(rows).await?;
    let number = |row: &sea_orm::QueryResult| {
        let number: i64 = row.try_get("", "number")?;
        anyhow::Ok((row.try_get("", "name")?, number as f64))
    };
    rows.iter().map(number).collect()
}
