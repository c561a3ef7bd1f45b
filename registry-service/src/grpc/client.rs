//! `ClientService`.

use accord::{
    registry::v1::{
        client_service_server::ClientService, create_client_secret_response, register_client_response, *,
    },
    rpc::status::Reply,
    text::id::{ClientId, IntegrationRequestId},
};
use prost::Message;
use tonic::{Request, Response};

use super::{
    Api,
    convert::{client as convert, id_and_reason, only_field},
    creation, parts,
};
use crate::{
    error::Error,
    model::{client::State, delivery::Handover},
};

#[tonic::async_trait]
impl ClientService for Api {
    async fn register_client(&self, call: Request<RegisterClientRequest>) -> Reply<RegisterClientResponse> {
        use register_client_response::Credentials;
        let has_secret = match IntegrationRequestId::parse(&call.get_ref().integration_request_id) {
            Ok(id) => self.store.registers_secret(&id).await?,
            Err(_) => true,
        };
        let registration = convert::register(call.get_ref(), has_secret, self.store.second_operator);
        let (id, delivery, request_id) = registration?;
        let creation = creation(&call, "RegisterClient", request_id);
        let (client, handover) = self.store.register_client(&creation, &id, delivery).await?;
        let credentials = match handover {
            Handover::Bundle(bundle) => Credentials::Bundle(convert::bundle(bundle, &self.public_base_url)),
            Handover::Link(link) => Credentials::DeliveryLink(convert::link(link, &self.public_base_url)),
        };
        Ok(Response::new(RegisterClientResponse {
            client: Some(convert::message(client)),
            credentials: Some(credentials),
        }))
    }

    async fn get_client(&self, call: Request<GetClientRequest>) -> Reply<GetClientResponse> {
        let client_id = only_field("client_id", ClientId::parse(&call.get_ref().client_id))?;
        let client = self.store.find_client(&client_id).await?;
        let client = Some(convert::message(client.ok_or(Error::NotFound("client"))?));
        Ok(Response::new(GetClientResponse { client }))
    }

    async fn list_clients(&self, call: Request<ListClientsRequest>) -> Reply<ListClientsResponse> {
        let (tenant_id, state, page) = convert::list(call.get_ref())?;
        let page = self.store.list_clients(tenant_id.as_ref(), state, &page).await?;
        let (clients, next_page_token) = page.map(convert::message).fit(Message::encoded_len);
        Ok(Response::new(ListClientsResponse {
            clients,
            next_page_token,
        }))
    }

    async fn update_client(&self, call: Request<UpdateClientRequest>) -> Reply<UpdateClientResponse> {
        let (origin, message) = parts(call);
        let (client_id, update) = convert::update(message)?;
        let client = self.store.update_client(&origin, &client_id, update).await?;
        let client = Some(convert::message(client));
        Ok(Response::new(UpdateClientResponse { client }))
    }

    async fn amend_client(&self, call: Request<AmendClientRequest>) -> Reply<AmendClientResponse> {
        let (origin, message) = parts(call);
        let id = IntegrationRequestId::parse(&message.integration_request_id);
        let id = only_field("integration_request_id", id)?;
        let client = self.store.amend_client(&origin, &id).await?;
        let client = Some(convert::message(client));
        Ok(Response::new(AmendClientResponse { client }))
    }

    async fn suspend_client(&self, call: Request<SuspendClientRequest>) -> Reply<SuspendClientResponse> {
        let (origin, message) = parts(call);
        let id = ClientId::parse(&message.client_id);
        let (id, reason) = id_and_reason("client_id", id, &message.reason)?;
        let suspending = self
            .store
            .set_client_state(&origin, &id, State::Suspended, &reason);
        let client = Some(convert::message(suspending.await?));
        Ok(Response::new(SuspendClientResponse { client }))
    }

    async fn reinstate_client(
        &self,
        call: Request<ReinstateClientRequest>,
    ) -> Reply<ReinstateClientResponse> {
        let (origin, message) = parts(call);
        let id = only_field("client_id", ClientId::parse(&message.client_id))?;
        let reinstating = self.store.set_client_state(&origin, &id, State::Active, "");
        let client = Some(convert::message(reinstating.await?));
        Ok(Response::new(ReinstateClientResponse { client }))
    }

    async fn create_client_secret(
        &self,
        call: Request<CreateClientSecretRequest>,
    ) -> Reply<CreateClientSecretResponse> {
        use create_client_secret_response::Credentials;
        let new = convert::create_secret(call.get_ref(), self.store.now(), self.store.second_operator);
        let (new, request_id) = new?;
        let creation = creation(&call, "CreateClientSecret", request_id);
        let (secret, handover) = self.store.create_client_secret(&creation, new).await?;
        let credentials = match handover {
            Handover::Bundle(bundle) => Credentials::Bundle(convert::bundle(bundle, &self.public_base_url)),
            Handover::Link(link) => Credentials::DeliveryLink(convert::link(link, &self.public_base_url)),
        };
        Ok(Response::new(CreateClientSecretResponse {
            secret: Some(convert::secret(secret)),
            credentials: Some(credentials),
        }))
    }

    async fn list_client_secrets(
        &self,
        call: Request<ListClientSecretsRequest>,
    ) -> Reply<ListClientSecretsResponse> {
        let (client_id, page) = convert::list_secrets(call.get_ref())?;
        let page = self.store.list_client_secrets(&client_id, &page).await?;
        let (secrets, next_page_token) = page.map(convert::secret).fit(Message::encoded_len);
        Ok(Response::new(ListClientSecretsResponse {
            secrets,
            next_page_token,
        }))
    }

    async fn revoke_client_secret(
        &self,
        call: Request<RevokeClientSecretRequest>,
    ) -> Reply<RevokeClientSecretResponse> {
        let (origin, message) = parts(call);
        let revocation = convert::revoke_secret(&message)?;
        let secret = self.store.revoke_client_secret(&origin, &revocation).await?;
        let secret = Some(convert::secret(secret));
        Ok(Response::new(RevokeClientSecretResponse { secret }))
    }

    async fn set_client_keys(&self, call: Request<SetClientKeysRequest>) -> Reply<SetClientKeysResponse> {
        let (origin, message) = parts(call);
        let (client_id, keys) = convert::set_keys(&message)?;
        let client = self.store.set_client_keys(&origin, &client_id, &keys).await?;
        let client = Some(convert::message(client));
        Ok(Response::new(SetClientKeysResponse { client }))
    }
}
