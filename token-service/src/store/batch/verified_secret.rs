//! Verified secrets. Calls of clients that memory does not know look them up together: one read a group, in place of
//! one read a call (benchmark case `new-replica`).

use std::{collections::HashMap, sync::LazyLock};

use accord::{
    store::{
        Database, StoreError,
        batch::{group_commit::Work, json_rows::JsonRows},
    },
    text::id::{ClientId, SecretId},
};
use sea_orm::FromQueryResult;
use serde::Serialize;

use super::super::entity::verified_secret::Model;

#[derive(Serialize)]
pub(in crate::store) struct SecretKey {
    pub(in crate::store) client_id: ClientId,
    pub(in crate::store) secret_id: SecretId,
}

pub(in crate::store) struct SecretLookups(pub(in crate::store) Database);

static SECRETS: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("client_id", "text"), ("secret_id", "text")], |dialect| {
        format!(
            "SELECT verified_secrets.* FROM {} JOIN verified_secrets
            ON verified_secrets.client_id = input.client_id AND verified_secrets.secret_id = input.secret_id",
            dialect.input
        )
    })
});

impl Work for SecretLookups {
    type Item = SecretKey;
    type Outcome = Option<Model>;

    const NAME: &'static str = "secret_reads";

    async fn run(&self, keys: &[SecretKey]) -> Result<Vec<Option<Model>>, StoreError> {
        let mut found = HashMap::new();
        for row in SECRETS.query(self.0.read(), keys, []).await? {
            let row = Model::from_query_result(&row, "")?;
            found.insert((row.client_id.clone(), row.secret_id.clone()), row);
        }
        let outcomes = keys.iter().map(|SecretKey { client_id, secret_id }| {
            found
                .get(&(client_id.to_string(), secret_id.to_string()))
                .cloned()
        });
        Ok(outcomes.collect())
    }
}
