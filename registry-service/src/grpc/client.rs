//! `ClientService`.

use accord::{
    registry::v1::{
        self as pb, client_service_server::ClientService, create_client_secret_response,
        register_client_response,
    },
    rpc::{auth::Principal, status::Problem},
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{
    error::Error,
    grpc::convert::client as convert,
    model::{client::State, delivery::Handover},
};

#[tonic::async_trait]
impl ClientService for Api {
    async fn register_client(
        &self,
        request: Request<pb::RegisterClientRequest>,
    ) -> Result<Response<pb::RegisterClientResponse>, Status> {
        use register_client_response::Credentials;
        let (new, request_id) = convert::register(request.get_ref())?;
        let creation = creation(&request, "RegisterClient", request_id);
        let (client, handover) = self.store.register_client(&creation, new).await?;
        let credentials = match handover {
            Handover::Bundle(bundle) => Credentials::Bundle(convert::bundle(bundle, &self.public_base_url)),
            Handover::Link(link) => Credentials::DeliveryLink(convert::link(link, &self.public_base_url)),
        };
        Ok(Response::new(pb::RegisterClientResponse {
            client: Some(convert::message(client)),
            credentials: Some(credentials),
        }))
    }

    async fn get_client(
        &self,
        request: Request<pb::GetClientRequest>,
    ) -> Result<Response<pb::GetClientResponse>, Status> {
        let client_id = convert::client_id(&request.get_ref().client_id)?;
        let client = self.store.find_client(&client_id).await?;
        Ok(Response::new(pb::GetClientResponse {
            client: Some(convert::message(client.ok_or(Error::NotFound("client"))?)),
        }))
    }

    async fn list_clients(
        &self,
        request: Request<pb::ListClientsRequest>,
    ) -> Result<Response<pb::ListClientsResponse>, Status> {
        let (filter, page) = convert::list(request.get_ref())?;
        let clients = self.store.list_clients(&filter, &page).await?;
        Ok(Response::new(convert::list_response(clients)))
    }

    async fn update_client(
        &self,
        request: Request<pb::UpdateClientRequest>,
    ) -> Result<Response<pb::UpdateClientResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (client_id, update) = match convert::update(request.into_inner()) {
            Ok(update) => update,
            Err(malformed) => return Err(self.store.reject_malformed(malformed).await.into()),
        };
        let client = self.store.update_client(&origin, &client_id, update).await?;
        Ok(Response::new(pb::UpdateClientResponse {
            client: Some(convert::message(client)),
        }))
    }

    async fn amend_client(
        &self,
        _: Request<pb::AmendClientRequest>,
    ) -> Result<Response<pb::AmendClientResponse>, Status> {
        Err(Problem::not_available("AmendClient").into())
    }

    async fn suspend_client(
        &self,
        request: Request<pb::SuspendClientRequest>,
    ) -> Result<Response<pb::SuspendClientResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let client_id = convert::client_id(&request.get_ref().client_id)?;
        let client = self
            .store
            .set_client_state(&origin, &client_id, State::Suspended)
            .await?;
        Ok(Response::new(pb::SuspendClientResponse {
            client: Some(convert::message(client)),
        }))
    }

    async fn reinstate_client(
        &self,
        request: Request<pb::ReinstateClientRequest>,
    ) -> Result<Response<pb::ReinstateClientResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let client_id = convert::client_id(&request.get_ref().client_id)?;
        let client = self
            .store
            .set_client_state(&origin, &client_id, State::Active)
            .await?;
        Ok(Response::new(pb::ReinstateClientResponse {
            client: Some(convert::message(client)),
        }))
    }

    async fn create_client_secret(
        &self,
        request: Request<pb::CreateClientSecretRequest>,
    ) -> Result<Response<pb::CreateClientSecretResponse>, Status> {
        use create_client_secret_response::Credentials;
        let (new, request_id) = convert::create_secret(request.get_ref(), self.store.now())?;
        let creation = creation(&request, "CreateClientSecret", request_id);
        let (secret, handover) = self.store.create_client_secret(&creation, new).await?;
        let credentials = match handover {
            Handover::Bundle(bundle) => Credentials::Bundle(convert::bundle(bundle, &self.public_base_url)),
            Handover::Link(link) => Credentials::DeliveryLink(convert::link(link, &self.public_base_url)),
        };
        Ok(Response::new(pb::CreateClientSecretResponse {
            secret: Some(convert::secret(secret)),
            credentials: Some(credentials),
        }))
    }

    async fn list_client_secrets(
        &self,
        request: Request<pb::ListClientSecretsRequest>,
    ) -> Result<Response<pb::ListClientSecretsResponse>, Status> {
        let (client_id, page) = convert::list_secrets(request.get_ref())?;
        let secrets = self.store.list_client_secrets(&client_id, &page).await?;
        Ok(Response::new(convert::list_secrets_response(secrets)))
    }

    async fn revoke_client_secret(
        &self,
        request: Request<pb::RevokeClientSecretRequest>,
    ) -> Result<Response<pb::RevokeClientSecretResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let revocation = convert::revoke_secret(request.get_ref())?;
        let secret = self.store.revoke_client_secret(&origin, &revocation).await?;
        Ok(Response::new(pb::RevokeClientSecretResponse {
            secret: Some(convert::secret(secret)),
        }))
    }

    async fn set_client_keys(
        &self,
        request: Request<pb::SetClientKeysRequest>,
    ) -> Result<Response<pb::SetClientKeysResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (client_id, keys) = convert::set_keys(request.get_ref())?;
        let client = self.store.set_client_keys(&origin, &client_id, &keys).await?;
        Ok(Response::new(pb::SetClientKeysResponse {
            client: Some(convert::message(client)),
        }))
    }
}
