//! Amendments of clients by approved integration requests.

use accord::{
    store::audit::{Origin, action},
    text::{id::IntegrationRequestId, validation::only_field},
};

use super::{
    super::{Store, commit, credentials, integration_request},
    client, event, lock_client,
    signing_algorithms::require_signing_key,
};
use crate::{
    error::{Error, Result},
    model::{client::Client, integration_request::amendment::amended},
};

impl Store {
    /// Applies an approved amendment, once.
    ///
    /// # Errors
    /// [`Error::NotFound`] (request), [`Error::WrongState`], [`Error::Invalid`] for a request that names no client,
    /// [`Error::SecondOperatorRequired`], [`Error::UnsuitableSigningKey`], [`Error::AmendmentOutdated`].
    pub async fn amend_client(&self, origin: &Origin, request_id: &IntegrationRequestId) -> Result<Client> {
        let tx = self.db.write().await?;
        let request = integration_request::find(&tx, request_id).await?;
        let request = request.ok_or(Error::NotFound("integration_request"))?;
        let amends = request.content.amends.as_ref();
        let amends = amends.ok_or("must name a client: RegisterClient registers a new one");
        let amends = only_field("integration_request_id", amends)?;
        let client_id = &amends.client_id;
        let row = lock_client(&tx, client_id).await?;
        self.mark_registered(&tx, request_id, client_id, action::CLIENT_AMEND)
            .await?;
        let before = client(row.stored())?;
        if before.etag != amends.etag {
            return Err(Error::AmendmentOutdated);
        }
        require_signing_key(&tx, request.content.security_profile).await?;
        let now = self.now();
        let update = amended(&before, &request.content, now)?;
        let event = event(action::CLIENT_AMEND, client_id);
        let event = event.detail("integration_request_id", request_id.as_str());
        // Secrets of a time at which they did not count never count again.
        let event = match before.accepts_secrets(now) && update.accepts_secrets(&before, now) {
            true => event,
            false => match credentials::end_all(&tx, client_id, now).await? {
                0 => event,
                ended => event.detail("secrets_ended", ended.to_string()),
            },
        };
        let client = self.change(&tx, origin, event, row, update).await?;
        commit(tx, client).await
    }
}

#[cfg(test)]
#[path = "../tests/client/amendment.rs"]
pub(super) mod tests;
