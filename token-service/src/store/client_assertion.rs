//! Assertions that clients proved themselves by: each counts once.

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

use super::{Store, column, commit};
use crate::error::Error;

impl Store {
    /// Uses up a client's assertion, known by the hash of its `jti`; false if it was used before. It is
    /// remembered until it ends. Those who come at the same time share a transaction.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn spend_assertion(
        &self,
        client_id: &ClientId,
        jti_hash: &[u8; 32],
        ends_at: UnixMillis,
    ) -> Result<bool, Error> {
        let assertion = Assertion {
            client_id: client_id.to_string(),
            jti_hash: hex::encode(jti_hash),
            expires_at: ends_at.as_millis(),
        };
        Ok(self.assertions.submit(assertion).await?)
    }
}

/// An assertion to be used up.
#[derive(Serialize)]
pub(super) struct Assertion {
    client_id: String,
    jti_hash: String,
    expires_at: i64,
}

/// Uses assertions up together.
pub(super) struct Spending(pub(super) Database);

static SPEND: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [
        ("client_id", "text"),
        ("jti_hash", "text"),
        ("expires_at", "bigint"),
    ];
    // Of several replicas that use the same ones up, each waits for another in the same order.
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

impl Work for Spending {
    type Item = Assertion;
    /// Whether it was this very item that used it up.
    type Outcome = bool;

    async fn run(&self, assertions: &[Assertion]) -> Result<Vec<bool>, StoreError> {
        let tx = self.0.write().await?;
        let rows = SPEND.query(&tx, assertions, []).await?;
        let spent = rows.iter().map(|row| {
            let jti_hash: Vec<u8> = column(row, "jti_hash")?;
            Ok((column(row, "client_id")?, hex::encode(jti_hash)))
        });
        let mut spent: HashSet<(String, String)> = spent.collect::<Result<_, StoreError>>()?;
        commit(tx).await?;
        // Of several with the same one it is the first.
        let outcomes = assertions
            .iter()
            .map(|assertion| spent.remove(&(assertion.client_id.clone(), assertion.jti_hash.clone())));
        Ok(outcomes.collect())
    }
}
