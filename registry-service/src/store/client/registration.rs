//! The registration of clients.

use super::{
    super::{
        Store, commit, corrupt,
        entity::client::{Entity, Model},
        json,
    },
    changed, client, event, find, index_tenants, lock_client, set_version, tenants,
};
use crate::{
    error::{Error, Result},
    model::{
        client::{Added, Client, State},
        client_secret::NewSecret,
        delivery::{Handover, Method},
    },
};
use accord::{
    store::{Creation, idempotency::Outcome, rows},
    text::{
        id::{ClientId, IntegrationRequestId},
        validation::Violations,
    },
};

impl Store {
    /// Registers the client of an approved request, with its first credentials.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::Invalid`] for a request that amends a client,
    /// [`Error::SecondOperatorRequired`], [`Error::RequestIdReused`].
    pub async fn register_client(
        &self,
        creation: &Creation,
        request_id: &IntegrationRequestId,
        delivery: Method,
    ) -> Result<(Client, Handover)> {
        let client_id = ClientId::generate(&*self.clock, &*self.random);
        let secret = NewSecret {
            client_id: client_id.clone(),
            expires_at: None,
            delivery,
        };
        let (tx, outcome, secret) = self.begin_secret(creation, secret).await?;
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
        let request = self.mark_registered(&tx, request_id, &client_id).await?;
        let request = request.content;
        if request.amends.is_some() {
            let mut v = Violations::default();
            v.add(
                "integration_request_id",
                "must not name a client: AmendClient applies it",
            );
            return Err(Error::Invalid(v));
        }
        let row = Model {
            client_id: client_id.to_string(),
            integration_request_id: request_id.to_string(),
            presentation: json(&request.presentation)?,
            tenants: tenants(&request.tenant_ids)?,
            scopes: json(&request.scopes)?,
            added: json(&Added::default())?,
            redirect_uris: json(&request.redirect_uris)?,
            state: State::Active.as_ref().to_owned(),
            version: 0,
            tokens_ended_seq: 0,
            families_ended_seq: 0,
            created_at: now.as_millis(),
            updated_at: now.as_millis(),
            etag: 1,
            json_web_key_set: request.json_web_key_set,
            mac: Vec::new(),
        };
        rows::insert::<Entity>(&tx, row).await?;
        index_tenants(&tx, &client_id, &request.tenant_ids).await?;
        let (issued, handover) = self.issue(&tx, &creation.origin, secret, reservation).await?;
        let event = event("client.register", &client_id)
            .detail("integration_request_id", request_id.as_str())
            .detail("secret_id", issued.secret_id.as_str());
        let change = changed(&client_id);
        let seq = self.publish(&tx, &creation.origin, event, change).await?;
        let mut row = lock_client(&tx, &client_id).await?;
        set_version(&mut row, seq)?;
        row.save(&tx).await?;
        commit(tx, (client(row.stored())?, handover)).await
    }
}
