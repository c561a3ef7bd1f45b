//! Sums up the tokens issued under each grant and day: one read and one write for all grants of a seal, in place of two
//! for each grant.
//!
//! The sealer calls it about once a second, off the path of issuing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use accord::{
    clock::UnixMillis,
    store::{
        Database, StoreError, Transaction,
        audit::{CallerAddress, Rollup, TokenUse},
        batch::json_rows::{Column, JsonRows},
    },
};
use sea_orm::FromQueryResult;
use serde::Serialize;

use super::super::entity::grant_usage::Model;
use crate::model::grant::usage::{Day, UsageOfDay};

/// The most rows in one statement, so that none takes long.
const ROWS: usize = 1_000;

/// Writes the table `grant_usage`.
#[derive(Clone, Copy, Debug)]
pub struct GrantUsage;

/// The usage of a grant on a day, as a row for a statement.
#[derive(Debug, Serialize)]
pub struct Row {
    tenant_id: String,
    grant_id: String,
    day: i32,
    issued: i64,
    last_used_at: i64,
    scopes: String,
    addresses: String,
    has_more_addresses: bool,
}

#[derive(Serialize)]
struct Key<'a> {
    tenant_id: &'a str,
    grant_id: &'a str,
    day: i32,
}

const KEY: [Column; 3] = [("tenant_id", "text"), ("grant_id", "text"), ("day", "integer")];

static FIND: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&KEY, |dialect| {
        format!(
            "SELECT grant_usage.* FROM {} JOIN grant_usage ON grant_usage.tenant_id = input.tenant_id
            AND grant_usage.grant_id = input.grant_id AND grant_usage.day = input.day",
            dialect.input
        )
    })
});

/// No other writer has changed a row since it was read, because the transaction is that of the only sealer.
static SET: LazyLock<JsonRows> = LazyLock::new(|| {
    let [tenant_id, grant_id, day] = KEY;
    let columns = [
        tenant_id,
        grant_id,
        day,
        ("issued", "bigint"),
        ("last_used_at", "bigint"),
        ("scopes", "text"),
        ("addresses", "text"),
        ("has_more_addresses", "boolean"),
    ];
    JsonRows::new(&columns, |dialect| {
        format!(
            "INSERT INTO grant_usage (tenant_id, grant_id, day, issued, last_used_at, scopes, addresses,
                has_more_addresses)
            SELECT tenant_id, grant_id, day, issued, last_used_at, scopes, addresses, has_more_addresses
            FROM {} WHERE true
            ON CONFLICT (tenant_id, grant_id, day) DO UPDATE SET issued = excluded.issued,
                last_used_at = excluded.last_used_at, scopes = excluded.scopes,
                addresses = excluded.addresses, has_more_addresses = excluded.has_more_addresses",
            dialect.input
        )
    })
});

impl Rollup for GrantUsage {
    type Changes = Vec<Row>;

    async fn prepare(&self, db: &Database, uses: Vec<TokenUse>) -> Result<Vec<Row>, StoreError> {
        // By tenant, grant and day, which is also the order of the index.
        let mut by_key: BTreeMap<(&str, &str, Day), Vec<&TokenUse>> = BTreeMap::new();
        for one in &uses {
            let key = (
                one.tenant_id.as_str(),
                one.grant_id.as_str(),
                Day::of(one.issued_at),
            );
            by_key.entry(key).or_default().push(one);
        }
        let keys: Vec<_> = by_key.keys().copied().collect();
        let mut known = HashMap::new();
        for keys in keys.chunks(ROWS) {
            let keys: Vec<_> = keys.iter().copied().map(key).collect();
            for row in FIND.query(db.read(), &keys, []).await? {
                let read = Model::from_query_result(&row, "").map_err(StoreError::from);
                match read.and_then(|row| Ok(((row.grant_id.clone(), row.day), day_of(row)?))) {
                    Ok((key, usage)) => drop(known.insert(key, usage)),
                    // Only somebody who edits the database writes such a row. The sum begins anew.
                    Err(error) => tracing::error!(%error, "a row of grant_usage can't be read"),
                }
            }
        }
        let rows = by_key.into_iter().map(|((tenant_id, grant_id, day), uses)| {
            let mut usage = known.remove(&(grant_id.to_owned(), day.0)).unwrap_or_default();
            for one in uses {
                usage.add(one.issued_at, &one.scope, one.address.map(CallerAddress::ip));
            }
            row(key((tenant_id, grant_id, day)), usage)
        });
        Ok(rows.collect())
    }

    async fn write(&self, tx: &Transaction, rows: Vec<Row>) -> Result<(), StoreError> {
        for rows in rows.chunks(ROWS) {
            SET.execute(tx, rows, []).await?;
        }
        Ok(())
    }
}

fn key<'a>((tenant_id, grant_id, Day(day)): (&'a str, &'a str, Day)) -> Key<'a> {
    Key {
        tenant_id,
        grant_id,
        day,
    }
}

fn row(key: Key<'_>, usage: UsageOfDay) -> Row {
    let scopes: Vec<_> = usage.scopes.into_iter().collect();
    let addresses: Vec<_> = usage.addresses.iter().map(ToString::to_string).collect();
    Row {
        tenant_id: key.tenant_id.to_owned(),
        grant_id: key.grant_id.to_owned(),
        day: key.day,
        issued: usage.issued,
        last_used_at: usage.last_used_at.map_or(0, |at| at.as_millis()),
        scopes: scopes.join(" "),
        addresses: addresses.join(" "),
        has_more_addresses: usage.has_more_addresses,
    }
}

/// Converts a row to the usage of its day.
pub(in crate::store) fn day_of(row: Model) -> Result<UsageOfDay, StoreError> {
    let addresses = row.addresses.split_ascii_whitespace().map(str::parse);
    Ok(UsageOfDay {
        issued: row.issued,
        last_used_at: Some(UnixMillis::from_millis(row.last_used_at)),
        scopes: row.scopes.split_ascii_whitespace().map(str::to_owned).collect(),
        addresses: addresses
            .collect::<Result<_, _>>()
            .map_err(|_| StoreError::Corrupt("grant_usage"))?,
        has_more_addresses: row.has_more_addresses,
        rejected: BTreeMap::new(),
    })
}
