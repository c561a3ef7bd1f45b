//! `IntegrationRequestService`.

use accord::{
    registry::v1::{self as pb, integration_request_service_server::IntegrationRequestService},
    rpc::auth::Principal,
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{
    error::Error, grpc::convert::integration_request as convert, model::integration_request::Decision,
};

#[tonic::async_trait]
impl IntegrationRequestService for Api {
    async fn submit_integration_request(
        &self,
        request: Request<pb::SubmitIntegrationRequestRequest>,
    ) -> Result<Response<pb::SubmitIntegrationRequestResponse>, Status> {
        let (new, request_id) = match convert::submit(request.get_ref().clone()) {
            Ok(read) => read,
            Err(malformed) => return Err(self.store.reject_malformed(malformed).await.into()),
        };
        let creation = creation(&request, "SubmitIntegrationRequest", request_id);
        let submitted = self.store.submit_integration_request(&creation, new).await?;
        Ok(Response::new(pb::SubmitIntegrationRequestResponse {
            integration_request: Some(convert::message(submitted)),
        }))
    }

    async fn get_integration_request(
        &self,
        request: Request<pb::GetIntegrationRequestRequest>,
    ) -> Result<Response<pb::GetIntegrationRequestResponse>, Status> {
        let id = convert::integration_request_id(&request.get_ref().integration_request_id)?;
        let found = self.store.find_integration_request(&id).await?;
        let found = found.ok_or(Error::NotFound("integration_request"))?;
        Ok(Response::new(pb::GetIntegrationRequestResponse {
            integration_request: Some(convert::message(found)),
        }))
    }

    async fn list_integration_requests(
        &self,
        request: Request<pb::ListIntegrationRequestsRequest>,
    ) -> Result<Response<pb::ListIntegrationRequestsResponse>, Status> {
        let (state, page) = convert::list(request.get_ref())?;
        let requests = self.store.list_integration_requests(state, &page).await?;
        Ok(Response::new(convert::list_response(requests)))
    }

    async fn approve_integration_request(
        &self,
        request: Request<pb::ApproveIntegrationRequestRequest>,
    ) -> Result<Response<pb::ApproveIntegrationRequestResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let id = convert::integration_request_id(&request.get_ref().integration_request_id)?;
        let approved = self
            .store
            .decide_integration_request(&origin, &id, Decision::Approve)
            .await?;
        Ok(Response::new(pb::ApproveIntegrationRequestResponse {
            integration_request: Some(convert::message(approved)),
        }))
    }

    async fn reject_integration_request(
        &self,
        request: Request<pb::RejectIntegrationRequestRequest>,
    ) -> Result<Response<pb::RejectIntegrationRequestResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (id, reason) = convert::reject(request.get_ref())?;
        let rejected = self
            .store
            .decide_integration_request(&origin, &id, Decision::Reject(reason))
            .await?;
        Ok(Response::new(pb::RejectIntegrationRequestResponse {
            integration_request: Some(convert::message(rejected)),
        }))
    }
}
