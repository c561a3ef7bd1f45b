//! `IntegrationRequestService`.

use accord::{
    registry::v1::{integration_request_service_server::IntegrationRequestService, *},
    rpc::status::Reply,
    text::id::IntegrationRequestId,
};
use prost::Message;
use tonic::{Request, Response};

use super::{
    Api,
    convert::{integration_request as convert, only_field},
    creation, parts,
};
use crate::{error::Error, model::integration_request::Decision};

#[tonic::async_trait]
impl IntegrationRequestService for Api {
    async fn submit_integration_request(
        &self,
        call: Request<SubmitIntegrationRequestRequest>,
    ) -> Reply<SubmitIntegrationRequestResponse> {
        let (new, request_id) = match convert::submit(call.get_ref(), self.store.now()) {
            Ok(new) => new,
            Err(rejected) => return Err(self.store.reject(rejected).await.into()),
        };
        let creation = creation(&call, "SubmitIntegrationRequest", request_id);
        let submitted = self.store.submit_integration_request(&creation, new).await?;
        let integration_request = Some(convert::message(submitted));
        Ok(Response::new(SubmitIntegrationRequestResponse {
            integration_request,
        }))
    }

    async fn get_integration_request(
        &self,
        call: Request<GetIntegrationRequestRequest>,
    ) -> Reply<GetIntegrationRequestResponse> {
        let id = IntegrationRequestId::parse(&call.get_ref().integration_request_id);
        let id = only_field("integration_request_id", id)?;
        let found = self.store.find_integration_request(&id).await?;
        let found = found.ok_or(Error::NotFound("integration_request"))?;
        let integration_request = Some(convert::message(found));
        Ok(Response::new(GetIntegrationRequestResponse {
            integration_request,
        }))
    }

    async fn list_integration_requests(
        &self,
        call: Request<ListIntegrationRequestsRequest>,
    ) -> Reply<ListIntegrationRequestsResponse> {
        let (state, page) = convert::list(call.get_ref())?;
        let page = self.store.list_integration_requests(state, &page).await?;
        let (integration_requests, next_page_token) = page.map(convert::message).fit(Message::encoded_len);
        Ok(Response::new(ListIntegrationRequestsResponse {
            integration_requests,
            next_page_token,
        }))
    }

    async fn approve_integration_request(
        &self,
        call: Request<ApproveIntegrationRequestRequest>,
    ) -> Reply<ApproveIntegrationRequestResponse> {
        let (origin, message) = parts(call);
        let id = IntegrationRequestId::parse(&message.integration_request_id);
        let id = only_field("integration_request_id", id)?;
        let deciding = self
            .store
            .decide_integration_request(&origin, &id, Decision::Approve);
        let integration_request = Some(convert::message(deciding.await?));
        Ok(Response::new(ApproveIntegrationRequestResponse {
            integration_request,
        }))
    }

    async fn reject_integration_request(
        &self,
        call: Request<RejectIntegrationRequestRequest>,
    ) -> Reply<RejectIntegrationRequestResponse> {
        let (origin, message) = parts(call);
        let (id, decision) = convert::reject(&message)?;
        let deciding = self.store.decide_integration_request(&origin, &id, decision);
        let integration_request = Some(convert::message(deciding.await?));
        Ok(Response::new(RejectIntegrationRequestResponse {
            integration_request,
        }))
    }
}
