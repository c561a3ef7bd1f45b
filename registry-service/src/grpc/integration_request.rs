//! `IntegrationRequestService`.

use accord::{
    registry::v1::{self as pb, integration_request_service_server::IntegrationRequestService},
    rpc::auth::Principal,
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{error::Error, grpc::convert::integration_request as convert, model::integration_request};

#[tonic::async_trait]
impl IntegrationRequestService for Api {
    async fn submit_integration_request(
        &self,
        request: Request<pb::SubmitIntegrationRequestRequest>,
    ) -> Result<Response<pb::SubmitIntegrationRequestResponse>, Status> {
        let (new, request_id) = match convert::submit(request.get_ref().clone()) {
            Ok(read) => read,
            Err(malformed) => return Err(integration_request::refuse(&self.store, malformed).await.into()),
        };
        let creation = creation(&request, "SubmitIntegrationRequest", request_id);
        let submitted = integration_request::submit(&self.store, &creation, new).await?;
        Ok(Response::new(pb::SubmitIntegrationRequestResponse {
            integration_request: Some(convert::message(submitted)),
        }))
    }

    async fn get_integration_request(
        &self,
        request: Request<pb::GetIntegrationRequestRequest>,
    ) -> Result<Response<pb::GetIntegrationRequestResponse>, Status> {
        let id = convert::integration_request_id(&request.get_ref().integration_request_id)
            .map_err(Error::from)?;
        let found = integration_request::get(&self.store, &id).await?;
        Ok(Response::new(pb::GetIntegrationRequestResponse {
            integration_request: Some(convert::message(found)),
        }))
    }

    async fn list_integration_requests(
        &self,
        request: Request<pb::ListIntegrationRequestsRequest>,
    ) -> Result<Response<pb::ListIntegrationRequestsResponse>, Status> {
        let (state, page) = convert::list(request.get_ref()).map_err(Error::from)?;
        let requests = integration_request::list(&self.store, state, &page).await?;
        Ok(Response::new(convert::list_response(requests)))
    }

    async fn approve_integration_request(
        &self,
        request: Request<pb::ApproveIntegrationRequestRequest>,
    ) -> Result<Response<pb::ApproveIntegrationRequestResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let id = convert::integration_request_id(&request.get_ref().integration_request_id)
            .map_err(Error::from)?;
        let approved = integration_request::approve(&self.store, &origin, &id).await?;
        Ok(Response::new(pb::ApproveIntegrationRequestResponse {
            integration_request: Some(convert::message(approved)),
        }))
    }

    async fn reject_integration_request(
        &self,
        request: Request<pb::RejectIntegrationRequestRequest>,
    ) -> Result<Response<pb::RejectIntegrationRequestResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (id, reason) = convert::reject(request.get_ref()).map_err(Error::from)?;
        let rejected = integration_request::reject(&self.store, &origin, &id, reason).await?;
        Ok(Response::new(pb::RejectIntegrationRequestResponse {
            integration_request: Some(convert::message(rejected)),
        }))
    }
}
