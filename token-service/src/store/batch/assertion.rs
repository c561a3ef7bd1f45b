//! Spends the `jti` of client assertions: one insert a group, in place of a transaction a call (decision 21).

use std::{collections::HashSet, sync::LazyLock};

use accord::{
    clock::UnixMillis,
    store::{
        Database, StoreError,
        batch::{group_commit::Work, json_rows::JsonRows},
    },
    text::id::ClientId,
};
use serde::Serialize;

use super::super::{Store, column};
use crate::error::Result;

impl Store {
    /// Spends a client's assertion. Returns false if it was spent before.
    pub async fn spend_assertion(&self, assertion: Assertion) -> Result<bool> {
        Ok(self.assertions.submit(assertion).await?)
    }
}

/// A client's assertion, identified by the hash of its `jti`.
#[derive(Debug, Serialize)]
pub struct Assertion {
    /// The client.
    pub client_id: ClientId,
    jti_hash: String,
    expires_at: i64,
}

impl Assertion {
    /// Names an assertion, to be remembered until `expires_at`.
    pub fn new(client_id: &ClientId, jti_hash: &[u8; 32], expires_at: UnixMillis) -> Self {
        Self {
            client_id: client_id.clone(),
            jti_hash: hex::encode(jti_hash),
            expires_at: expires_at.as_millis(),
        }
    }
}

pub(in crate::store) struct Assertions(pub(in crate::store) Database);

/// Inserts in the order of the keys, so that replicas that spend the same assertions don't deadlock.
static SPEND: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [
        ("client_id", "text"),
        ("jti_hash", "text"),
        ("expires_at", "bigint"),
    ];
    JsonRows::new(&columns, |dialect| {
        format!(
            "INSERT INTO client_assertions (client_id, jti_hash, expires_at)
            SELECT client_id, {}, expires_at FROM {} WHERE true ORDER BY client_id, jti_hash
            ON CONFLICT (client_id, jti_hash) DO NOTHING RETURNING client_id, jti_hash",
            dialect.unhex("jti_hash"),
            dialect.input,
        )
    })
});

impl Work for Assertions {
    type Item = Assertion;
    /// Whether this item spent the assertion.
    type Outcome = bool;

    const NAME: &'static str = "assertions";

    async fn run(&self, assertions: &[Assertion]) -> Result<Vec<bool>, StoreError> {
        let tx = self.0.write().await?;
        let rows = SPEND.query(&tx, assertions, []).await?;
        let spent = rows.iter().map(|row| {
            let jti_hash: Vec<u8> = column(row, "jti_hash")?;
            Ok((column(row, "client_id")?, hex::encode(jti_hash)))
        });
        let mut spent: HashSet<(String, String)> = spent.collect::<Result<_, StoreError>>()?;
        tx.commit().await?;
        // Of several items with the same assertion the first one wins.
        let outcomes = assertions
            .iter()
            .map(|item| spent.remove(&(item.client_id.to_string(), item.jti_hash.clone())));
        Ok(outcomes.collect())
    }
}
