//! The registration of clients.

use accord::{
    store::{Creation, idempotency::Outcome},
    text::{
        id::{ClientId, IntegrationRequestId},
        validation::Violations,
    },
};
use sea_orm::{Set, entity::prelude::*};

use super::{
    super::{
        Store, commit, corrupt, entity::client::ActiveModel, integration_request::mark_registered, json,
    },
    changed, event, find, insert_tenants, set_version,
};
use crate::{
    error::{Error, Result},
    model::{
        client::{Added, Client, State},
        client_secret::NewSecret,
        delivery::{Handover, Method},
    },
};

impl Store {
    /// Registers the client of an approved request, with its first credentials.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::Invalid`] for a request that amends a client,
    /// [`Error::RequestIdReused`].
    pub async fn register_client(
        &self,
        creation: &Creation,
        request_id: &IntegrationRequestId,
        delivery: Method,
    ) -> Result<(Client, Handover)> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let (issued, handover) = self.reissue(&tx, &resource_id, &secrets).await?;
                let client = find(&tx, &issued.client_id).await?;
                let replay = (client.ok_or(corrupt("idempotency"))?, handover);
                let subject = issued.secret_id.as_str();
                return self.commit_replay(tx, creation, subject, replay).await;
            }
            Outcome::New(reservation) => reservation,
        };
        let now = self.now();
        let client_id = ClientId::generate(&*self.clock, &*self.random);
        let request = mark_registered(&tx, request_id, &client_id, now).await?;
        let request = request.content;
        if request.amends.is_some() {
            let mut v = Violations::default();
            v.add(
                "integration_request_id",
                "must not name a client: AmendClient applies it",
            );
            return Err(Error::Invalid(v));
        }
        let row = ActiveModel {
            client_id: Set(client_id.to_string()),
            integration_request_id: Set(request_id.to_string()),
            presentation: Set(json(&request.presentation)?),
            scopes: Set(json(&request.scopes)?),
            added: Set(json(&Added::default())?),
            redirect_uris: Set(json(&request.redirect_uris)?),
            state: Set(State::Active.as_ref().to_owned()),
            version: Set(0),
            tokens_ended_seq: Set(0),
            families_ended_seq: Set(0),
            created_at: Set(now.as_millis()),
            updated_at: Set(now.as_millis()),
            etag: Set(1),
            json_web_key_set: Set(request.json_web_key_set),
        };
        row.insert(&tx).await?;
        insert_tenants(&tx, &client_id, &request.tenant_ids).await?;
        let secret = NewSecret {
            client_id: client_id.clone(),
            expires_at: None,
            delivery,
        };
        let (issued, handover) = self.issue(&tx, &creation.origin, &secret, reservation).await?;
        let event = event("client.register", &client_id)
            .detail("integration_request_id", request_id.as_str())
            .detail("secret_id", issued.secret_id.as_str());
        let change = changed(&client_id);
        let seq = self.publish(&tx, &creation.origin, event, change).await?;
        let client = set_version(&tx, &client_id, seq).await?;
        commit(tx, (client, handover)).await
    }
}
