//! `ProvisioningService`.

use accord::{
    registry::v1::{self as pb, provisioning_service_server::ProvisioningService},
    rpc::{auth::Principal, status::Problem},
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{authentication::complete, grpc::convert::client as convert};

#[tonic::async_trait]
impl ProvisioningService for Api {
    async fn create_delivery(
        &self,
        request: Request<pb::CreateDeliveryRequest>,
    ) -> Result<Response<pb::CreateDeliveryResponse>, Status> {
        let (client_id, request_id) = convert::create_delivery(request.get_ref())?;
        let creation = creation(&request, "CreateDelivery", request_id);
        let link = self.store.create_delivery(&creation, &client_id).await?;
        Ok(Response::new(pb::CreateDeliveryResponse {
            delivery_link: Some(convert::link(link, &self.public_base_url)),
        }))
    }

    async fn release_delivery(
        &self,
        _: Request<pb::ReleaseDeliveryRequest>,
    ) -> Result<Response<pb::ReleaseDeliveryResponse>, Status> {
        Err(Problem::not_available("ReleaseDelivery").into())
    }

    async fn claim_delivery(
        &self,
        request: Request<pb::ClaimDeliveryRequest>,
    ) -> Result<Response<pb::ClaimDeliveryResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let claim_token = convert::claim(request.into_inner())?;
        let store = self.store.clone();
        let bundle = complete(async move { store.claim_delivery(&origin, &claim_token).await }).await?;
        Ok(Response::new(pb::ClaimDeliveryResponse {
            bundle: Some(convert::bundle(bundle, &self.public_base_url)),
        }))
    }
}
