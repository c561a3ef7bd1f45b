//! The registration of clients.

use accord::{
    store::{Creation, audit::Event, idempotency::Outcome},
    text::id::ClientId,
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set};

use super::{
    Store,
    client::{changed, find, insert_tenants, json, set_version},
    commit, corrupt,
    credentials::SecretRef,
    entity::client::ActiveModel,
    integration_request::mark_registered,
};
use crate::{
    error::Error,
    model::{
        client::{Client, NewClient, State},
        delivery::Handover,
    },
};

impl Store {
    /// Registers the client of an approved request, with its first credentials.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::RequestIdReused`].
    pub async fn register_client(
        &self,
        creation: &Creation,
        new: NewClient,
    ) -> Result<(Client, Handover), Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let made = SecretRef::read(&resource_id)?;
                let client = find(&tx, &made.client_id).await?.ok_or(corrupt("idempotency"))?;
                let handover = self.handover(&tx, new.delivery, &made, &secrets).await?;
                return Ok((client, handover));
            }
            Outcome::New(reservation) => reservation,
        };
        let now = self.now();
        let client_id = ClientId::generate(&*self.clock, &*self.random);
        let request = mark_registered(&tx, &new.integration_request_id, &client_id, now)
            .await?
            .content;
        let row = ActiveModel {
            client_id: Set(client_id.to_string()),
            integration_request_id: Set(new.integration_request_id.to_string()),
            presentation: Set(json(&request.presentation)?),
            scopes: Set(json(&request.scopes)?),
            redirect_uris: Set(json(&request.redirect_uris)?),
            state: Set(State::Active.as_ref().to_owned()),
            version: Set(0),
            tokens_ended_seq: Set(0),
            families_ended_seq: Set(0),
            created_at: Set(now.as_millis()),
            updated_at: Set(now.as_millis()),
            etag: Set(1),
            json_web_key_set: Set(String::new()),
        };
        row.insert(&tx).await?;
        insert_tenants(&tx, &client_id, &request.tenant_ids).await?;
        let made = self
            .make_secret(&tx, &client_id, None, new.delivery, &reservation.secrets)
            .await?;
        let handover = self
            .handover(&tx, new.delivery, &made, &reservation.secrets)
            .await?;
        reservation.complete(&tx, &made.to_string()).await?;
        let event = Event::new("client.register")
            .client(&client_id)
            .subject(client_id.as_str())
            .detail("integration_request_id", new.integration_request_id.as_str())
            .detail("secret_id", made.secret_id.as_str());
        let seq = self
            .publish(&tx, &creation.origin, event, changed(&client_id))
            .await?;
        set_version(&tx, &client_id, seq).await?;
        let client = find(&tx, &client_id).await?.ok_or(corrupt("clients"))?;
        commit(tx).await?;
        Ok((client, handover))
    }
}
