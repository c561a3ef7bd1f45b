//! The registration of clients.

use super::{
    super::{
        Store, commit, corrupt,
        credentials::bundle,
        entity::client::{Entity, Model},
        json,
    },
    changed, client, event, find, index_tenants, lock_client,
    security::with_content,
    set_version,
    signing_algorithms::require_signing_key,
    tenants,
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
    clock::UnixMillis,
    store::{
        Creation, Transaction,
        audit::{Event, action},
        idempotency::CreationOutcome,
        rows,
    },
    text::{
        id::{ClientId, IntegrationRequestId},
        validation::Violations,
    },
};

impl Store {
    /// Returns whether the client of this request gets a secret; true for an unknown request, which [`Self::register_client`]
    /// then rejects.
    pub async fn registers_secret(&self, request_id: &IntegrationRequestId) -> Result<bool> {
        let request = self.find_integration_request(request_id).await?;
        let authentication = request.map(|request| request.content.security.authentication);
        Ok(authentication.is_none_or(|authentication| authentication.takes_secrets()))
    }

    /// Registers the client of an approved request. `delivery` says how its first secret is handed over; `None` for a client that
    /// [`Self::registers_secret`] says gets none.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::Invalid`] for a request that amends a client,
    /// [`Error::SecondOperatorRequired`], [`Error::RequestIdReused`].
    pub async fn register_client(
        &self,
        creation: &Creation,
        request_id: &IntegrationRequestId,
        delivery: Option<Method>,
    ) -> Result<(Client, Handover)> {
        match delivery {
            Some(delivery) => self.register_with_secret(creation, request_id, delivery).await,
            None => self.register_without_secret(creation, request_id).await,
        }
    }

    async fn register_with_secret(
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
            CreationOutcome::Repeated { resource_id, secrets } => {
                let (issued, handover) = self.reissue(&tx, &resource_id, &secrets).await?;
                let client = find(&tx, &issued.client_id).await?;
                let answer = (client.ok_or(corrupt("idempotency"))?, handover);
                let subject = issued.secret_id.as_str();
                return self.commit_repeated(tx, creation, subject, answer).await;
            }
            CreationOutcome::New(reservation) => reservation,
        };
        let event = self.insert_client(&tx, &client_id, request_id).await?;
        let (issued, handover) = self.issue(&tx, &creation.origin, secret, reservation).await?;
        let event = event.detail("secret_id", issued.secret_id.as_str());
        let client = self.publish_client(&tx, creation, &client_id, event).await?;
        commit(tx, (client, handover)).await
    }

    /// There is nothing secret in the response, and so nothing to hand over by a link.
    async fn register_without_secret(
        &self,
        creation: &Creation,
        request_id: &IntegrationRequestId,
    ) -> Result<(Client, Handover)> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let client = match outcome {
            CreationOutcome::Repeated { resource_id, .. } => {
                let client_id = ClientId::parse(&resource_id).map_err(|_| corrupt("idempotency"))?;
                find(&tx, &client_id).await?.ok_or(corrupt("idempotency"))?
            }
            CreationOutcome::New(reservation) => {
                let client_id = ClientId::generate(&*self.clock, &*self.random);
                let event = self.insert_client(&tx, &client_id, request_id).await?;
                reservation.complete(&tx, client_id.as_str()).await?;
                self.publish_client(&tx, creation, &client_id, event).await?
            }
        };
        let handover = Handover::Bundle(bundle(&tx, &client, None).await?);
        commit(tx, (client, handover)).await
    }

    /// Inserts the row of a new client. Returns the event of its registration, as far as the request says it.
    async fn insert_client(
        &self,
        tx: &Transaction,
        client_id: &ClientId,
        request_id: &IntegrationRequestId,
    ) -> Result<Event> {
        let now = self.now();
        let request = self
            .mark_registered(tx, request_id, client_id, action::CLIENT_REGISTER)
            .await?;
        let request = request.content;
        if request.amends.is_some() {
            let rule = "must not name a client: AmendClient applies it";
            return Err(Error::Invalid(Violations::of("integration_request_id", rule)));
        }
        require_signing_key(tx, request.security_profile).await?;
        // A new client follows its profile from the beginning.
        let fapi_from = request
            .security_profile
            .applied(None, now)
            .map_err(|_| corrupt("integration_requests"))?;
        let event =
            event(action::CLIENT_REGISTER, client_id).detail("integration_request_id", request_id.as_str());
        let event = with_content(event, &request)?;
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
            security: json(&request.security)?,
            fapi_from: fapi_from.map(UnixMillis::as_millis),
            mac: Vec::new(),
        };
        rows::insert::<Entity>(tx, row).await?;
        index_tenants(tx, client_id, &request.tenant_ids).await?;
        let fapi_from = fapi_from.map(|from| from.as_millis().to_string());
        Ok(event.detail_if("fapi_from", fapi_from))
    }

    /// Publishes a new client, and sets its version.
    async fn publish_client(
        &self,
        tx: &Transaction,
        creation: &Creation,
        client_id: &ClientId,
        event: Event,
    ) -> Result<Client> {
        let change = changed(client_id);
        let seq = self.publish(tx, &creation.origin, event, change).await?;
        let mut row = lock_client(tx, client_id).await?;
        set_version(&mut row, seq)?;
        row.save(tx).await?;
        client(row.stored())
    }
}
